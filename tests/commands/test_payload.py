"""Hostile input: what a payload may be, and where and why it is refused."""

from __future__ import annotations

import contextlib
import json
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import handlers  # noqa: F401  (declares the commands)
from handlers.connections import Auth
from server.commands.payload import Bounds, decode
from server.commands.registry import ClientId, Payload, commands
from server.errors import Invalid, TooLarge
from server.wire import codec

BOUNDS = Bounds()
MOON = "🌙"


class Colour(StrEnum):
    RED = "red"


class Inner(Payload, frozen=True):
    name: str


class Sample(Payload, frozen=True):
    text: str = ""
    count: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    on: bool = False
    ratio: float = 0.0
    id: UUID | None = None
    colour: Colour = Colour.RED
    short: Annotated[str, msgspec.Meta(max_length=3)] = ""
    few: Annotated[list[int], msgspec.Meta(max_length=2)] | None = None
    inner: Inner | None = None
    inners: list[Inner] | None = None
    by_name: dict[str, int] | None = None
    anything: Any = None


def refused(**value: Any) -> dict[str, str]:
    """The `fields` of the refusal of a sample."""
    with pytest.raises(Invalid) as raised:
        decode(Sample, value, BOUNDS)
    fields: dict[str, str] = raised.value.extra["fields"]
    assert all(fields.values())
    json.dumps(fields).encode()
    return fields


def limit(**value: Any) -> tuple[int, str]:
    """The `limit` of the refusal of a sample that is too large, and what it says."""
    with pytest.raises(TooLarge) as raised:
        decode(Sample, value, BOUNDS)
    assert raised.value.body()["code"] == "too_large"
    return raised.value.extra["limit"], raised.value.message


def nested(levels: int, *, lists: bool) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if lists else {"a": value}
    return value


def test_what_fits_becomes_a_struct() -> None:
    id_ = uuid4()
    sample = decode(
        Sample, {"text": "a", "count": 2**63 - 1, "on": True, "id": str(id_), "inners": [{"name": ""}]}, BOUNDS
    )
    assert sample == Sample(text="a", count=2**63 - 1, on=True, id=id_, inners=[Inner(name="")])
    assert decode(Sample, None, BOUNDS) == decode(Sample, {}, BOUNDS) == Sample()


@pytest.mark.parametrize("text", ["a\0b", "\0", MOON + "\0"])
def test_the_character_nul_is_refused_wherever_it_stands(text: str) -> None:
    assert refused(text=text).keys() == {"text"}
    assert refused(inner={"name": text}).keys() == {"inner.name"}
    assert refused(inners=[{"name": ""}, {"name": text}]).keys() == {"inners[1].name"}
    assert refused(anything=[[text]]).keys() == {"anything[0][0]"}
    assert refused(**{text: 1})


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\udc00\ud800", MOON + "\ud83c"])
def test_half_of_a_surrogate_pair_is_refused_wherever_it_stands(text: str) -> None:
    assert refused(text=text).keys() == {"text"}
    assert refused(by_name={text: 1})
    assert refused(anything={"a": {"b": text}}).keys() == {"anything.a.b"}
    assert refused(**{text: 1})
    assert refused(**{text: [text]})


@pytest.mark.parametrize(
    "text", ["\x01\x1f\x7f", "\u2028\u2029\ufeff\ufffe", "e\u0301", "👩‍👩‍👧", "\U0010ffff", "\r\n\t", " "]
)
def test_every_other_text_is_kept_byte_for_byte(text: str) -> None:
    assert decode(Sample, {"text": text}, BOUNDS).text == text


@pytest.mark.parametrize("char", ["x", MOON, "ع", "\u0301"])
def test_a_text_is_counted_in_code_points(char: str) -> None:
    assert decode(Sample, {"text": char * 10_000}, BOUNDS).text == char * 10_000
    assert limit(text=char * 10_001) == (10_000, "text: longer than 10000 characters.")
    assert limit(inner={"name": char * 10_001})[1].startswith("inner.name:")
    assert limit(**{char * 10_001: 1})[0] == 10_000
    with pytest.raises(TooLarge) as raised:
        decode(Sample, {"text": char * 11}, Bounds(text_chars=10))
    assert raised.value.extra["limit"] == 10


@pytest.mark.parametrize("lists", [True, False], ids=["lists", "objects"])
def test_nesting_is_bounded(lists: bool) -> None:
    assert decode(Sample, {"anything": nested(15, lists=lists)}, BOUNDS).anything == nested(15, lists=lists)
    assert limit(anything=nested(16, lists=lists))[0] == 16
    assert limit(unknown=nested(5_000, lists=lists))[0] == 16


