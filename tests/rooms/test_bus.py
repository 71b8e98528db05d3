"""The bus's contract, the same for both of its implementations; and what Redis can do to one of them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from server.rooms import lease, presence, redisbus, redisnode
from server.rooms.bus import Bus, LocalBus, LocalHub
from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.origins import Origins
from server.rooms.redisbus import RedisBus
from server.rooms.sealing import Seal, key_of
from storage import Time
from tests.servers import RedisServer

PATIENCE_S = 10.0
AT = Time("2026-11-20T17:00:00.000Z")
KEY = b"a deployment's own"


class Instance:
    """An instance as the bus sees it: it subscribes, publishes, and keeps what it receives."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.received: list[Event] = []

    @property
    def heard(self) -> list[int]:
        """The seqs of what was received, the probes left out."""
        return [event.seq for event in self.received if event.name != "probe"]

    async def until(self, seen: Callable[[], object], what: str, nudge: Callable[[], object] = lambda: None) -> None:
        """Wait until `seen` is true; `nudge` is called before every look."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                nudge()
                if seen():
                    return
                await asyncio.sleep(0.005)
        pytest.fail(what)

    async def meets(self, other: Instance, room: Room) -> None:
        """Wait until what `other` publishes in the room arrives here: a broker takes its time to subscribe."""
        await self.until(
            lambda: any(event.name == "probe" and event.room == room for event in self.received),
            f"{room} never heard",
            lambda: other.bus.publish(Event(room, 1, AT, "probe", "{}")),
        )


@pytest.fixture
async def stopping() -> AsyncIterator[list[Bus]]:
    """Buses that are stopped at the test's end."""
    buses: list[Bus] = []
    yield buses
    await asyncio.gather(*(bus.stop() for bus in buses))


async def started(bus: Bus, stopping: list[Bus]) -> Instance:
    instance = Instance(bus)
    stopping.append(bus)
    await bus.start(instance.received.append)
    return instance


@pytest.fixture(params=["local", "valkey", "redis_server"])
def new_bus(request: pytest.FixtureRequest) -> Callable[[], Bus]:
    """`new_bus()`: one more bus that meets the others, of each implementation in turn."""
    if request.param == "local":
        hub = LocalHub()
        return lambda: LocalBus(hub)
    server: RedisServer = request.getfixturevalue(request.param)
    return lambda: RedisBus(server.url, KEY)


@pytest.fixture
async def here(new_bus: Callable[[], Bus], stopping: list[Bus]) -> Instance:
    return await started(new_bus(), stopping)


@pytest.fixture
async def there(new_bus: Callable[[], Bus], stopping: list[Bus]) -> Instance:
    return await started(new_bus(), stopping)


@pytest.fixture
def chat() -> Room:
    return Room("conversation", uuid4())


def event(room: Room, seq: int = 1, payload: str = "{}") -> Event:
    return Event(room, seq, AT, "message:created", payload)


def shown(one: Event) -> tuple[object, ...]:
    return one.room, one.seq, one.at, one.name, one.payload


async def test_an_event_reaches_the_others_and_not_its_publisher(here: Instance, there: Instance, chat: Room) -> None:
    for instance in (here, there):
        instance.bus.subscribe(chat)
    await there.meets(here, chat)
    await here.meets(there, chat)
    here.bus.publish(event(chat, 7))
    there.bus.publish(event(chat, 8))
    await there.until(lambda: there.heard, "the event")
    await here.until(lambda: here.heard, "the event of the other")
    assert (here.heard, there.heard) == ([8], [7])


@pytest.mark.parametrize(
    "payload", ['{"text":"الليل 🌙 \\u2028 \\u0000"}', '{ "b" :1,\t"a":1.0}', '"' + "x" * 60_000 + '"']
)
async def test_an_event_arrives_as_it_was_to_the_byte(
    here: Instance, there: Instance, chat: Room, payload: str
) -> None:
    there.bus.subscribe(chat)
    await there.meets(here, chat)
    sent = event(chat, 2**53 + 1, payload)
    here.bus.publish(sent)
    await there.until(lambda: there.heard, "the event")
    assert shown(there.received[-1]) == shown(sent)
    assert there.received[-1].packet.text == sent.packet.text


async def test_only_the_rooms_subscribed_to_are_heard(here: Instance, there: Instance, chat: Room) -> None:
    other, marker = Room("conversation", uuid4()), Room("user", uuid4())
    there.bus.subscribe(chat)
    there.bus.subscribe(marker)
    await there.meets(here, chat)
    await there.meets(here, marker)
    here.bus.publish(event(other, 1))
    here.bus.publish(event(chat, 2))
    here.bus.publish(event(marker, 3))
    await there.until(lambda: 3 in there.heard, "the marker")
    assert there.heard == [2, 3]


