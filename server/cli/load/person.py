"""A person's socket: Socket.IO over a WebSocket, without a task of its own. Where it is cut it returns and resumes."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any, Protocol, cast

import orjson

from server.cli.load.faults import Fault
from server.cli.load.frames import BINARY, CLOSE, PING, PONG, TEXT, Frames, Malformed, handshake, judge_answer, masked
from server.cli.load.measure import bucket_of
from server.cli.load.stage import Stage

RETURN_S = 0.5  # until a socket that was cut comes back
PATIENCE_S = 0.5  # after `unavailable`
MOST_ROOMS = 1_000  # of a connect
_TRANSIENT = ("rate_limited", "unavailable")

Data = Mapping[str, Any]


class Play(Protocol):
    """What a person takes part in."""

    def pushed(self, person: "Person", name: str, payload: Data) -> None:
        """The person heard something that is no message."""

    def returned(self, person: "Person") -> None:
        """The person is back, after a cut."""


class Asked:
    """A command on its way, asked last `at`. `then` is given it, with the data of its answer or the error."""

    __slots__ = ("at", "frame", "is_message", "number", "then")

    def __init__(self, number: int, frame: bytes, then: "Then", at: float, *, is_message: bool) -> None:
        self.number = number
        self.frame = frame
        self.then = then
        self.at = at
        self.is_message = is_message


Then = Callable[[Asked, Data | None, Data | None], None]


class Person(asyncio.Protocol):
    """Somebody who asks and listens."""

    def __init__(self, stage: Stage, name: str, token: str, server: tuple[str, int, bool]) -> None:
        self.stage = stage
        self.name = name
        self.ears = stage.ledger.ears(name)
        self.user_id = ""
        self.play: Play | None = None
        self.asked: dict[int, Asked] = {}
        self.is_ready = False
        self.refusal = ""
        self._token = token
        self._host, self._port, self._tls = server
        self._epoch: str | None = None
        self._transport: asyncio.Transport | None = None
        self._frames = Frames()
        self._head: bytes | None = b""
        self._accept = b""
        self._greeted: asyncio.Future[bool] | None = None
        self._returning: asyncio.Task[None] | None = None

    # what a play calls

    def ask(self, name: str, payload: Data, then: Then, *, at: float | None = None) -> None:
        """Send a command, once more where the server asks for patience, or the socket was cut."""
        number = self.stage.number()
        body = orjson.dumps([name, payload]).decode()
        self._send_asked(number, f"42{number}{body}".encode(), then, at or perf_counter(), is_message=False)

    def say(self, room: str, conversation_id: str, members: int, then: Then, *, at: float | None = None) -> None:
        """Send a message, of which the ledger keeps account."""
        stage, number, now = self.stage, self.stage.number(), at or perf_counter()
        packet = (
            f'42{number}["message:send",{{"conversation_id":"{conversation_id}",'
            f'"client_id":"{stage.prefix}{number}","text":"{stage.text}"}}]'
        )
        stage.ledger.say(number, room, members, now)
        stage.span.sent += 1
        self._send_asked(number, packet.encode(), then, now, is_message=True)

    def _send_asked(self, number: int, packet: bytes, then: Then, at: float, *, is_message: bool) -> None:
        asked = Asked(number, packet, then, at, is_message=is_message)
        self.asked[number] = asked
        if self.is_ready:
            self._write(packet)

    # connecting

    async def connect(self) -> bool:
        """Whether it was let in and greeted; `refusal` says why it was not. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._greeted = loop.create_future()
        self.refusal = ""
        await loop.create_connection(lambda: self, self._host, self._port, ssl=True if self._tls else None)
        return await self._greeted

    def leave(self) -> None:
        """Go, for good."""
        if self._returning is not None:
            self._returning.cancel()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(masked(b"41") + masked((1000).to_bytes(2), CLOSE))
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP stands: ask for a WebSocket."""
        self._transport = cast("asyncio.Transport", transport)
        self._frames, self._head = Frames(), b""
        is_plain = self._port in ({443} if self._tls else {80})
        host = f"[{self._host}]" if ":" in self._host else self._host
        request, self._accept = handshake(host if is_plain else f"{host}:{self._port}")
        self._transport.write(request)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone: what waited for its hello hears so, what was ready comes back."""
        self._transport, was_ready, self.is_ready = None, self.is_ready, False
        if self._greeted is not None and not self._greeted.done():
            self.refusal = self.refusal or "the connection was closed"
            self._greeted.set_result(False)
        elif was_ready and not self.stage.is_over:
            self.stage.reconnects += 1
            self._returning = asyncio.get_running_loop().create_task(self._return())

    async def _return(self) -> None:
        while not (self.is_ready or self.stage.is_over):
            await asyncio.sleep(RETURN_S)
            try:
                if await self.connect():
                    break
                self.stage.span.failed(f"connect: {self.refusal}")
            except OSError as error:
                self.stage.span.failed(f"connect: {type(error).__name__}")

    # bytes in

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer to the handshake, then frames."""
        try:
            if self._head is not None:
                head, end, data = (self._head + data).partition(b"\r\n\r\n")
                if not end:
                    self._head = head
                    return
                judge_answer(head, self._accept)
                self._head = None
            for opcode, payload in self._frames.feed(data):
                if opcode == TEXT:
                    self._heard(payload)
                elif opcode == PING:
                    self._write(payload, PONG)
                elif opcode in (CLOSE, BINARY):
                    self._abort(f"closed with {int.from_bytes(payload[:2])}" if opcode == CLOSE else "sent bytes")
        except (Malformed, ValueError, KeyError, IndexError) as error:
            self.stage.faults.note(Fault.STRANGE, f"{self.name} heard what is no packet: {error}"[:300])
            self._abort(str(error))

    def _abort(self, why: str) -> None:
        self.refusal = self.refusal or why
        if self._transport is not None:
            self._transport.abort()

    def _write(self, payload: bytes, opcode: int = TEXT) -> None:
        if self._transport is not None:
            self._transport.write(masked(payload, opcode))

    def _heard(self, packet: bytes) -> None:
        kind = packet[:2]
        if kind == b"42":
            if packet.startswith(b'42["message:created",'):
                self._hear_message(packet)
            else:
                self._hear_event(*orjson.loads(packet[2:]))
        elif kind == b"43":
            at = packet.index(b"[")
            self._hear_answer(int(packet[2:at]), orjson.loads(packet[at:])[0])
        elif packet == b"2":
            self._write(b"3")
        elif kind[:1] == b"0":
            heads = list(self.ears.heads.items())[-MOST_ROOMS:]
            auth = {"token": self._token, "epoch": self._epoch, "rooms": dict(heads)}
            self._write(b"40" + orjson.dumps(auth))
        elif kind == b"44":
            error = orjson.loads(packet[2:])
            data = error.get("data") or {}
            self._abort(f"{data.get('code', 'refused')}: {error.get('message')}")
        elif kind in (b"41", b"1"):
            self._abort("the server disconnected it")

    # packets in

    def _hear_message(self, packet: bytes) -> None:
        """A message, of which nothing is decoded but its place and its number: there are many of them."""
        now = perf_counter()
        where = orjson.loads(packet[packet.rindex(b',{"room":') + 1 : -1])
        stage = self.stage
        at = packet.find(stage.mark)
        if at < 0:
            stage.ledger.hear(self.ears, where["room"], where["seq"])
            return
        at += len(stage.mark)
        sent_at = stage.ledger.hear(self.ears, where["room"], where["seq"], int(packet[at : packet.index(b'"', at)]))
        if sent_at is not None:
            span = stage.span
            span.delivered += 1
            bucket = bucket_of(now - sent_at)
            span.delivery_s[bucket] = span.delivery_s.get(bucket, 0) + 1

    def _hear_event(self, name: str, payload: Data, meta: Data | None = None) -> None:
        if name == "hello":
            self._hear_hello(payload)
            return
        if meta is not None and "seq" in meta:
            self.stage.ledger.hear(self.ears, meta["room"], meta["seq"])
        if name == "conversation:created":
            self.stage.ledger.anchor(self.ears, f"conversation:{payload['conversation_id']}", payload["head_seq"])
        if self.play is not None:
            self.play.pushed(self, name, payload)

    def _hear_hello(self, hello: Data) -> None:
        self.user_id, self._epoch = hello["user_id"], hello["epoch"]
        lost = [room for room in hello["reset"] if room in self.ears.heads]
        if lost:
            self.stage.faults.note(Fault.ABSENT, f"{self.name} could not resume {lost[0]}", len(lost))
        is_back = bool(self.ears.heads)
        missed = [room for room in hello["rooms"] if is_back and room not in self.ears.heads]
        for room, head in hello["rooms"].items():
            if room in missed:
                self.stage.ledger.owe(self.ears, room, 0, head)
                self.ask("room:sync", {"room": room, "after": 0}, partial(self._synced, room))
            else:
                self.stage.ledger.anchor(self.ears, room, head)
        self.is_ready = True
        if self._greeted is not None and not self._greeted.done():
            self._greeted.set_result(True)
        for asked in list(self.asked.values()):
            self._write(asked.frame)
        if self.play is not None:
            self.play.returned(self)

    def _synced(self, room: str, asked: Asked, data: Data | None, error: Data | None) -> None:
        """A room that came to be while this socket was cut: all that was said in it before."""
        for event in data["events"] if data else ():
            if self.stage.ledger.fill(self.ears, room, event["seq"]):
                self._hear_event(event["name"], event["payload"])

    def _hear_answer(self, number: int, answer: Data) -> None:
        asked = self.asked.get(number)
        if asked is None:
            self.stage.faults.note(Fault.STRANGE, f"{self.name} heard an answer to {number}, which was none")
            return
        if answer["ok"]:
            del self.asked[number]
            asked.then(asked, answer["data"], None)
            return
        error = answer["error"]
        code = error["code"]
        self.stage.span.failed(f"conflict: {error['reason']}" if code == "conflict" else code)
        if code in _TRANSIENT and not self.stage.is_over:
            delay = error.get("retry_after_ms", PATIENCE_S * 1000) / 1000
            asyncio.get_running_loop().call_later(delay, self._again, asked)
            return
        if code == "internal":
            self.stage.faults.note(Fault.BUG, f"{asked.frame[:80]!r}: {error.get('error_id')}")
        del self.asked[number]
        asked.then(asked, None, error)

    def _again(self, asked: Asked) -> None:
        """Ask once more what the server had no patience for; it counts from here."""
        asked.at = perf_counter()
        if asked.is_message:
            self.stage.ledger.again(asked.number, asked.at)
        if self.is_ready and asked.number in self.asked:
            self._write(asked.frame)