def test_what_is_longer_than_its_own_bound_is_too_large() -> None:
    assert decode(Sample, {"short": MOON * 3, "few": [1, 2]}, BOUNDS).short == MOON * 3
    assert limit(short="four")[0] == 3
    assert limit(few=[1, 2, 3])[0] == 2
    assert limit(short="four")[1].startswith("short:")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"unknown": 1}, "unknown"),
        ({"inner": {"name": "", "unknown": 1}}, "inner.unknown"),
        ({"inners": [{"name": ""}, {}]}, "inners[1].name"),
        ({"inner": {}}, "inner.name"),
        ({"Text": ""}, "Text"),
        ({"": 1}, "payload"),
        ({"a`b": 1}, "a`b"),
        ({"a - at `$.b`": 1}, "a - at `$.b`"),
        ({"a\nb": 1}, "a\nb"),
    ],
)
def test_an_unknown_and_a_missing_field_are_named(value: dict[str, Any], path: str) -> None:
    assert refused(**value).keys() == {path}


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *[
            ("count", value)
            for value in (True, False, "1", 1.0, 1.5, float("nan"), float("inf"), None, [], {}, "", b"1")
        ],
        *[("count", value) for value in (-1, 2**63, 2**64, -(2**63) - 1, 10**400)],
        *[("text", value) for value in (1, True, None, [], {}, b"text", 1.5)],
        *[("on", value) for value in (1, 0, "true", None, [])],
        *[("ratio", value) for value in (True, "1.5", None, [])],
        *[("id", value) for value in (1, "x", "", True, [], b"0" * 16, "0" * 36, str(UUID(int=0)) + "0")],
        *[("colour", value) for value in ("blue", "RED", "", 1, None, ["red"])],
        *[("few", value) for value in ({}, "12", 1, [True], ["1"], [1.5])],
        *[("inner", value) for value in ([], "x", 1, [["name", ""]], True)],
        *[("by_name", value) for value in ([], {"a": True}, {"a": "1"}, 1)],
    ],
)
def test_a_value_of_another_type_is_refused(field: str, wrong: Any) -> None:
    [path] = refused(**{field: wrong})
    assert path.startswith(field)


@pytest.mark.parametrize("value", [[], [{}], "x", "", 0, 1, True, False, 1.5, b"{}", [1, 2]])
def test_a_payload_that_is_no_object_is_refused(value: Any) -> None:
    for kind in {command.payload for command in commands.values()}:
        with pytest.raises(Invalid) as raised:
            decode(kind, value, BOUNDS)
        assert raised.value.extra["fields"].keys() == {"payload"}


def test_names_that_are_no_strings_are_refused() -> None:
    with pytest.raises(Invalid):
        decode(Sample, {1: 2}, BOUNDS)
    with pytest.raises(Invalid):
        decode(Sample, {"by_name": {b"a": 2}}, BOUNDS)


class Keyed(Payload, frozen=True):
    client_id: ClientId


@pytest.mark.parametrize("client_id", ["a", " ", "~" * 64, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}"])
def test_a_client_id_is_printable_ascii(client_id: str) -> None:
    assert decode(Keyed, {"client_id": client_id}, BOUNDS).client_id == client_id


@pytest.mark.parametrize("client_id", ["", "é", "a\n", "\n", "\t", "\x7f", MOON, 5, None])
def test_any_other_client_id_is_invalid(client_id: Any) -> None:
    with pytest.raises(Invalid) as raised:
        decode(Keyed, {"client_id": client_id}, BOUNDS)
    assert raised.value.extra["fields"].keys() == {"client_id"}


def test_a_longer_client_id_is_too_large() -> None:
    with pytest.raises(TooLarge) as raised:
        decode(Keyed, {"client_id": "a" * 65}, BOUNDS)
    assert raised.value.extra["limit"] == 64


# anything whatever

PAYLOADS = sorted({command.payload for command in commands.values()}, key=lambda kind: kind.__name__)
FIELDS = sorted({field for kind in (*PAYLOADS, Auth) for field in kind.__struct_fields__})

texts = st.text(st.characters(codec=None) | st.sampled_from("\0\ud800\udfff`$.\n"), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 2) .map(lambda n: n * 2**63)
    | st.floats()
    | texts
    | st.binary(max_size=8)
    | st.uuids().map(str)
    | st.sampled_from(["x" * 10_001, "private", "group", "user:1", "full"])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(texts | st.sampled_from(FIELDS), values, max_size=6)


@settings(deadline=None, max_examples=200)
@given(values | objects)
def test_anything_is_a_payload_or_a_refusal(value: Any) -> None:
    for kind in (*PAYLOADS, Auth):
        try:
            made = decode(kind, value, BOUNDS)
        except (Invalid, TooLarge) as refusal:
            msgspec.json.encode(refusal.body())
        else:
            msgspec.json.encode(made)


def whole(kind: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with the right names, and nearly right values."""
    likely = values | st.uuids().map(str) | st.integers(0, 300) | st.text("ab.@+0", max_size=12)
    return st.fixed_dictionaries({}, optional=dict.fromkeys(kind.__struct_fields__, likely))


@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("kind", [*PAYLOADS, Auth], ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_nearly_right_is_a_payload_or_a_refusal(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    try:
        made = decode(kind, data.draw(whole(kind)), BOUNDS)
    except (Invalid, TooLarge) as refusal:
        msgspec.json.encode(refusal.body())
    else:
        msgspec.json.encode(made)


@settings(deadline=None)
@given(st.binary(max_size=40) | st.text('[]{}",:0123456789.-eEtrufalsn\\d', max_size=40).map(str.encode))
def test_any_bytes_are_json_or_a_value_error(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        codec.loads(body)


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", '{"a": NaN}', "[" * 200_000, '{"a":' * 50_000, "01", ""]
)
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    for form in (text, text.encode()):
        with pytest.raises(ValueError, match=r".*"):
            codec.loads(form)
