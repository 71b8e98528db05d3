"""How events travel between instances: fast, and allowed to lose. The log makes good whatever is lost here.

Two implementations with one contract, checked by one test suite: `LocalBus` within a process, `RedisBus` over Redis
pub/sub. The contract: what is published reaches `receive` of the other started buses that subscribe to its room, at
most once each, the publisher not included; nothing here raises towards the publisher, and nothing waits.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Protocol
from uuid import UUID

import msgpack
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from server.rooms.log import Event
from server.rooms.names import Room
from storage import Time

Receive = Callable[[Event], None]

RECONNECT_S = 0.5
TIMEOUT_S = 1.0
PING_S, UNANSWERED = 1.0, 3  # a connection to which nothing has come for so many pings is dead, whatever TCP says
OUTBOX_EVENTS = 10_000  # waiting for Redis; what comes on top is left to the log
CHANNEL = "parley:room:"

logger = structlog.get_logger("parley.bus")


class Bus(Protocol):
    """Carries events between instances."""

    async def start(self, receive: Receive) -> None:
        """Begin to receive. Does not wait for a broker that is down."""

    async def stop(self) -> None:
        """Stop receiving and free everything."""

    def publish(self, event: Event) -> None:
        """Send an event to the other instances."""

    def subscribe(self, room: Room) -> None:
        """Receive the events of a room from now on."""

    def unsubscribe(self, room: Room) -> None:
        """Receive the events of a room no more."""

    @property
    def state(self) -> str:
        """`ok`, or `degraded` while events reach other instances through the log alone."""


class LocalHub:
    """What the buses of one process meet on."""

    def __init__(self) -> None:
        self.buses: set[LocalBus] = set()


class LocalBus:
    """The bus within one process: an instance of its own has a hub of its own."""

    state = "ok"

    def __init__(self, hub: LocalHub | None = None) -> None:
        self._hub = hub or LocalHub()
        self._rooms: set[Room] = set()
        self._receive: Receive | None = None

    async def start(self, receive: Receive) -> None:
        self._receive = receive
        self._hub.buses.add(self)

    async def stop(self) -> None:
        self._hub.buses.discard(self)

    def publish(self, event: Event) -> None:
        for other in self._hub.buses:
            if other is not self:
                other.take(event)

    def take(self, event: Event) -> None:
        """Receive what another bus of the hub has published, in a turn of the loop of its own."""
        if self._receive is not None and event.room in self._rooms:
            asyncio.get_running_loop().call_soon(self._receive, event)

    def subscribe(self, room: Room) -> None:
        self._rooms.add(room)

    def unsubscribe(self, room: Room) -> None:
        self._rooms.discard(room)


def encode(origin: bytes, event: Event) -> bytes:
    """An event as it travels: who sent it, and the event with its payload as it was encoded for the log."""
    room = event.room
    packed: bytes = msgpack.packb((origin, room.kind, room.id.bytes, event.seq, event.at, event.name, event.payload))
    return packed


def decode(frame: bytes) -> tuple[bytes, Event]:
    """The sender and the event of a frame. Raises ValueError where it is none of ours."""
    try:
        origin, kind, room_id, seq, at, name, payload = msgpack.unpackb(frame)
        parts = [type(part) for part in (origin, room_id, seq, kind, at, name, payload)]
        if parts != [bytes, bytes, int, str, str, str, str]:
            raise TypeError("a part of another type")
        return origin, Event(Room(kind, UUID(bytes=room_id)), seq, Time(at), name, payload)
    except (TypeError, ValueError, msgpack.exceptions.UnpackException) as error:
        raise ValueError("not an event's frame") from error


class RedisBus:
    """The bus over Redis pub/sub, a channel a room.

    Publishing and subscribing are gathered and sent together, one round trip for what came while the last was under
    way. While Redis is away, events are dropped and the state is degraded; it comes back by itself.
    """

    def __init__(self, url: str) -> None:
        self._origin = os.urandom(8)
        self._url = url
        self._rooms: dict[str, bool] = {}  # channel → whether Redis has been told
        self._gone: set[str] = set()
        self._outbox: list[Event] = []
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._publishing = False
        self._listening = False
        self._unanswered = 0

    @property
    def state(self) -> str:
        return "ok" if self._publishing and self._listening else "degraded"

    async def start(self, receive: Receive) -> None:
        self._receive = receive
        self._tasks = [
            asyncio.create_task(self._keep(self._publish_for_ever), name="redis publish"),
            asyncio.create_task(self._keep(self._listen_for_ever), name="redis listen"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def publish(self, event: Event) -> None:
        if self._publishing and len(self._outbox) < OUTBOX_EVENTS:
            self._outbox.append(event)
            self._wake.set()

    def subscribe(self, room: Room) -> None:
        channel = CHANNEL + str(room)
        if channel in self._gone:  # Redis still has it
            self._gone.remove(channel)
            self._rooms[channel] = True
        elif channel not in self._rooms:
            self._rooms[channel] = False
            self._changed.set()

    def unsubscribe(self, room: Room) -> None:
        channel = CHANNEL + str(room)
        if self._rooms.pop(channel, False):
            self._gone.add(channel)
            self._changed.set()

    async def _keep(self, work: Callable[[Redis], Awaitable[None]]) -> None:
        """Run `work` on a client of its own, anew whenever Redis fails it."""
        while True:
            # No retries within the client: a failure has to show in `state`, and the loop here comes back.
            client = Redis.from_url(
                self._url, socket_connect_timeout=TIMEOUT_S, socket_timeout=None, retry=Retry(NoBackoff(), 0)
            )
            try:
                await work(client)
            except (RedisError, OSError, TimeoutError) as error:
                logger.warning("redis_away", error=str(error) or type(error).__name__)
            except Exception:
                logger.exception("bus_failed")  # a bug; deaf for ever would be worse than late
            finally:
                with contextlib.suppress(RedisError, OSError):
                    await client.aclose()
            await asyncio.sleep(RECONNECT_S)

    async def _publish_for_ever(self, client: Redis) -> None:
        try:
            # Not wait_for: before Python 3.12 it forgets a cancellation that comes with the answer.
            async with asyncio.timeout(TIMEOUT_S):
                await client.ping()
            self._outbox.clear()
            self._publishing = True
            while True:
                await self._wake.wait()
                self._wake.clear()
                events, self._outbox = self._outbox, []
                pipeline = client.pipeline(transaction=False)
                for event in events:
                    pipeline.publish(CHANNEL + str(event.room), encode(self._origin, event))
                async with asyncio.timeout(TIMEOUT_S):
                    await pipeline.execute()
        finally:
            self._publishing = False

    async def _listen_for_ever(self, client: Redis) -> None:
        pubsub = client.pubsub()
        try:
            for channel in self._rooms:
                self._rooms[channel] = False
            self._gone.clear()
            # One channel of our own keeps the subscription alive while no room is watched.
            async with asyncio.timeout(TIMEOUT_S):
                await pubsub.subscribe(CHANNEL + self._origin.hex())
            self._changed.set()
            work = (self._hear_for_ever, self._tell_for_ever, self._ping_for_ever)
            tasks = [asyncio.create_task(part(pubsub)) for part in work]
            try:
                ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._listening = False
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _hear_for_ever(self, pubsub: PubSub) -> None:
        async for message in pubsub.listen():
            self._listening = True
            self._unanswered = 0
            if message["type"] == "message":
                self._take(message["data"])

    async def _ping_for_ever(self, pubsub: PubSub) -> None:
        """Ask for signs of life. Raises TimeoutError where none comes, as on a half-open connection.

        Pings are counted, not seconds: a loop that was held up has not heard what has come meanwhile.
        """
        self._unanswered = 0
        while self._unanswered < UNANSWERED:
            self._unanswered += 1
            async with asyncio.timeout(TIMEOUT_S):
                await pubsub.ping()
            await asyncio.sleep(PING_S)
        raise TimeoutError("Redis has fallen silent")

    async def _tell_for_ever(self, pubsub: PubSub) -> None:
        """Tell Redis which rooms are watched now, all that changed at once."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = [channel for channel, told in self._rooms.items() if not told]
            gone, self._gone = self._gone, set()
            for channel in wanted:
                self._rooms[channel] = True
            if wanted:
                await pubsub.subscribe(*wanted)
            if gone:
                await pubsub.unsubscribe(*gone)

    def _take(self, frame: bytes) -> None:
        try:
            origin, event = decode(frame)
        except ValueError:
            logger.warning("bad_frame", size=len(frame))
            return
        if origin != self._origin:
            self._receive(event)
