"""What clients may do to the socket layer, frame by frame: nobody leaves a ghost, and nobody holds up the others."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import uuid4

import msgpack
import pytest

from server.wire import session as sessions
from server.wire import websocket
from server.wire.codec import RESERVED
from tests.people import PATIENCE_S, Instance, Person
from tests.wire import bare, test_socketio
from tests.wire.bare import TEXT, client_frame, handshake, until

WEBSOCKET = "/socket.io/?EIO=4&transport=websocket"
FRAME_BYTES = 131_072


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


class Raw(bare.Raw):
    """A WebSocket without a protocol's manners."""

    async def hearing(self, start: str) -> str:
        """The next text that begins so; what is before it is passed over."""
        while not (text := await self.text()).startswith(start):
            pass
        return text

    async def connect(self, person: Person) -> None:
        self.send("40" + json.dumps({"token": person.token}))
        await self.hearing('42["hello",')

    async def ask(self, frame: str, ack_id: int = 7) -> Any:
        """The answer to an event whose frame begins with 42 or 45 and carries that ack id."""
        self.send(frame)
        return await self.answer_to(ack_id)

    async def answer_to(self, ack_id: int) -> Any:
        """What is said to an event that was sent."""
        return json.loads((await self.hearing(f"43{ack_id}")).removeprefix(f"43{ack_id}"))[0]


def port_of(parley: Instance) -> int:
    return int(parley.url.rpartition(":")[2])


@pytest.fixture
async def raw(parley: Instance) -> AsyncIterator[Raw]:
    """A WebSocket whose Engine.IO session is open, and no more."""
    async with opened(parley) as one:
        yield one


@contextlib.asynccontextmanager
async def opened(parley: Instance, **named: Any) -> AsyncIterator[Raw]:
    one = Raw(*await asyncio.open_connection("127.0.0.1", port_of(parley)))
    await one.shake(WEBSOCKET, **named)
    yield one
    one.cut()


async def nothing_left(parley: Instance) -> None:
    """Wait until the instance holds no session, no connection and no registration."""
    wire, delivery = parley.parley.wire, parley.parley.delivery
    await test_socketio.nothing_left(wire)
    assert len(wire) == 0
    await until(lambda: not delivery.sockets() and not delivery.watched, f"{delivery.sockets()} are left")


# malformed frames

MALFORMED: dict[str, tuple[str | bytes, ...]] = {
    "a letter": ("x",),
    "nothing": ("",),
    "a packet of no type": ("9",),
    "a packet for servers alone": ("6",),
    "a message of no type": ("4",),
    "a message of an unknown type": ("48",),
    "many brackets": ("[" * 130_000,),
    "an event of many brackets": ("42" + "[" * 130_000,),
    "an event of many objects": ("42" + '{"a":' * 26_000,),
    "an event that is no JSON": ('42["x",',),
    "an event that is not a list": ("42{}",),
    "an event without a name": ("42[]",),
    "an event with a number for a name": ("42[1]",),
    "an event of NaN": ('42["x",NaN]',),
    "an event in another namespace": ('42/other,["x"]',),
    "a long ack id": ("42" + "9" * 200 + '["x"]',),
    "bytes that nobody announced": (b"\xff\x00\x01",),
    "bytes of no length": (b"",),
    "half of a character": (b"\xf0\x9f\x8c",),
    "51 placeholders": ('4551-["x"]',),
    "many placeholders": ('45999999999999-["x"]',),
    "a placeholder beyond the attachments": ('451-["x",{"_placeholder":true,"num":5}]', b"a"),
    "a placeholder of no number": ('451-["x",{"_placeholder":true,"num":"y"}]', b"a"),
    "a placeholder below the attachments": ('452-["x",{"_placeholder":true,"num":-9}]', b"a", b"b"),
    "a binary event without a name": ('451-[{"_placeholder":true,"num":0}]', b"a"),
    "a binary event of no JSON": ("451-[", b"a"),
    "an ack that is no JSON": ("431[",),
} | {f"the reserved event {name}": (f'42["{name}",{{}}]',) for name in sorted(RESERVED)}


