"""Somebody who asks and listens: Socket.IO as a phone speaks it. Where they are cut they return and resume."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Protocol

import orjson

from server.cli.load import packets
from server.cli.load.faults import Fault
from server.cli.load.frames import Malformed
from server.cli.load.ledger import Ears, Sent
from server.cli.load.line import Cut, Line, Server
from server.cli.load.measure import add
from server.cli.load.packets import ConnectError, Data, Error, Hello, Opened, Place, Synced
from server.cli.load.stage import Stage

RETURN_S = 0.5  # until a socket that was cut comes back, and after `unavailable`
MOST_ROOMS = 1_000  # of a connect
PAGE = 1_000  # events, of one room:sync
_TRANSIENT = ("rate_limited", "unavailable")


class Play(Protocol):
    """What a person takes part in."""

    def pushed(self, person: "Person", name: str, payload: Data, *, is_late: bool) -> None:
        """The person heard something that is no message, `is_late` where they had missed it. Raises `Malformed`."""

    def returned(self, person: "Person") -> None:
        """The person is back, after a cut."""


class Asked:
    """A command on its way, asked last `at`, and so often. `then` is given it, with its data or the error.

    While it waits to be asked again, because the server wants patience, `again` is what it waits for.
    """

    __slots__ = ("again", "at", "frame", "is_message", "number", "then", "times")

    def __init__(self, number: int, frame: bytes, then: "Then", at: float, *, is_message: bool) -> None:
        self.number = number
        self.frame = frame
        self.then = then
        self.at = at
        self.times = 0
        self.again: asyncio.TimerHandle | None = None
        self.is_message = is_message


Then = Callable[[Asked, Data | None, Error | None], None]


class Person:
    """Somebody with a socket; `refusal` is why they have none."""

    def __init__(self, stage: Stage, name: str, token: str, server: Server) -> None:
        self.stage = stage
        self.name = name
        self.ears = stage.ledger.ears(name)
        self.user_id = ""
        self.play: Play | None = None
        self.asked: dict[int, Asked] = {}
        self.is_ready = False
        self.refusal = Cut("")
        self._token = token
        self._server = server
        self._line: Line | None = None
        self._epoch: str | None = None
        self._named: dict[str, int] = {}
        self._greeted: asyncio.Future[bool] | None = None
        self._returning: asyncio.Task[None] | None = None

    # what a play calls

    def ask(self, name: str, payload: Data, then: Then, *, at: float | None = None) -> None:
        """Send a command, once more where the server asks for patience, or the socket was cut."""
        number = self.stage.number()
        body = orjson.dumps([name, payload]).decode()
        self._send(Asked(number, f"42{number}{body}".encode(), then, at or perf_counter(), is_message=False))

    def say(self, room: str, members: Sequence[Ears], then: Then, *, at: float | None = None) -> None:
        """Send a message to a conversation, of which the ledger keeps account."""
        stage, number, now = self.stage, self.stage.number(), at or perf_counter()
        chat, text = room.partition(":")[2], stage.text_of(number)
        packet = (
            f'42{number}["message:send",{{"conversation_id":"{chat}",'
            f'"client_id":"{stage.prefix}{number}","text":"{text}"}}]'
        )
        stage.ledger.say(Sent(number, room, members, now, (chat, self.user_id, text)))
        stage.span.sent += 1
        self._send(Asked(number, packet.encode(), then, now, is_message=True))

    def _send(self, asked: Asked) -> None:
        self.asked[asked.number] = asked
        self._write(asked)

    def _write(self, asked: Asked) -> None:
        if self.is_ready and self._line is not None:
            asked.times += 1
            self._line.send(asked.frame)

    # connecting

    async def connect(self) -> bool:
        """Whether it was let in and greeted; `refusal` says why it was not. Raises OSError."""
        self._greeted = asyncio.get_running_loop().create_future()
        self.refusal = Cut("")
        self._line = Line(self._server, self)
        await self._line.dial()
        return await self._greeted

    def leave(self) -> None:
        """Go, for good."""
        if self._returning is not None:
            self._returning.cancel()
        if self._line is not None:
            self._line.leave()

    def opened(self) -> None:
        """Engine.IO stands: say who it is, and where they stood, the newest rooms where there are too many."""
        heads, mine = self.ears.heads, f"user:{self.user_id}"
        others = [room for room in heads if room != mine][1 - MOST_ROOMS :]
        self._named = {room: heads[room] for room in (mine, *others) if room in heads}
        auth = {"token": self._token, "epoch": self._epoch, "rooms": self._named}
        assert self._line is not None
        self._line.send(b"40" + orjson.dumps(auth))

    def misheard(self, error: Malformed) -> None:
        """Note what came instead of a packet."""
        self.stage.faults.note(Fault.STRANGE, f"{self.name} heard what is no packet: {error}"[:300])

    def cut(self, cut: Cut) -> None:
        """The socket is gone: what waited for its hello hears so, what was ready comes back."""
        was_ready, self.is_ready, self.refusal = self.is_ready, False, cut
        if self._greeted is not None and not self._greeted.done():
            self._greeted.set_result(False)
        elif was_ready and not self.stage.is_over:
            self.stage.reconnects += 1
            self._returning = asyncio.get_running_loop().create_task(self._return())

    async def _return(self) -> None:
        while not (self.is_ready or self.stage.is_over):
            await asyncio.sleep(max(RETURN_S, self.refusal.retry_after_s or 0.0))
            try:
                if await self.connect():
                    break
                self.stage.span.failed(f"connect: {self.refusal.why}")
            except OSError as error:
                self.stage.span.failed(f"connect: {type(error).__name__}")

    # packets in

    def heard(self, packet: bytes) -> None:
        """A packet: an event, an answer, or the server's word on the connection. Raises `Malformed`."""
        kind = packet[:2]
        if packet.startswith(b'42["message:created",'):
            self._hear_message(packet, packets.place_of(packet))
        elif kind == b"42":
            self._hear_event(*packets.event_of(packet))
        elif kind == b"43":
            self._hear_answer(*packets.answer_of(packet))
        elif kind == b"44":
            error = packets.decode(packet[2:], ConnectError)
            wait_ms = error.data.retry_after_ms
            self._end(Cut(f"{error.data.code}: {error.message}", None if wait_ms is None else wait_ms / 1000))
        elif kind == b"41":
            self._end(Cut("the server disconnected it"))
        elif kind != b"40":
            raise Malformed(f"no packet: {packet[:80]!r}")

    def _end(self, cut: Cut) -> None:
        if self._line is not None:
            self._line.end(cut)

    def _hear_message(self, packet: bytes, place: Place, *, is_late: bool = False) -> None:
        """A message, of which nothing is decoded but its place and its number: there are many of them."""
        stage, now = self.stage, perf_counter()
        number = packets.number_of(packet, stage.mark)
        if not is_late:
            sent = stage.ledger.hear(self.ears, place.room, place.seq, number)
        elif number is not None:
            sent = stage.ledger.reach(self.ears, place.room, place.seq, number)
        else:
            return
        if sent is not None:
            stage.span.delivered += 1
            add(stage.span.delivery_s, now - sent.at)
            if not packets.says(packet, *sent.words):
                what = f"{self.name} heard message {sent.number} with another text, sender or conversation"
                stage.faults.note(Fault.ALTERED, f"{what}: {packet[:300].decode(errors='replace')}")

    def _hear_event(self, name: str, payload: Data, place: Place, *, is_late: bool = False) -> None:
        if name == "hello":
            self._hear_hello(packets.read(payload, Hello))
            return
        if place.seq and not is_late:
            self.stage.ledger.hear(self.ears, place.room, place.seq)
        if name == "conversation:created":
            opened = packets.read(payload, Opened)
            self.stage.ledger.anchor(self.ears, f"conversation:{opened.conversation_id}", opened.head_seq)
        if self.play is not None:
            self.play.pushed(self, name, payload, is_late=is_late)

    def _hear_hello(self, hello: Hello) -> None:
        """Where it stands; of rooms that are to be loaded afresh, or are new since a cut, it asks what was missed."""
        ledger, ears, is_back = self.stage.ledger, self.ears, bool(self._named)
        self.user_id, self._epoch = hello.user_id, hello.epoch
        for room in [room for room in ears.heads if is_back and room not in hello.rooms]:
            ledger.forget(ears, room)
            if room in self._named:
                self.stage.faults.note(Fault.ABSENT, f"{self.name} was not let back into {room}")
        for room, head in hello.rooms.items():
            known = ears.heads.get(room)
            if is_back and (known is None or room in hello.reset or room not in self._named):
                ledger.owe(ears, room, known or 0, head)
                self._sync(room, known or 0)
            else:
                ledger.anchor(ears, room, head)
        self.is_ready = True
        if self._greeted is not None and not self._greeted.done():
            self._greeted.set_result(True)
        for asked in list(self.asked.values()):
            if asked.again is None:
                self._write(asked)
        if self.play is not None:
            self.play.returned(self)

    def _sync(self, room: str, after: int) -> None:
        self.ask("room:sync", {"room": room, "after": after, "limit": PAGE}, partial(self._synced, room))

    def _synced(self, room: str, asked: Asked, data: Data | None, error: Error | None) -> None:
        """What came in a room while this socket was cut, a page at a time."""
        page = packets.read(data, Synced) if data is not None else None
        if page is None or page.reset:
            why = error.name if error is not None else "it is gone"
            self.stage.faults.note(Fault.ABSENT, f"{self.name} could not load what was missed of {room}: {why}")
            return
        for event in page.events:
            if self.stage.ledger.fill(self.ears, room, event.seq):
                place = Place(room, event.seq)
                if event.name == "message:created":
                    self._hear_message(orjson.dumps(event.payload), place, is_late=True)
                else:
                    self._hear_event(event.name, event.payload, place, is_late=True)
        if page.more and page.events:
            self._sync(room, page.events[-1].seq)

    def _hear_answer(self, number: int, answer: packets.Answer) -> None:
        asked = self.asked.get(number)
        if asked is None or asked.again is not None:
            self.stage.faults.note(Fault.STRANGE, f"{self.name} heard an answer to {number}, which was none")
            return
        error = answer.error
        if error is not None and error.code in _TRANSIENT and not self.stage.is_over:
            self.stage.span.failed(error.code)
            delay = RETURN_S if error.retry_after_ms is None else error.retry_after_ms / 1000
            is_limit = error.code == "rate_limited"
            asked.again = asyncio.get_running_loop().call_later(delay, partial(self._again, asked, is_limit=is_limit))
            return
        del self.asked[number]
        if error is not None and error.code == "internal":
            self.stage.faults.note(Fault.BUG, f"{asked.frame[:80]!r}: {error.error_id}")
        asked.then(asked, answer.data, error)

    def _again(self, asked: Asked, *, is_limit: bool) -> None:
        """Ask once more what the server had no patience for; behind a limit, which is ours to keep, it counts anew."""
        asked.again = None
        if is_limit:
            asked.at = perf_counter()
            if asked.is_message:
                self.stage.ledger.again(asked.number, asked.at)
        self._write(asked)


def refuse(person: Person, asked: Asked, error: Error, *, allowed: Any = ()) -> None:
    """Count a refusal, for which there has to be a reason of those that are `allowed`."""
    person.stage.span.failed(error.name)
    if error.code not in allowed:
        what = f"{person.name}: {asked.frame[:80].decode(errors='replace')}: {error.name} {error.message}"
        person.stage.faults.note(Fault.REFUSED, what)