async def test_a_room_unsubscribed_from_falls_silent_and_can_be_heard_again(
    here: Instance, there: Instance, chat: Room
) -> None:
    marker = Room("user", uuid4())
    for room in (chat, marker):
        there.bus.subscribe(room)
        await there.meets(here, room)
    there.bus.unsubscribe(chat)
    async with asyncio.timeout(PATIENCE_S):
        for n in range(1, 10_000):
            here.bus.publish(event(chat, 2 * n))
            here.bus.publish(event(marker, 2 * n + 1))
            await there.until(lambda: 2 * n + 1 in there.heard, "the marker")  # noqa: B023 (awaited at once)
            if 2 * n not in there.heard:
                break
    here.bus.publish(event(chat, 20_001))
    here.bus.publish(event(marker, 20_002))
    await there.until(lambda: 20_002 in there.heard, "the last marker")
    assert 20_001 not in there.heard
    there.received.clear()
    there.bus.subscribe(chat)
    await there.meets(here, chat)


async def test_a_publishers_events_arrive_once_and_in_its_order(here: Instance, there: Instance) -> None:
    rooms = [Room("conversation", uuid4()) for _ in range(5)]
    for room in rooms:
        there.bus.subscribe(room)
        there.bus.subscribe(room)  # twice is once
        await there.meets(here, room)
    for seq in range(1, 1_001):
        here.bus.publish(event(rooms[seq % 5], seq))
        if seq % 100 == 0:
            await asyncio.sleep(0)
    await there.until(lambda: there.heard[-1:] == [1_000], "the last event")
    assert there.heard == list(range(1, 1_001))


async def test_a_bus_that_was_stopped_hears_nothing_more(
    here: Instance, there: Instance, new_bus: Callable[[], Bus], stopping: list[Bus], chat: Room
) -> None:
    third = await started(new_bus(), stopping)
    for instance in (there, third):
        instance.bus.subscribe(chat)
        await instance.meets(here, chat)
    await there.bus.stop()
    here.bus.publish(event(chat))
    await third.until(lambda: third.heard, "the event")
    assert there.heard == []


async def test_subscribing_before_the_start_is_enough(
    here: Instance, new_bus: Callable[[], Bus], stopping: list[Bus], chat: Room
) -> None:
    bus = new_bus()
    bus.subscribe(chat)
    late = await started(bus, stopping)
    await late.meets(here, chat)


async def test_the_state_is_ok_once_it_runs(here: Instance) -> None:
    await here.until(lambda: here.bus.state == "ok", "ok")


# Redis


@pytest.fixture
async def pair(any_redis: RedisServer, stopping: list[Bus], chat: Room) -> tuple[Instance, Instance]:
    """Two instances on one Redis that hear each other in the chat."""
    one, other = [await started(RedisBus(any_redis.url, KEY), stopping) for _ in range(2)]
    other.bus.subscribe(chat)
    await other.meets(one, chat)
    await one.until(lambda: one.bus.state == other.bus.state == "ok", "both ok")
    return one, other


async def test_frames_that_are_garbage_forged_or_played_again_are_survived_and_not_heard(
    any_redis: RedisServer, pair: tuple[Instance, Instance], chat: Room
) -> None:
    here, there = pair
    channel = Seal(KEY).channel
    async with Redis.from_url(any_redis.url) as stranger:
        async with stranger.pubsub() as listener:  # type: ignore[no-untyped-call]
            await listener.subscribe(channel)
            here.bus.publish(event(chat, 5))
            async with asyncio.timeout(PATIENCE_S):
                recorded = b""
                while b"message:created" not in recorded:
                    found = await listener.get_message(ignore_subscribe_messages=True, timeout=1)
                    recorded = found["data"] if found else b""
        (forged,) = Seal(b"a guess").close([event(chat, 7)])
        for frame in (b"", b"\xc1", recorded[:-1], recorded + b"x", recorded, forged, b"\x91" * 5_000):
            await stranger.publish(channel, frame)
    here.bus.publish(event(chat, 6))
    await there.until(lambda: 6 in there.heard, "the event behind the garbage")
    assert there.heard == [5, 6]
    assert there.bus.state == "ok"