@pytest.mark.parametrize("frames", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("connected", [False, True], ids=["before the connect", "connected"])
async def test_a_malformed_frame_ends_the_session_at_once(
    parley: Instance, raw: Raw, frames: tuple[str | bytes, ...], connected: bool
) -> None:
    if connected:
        await raw.connect(await parley.person("amina"))
    raw.send(*frames)
    await raw.end()
    await nothing_left(parley)


async def test_an_event_before_the_connect_ends_the_session(parley: Instance, raw: Raw) -> None:
    raw.send('420["account:me"]')
    await raw.end()
    await nothing_left(parley)


async def test_a_second_connect_ends_the_session(parley: Instance, raw: Raw, amina: Person) -> None:
    await raw.connect(amina)
    raw.send("40" + json.dumps({"token": amina.token}))
    await raw.end()
    await nothing_left(parley)


async def test_an_unknown_namespace_is_refused(parley: Instance, raw: Raw, amina: Person) -> None:
    raw.send("40/admin," + json.dumps({"token": amina.token}))
    assert json.loads((await raw.hearing("44/admin,")).removeprefix("44/admin,")) == {"message": "Invalid namespace"}
    await raw.connect(amina)
    raw.send("40/admin,")
    await raw.hearing("44/admin,")
    answer = await raw.ask('427["account:me"]')
    assert answer["ok"]


@pytest.mark.parametrize("frame", ['4399["nobody asked"]', '43["nobody asked"]', "3"])
async def test_what_means_nothing_is_passed_over(raw: Raw, amina: Person, frame: str) -> None:
    await raw.connect(amina)
    raw.send(frame)
    assert (await raw.ask('427["account:me"]'))["ok"]


async def test_a_socket_may_leave_the_namespace(parley: Instance, raw: Raw, amina: Person) -> None:
    await raw.connect(amina)
    raw.send("41")
    await until(lambda: not len(parley.parley.wire), "the connection is left")
    assert parley.parley.delivery.sockets() == []
    raw.cut()
    await nothing_left(parley)


async def test_a_socket_that_is_cut_in_the_middle_of_its_connect_leaves_nothing(
    parley: Instance, amina: Person
) -> None:
    for _ in range(5):
        async with opened(parley) as one:
            one.send("40" + json.dumps({"token": amina.token}))
    await until(lambda: not parley.parley.dispatcher._tasks, "tasks")
    await nothing_left(parley)


async def test_a_frame_over_the_bound_closes_with_1009(parley: Instance, raw: Raw, amina: Person) -> None:
    await raw.connect(amina)
    raw.send('42["message:send","' + "x" * FRAME_BYTES + '"]')
    assert await raw.end() == 1009
    await nothing_left(parley)


async def test_a_frame_at_the_bound_is_judged_by_its_fields(raw: Raw, amina: Person) -> None:
    await raw.connect(amina)
    start, end = f'427["message:send",{{"conversation_id":"{uuid4()}","client_id":"a","text":"', '"}]'
    answer = await raw.ask(start + "x" * (FRAME_BYTES - len(start) - len(end)) + end)
    assert (answer["error"]["code"], answer["error"]["limit"]) == ("too_large", 10_000)
    assert (await raw.ask('427["account:me"]'))["ok"]


async def test_without_a_connect_the_socket_is_closed(new_instance: Callable[..., Any]) -> None:
    parley: Instance = await new_instance(PARLEY_CONNECT_TIMEOUT_MS="500")
    began = time.monotonic()
    async with opened(parley) as silent:
        silent.send("40/other,")  # a refused one is none
        await silent.end()
    assert time.monotonic() - began < 3
    person = await parley.person("amina")
    async with opened(parley) as late:
        await late.connect(person)
        gone = asyncio.Event()
        asyncio.get_running_loop().call_later(0.6, gone.set)
        await gone.wait()
        assert (await late.ask('427["account:me"]'))["ok"]  # the time-out was for the connect alone
    await nothing_left(parley)


async def test_bytes_are_invalid_and_the_socket_lives(raw: Raw, amina: Person) -> None:
    await raw.connect(amina)
    raw.send('451-7["message:send",{"_placeholder":true,"num":0}]')
    raw.send(b"\x00\xff")
    answer = await raw.answer_to(7)
    assert answer["error"]["code"] == "invalid"
    raw.send('451-7["message:send",{"text":{"_placeholder":true,"num":0}}]')
    raw.send(b"text")
    answer = await raw.answer_to(7)
    assert answer["error"]["code"] == "invalid"
    assert (await raw.ask('427["account:me"]'))["ok"]


@pytest.mark.parametrize("levels", [17, 600])
@pytest.mark.parametrize("head", ["42", "450-", "451-"])
async def test_what_nests_too_deep_is_too_large_and_the_socket_lives(
    raw: Raw, amina: Person, head: str, levels: int
) -> None:
    await raw.connect(amina)
    raw.send(f'{head}7["message:send",{"[" * levels + "]" * levels}]')
    if head == "451-":
        raw.send(b"a")
    answer = await raw.answer_to(7)
    assert (answer["error"]["code"], answer["error"]["limit"]) == ("too_large", 16)
    assert (await raw.ask('427["account:me"]'))["ok"]


@pytest.mark.parametrize("payload", [b"\x91" * 600 + b"\xc0", b"\xdc\x28\x00" + b"\xc0" * 10_240], ids=["deep", "long"])
async def test_msgpack_over_a_bound_is_answered_as_json_is(raw: Raw, amina: Person, payload: bytes) -> None:
    event = {"type": 2, "nsp": "/", "id": 7, "data": ["user:search", None]}
    raw.send(msgpack.packb({"type": 0, "nsp": "/", "data": {"token": amina.token}}))
    raw.send(msgpack.packb(event)[:-1] + payload)
    raw.send(msgpack.packb({"type": 2, "nsp": "/", "id": 8, "data": ["account:me"]}))
    answers: dict[int, Any] = {}
    while 8 not in answers:
        packet = msgpack.unpackb((await raw.frame()).payload)
        answers[packet.get("id")] = packet["data"]
    assert answers[7][0]["error"]["code"] == ("too_large" if payload.startswith(b"\x91") else "invalid")
    assert answers[8][0]["ok"]


@pytest.mark.parametrize("text", [r"\ud800", r"a\udfffb", r"\udc00\ud800", r"\u0000"])
async def test_a_text_that_nobody_can_store_is_invalid_and_the_socket_lives(
    raw: Raw, amina: Person, their_chat: str, text: str
) -> None:
    await raw.connect(amina)
    start = f'427["message:send",{{"conversation_id":"{their_chat}","client_id":"a","text":"'
    answer = await raw.ask(start + text + '"}]')
    assert answer["error"]["code"] == "invalid"
    assert list(answer["error"]["fields"]) == ["text"]
    assert (await raw.ask(start + r'\ud83c\udf19"}]'))["ok"]  # a whole pair is a moon


async def test_a_name_that_nobody_can_encode_is_an_unknown_command(raw: Raw, amina: Person) -> None:
    await raw.connect(amina)
    answer = await raw.ask(r'427["\ud800",{}]')
    assert answer["error"]["code"] == "unknown_command"
    assert (await raw.ask('427["account:me"]'))["ok"]


# who may connect

REFUSED: dict[str, tuple[str, str]] = {
    "no auth": ("", "unauthenticated"),
    "no token": ("{}", "unauthenticated"),
    "a token that is none": ('{"token":"x"}', "unauthenticated"),
    "a token that is a number": ('{"token":5}', "invalid"),
    "a list": ("[]", "invalid"),
    "an unknown field": ('{"token":"x","user":1}', "invalid"),
    "a negative after": ('{"token":"x","rooms":{"user:1":-1}}', "invalid"),
    "an after of no number": ('{"token":"x","rooms":{"user:1":true}}', "invalid"),
    "too many rooms": (json.dumps({"token": "x", "rooms": {f"user:{n}": 0 for n in range(1_001)}}), "too_large"),
    "half of a pair": (r'{"token":"\ud800"}', "invalid"),
    "too deep": ('{"token":' + "[" * 20 + "]" * 20 + "}", "too_large"),
}


@pytest.mark.parametrize(("auth", "code"), REFUSED.values(), ids=REFUSED)
async def test_a_connect_that_is_refused_says_why(parley: Instance, raw: Raw, auth: str, code: str) -> None:
    raw.send("40" + auth)
    refusal = json.loads((await raw.hearing("44")).removeprefix("44"))
    assert refusal.keys() == {"message", "data"}
    assert refusal["message"]
    assert refusal["data"]["code"] == code
    if code == "invalid":
        assert refusal["data"]["fields"]
    if code == "too_large":
        assert refusal["data"]["limit"] > 0
    assert len(parley.parley.wire) == 0
    assert parley.parley.delivery.sockets() == []
    raw.send("42" + json.dumps(["account:me"]))  # refused is not connected
    await raw.end()
    await nothing_left(parley)


async def test_after_a_refusal_a_right_token_is_let_in(raw: Raw, amina: Person) -> None:
    raw.send('40{"token":"x"}')
    await raw.hearing("44")
    await raw.connect(amina)


async def test_a_socket_ends_with_its_token(parley: Instance, raw: Raw) -> None:
    amina = await parley.person("amina", ttl_s=2)
    claims = json.loads(base64.urlsafe_b64decode(amina.token.split(".")[1] + "=="))
    await raw.connect(amina)
    await raw.hearing("41")
    assert -0.1 < time.time() - claims["exp"] < 1
    await raw.end()
    await nothing_left(parley)


async def test_compression_is_not_agreed_to(parley: Instance) -> None:
    async with opened(parley, headers={"Sec-WebSocket-Extensions": "permessage-deflate"}) as one:
        assert b"Sec-WebSocket-Extensions" not in one.head


# clients that don't read


class Deaf(bare.Deaf):
    """A WebSocket on a plain socket with a small buffer, which reads only when told to."""

    def __init__(self, parley: Instance) -> None:
        super().__init__(port_of(parley))

    async def connect(self, person: Person, **auth: Any) -> str:
        """Connect as that person, read up to the hello, and no further; the session's id."""
        await self.ask(handshake(WEBSOCKET))
        opening = await self.until(b'"maxPayload"')
        await self.send(client_frame(TEXT, b"40" + json.dumps({"token": person.token, **auth}).encode()))
        await self.until(b'["hello"')
        return opening.partition(b'"sid":"')[2].partition(b'"')[0].decode()


@pytest.fixture
def deaf(parley: Instance) -> Iterator[Deaf]:
    for listening in parley.parley._site._server.sockets:  # the kernel would take 4 MB for a client on this machine
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    one = Deaf(parley)
    yield one
    one.socket.close()


async def test_a_client_that_stops_reading_is_cut_and_the_others_go_on(
    parley: Instance, amina: Person, bilal: Person, their_chat: str, deaf: Deaf
) -> None:
    other = await bilal.connect()
    sid = await deaf.connect(amina)
    standing = parley.parley.wire.eio.sessions
    held, count = 0, 0
    text = "🌙" * 10_000  # 40 kB each
    async with asyncio.timeout(30):
        while sid in standing:
            await other.send(their_chat, text)
            count += 1
            session = standing.get(sid)
            if session is not None:
                held = max(held, session.backlog)
    assert websocket.BACKLOG_BYTES - 100_000 < held <= websocket.BACKLOG_BYTES
    await other.hearing_up_to(f"conversation:{their_chat}", count)
    assert len(other.texts(their_chat)) == count
    assert len(parley.parley.wire) == 1
    assert [s.user_id.hex for s in parley.parley.delivery.sockets()] == [bilal.user_id.replace("-", "")]
    back = await amina.connect(rooms={f"conversation:{their_chat}": count - 2})
    await back.hearing_up_to(f"conversation:{their_chat}", count)
    assert len(back.texts(their_chat)) == 2


async def test_a_client_that_takes_nothing_for_long_is_cut(
    parley: Instance, amina: Person, bilal: Person, their_chat: str, deaf: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "STALL_S", 0.2)
    other = await bilal.connect()
    session = parley.parley.wire.eio.sessions[await deaf.connect(amina)]
    async with asyncio.timeout(30):
        while not session.backlog:
            await other.send(their_chat, "🌙" * 10_000)
    assert session.backlog < websocket.BACKLOG_BYTES // 2
    await until(lambda: session.is_closed, "it still stands")
    assert (await other.call("account:me"))["user_id"] == bilal.user_id


REPLAYED = 24  # messages of 40 kB: below what one connect is served


@pytest.fixture
async def missed(parley: Instance, amina: Person, bilal: Person, their_chat: str) -> dict[str, int]:
    """What Amina connects with as `rooms` to be served nearly a megabyte that she has missed."""
    other = await bilal.connect()
    for n in range(REPLAYED):
        await other.send(their_chat, f"{'🌙' * 9_990}{n:04}")
    return {f"conversation:{their_chat}": 0}


async def test_a_replay_waits_for_a_client_that_does_not_read(
    parley: Instance, amina: Person, missed: dict[str, int], deaf: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    push = sessions.Session.push

    def watched(self: sessions.Session, *args: Any, **named: Any) -> bool:
        pushed = push(self, *args, **named)
        held.append(self.backlog)
        return pushed

    monkeypatch.setattr(sessions.Session, "push", watched)
    session = parley.parley.wire.eio.sessions[await deaf.connect(amina, rooms=missed)]
    await until(lambda: session.backlog > websocket.PACE_BYTES, "nothing waits for the client")
    assert max(held) < websocket.PACE_BYTES + 50_000  # one event more than what it waits for
    read = await deaf.until(f'{REPLAYED - 1:04}"'.encode())
    assert re.findall(r'🌙(\d{4})"', read.decode(errors="replace")) == [f"{n:04}" for n in range(REPLAYED)]
    assert max(held) < websocket.PACE_BYTES + 50_000
    assert not session.is_closed


async def test_a_replay_ends_with_a_client_that_goes_away_in_the_middle(
    parley: Instance, amina: Person, missed: dict[str, int], deaf: Deaf
) -> None:
    session = parley.parley.wire.eio.sessions[await deaf.connect(amina, rooms=missed)]
    await until(lambda: session.backlog > websocket.PACE_BYTES, "nothing waits for the client")
    assert parley.parley.joining._tasks
    deaf.socket.close()
    await until(lambda: not parley.parley.joining._tasks, "the replay goes on")
    await until(lambda: len(parley.parley.delivery.sockets()) == 1, "the socket is left")  # Bilal's


async def test_a_slow_client_that_keeps_reading_is_left_alone(
    parley: Instance, amina: Person, bilal: Person, their_chat: str, deaf: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "STALL_S", 0.5)
    other = await bilal.connect()
    session = parley.parley.wire.eio.sessions[await deaf.connect(amina)]
    async with asyncio.timeout(30):
        while session.backlog < 200_000:
            await other.send(their_chat, "🌙" * 10_000)
    async with asyncio.timeout(30):
        while session.backlog:
            await deaf.take(65_536)
    assert not session.is_closed


# polling


async def test_a_client_that_only_polls_talks_as_the_others_do(amina: Person, bilal: Person, their_chat: str) -> None:
    phone, other = await amina.connect(transports=("polling",)), await bilal.connect()
    assert phone.client.transport() == "polling"
    for n in range(5):
        await phone.send(their_chat, f"p{n}")
        await other.send(their_chat, f"w{n}")
    expected = [f"{who}{n}" for n in range(5) for who in "pw"]
    for device in (phone, other):
        await device.hearing("message:created", text="w4")
        assert device.texts(their_chat) == expected


async def polling(parley: Instance) -> str:
    """The path of a new polling session."""
    path = f"{parley.url}/socket.io/?EIO=4&transport=polling"
    async with parley.http.get(path) as response:
        return f"{path}&sid={json.loads((await response.text())[1:])['sid']}"


@pytest.mark.parametrize("body", ["", "x", "4", "\x1e\x1e", "42[", '42["connect"]', "b!!!", "1" * 1000, b"\xff"])
async def test_a_malformed_post_ends_the_polling_session(parley: Instance, body: str | bytes) -> None:
    path = await polling(parley)
    async with parley.http.post(path, data=body) as response:
        assert response.status in (200, 400)  # by who has noticed it: Engine.IO or Socket.IO
    async with parley.http.post(path, data="3") as response:
        assert response.status == 400
    async with parley.http.get(path) as response:
        assert response.status == 400
    await nothing_left(parley)


async def test_a_post_over_the_bound_is_refused(parley: Instance) -> None:
    path = await polling(parley)
    async with parley.http.post(path, data="4" + "x" * FRAME_BYTES) as response:
        assert response.status == 413
    await nothing_left(parley)


async def test_a_session_that_the_server_has_closed_takes_no_post(parley: Instance, amina: Person) -> None:
    phone = await amina.connect(transports=("polling",))
    path = f"{parley.url}/socket.io/?EIO=4&transport=polling&sid={phone.client.eio.sid}"
    [connection] = parley.parley.wire.connections
    connection.drop()
    await until(lambda: not connection.is_open, "it is open")
    async with parley.http.post(path, data="3") as response:
        assert response.status == 400


async def test_a_post_may_come_in_pieces_and_hold_many_packets(
    parley: Instance, amina: Person, their_chat: str
) -> None:
    path = await polling(parley)
    async with parley.http.post(path, data="40" + json.dumps({"token": amina.token})) as response:
        assert response.status == 200
    sends = [{"conversation_id": their_chat, "client_id": f"c{n}", "text": str(n)} for n in range(100)]
    body = "\x1e".join(f"42{n}" + json.dumps(["message:send", send]) for n, send in enumerate(sends)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(parley))
    head = f"POST {path.removeprefix(parley.url)} HTTP/1.1\r\nHost: parley\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body[:5_000])
    async with parley.http.get(f"{parley.url}/healthz") as response:  # by now the first piece has arrived
        assert response.status == 200
    writer.write(body[5_000:])
    assert b"200 OK" in await asyncio.wait_for(reader.readline(), PATIENCE_S)
    writer.close()
    heard = ""
    async with asyncio.timeout(PATIENCE_S):
        while heard.count('"ok":true') < 100:
            async with parley.http.get(path) as response:
                heard += await response.text()
    history = await amina.post("message:history", conversation_id=their_chat, limit=200)
    assert [message["text"] for message in history["messages"]] == [str(n) for n in range(100)]


@pytest.mark.parametrize(
    "query", ["", "EIO=3&transport=polling", "EIO=4&transport=pigeon", "EIO=4&transport=polling&sid=x"]
)
async def test_a_request_that_is_no_session_is_refused(parley: Instance, query: str) -> None:
    for method in ("GET", "POST"):
        async with parley.http.request(method, f"{parley.url}/socket.io/?{query}", data=b"3") as response:
            assert response.status == 400
    assert parley.parley.wire.sessions == 0
