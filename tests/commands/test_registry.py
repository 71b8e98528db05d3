"""The declarations: whole, free of contradictions; and what every command refuses, made from its declaration."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio

import handlers  # noqa: F401  (declares the commands)
from rules.users import Scope
from server.commands import registry
from server.commands.context import Call, Context
from server.commands.registry import (
    ClientId,
    Command,
    Limit,
    Outcome,
    Payload,
    Transport,
    anyone,
    command,
    commands,
    permission,
    push,
    pushes,
    signed_in,
)
from server.config import load
from server.rooms.names import KINDS, Room
from tests.people import SECRET, Device, Instance, Person
from tests.servers import Postgres

ALL = [pytest.param(one, id=one.name) for one in commands.values()]
ON_SOCKET = [p for p in ALL if p.values[0].transport is not Transport.HTTP]
OVER_HTTP = [p for p in ALL if p.values[0].transport is not Transport.SOCKET]
CLOSED = [p for p in ALL if not p.values[0].allow.public]
WRITING = [p for p in CLOSED if not p.values[0].reads]


# declarations


@pytest.mark.parametrize("one", ALL)
def test_a_declaration_is_whole(one: Command) -> None:
    assert re.fullmatch(r"[a-z]+:[a-z_]+", one.name)
    assert one.allow.name
    assert one.limit in Limit
    assert len(one.doc) > 10
    assert one.doc.splitlines()[0].endswith(".")
    assert issubclass(one.payload, Payload)
    assert one.payload.__struct_config__.forbid_unknown_fields
    assert one.payload.__struct_config__.frozen
    assert one.path == "/api/" + one.name.replace(":", "/")
    assert one.batch == (one.room is not None)
    assert not (one.reads and (one.keyed or one.batch))
    assert ("client_id" in one.payload.__struct_fields__) == (one.keyed or one.batch)
    msgspec.json.schema(one.payload)
    msgspec.json.schema(one.result)


def test_every_limit_has_a_setting() -> None:
    rates = load({"DATABASE_URL": "postgresql://x", "PARLEY_SECRET": SECRET}).rates
    assert set(rates) == {*Limit, "handshakes"}  # which is the wire's, before anybody is known


@pytest.mark.parametrize("one", [pytest.param(one, id=one.name) for one in pushes.values()])
def test_a_push_says_what_it_carries_and_when(one: registry.Push[Any]) -> None:
    assert re.fullmatch(r"[a-z]+:[a-z]+|hello", one.name)
    assert one.doc.endswith(".")
    assert issubclass(one.payload, msgspec.Struct)
    assert one.rooms or one.name == "hello"
    assert set(one.rooms) <= KINDS


class Empty(Payload, frozen=True):
    pass


class Keyed(Payload, frozen=True):
    client_id: ClientId


async def plain(ctx: Context, p: Empty) -> Empty:
    """Do nothing."""
    return p


async def silent(ctx: Context, p: Empty) -> Empty:
    return p


async def keyed(ctx: Context, p: Keyed) -> Keyed:
    """Make something."""
    return p


async def many(batch: Any, calls: Sequence[Call[Empty]]) -> list[Outcome[Empty]]:
    """Do nothing often."""
    return [call.payload for call in calls]


async def again(ctx: Context, id_: UUID) -> Any:
    return None


def room(_: Any) -> Room:
    return Room("user", UUID(int=0))


@pytest.fixture
def no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries of the test's own."""
    monkeypatch.setattr(registry, "commands", {})
    monkeypatch.setattr(registry, "pushes", {})


