"""Clients that go on whatever happens, as docs/clients.md has it, and keep the history of what they did and heard.

Each sends one message at a time, again under the same client_id until it is acknowledged; it returns when it is cut,
names the last seq that it has of each room, and takes what comes by seq. What is to be loaded afresh it reads by
room:sync, from where it stood, so that its view of a room is the whole log in the end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any

import msgspec
import orjson

from server.cli.load import packets
from server.cli.load.frames import Malformed
from server.cli.load.line import Cut
from server.cli.load.packets import ConnectError, Hello
from tests.faults.crowd import Someone
from tests.faults.history import Away, History, Invocation, Outcome, Return, Seen, digest
from tests.faults.lines import Door, Draining, Synced, Wire

ANSWER_S = 2.0  # a command that has no answer by then is sent again; phones wait longer, and find out later
SILENCE_S = 1.0  # beside the heartbeat's interval and patience
DIAL_S = 2.0
BACK_S = 0.5  # a client that was cut returns between half of that and all of it
LOOK_S = 0.1
PAGE = 500
WORD = " and so on"


@dataclass
class Client:
    """Somebody's phone. It talks from `talk` to `hush`, and stays connected from `start` to `leave`."""

    who: Someone
    doors: Sequence[Door]
    history: History
    pause_s: float = 0.0
    excused: set[str] = field(default_factory=set)
    """Codes that count as no answer, for as long as a fault lasts of which nothing better can be expected."""
    is_doubling: bool = False
    """Whether everything is sent twice at once."""
    heartbeat_s: float = 2.0
    """The heartbeat's interval and patience: who hears nothing for longer than that has lost its connection."""
    words: int = 0
    """How many it adds to what it says, of ten bytes each."""
    wire: Wire | None = None
    epoch: str | None = None
    sending: Invocation | None = None
    _is_talking: bool = False
    _is_gone: bool = False
    _door: int = 0
    _count: int = 0
    _number: int = 0
    _draining_s: float | None = None
    _asked: dict[int, Invocation | str] = field(default_factory=dict)
    _syncing: dict[str, list[tuple[str, bytes, int]]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _timer: asyncio.TimerHandle | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it is connected and has been greeted."""
        return self.wire is not None and self.wire.is_greeted

    def positions(self) -> dict[str, int]:
        """The last seq that it has of each of its rooms."""
        return {room: self.history.view(self.who.name, room).position for room in self.rooms()}

    @property
    def door(self) -> Door:
        """The one by which it is connected, or tries to be."""
        return self.doors[self._door % len(self.doors)]

    def rooms(self) -> list[str]:
        """The conversations' rooms."""
        return [f"conversation:{each}" for each in self.who.conversation_ids]

    # what a round asks

    def start(self, door: int = 0) -> None:
        """Connect, by that door first."""
        self._door = door
        self._dial()
        self._spawn(self._watch())

    def talk(self) -> None:
        """Send one message after the other."""
        self._is_talking = True
        self._next()

    def hush(self) -> None:
        """Send no further message; the one under way is sent until it is acknowledged."""
        self._is_talking = False

    async def leave(self) -> None:
        """Go, for good."""
        self._is_gone = True
        if self._timer is not None:
            self._timer.cancel()
        if self.wire is not None:
            self.wire.line.end(Cut("left"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # connecting

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _dial(self) -> None:
        self.wire = Wire(self, self.door)
        self._spawn(self._dialled(self.wire))

    async def _dialled(self, wire: Wire) -> None:
        try:
            async with asyncio.timeout(DIAL_S):
                await wire.line.dial()
        except (OSError, TimeoutError):
            wire.cut(Cut("not reached"))

    def lost(self, least_s: float) -> None:
        """The connection is gone: what was asked has no answer, and it returns by the next door."""
        was_ready, self.wire = self.is_ready, None
        for asked in self._asked.values():
            if isinstance(asked, Invocation) and not asked.ended:
                asked.end(Outcome.UNKNOWN, "cut")
        self._asked.clear()
        self._syncing.clear()
        if self._is_gone:
            return
        if was_ready:
            self.history.aways.setdefault(self.who.name, []).append(Away(monotonic()))
        self._door += 1
        delay = BACK_S * random.uniform(0.5, 1.0) if self._draining_s is None else self._draining_s
        self._draining_s = None
        self._timer = asyncio.get_running_loop().call_later(max(least_s, delay), self._dial)

    async def _watch(self) -> None:
        """See to what never comes: a hello, a heartbeat, an answer."""
        while True:
            await asyncio.sleep(LOOK_S)
            wire, sending = self.wire, self.sending
            if wire is not None and wire.idle_s > self.heartbeat_s + SILENCE_S:
                wire.line.end(Cut("silence"))
                self.lost(0.0)
            elif sending is not None and not sending.ended and monotonic() - sending.began > ANSWER_S:
                sending.end(Outcome.UNKNOWN, "no answer")
                self._again()

    # packets

    def hear(self, wire: Wire, packet: bytes) -> None:
        """A packet. Raises `Malformed`."""
        kind = packet[:2]
        if kind == b"42":
            self._hear_event(wire, packet)
        elif kind == b"43":
            self._hear_answer(packet)
        elif kind == b"44":
            refused = packets.decode(packet[2:], ConnectError).data
            if refused.code not in ("unavailable", "rate_limited"):
                self.history.strange.append(f"turned away: {self.who.name}, {refused.code}")
            wire.retry_after_s = (refused.retry_after_ms or 0.0) / 1000
            wire.line.end(Cut("refused"))
        elif kind == b"41":
            wire.line.end(Cut("disconnected"))
        elif kind != b"40":
            raise Malformed(f"no packet: {packet[:80]!r}")

    def _hear_event(self, wire: Wire, packet: bytes) -> None:
        end = packet.find(b'"', 4)
        name, at = packet[4:end].decode(), packet.rfind(b',{"room":')
        if at < 0:
            if name == "hello":
                self._hear_hello(wire, packets.decode(packet[end + 2 : -1], Hello))
            return
        place = packets.place_of(packet)
        if name == "server:draining":
            self._draining_s = packets.decode(packet[end + 2 : at], Draining).reconnect_in_ms / 1000
        if not place.seq:
            return
        if not wire.is_greeted:
            self.history.strange.append(f"early: {self.who.name} heard {name} before hello")
        last = wire.pushed.get(place.room, place.seq - 1)
        if place.seq != last + 1:
            self.history.strange.append(f"turn: {self.who.name} was pushed {place.seq} of {place.room} after {last}")
        wire.pushed[place.room] = max(last, place.seq)
        self._follow(place.room, name, packet[end + 2 : at], place.seq)

    def _follow(self, room: str, name: str, payload: bytes, seq: int) -> None:
        """Take what was pushed if it is the next; skip what a page had already, and read what is missing."""
        view = self.history.view(self.who.name, room)
        if (kept := self._syncing.get(room)) is not None:
            kept.append((name, payload, seq))
        elif seq == view.position + 1:
            view.seen.append(Seen(seq, digest(name, payload), monotonic()))
        elif seq <= view.position:
            if view.seen[seq - 1].digest != digest(name, payload):
                self.history.strange.append(f"other: {self.who.name} was pushed another {seq} of {room} than it has")
        elif room in self.rooms():
            self._sync(room)
            self._syncing[room].append((name, payload, seq))

    def _hear_hello(self, wire: Wire, hello: Hello) -> None:
        if wire.is_greeted:
            self.history.strange.append(f"hello: {self.who.name} was greeted twice")
        wire.is_greeted = True
        self.history.returns.append(Return(self.who.name, wire.afters, hello.rooms, hello.reset, hello.epoch))
        wire.pushed = hello.rooms | {room: after for room, after in wire.afters.items() if room not in hello.reset}
        self.epoch = hello.epoch
        for room in self.rooms():
            if room not in hello.rooms:
                self.history.strange.append(f"absent: {self.who.name} was not let back into {room}")
            elif room in hello.reset:
                self._sync(room)
        for away in self.history.aways.get(self.who.name, ()):
            away.ended = away.ended or monotonic()
        self._again()

    def _ask(self, name: str, payload: object, asked: Invocation | str) -> None:
        self._number += 1
        self._asked[self._number] = asked
        assert self.wire is not None
        self.wire.line.send(b"42%d" % self._number + orjson.dumps([name, payload]))

    def _sync(self, room: str) -> None:
        """Read what was missed of a room; what is pushed meanwhile is kept until then."""
        self._syncing.setdefault(room, [])
        after = self.history.view(self.who.name, room).position
        self._ask("room:sync", {"room": room, "after": after, "limit": PAGE}, room)

    def _synced(self, room: str, packet: bytes) -> None:
        (answer,) = msgspec.json.decode(packet[packet.index(b"[") :], type=list[Synced])
        if answer.data is None or answer.data.reset:
            if answer.data is not None:
                self.history.strange.append(f"reset: {self.who.name} can't load {room}")
            asyncio.get_running_loop().call_later(BACK_S, partial(self._sync_again, self.wire, room))
            return
        view = self.history.view(self.who.name, room)
        for event in answer.data.events:
            if event.seq == view.position + 1:
                view.seen.append(Seen(event.seq, digest(event.name, bytes(event.payload)), monotonic()))
            else:
                self.history.strange.append(f"turn: {self.who.name} read {event.seq} of {room} after {view.position}")
        if answer.data.more:
            self._sync(room)
            return
        for name, payload, seq in self._syncing.pop(room):
            self._follow(room, name, payload, seq)

    def _sync_again(self, wire: Wire | None, room: str) -> None:
        if self.wire is wire and self.is_ready:
            self._sync(room)

    # sending

    def _next(self) -> None:
        """Send the next message."""
        if not self._is_talking or self._is_gone or self.sending is not None:
            return
        self._count += 1
        chat = self.who.conversation_ids[self._count % len(self.who.conversation_ids)]
        key = f"{self.who.name}-{self._count}"
        text = f"This is {key}." + WORD * self.words
        self.sending = Invocation(self.who.user_id, chat, key, monotonic(), text=text)
        self.sending.end(Outcome.FAIL, "not sent")
        self._again()

    def _again(self) -> None:
        """Send what is to be sent, if there is a connection: each try is an invocation of its own."""
        last = self.sending
        if last is None or not self.is_ready or not last.ended:
            return
        for _ in range(2 if self.is_doubling else 1):
            self.sending = Invocation(last.sender_id, last.conversation_id, last.client_id, monotonic(), text=last.text)
            self.history.invocations.append(self.sending)
            self._ask(
                "message:send",
                {
                    "conversation_id": last.conversation_id,
                    "client_id": last.client_id,
                    "text": last.text,
                },
                self.sending,
            )

    def _hear_answer(self, packet: bytes) -> None:
        number = int(packet[2 : packet.index(b"[")])
        asked = self._asked.pop(number, None)
        if asked is None:
            self.history.strange.append(f"answer: {self.who.name} heard one to {number}, which was asked no more")
            return
        if isinstance(asked, str):
            self._synced(asked, packet)
            return
        _, answer = packets.answer_of(packet)
        if answer.data is not None and answer.ok:
            asked.message_id, asked.seq = answer.data["message_id"], answer.data["seq"]
            asked.end(Outcome.OK)
            if self.sending is not None and self.sending.client_id == asked.client_id:
                self.sending = None
                asyncio.get_running_loop().call_later(self.pause_s * random.uniform(0.5, 1.5), self._next)
            return
        error = answer.error
        assert error is not None
        is_open = error.code == "unavailable" or error.code in self.excused
        asked.end(Outcome.UNKNOWN if is_open else Outcome.FAIL, error.code)
        if not is_open and error.code != "rate_limited":
            self.history.strange.append(f"refused: {self.who.name} was told {error.code}: {error.message}")
        if asked is self.sending:
            delay = max(BACK_S / 2, (error.retry_after_ms or 0.0) / 1000)
            asyncio.get_running_loop().call_later(delay * random.uniform(0.5, 1.0), self._again)


async def settled(clients: Iterable[Client], heads: dict[str, int]) -> None:
    """Wait until every client has all events of its rooms, and nothing under way; `heads` by conversation."""
    for client in clients:
        rooms = [(room, heads[room.partition(":")[2]]) for room in client.rooms()]
        while client.sending is not None or any(client.positions()[room] < head for room, head in rooms):
            await asyncio.sleep(LOOK_S / 10)
