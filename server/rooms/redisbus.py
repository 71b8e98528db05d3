"""The bus over Redis pub/sub: one channel a deployment, in which whatever happens in a turn travels together.

Not a channel a room: a command of Redis' client costs more than the whole rest of an event's way, and who watches a
hundred thousand rooms would have to name each of them after every reconnect. Every instance hears every frame, and
skips the events of rooms that nobody watches there for less than a microsecond each. In a cluster it is a sharded
channel, of the one node that has its slot.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import RedisError

from server.rooms.bus import Receive
from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.origins import Origins
from server.rooms.redisnode import TIMEOUT_S, Node, Nodes
from server.rooms.sealing import Seal, key_of

RECONNECT_S = 0.5
PROBE_S, UNANSWERED = 1.0, 3  # who does not hear so many of its own frames is deaf, whatever TCP says
GREET_SOON_S = 0.02  # after somebody was heard who has to be believed, or has to believe; at most so often
OUTBOX_EVENTS = 10_000  # waiting for Redis; what comes on top is left to the log
REFUSED_LOG_S = 10.0  # between two lines about frames that were refused

logger = structlog.get_logger("parley.bus")


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
        self._wake = asyncio.Event()
        self._is_to_greet = False
        self._will_greet = False
        self._tasks: list[asyncio.Task[None]] = []
        self._publishing = False
        self._listening = False
        self._unanswered = 0
        self._refused = 0
        self._refused_at = 0.0

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
        self._rooms[key_of(room)] = room

    def unsubscribe(self, room: Room) -> None:
        self._rooms.pop(key_of(room), None)

    async def _keep(self, work: Callable[[Node], Awaitable[None]]) -> None:
        """Run `work` on a client of its own, anew whenever Redis fails it: at whoever has the channel then."""
        while True:
            try:
                node = await self._nodes.connect()
                try:
                    await work(node)
                finally:
                    with contextlib.suppress(RedisError, OSError):
                        await node.client.aclose()
            except (RedisError, OSError, TimeoutError) as error:
                logger.warning("redis_away", error=str(error) or type(error).__name__)
            except Exception:
                logger.exception("bus_failed")  # a bug; deaf for ever would be worse than late
            await asyncio.sleep(RECONNECT_S)

    async def _publish_for_ever(self, node: Node) -> None:
        publish = node.client.spublish if node.is_sharded else node.client.publish
        try:
            # Not wait_for: before Python 3.12 it forgets a cancellation that comes with the answer.
            async with asyncio.timeout(TIMEOUT_S):
                await node.client.ping()
            self._outbox.clear()
            self._publishing = True
            self._greet()
            while True:
                await self._wake.wait()
                self._wake.clear()
                for frame in self._frames():
                    async with asyncio.timeout(TIMEOUT_S):
                        await publish(self._channel, frame)
        finally:
            self._publishing = False

    def _frames(self) -> Iterator[bytes]:
        """What is to be said now. A greeting comes first: with it who hears us believes what follows."""
        if self._is_to_greet:
            self._is_to_greet = False
            heard = self._origins.heard()
            self._origins.greeted(self._seal.number + 1)
            yield self._seal.greet(heard)
        events, self._outbox = self._outbox, []
        yield from self._seal.close(events)

    def _greet(self) -> None:
        self._will_greet = False
        self._is_to_greet = True
        self._wake.set()

    def _greet_soon(self) -> None:
        if not self._will_greet:
            self._will_greet = True
            asyncio.get_running_loop().call_later(GREET_SOON_S, self._greet)

    async def _listen_for_ever(self, node: Node) -> None:
        pubsub = node.client.pubsub()
        subscribe = pubsub.ssubscribe if node.is_sharded else pubsub.subscribe
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await subscribe(self._channel)
            tasks = [asyncio.create_task(self._hear_for_ever(pubsub)), asyncio.create_task(self._probe_for_ever())]
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
            if message["type"] in ("message", "smessage"):
                self._take(message["data"])
            elif message["type"] == "sunsubscribe":
                raise Lost("the channel's slot has moved to another node")

    async def _probe_for_ever(self) -> None:
        """Greet, to be heard here again. Raises TimeoutError where it is not, as on a half-open connection.

        Probes are counted, not seconds: a loop that was held up has not heard what has come meanwhile.
        """
        self._unanswered = 0
        while self._unanswered < UNANSWERED:
            if self._publishing:
                self._unanswered += 1
                self._greet()
            await asyncio.sleep(PROBE_S)
        raise TimeoutError("Redis has fallen silent")

    def _take(self, data: bytes) -> None:
        if self._seal.is_own(data):
            return
        try:
            events = self._open(data)
        except ValueError as error:
            self._refuse(error)
            return
        for event in events:
            self._receive(event)

    def _open(self, data: bytes) -> list[Event]:
        """The events in a frame that are of rooms watched here; none where it may be of long ago.

        Raises ValueError where it is forged or played again.
        """
        frame = self._seal.open(data)
        was_believed = self._origins.is_believed(frame.origin)
        self._origins.hear(frame.origin, frame.number, frame.greeting)
        if not was_believed:
            self._greet_soon()
        return frame.events(self._rooms) if self._origins.is_believed(frame.origin) else []

    def _refuse(self, error: ValueError) -> None:
        """Count a frame that is none of ours, and say so now and then: whoever sends many must not fill the log."""
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now - self._refused_at > REFUSED_LOG_S:
            logger.warning("frames_refused", count=self._refused, error=str(error))
            self._refused, self._refused_at = 0, now