@pytest.mark.usefixtures("no_commands")
@pytest.mark.parametrize(
    ("handler", "options", "complaint"),
    [
        (silent, {}, "docstring"),
        (keyed, {}, "again"),
        (many, {"batch": True}, "room"),
        (plain, {"room": room}, "room"),
        (plain, {"again": again}, "client_id"),
        (keyed, {"again": again, "transaction": False}, "transaction"),
        (keyed, {"again": again, "reads": True}, "reads"),
        (many, {"batch": True, "room": room, "reads": True}, "reads"),
        (many, {"batch": True, "room": room, "transaction": False}, "transaction"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(handler: Any, options: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=rf"test:do.*{complaint}"):
        command("test:do", allow=anyone, limit=None, **options)(handler)
    assert registry.commands == {}


@pytest.mark.usefixtures("no_commands")
def test_a_batch_for_nobody_in_particular_is_refused() -> None:
    with pytest.raises(ValueError, match=r"test:many.*anyone"):
        command("test:many", allow=anyone, limit=None, batch=True, room=room)(many)
    with pytest.raises(ValueError, match=r"test:keyed.*anyone"):
        command("test:keyed", allow=anyone, limit=None, again=again)(keyed)


@pytest.mark.usefixtures("no_commands")
def test_a_name_is_declared_once() -> None:
    command("test:do", allow=signed_in, limit=Limit.READS, reads=True)(plain)
    with pytest.raises(ValueError, match="test:do is declared twice"):
        command("test:do", allow=signed_in, limit=Limit.READS, reads=True)(plain)
    push("test:done", Empty, "It is done.", rooms=("user",))
    with pytest.raises(ValueError, match="test:done is declared twice"):
        push("test:done", Empty, "It is done.", rooms=("user",))


@pytest.mark.usefixtures("no_commands")
def test_a_push_goes_where_and_how_its_declaration_says() -> None:
    user, thread = Room("user", UUID(int=0)), Room("thread", UUID(int=0))
    either = push("test:either", Empty, "It is done.", rooms=("user", "thread"), ephemeral_in=("thread",))
    fading = push("test:fading", Empty, "It is done.", rooms=("user",), ephemeral=True)
    for one, room_, ephemeral in ((either, user, False), (either, thread, False), (either, thread, True)):
        one.check(room_, ephemeral=ephemeral)
    fading.check(user, ephemeral=True)
    for one, room_, ephemeral in ((either, user, True), (fading, user, False), (fading, thread, True)):
        with pytest.raises(RuntimeError, match="declared otherwise"):
            one.check(room_, ephemeral=ephemeral)
    assert (either.sending, fading.sending) == ("durable or ephemeral", "ephemeral")
    for more in ({"ephemeral": True}, {"ephemeral_in": ("listing",)}):
        with pytest.raises(ValueError, match="test:no"):
            push("test:no", Empty, "It is done.", **{"rooms": ("thread",), "ephemeral_in": ("thread",), **more})


@pytest.mark.usefixtures("no_commands")
def test_what_a_command_takes_and_answers_is_read_from_its_handler() -> None:
    command("test:do", allow=signed_in, limit=None)(plain)
    command("test:many", allow=signed_in, limit=None, batch=True, room=room)(many)
    for name in ("test:do", "test:many"):
        assert (registry.commands[name].payload, registry.commands[name].result) == (Empty, Empty)


def test_a_permission_has_its_functions_name() -> None:
    @permission
    async def friends(ctx: Any, p: Any) -> None:
        """Those who are friends."""

    assert (friends.name, friends.public, repr(friends)) == ("friends", False, "<may: friends>")


# refusals

pytestmark_shared = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parley(postgres: Postgres) -> AsyncIterator[Instance]:
    """One instance for all refusals: they change nothing."""
    rates = dict.fromkeys((f"PARLEY_RATE_{limit.name}" for limit in Limit), "off")
    instance = await Instance(await postgres.create(postgres.dsn("18"), migrated=True), **rates).start()
    yield instance
    await instance.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def amina(parley: Instance) -> Person:
    return await parley.person("amina")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def phone(amina: Person) -> Device:
    return await amina.connect()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader(parley: Instance) -> Person:
    """Somebody whose token may only read."""
    return await parley.person("reader", scope=Scope.READ)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def readers_phone(reader: Person) -> Device:
    return await reader.connect()


def code_of(answer: dict[str, Any]) -> str:
    assert not answer["ok"], answer
    assert answer["error"]["message"]
    return str(answer["error"]["code"])


@pytestmark_shared
@pytest.mark.parametrize("one", ON_SOCKET)
async def test_on_the_socket_an_unknown_field_is_invalid(phone: Device, one: Command) -> None:
    answer = await phone.client.call(one.name, {"surprise": 1})
    assert code_of(answer) == "invalid"
    assert "surprise" in answer["error"]["fields"] or answer["error"]["fields"].keys() <= {
        *one.payload.__struct_fields__
    }
    assert "surprise" in (await phone.client.call(one.name, {**example(one), "surprise": 1}))["error"]["fields"]


@pytestmark_shared
@pytest.mark.parametrize("one", OVER_HTTP)
async def test_over_http_an_unknown_field_is_invalid(parley: Instance, amina: Person, one: Command) -> None:
    status, answer = await parley.post(one.name, {**example(one), "surprise": 1}, token=amina.token)
    assert (status, code_of(answer)) == (400, "invalid")
    assert answer["error"]["fields"].keys() == {"surprise"}


@pytestmark_shared
@pytest.mark.parametrize("one", [p for p in CLOSED if p in OVER_HTTP])
async def test_without_a_token_nobody_is_let_in(parley: Instance, amina: Person, one: Command) -> None:
    answers = [await parley.post(one.name, example(one))]
    answers += [await parley.post(one.name, example(one), token=token) for token in ("x", amina.token + "x")]
    for status, answer in answers:
        assert (status, code_of(answer)) == (401, "unauthenticated")
    for header in ("", "Bearer", "Bearer ", f"Basic {amina.token}", amina.token):
        async with parley.http.post(
            parley.url + one.path, json=example(one), headers={"Authorization": header}
        ) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"


@pytestmark_shared
@pytest.mark.parametrize("one", WRITING)
async def test_a_token_that_may_only_read_changes_nothing(
    parley: Instance, reader: Person, readers_phone: Device, one: Command
) -> None:
    if one.transport is not Transport.SOCKET:
        status, answer = await parley.post(one.name, example(one), token=reader.token)
        assert (status, code_of(answer)) == (403, "forbidden")
    if one.transport is not Transport.HTTP:
        assert code_of(await readers_phone.client.call(one.name, example(one))) == "forbidden"


@pytestmark_shared
async def test_a_narrow_token_of_a_wide_session_stays_narrow(parley: Instance, amina: Person) -> None:
    user_id, session_id = UUID(amina.user_id), UUID(amina.session_id)
    token, _ = parley.parley.services.tokens.access(user_id, session_id, Scope.READ)
    device = await amina.connect(token=token)
    payload = {"kind": "group", "user_ids": [], "client_id": "narrow"}
    assert code_of(await device.answer("conversation:create", **payload)) == "forbidden"
    status, answer = await parley.post("conversation:create", payload, token=token)
    assert (status, code_of(answer)) == (403, "forbidden")


@pytestmark_shared
async def test_a_token_that_may_only_read_reads(reader: Person, readers_phone: Device) -> None:
    assert (await readers_phone.call("account:me"))["user_id"] == reader.user_id
    assert (await readers_phone.call("conversation:list"))["conversations"] == []
    assert (await readers_phone.call("room:join", room=f"user:{reader.user_id}"))["head_seq"] == 0


@pytestmark_shared
@pytest.mark.parametrize("one", ALL)
async def test_a_command_is_unknown_where_it_is_not_declared(
    parley: Instance, amina: Person, phone: Device, one: Command
) -> None:
    status, over_http = await parley.post(one.name, {"surprise": 1}, token=amina.token)
    on_socket = await phone.client.call(one.name, {"surprise": 1})
    unknown = (404, "unknown_command")
    assert ((status, code_of(over_http)) == unknown) == (one.transport is Transport.SOCKET)
    assert (code_of(on_socket) == "unknown_command") == (one.transport is Transport.HTTP)


@pytestmark_shared
@pytest.mark.parametrize("name", ["nothing:do", "account", "account:me:", "constructor:name", "x" * 5_000, "", ":"])
async def test_what_is_no_command_is_unknown(parley: Instance, phone: Device, name: str) -> None:
    answer = await phone.client.call(name or " ", {})
    assert code_of(answer) == "unknown_command"
    assert len(answer["error"]["message"]) < 300


@pytestmark_shared
@pytest.mark.parametrize("one", ON_SOCKET)
async def test_a_second_argument_is_refused(phone: Device, one: Command) -> None:
    answer = await phone.client.call(one.name, (example(one), {}))
    assert code_of(answer) == "invalid"
    assert answer["error"]["fields"].keys() == {"payload"}


@pytestmark_shared
async def test_without_an_ack_an_error_is_heard_by_nobody_and_the_socket_lives(phone: Device) -> None:
    heard = len(phone.heard)
    for one in commands.values():
        await phone.client.emit(one.name, {"surprise": 1})
    await asyncio.gather(*(phone.call("account:me") for _ in range(3)))
    assert len(phone.heard) == heard


def example(one: Command) -> dict[str, Any]:
    """A payload that decodes, of objects that are not there."""
    values: dict[str, Any] = {
        "conversation_id": str(UUID(int=1)),
        "user_id": str(UUID(int=2)),
        "user_ids": [str(UUID(int=2))],
        "client_id": "example",
        "kind": "for_sale" if one.name == "listing:create" else "group",
        "room": f"conversation:{UUID(int=1)}",
        "after": 0,
        "username": "example",
        "email": "example@example.org",
        "password": "correct horse",
        "login": "example",
        "refresh_token": "example",
        "token": "example",
        "session_id": str(UUID(int=3)),
        "query": "example",
        "reset_token": "example",
        "report_id": str(UUID(int=4)),
        "subject": {"kind": "user", "id": str(UUID(int=5))},
        "reason": "example",
        "resolution": "example",
        "message_id": str(UUID(int=6)),
        "faq_id": str(UUID(int=10)),
        "offer_id": str(UUID(int=13)),
        "negotiation_id": str(UUID(int=14)),
        "listing_version": 1,
        "enabled": True,
        "match_id": str(UUID(int=11)),
        "action": "viewed",
        "transaction_id": str(UUID(int=12)),
        "rating": 5,
        "listing_id": str(UUID(int=9)),
        "description": "example",
        "price": {"amount": 1, "currency": "EUR"},
        "parent_id": str(UUID(int=10)),
        "thread_id": str(UUID(int=8)),
        "title": "example",
        "category": "other",
        "text": "example",
        "version": 1,
        "emoji": "👍",
        "on": True,
        "seq": 1,
        "state": "away" if one.name == "presence:set" else "typing",
        "attachment_id": str(UUID(int=7)),
        "name": "example.png",
        "content_type": "image/png",
        "size": 1,
        "sha256": "0" * 64,
    }
    return {field.name: values[field.name] for field in msgspec.structs.fields(one.payload) if field.required}
