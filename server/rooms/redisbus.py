"""The bus over Redis pub/sub: one channel a deployment, in which whatever happens in a turn travels together.

Not a channel a room: a command costs more than the whole rest of an event's way, and who watches a hundred thousand
rooms would have to name each of them after every reconnect. Every instance hears every frame, and
skips the events of rooms that nobody watches there for less than a microsecond each. In a cluster it is a sharded
channel, of the one node that has its slot.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterator
from typing import NamedTuple

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import RedisError

from server.outages import Outage
from server.rooms.bus import Receive
from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.origins import Origins
from server.rooms.redisnode import TIMEOUT_S, Nodes, ask, hear, subscribe
from server.rooms.sealing import Seal, key_of

RECONNECT_S = 0.5  # from one attempt to the next, or as long as the attempt takes: TIMEOUT_S at most
PROBE_S, UNANSWERED = 1.0, 3  # who does not hear so many of its own greetings is deaf or mute, whatever TCP says
GREET_SOON_S = 0.02  # after somebody was heard who has to be believed, or has to believe; at most so often
OUTBOX_EVENTS, OUTBOX_BYTES = 10_000, 8 * 2**20  # waiting for Redis; what comes on top is left to the log
TURN_BYTES, FRAME_COST = 64 * 1024, 640  # taken in one turn of the loop, where a frame counts as so much more
CANCEL_S = 0.1  # from one cancellation of a task to the next


class Lines(NamedTuple):
    """Connections to the server that has the channel: one that speaks, by the command `publish`, one that hears."""

    speaker: AbstractConnection
    listener: AbstractConnection
    publish: str


class RedisBus:
    """A bus whose instances share a Redis and the secret `key`.

    Events are gathered and sent together, those that come while a frame is under way with the next one. While Redis is
    away they are dropped and the state is degraded; it comes back by itself.
    """

    def __init__(self, url: str, key: bytes = b"") -> None:
        self._seal = Seal(key)
        self._origins = Origins(self._seal.origin)
        self._channel = self._seal.channel
        self._nodes = Nodes(url, self._channel)
        self._rooms: dict[bytes, Room] = {}
        self._outbox: list[Event] = []
        self._outbox_bytes = 0
        self._wake = asyncio.Event()
        self._is_to_greet = False
        self._will_greet = False
        self._task: asyncio.Task[None] | None = None
        self._is_connected = False
        self._hears_itself = False
        self._greetings: set[int] = set()  # by number, those of this connection that were not heard here yet
        self._unanswered = 0
        self._outage = Outage("redis_away", (RedisError, OSError, TimeoutError))
        self._refusals = Outage("frames_refused", (ValueError,))  # whoever sends many must not fill the log

    @property
    def state(self) -> str:
        return "ok" if self._is_connected and self._hears_itself else "degraded"

    async def start(self, receive: Receive) -> None:
        self._receive = receive
        self._task = asyncio.create_task(self._work_for_ever(), name="redis bus")

    async def stop(self) -> None:
        if self._task is not None:
            await _end([self._task])

    def publish(self, event: Event) -> None:
        size = self._outbox_bytes + event.size
        if self._is_connected and len(self._outbox) < OUTBOX_EVENTS and size <= OUTBOX_BYTES:
            self._outbox.append(event)
            self._outbox_bytes = size
            self._wake.set()

    def subscribe(self, room: Room) -> None:
        self._rooms[key_of(room)] = room

    def unsubscribe(self, room: Room) -> None:
        self._rooms.pop(key_of(room), None)

    async def _work_for_ever(self) -> None:
        """Speak and listen, by new connections whenever one of them fails: both, at whoever has the channel then.

        One alone might reach another Redis than the other one does, as behind an address that changes hands.
        """
        clock = asyncio.get_running_loop().time
        while True:
            since = clock()
            try:
                async with self._connected() as lines:
                    try:
                        await self._work(lines)
                    finally:
                        since = clock()
            except Exception as error:  # a bug, too: deaf for ever would be worse than late
                self._outage.failed(error)
            await asyncio.sleep(max(0.0, since + RECONNECT_S - clock()))

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Lines]:
        """A connection that speaks, and one that is subscribed. Raises TimeoutError where that takes long."""
        async with contextlib.AsyncExitStack() as closing:
            # Not wait_for: before Python 3.12 it forgets a cancellation that comes with the answer.
            async with asyncio.timeout(TIMEOUT_S):
                node = await self._nodes.connect()
                closing.push_async_callback(node.close)
                speaker, listener = await node.line(), await node.line()
                # Answered before anything is said, or else it might miss its first greeting.
                await subscribe(listener, "SSUBSCRIBE" if node.is_sharded else "SUBSCRIBE", self._channel)
                await ask(speaker, "PING")
            yield Lines(speaker, listener, "SPUBLISH" if node.is_sharded else "PUBLISH")

    async def _work(self, lines: Lines) -> None:
        """Publish, hear and probe until one of them fails; raises as that does."""
        self._greetings.clear()
        self._unanswered = 0
        self._is_connected = True
        works = (self._publish_for_ever(lines), self._hear_for_ever(lines), self._probe_for_ever())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            self._is_connected = self._hears_itself = False
            self._empty()
            await _end(tasks)

    async def _publish_for_ever(self, lines: Lines) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for frame in self._frames():
                async with asyncio.timeout(TIMEOUT_S):
                    await ask(lines.speaker, lines.publish, self._channel, frame)

    def _frames(self) -> Iterator[bytes]:
        """What is to be said now. A greeting comes first: with it who hears us believes what follows."""
        if self._is_to_greet:
            self._is_to_greet = False
            heard = self._origins.heard()
            self._origins.greeted(self._seal.number + 1)
            self._greetings.add(self._seal.number + 1)
            yield self._seal.greet(heard)
        yield from self._seal.close(self._empty())

    def _empty(self) -> list[Event]:
        """The events that wait, which do so no longer."""
        events, self._outbox, self._outbox_bytes = self._outbox, [], 0
        return events

    def _greet(self) -> None:
        self._will_greet = False
        self._is_to_greet = True
        self._wake.set()

    def _greet_soon(self) -> None:
        if not self._will_greet:
            self._will_greet = True
            asyncio.get_running_loop().call_later(GREET_SOON_S, self._greet)

    async def _hear_for_ever(self, lines: Lines) -> None:
        taken = 0
        while True:
            kind, data = await hear(lines.listener)
            if kind in (b"message", b"smessage"):
                self._take(data)
                taken += FRAME_COST + len(data)
                if taken >= TURN_BYTES:
                    taken = 0
                    await asyncio.sleep(0)  # it waits for nothing while more is there
            elif kind == b"sunsubscribe":
                raise Lost("the channel's slot has moved to another node")

    async def _probe_for_ever(self) -> None:
        """Greet, to be heard here again. Raises TimeoutError where it is not, as on a half-open connection.

        Probes are counted, not seconds: a loop that was held up has not heard what has come meanwhile.
        """
        while self._unanswered < UNANSWERED:
            self._unanswered += 1
            self._greet()
            await asyncio.sleep(PROBE_S)
        raise TimeoutError("Redis has fallen silent")

    def _take(self, data: bytes) -> None:
        try:
            if self._seal.is_own(data):
                self._take_own(data)
                return
            events = self._open(data)
        except ValueError as error:
            self._refusals.failed(error)
            return
        for event in events:
            self._receive(event)

    def _take_own(self, data: bytes) -> None:
        """Note that a greeting was heard here: only that proves that what is said here arrives.

        Raises ValueError where it is forged; what is played again is none of those that are waited for.
        """
        number = self._seal.number_of(data)
        if number in self._greetings:
            self._seal.open(data)
            self._greetings = {later for later in self._greetings if later > number}
            self._unanswered = 0
            self._hears_itself = True
            self._outage.over()

    def _open(self, data: bytes) -> list[Event]:
        """The events in a frame that are of rooms watched here; none where it may be of long ago.

        Raises ValueError where it is forged or played again.
        """
        frame = self._seal.open(data)
        if self._origins.hear(frame.origin, frame.number, frame.greeting):
            self._greet_soon()
        return frame.events(self._rooms) if self._origins.is_believed(frame.origin) else []


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    """End tasks; again where one lives on: Redis' client may forget a cancellation that comes with an answer."""
    living = set(tasks)
    while living:
        for task in living:
            task.cancel()
        _, living = await asyncio.wait(living, timeout=CANCEL_S)
    await asyncio.gather(*tasks, return_exceptions=True)