@pytest.mark.parametrize("asked", [True, False], ids=["asked whether they live", "believed at once"])
async def test_what_an_instance_said_that_is_gone_is_not_heard_by_one_that_came_later(
    any_redis: RedisServer, stopping: list[Bus], chat: Room, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    if not asked:
        monkeypatch.setattr(Origins, "is_believed", lambda *_: True)
    async with Redis.from_url(any_redis.url) as stranger:
        recorded: list[bytes] = []
        async with stranger.pubsub() as listener:  # type: ignore[no-untyped-call]
            await listener.subscribe(Seal(KEY).channel)
            here, gone = [await started(RedisBus(any_redis.url, KEY), stopping) for _ in range(2)]
            here.bus.subscribe(chat)
            await here.meets(gone, chat)
            gone.bus.publish(event(chat, 0, "typing"))
            async with asyncio.timeout(PATIENCE_S):
                while not any(b"typing" in frame for frame in recorded):
                    found = await listener.get_message(ignore_subscribe_messages=True, timeout=1)
                    recorded += [found["data"]] if found else []
        await asyncio.gather(gone.bus.stop(), here.bus.stop())
        late, other = [await started(RedisBus(any_redis.url, KEY), stopping) for _ in range(2)]
        late.bus.subscribe(chat)
        await late.meets(other, chat)
        for frame in recorded:
            await stranger.publish(Seal(KEY).channel, frame)
        other.bus.publish(event(chat, 1))
        await late.until(lambda: 1 in late.heard, "the event behind them")
    assert late.heard == ([1] if asked else [0, 1])


async def test_an_instance_that_comes_is_believed_before_a_probe_is_due(
    any_redis: RedisServer, pair: tuple[Instance, Instance], stopping: list[Bus], chat: Room,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    here, _ = pair
    here.bus.subscribe(chat)
    monkeypatch.setattr(redisbus, "PROBE_S", 3600)
    late = await started(RedisBus(any_redis.url, KEY), stopping)
    late.bus.subscribe(chat)
    await here.meets(late, chat)
    await late.meets(here, chat)


async def test_an_instance_that_was_held_up_for_long_believes_the_others_again_at_once(
    pair: tuple[Instance, Instance], chat: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    monkeypatch.setattr(redisbus, "PROBE_S", 3600)
    assert isinstance(there.bus, RedisBus)
    for known in there.bus._origins._origins.values():
        known.fresh_until = 0.0
    there.received.clear()
    await there.meets(here, chat)


async def test_two_deployments_on_one_redis_do_not_hear_each_other(
    any_redis: RedisServer, pair: tuple[Instance, Instance], stopping: list[Bus], chat: Room
) -> None:
    here, there = pair
    foreign = await started(RedisBus(any_redis.url, b"another deployment's"), stopping)
    await foreign.until(lambda: foreign.bus.state == "ok", "ok")
    foreign.bus.subscribe(chat)
    foreign.bus.publish(event(chat, 9))
    here.bus.publish(event(chat, 1))
    await there.until(lambda: there.heard, "the event")
    assert there.heard == [1]
    assert foreign.received == []


async def test_after_a_crash_of_redis_it_is_degraded_and_then_whole_again(
    any_redis: RedisServer, pair: tuple[Instance, Instance], chat: Room
) -> None:
    here, there = pair
    later = Room("conversation", uuid4())
    any_redis.kill()
    try:
        await here.until(lambda: here.bus.state == there.bus.state == "degraded", "degraded")
        began = time.perf_counter()
        for seq in range(20_000):
            here.bus.publish(event(chat, seq))
        there.bus.subscribe(later)
        assert time.perf_counter() - began < 1
    finally:
        any_redis.start()
    await here.until(lambda: here.bus.state == there.bus.state == "ok", "ok again")
    there.received.clear()
    await there.meets(here, chat)
    await there.meets(here, later)


async def test_it_stops_in_the_middle_of_whatever_it_does(any_redis: RedisServer, chat: Room) -> None:
    async with Redis.from_url(any_redis.url) as watcher:
        for turn in range(40):
            bus = RedisBus(any_redis.url, KEY)
            await bus.start(lambda event: None)
            bus.subscribe(chat)
            async with asyncio.timeout(PATIENCE_S):
                while bus.state != "ok":
                    await asyncio.sleep(0)
            for n in range(turn):
                bus.publish(event(chat, n))
                bus.subscribe(Room("conversation", uuid4()))
                await asyncio.sleep(0)
            if turn % 2:
                await watcher.ping()  # so that what Redis answers arrives together with the end
            await asyncio.wait_for(bus.stop(), PATIENCE_S)
            assert bus.state == "degraded"


async def test_a_redis_that_hangs_is_left_behind_and_found_again(
    any_redis: RedisServer, pair: tuple[Instance, Instance], chat: Room
) -> None:
    here, there = pair
    assert any_redis._process is not None
    os.kill(any_redis._process.pid, signal.SIGSTOP)
    try:
        began = time.perf_counter()
        await here.until(lambda: here.bus.state == "degraded", "degraded", lambda: here.bus.publish(event(chat)))
        assert time.perf_counter() - began < 5
    finally:
        os.kill(any_redis._process.pid, signal.SIGCONT)
    await here.until(lambda: here.bus.state == "ok", "ok again")
    there.received.clear()
    await there.meets(here, chat)


async def test_a_bus_starts_without_redis_and_joins_when_it_is_there(
    any_redis: RedisServer, stopping: list[Bus], chat: Room
) -> None:
    any_redis.kill()
    try:
        async with asyncio.timeout(1):  # it waits for nobody
            here, there = [await started(RedisBus(any_redis.url, KEY), stopping) for _ in range(2)]
        there.bus.subscribe(chat)
        assert here.bus.state == "degraded"
    finally:
        any_redis.start()
    await there.meets(here, chat)
    await here.until(lambda: here.bus.state == there.bus.state == "ok", "ok")


async def test_what_happens_in_a_turn_travels_in_one_frame(
    any_redis: RedisServer, pair: tuple[Instance, Instance], chat: Room
) -> None:
    here, there = pair
    await there.meets(here, chat)
    frames: list[int] = []
    async with Redis.from_url(any_redis.url) as client, client.pubsub() as listener:
        await listener.subscribe(Seal(KEY).channel)
        await listener.get_message(timeout=None)
        for seq in range(100, 116):
            here.bus.publish(event(chat, seq))
        await there.until(lambda: 115 in there.heard, "the last")
        while message := await listener.get_message(timeout=0.1):
            frame = Seal(KEY).open(message["data"])
            if frame.greeting is None:
                frames.append(len(frame.events({key_of(chat): chat})))
    assert frames == [16]


def test_the_times_are_those_that_were_promised() -> None:
    assert (lease.LEASE_S, presence.RENEW_S, redisbus.PROBE_S) == (45, 15, 1)
    assert max(redisbus.RECONNECT_S, redisnode.TIMEOUT_S) <= 1


class Tunnel:
    """A TCP connection's way to Redis, which may fall silent without an end, as behind a balancer that has died."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self._silent: set[asyncio.StreamWriter] = set()

    async def open(self) -> str:
        """Listen; the URL that leads through it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def fall_silent(self) -> None:
        """Pass on nothing any more of what is connected now."""
        self._silent.update(self._writers)

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, back]
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer), return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if writer not in self._silent:
                writer.write(data)
        writer.close()


async def test_a_connection_that_has_died_without_a_word_is_noticed_and_replaced(
    any_redis: RedisServer, stopping: list[Bus], chat: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redisbus, "PROBE_S", 0.05)
    tunnel = Tunnel(any_redis.port)
    here = await started(RedisBus(await tunnel.open(), KEY), stopping)
    there = await started(RedisBus(any_redis.url, KEY), stopping)
    here.bus.subscribe(chat)
    await here.meets(there, chat)
    await here.until(lambda: here.bus.state == "ok", "ok")
    tunnel.fall_silent()
    await here.until(lambda: here.bus.state == "degraded", "degraded")  # nothing is published here
    here.received.clear()
    await here.meets(there, chat)
    await here.bus.stop()
    await tunnel.close()


async def test_a_quiet_bus_stays_up(
    any_redis: RedisServer, stopping: list[Bus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redisbus, "PROBE_S", 0.05)  # three of them are longer than a busy machine takes
    bus = RedisBus(any_redis.url, KEY)
    here = await started(bus, stopping)
    await here.until(lambda: bus.state == "ok", "ok")
    async with Redis.from_url(any_redis.url) as stranger, stranger.pubsub() as listener:  # type: ignore[no-untyped-call]
        await listener.subscribe(Seal(KEY).channel)
        for _ in range(7):  # it is heard to go on
            async with asyncio.timeout(PATIENCE_S):
                while await listener.get_message(ignore_subscribe_messages=True, timeout=1) is None:
                    pass
            assert bus.state == "ok"


async def test_a_subscription_that_redis_has_dropped_is_noticed_and_made_anew(
    any_redis: RedisServer, pair: tuple[Instance, Instance], chat: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    monkeypatch.setattr(redisbus, "PROBE_S", 0.05)
    async with Redis.from_url(any_redis.url) as stranger:
        await stranger.client_kill_filter(_type="pubsub")
    there.received.clear()
    await there.meets(here, chat)
    await there.until(lambda: here.bus.state == there.bus.state == "ok", "ok again")


async def test_what_is_wanted_again_at_once_is_never_given_up(pair: tuple[Instance, Instance], chat: Room) -> None:
    here, there = pair
    there.bus.unsubscribe(chat)
    there.bus.subscribe(chat)
    there.received.clear()
    await there.meets(here, chat)
