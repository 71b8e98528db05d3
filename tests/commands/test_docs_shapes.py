"""What the documents say of types, examples and errors is what really travels."""

import ast
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from jsonschema import Draft202012Validator

from server import errors
from server.commands import registry
from server.commands.context import Context
from server.commands.docs.examples import Examples, NoExample
from server.commands.docs.failures import CONFLICTS, codes_of, failures
from server.commands.docs.model import Model
from server.commands.docs.shapes import INSTANT, REF, Shapes
from server.commands.docs.words import fields, short
from server.commands.payload import Bounds, decode
from server.commands.registry import Command, Limit, Payload, Transport, anyone, command, signed_in
from tests.commands.dreams import CONTRACT, Brief, again, dream, imagine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def imagined(monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model with a command and two pushes more."""
    return dream(monkeypatch)


# types


def test_a_payload_says_what_may_be_left_out(imagined: Model) -> None:
    schema = imagined.shapes.named["Imagine"]
    assert schema["required"] == ["client_id", "where"]
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert properties["client_id"]["pattern"] == r"^[\x20-\x7e]+$"
    assert properties["where"] == {"$ref": REF + "PlaceInput"}
    assert properties["mood"] == {"anyOf": [{"$ref": REF + "Mood"}], "default": "good"}
    assert properties["kind"]["enum"] == ["a", "b"]
    assert properties["until"]["anyOf"][0] == {"type": "string", "format": "date-time"}
    assert "default" not in properties["until"]  # absence keeps it, null clears it
    assert {"type": "null"} in properties["title"]["anyOf"]


def test_an_answer_says_what_is_always_there(imagined: Model) -> None:
    schema = imagined.shapes.named["Imagined"]
    assert set(schema["required"]) == {"imagined_id", "where", "at", "ended_at", "tags", "parts", "times"}
    assert "additionalProperties" not in schema  # clients ignore what they don't know
    properties = schema["properties"]
    instant = {"type": "string", "format": "date-time", "pattern": INSTANT}
    assert properties["at"] == instant
    assert properties["ended_at"] == {"anyOf": [instant, {"type": "null"}]}
    assert properties["times"] == {"type": "object", "additionalProperties": instant}
    assert properties["parts"] == {"type": "array", "items": {"$ref": REF + "Place"}}
    assert "default" not in properties["tags"]
    brief = imagined.shapes.named["Brief"]
    assert (brief["required"], brief["properties"]["count"]["default"]) == (["imagined_id"], 0)


def test_what_is_taken_and_told_has_two_names_only_where_it_differs(imagined: Model) -> None:
    assert imagined.shapes.named["PlaceInput"]["required"] == ["lat"]
    assert imagined.shapes.named["Place"]["required"] == ["lat", "note"]
    assert "MoodInput" not in imagined.shapes.named


def test_two_of_one_name_are_told_apart_and_reserved_names_given_to_nobody() -> None:
    def struct(module: str, name: str, type_: Any) -> Any:
        return msgspec.defstruct(name, [("value", type_)], module=module)

    one, other = struct("handlers.cats", "Thing", int), struct("handlers.dogs", "Thing", str)
    answer = struct("handlers.dogs", "Answer", one)
    shapes = Shapes([], [one, other, answer], reserved={"Answer"})
    assert sorted(shapes.named) == ["CatsThing", "DogsAnswer", "DogsThing"]
    assert shapes.told[other] == {"$ref": REF + "DogsThing"}
    assert shapes.named["DogsAnswer"]["properties"]["value"] == {"$ref": REF + "CatsThing"}


def test_a_type_in_few_words() -> None:
    schema = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "limit": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
            "items": {"type": "array", "items": {"$ref": REF + "Thing"}, "maxItems": 20},
            "anything": {},
        },
        "required": ["id"],
    }
    assert fields(schema) == "id: id, limit?: int 1…200 = 50, items?: [Thing] 0…20, anything?: JSON"
    assert short({"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]}) == '"a" | "b" | null'
    assert short({"type": "string", "maxLength": 9, "pattern": "^[a-z]+$"}) == "text 0…9 /^[a-z]+$/"
    assert short({"type": "string", "format": "date-time", "pattern": INSTANT}) == "time"


# examples


def _fits(schema: Any, value: Any, m: Model) -> None:
    document = {**schema, "components": {"schemas": m.shapes.named}}
    Draft202012Validator(document, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)


@pytest.mark.parametrize("one", [pytest.param(one, id=one.name) for one in CONTRACT.commands])
def test_an_example_is_one(one: Any) -> None:
    assert one.example is not None, "teach server/commands/docs/examples.py a text that fits"
    assert isinstance(decode(one.command.payload, one.example, Bounds()), one.command.payload)
    _fits(one.takes, one.example, CONTRACT)
    assert one.answer_example is not None
    _fits(one.answers, one.answer_example, CONTRACT)


@pytest.mark.parametrize("one", [pytest.param(one, id=one.name) for one in CONTRACT.pushes])
def test_an_example_of_a_push_fits(one: Any) -> None:
    assert one.example is not None
    _fits(one.payload, one.example, CONTRACT)


def test_what_nobody_knows_an_example_of_has_none() -> None:
    class Odd(Payload, frozen=True):
        odd: Annotated[str, msgspec.Meta(pattern=r"\A(?:q#){7}\Z")]

    shapes = Shapes([Odd], [])
    with pytest.raises(NoExample, match="odd"):
        Examples(shapes.named).taken(shapes.taken[Odd])


# errors


def test_every_code_is_documented_as_it_is_answered() -> None:
    made = {
        "invalid": errors.Invalid({"a": "b"}),
        "unauthenticated": errors.Unauthenticated("no"),
        "forbidden": errors.Forbidden("no"),
        "not_found": errors.NotFound(),
        "conflict": errors.Conflict("version", "no", {"a": 1}),
        "too_large": errors.TooLarge("no", 1),
        "rate_limited": errors.RateLimited(5),
        "unknown_command": errors.UnknownCommand("no"),
        "unavailable": errors.Unavailable(),
        "internal": errors.Internal("x"),
    }
    assert made.keys() == failures().keys()
    for code, one in failures().items():
        assert one.status == made[code].status
        closed = {**one.schema, "additionalProperties": False}
        _fits(closed, made[code].body(), CONTRACT)
        _fits(closed, one.example, CONTRACT)


def test_every_reason_of_a_conflict_is_documented() -> None:
    given: set[str] = set()
    for folder in ("handlers", "server", "storage", "rules"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Conflict" and node.args:
                    reason = node.args[0]
                    assert isinstance(reason, ast.Constant), f"{path}: which reason?"
                    given.add(reason.value)
    assert given
    assert given <= CONFLICTS.keys()


def _declared(do: Any = None, **options: Any) -> Command:
    options = {"allow": signed_in, "limit": Limit.READS, "reads": True, **options}
    command("test:do", **options)(do or imagine_nothing)
    return registry.commands["test:do"]


class Nothing(Payload, frozen=True):
    pass


class Something(Payload, frozen=True):
    thing_id: UUID | None = None
    before: UUID | None = None


class Version(Payload, frozen=True):
    version: int


async def imagine_nothing(ctx: Context, p: Nothing) -> Brief:
    """Do nothing."""
    raise NotImplementedError


async def imagine_something(ctx: Context, p: Something) -> Brief:
    """Do something."""
    raise NotImplementedError


async def imagine_version(ctx: Context, p: Version) -> Brief:
    """Do something to what somebody may have changed."""
    raise NotImplementedError


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, {"unauthenticated", "forbidden", "rate_limited"}),
        ({"limit": None}, {"unauthenticated", "forbidden"}),
        ({"limit": None, "further": (Limit.LOGIN_ACCOUNT,)}, {"unauthenticated", "forbidden", "rate_limited"}),
        ({"reads": False}, {"unauthenticated", "forbidden", "rate_limited"}),
        (
            {"raises": (errors.Conflict, errors.NotFound)},
            {"unauthenticated", "forbidden", "rate_limited", "conflict", "not_found"},
        ),
        ({"do": imagine_version}, {"unauthenticated", "forbidden", "rate_limited", "conflict"}),
        ({"do": imagine_something}, {"unauthenticated", "forbidden", "rate_limited", "not_found"}),
        (
            {"do": imagine, "again": again, "reads": False},
            {"unauthenticated", "forbidden", "rate_limited", "not_found", "conflict"},
        ),
        ({"allow": anyone, "transport": Transport.HTTP}, {"unauthenticated", "rate_limited"}),
        ({"allow": registry.permission(again)}, {"unauthenticated", "forbidden", "rate_limited"}),
    ],
)
def test_the_codes_of_a_command_follow_from_its_declaration(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], more: set[str]
) -> None:
    monkeypatch.setattr(registry, "commands", {})
    codes = codes_of(_declared(**options))
    assert set(codes) == {"invalid", "too_large", "unavailable", "internal"} | more
    assert len(set(codes)) == len(codes)


def test_codes_that_a_command_cannot_answer_are_not_documented() -> None:
    told = {one.name: set(one.codes) for one in CONTRACT.commands}
    for name in ("login", "logout", "forgot", "reset", "refresh", "delete", "renew", "me"):
        assert not told[f"account:{name}"] & {"conflict", "not_found"}, name
    for name in ("account:register", "account:update", "message:edit", "message:react", "participant:add"):
        assert "conflict" in told[name]
    for name in ("room:join", "room:sync", "report:file", "participant:promote", "session:revoke"):
        assert "not_found" in told[name]
