"""A bus over Redis that hears or is heard no longer: it says so, and whatever was in between is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from itertools import pairwise
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from server.rooms import redisbus
from server.rooms.bus import Bus
from server.rooms.names import Room
from server.rooms.redisbus import Lines, RedisBus
from server.rooms.redisnode import Node, Nodes
from server.rooms.sealing import Seal
from tests.rooms.test_bus import KEY, PATIENCE_S, Tunnel, event, started
from tests.servers import RedisServer


@pytest.fixture
def chat() -> Room:
    return Room("conversation", uuid4())


@pytest.fixture
async def stopping() -> AsyncIterator[list[Bus]]:
    """Buses that are stopped at the test's end."""
    buses: list[Bus] = []
    yield buses
    await asyncio.gather(*(bus.stop() for bus in buses))


class SharedAddress:
    """An address that changes hands: of the connections made before, what is published reaches the new Redis alone."""

    def __init__(self, old: RedisServer, new: RedisServer) -> None:
        self._ports = [old.port, new.port]
        self._writers: list[asyncio.StreamWriter] = []
        self._is_new = False

    async def open(self) -> str:
        """Listen; the URL that leads through it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def change_hands(self) -> None:
        """Lead whoever connects from now on to the new Redis."""
        self._is_new = True

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came_late = self._is_new
        ends = [await asyncio.open_connection("127.0.0.1", port) for port in self._ports]
        self._writers += [writer, *(end for _, end in ends)]
        back = asyncio.gather(*(self._answer(end, writer) for end, _ in ends), return_exceptions=True)
        while data := await reader.read(65_536):
            ends[came_late or (self._is_new and b"PUBLISH" in data)][1].write(data)
        for _, end in ends:
            end.close()
        await back

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)


async def test_who_listens_to_one_redis_and_speaks_to_another_notices_whatever_it_hears_there(
    valkey: RedisServer, redis_server: RedisServer, stopping: list[Bus], chat: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redisbus, "PROBE_S", 0.05)
    address = SharedAddress(valkey, redis_server)
    url = await address.open()
    here, there = [await started(RedisBus(url, KEY), stopping) for _ in range(2)]
    there.bus.subscribe(chat)
    await there.meets(here, chat)
    await there.until(lambda: here.bus.state == there.bus.state == "ok", "ok")
    assert isinstance(here.bus, RedisBus)
    greeting = next(Seal(KEY).close([event(chat)]))
    is_over = asyncio.Event()
    own = greeting[:16] + here.bus._seal.origin + greeting[24:]
    async with Redis.from_url(valkey.url) as stranger:

        async def chatter() -> None:
            while not is_over.is_set():
                for garbage in (b"x", greeting, own):
                    await stranger.publish(Seal(KEY).channel, garbage)
                await asyncio.sleep(0.01)

        chattering = asyncio.create_task(chatter())
        address.change_hands()
        await here.until(lambda: here.bus.state == "degraded", "degraded")
        await here.until(lambda: here.bus.state == there.bus.state == "ok", "ok again")
        there.received.clear()
        await there.meets(here, chat)
        is_over.set()
        await chattering
    assert redis_server.ask(f"publish {Seal(KEY).channel} x") == ":2"
    await asyncio.gather(here.bus.stop(), there.bus.stop())
    await address.close()


async def test_what_is_played_again_of_ones_own_proves_nothing(
    valkey: RedisServer, stopping: list[Bus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redisbus, "PROBE_S", 0.05)
    bus = RedisBus(valkey.url, KEY)
    here = await started(bus, stopping)
    await here.until(lambda: bus.state == "ok", "ok")
    await here.until(lambda: bus._unanswered == 0, "an answer")
    bus._greetings = {3}
    forged = bytearray(b"".join((bytes(16), bus._seal.origin, (3).to_bytes(8, "big"), b"\x80")))
    bus._unanswered = 2
    bus._take(bytes(forged))
    assert bus._unanswered == 2
    seal = Seal(KEY)
    seal.origin, seal.number = bus._seal.origin, 2
    heard = seal.greet({})
    bus._take(heard)
    assert (bus._unanswered, bus._greetings) == (0, set())
    bus._unanswered = 2
    bus._take(heard)
    assert bus._unanswered == 2


async def test_it_is_not_ok_before_it_hears_again(valkey: RedisServer, stopping: list[Bus], chat: Room) -> None:
    tunnel = Tunnel(valkey.port)
    here = await started(RedisBus(await tunnel.open(), KEY), stopping)
    there = await started(RedisBus(valkey.url, KEY), stopping)
    here.bus.subscribe(chat)
    await here.meets(there, chat)
    await here.until(lambda: here.bus.state == there.bus.state == "ok", "ok")
    tunnel.fall_silent()
    await here.until(lambda: here.bus.state == "degraded", "degraded")
    await here.until(lambda: here.bus.state == "ok", "ok again")
    there.bus.publish(event(chat, 7))
    async with asyncio.timeout(0.5):
        await here.until(lambda: 7 in here.heard, "the one event")
    await here.bus.stop()
    await tunnel.close()


async def test_an_attempt_to_connect_that_hangs_is_given_up(
    stopping: list[Bus], monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[float] = []

    async def hang(self: Nodes) -> Node:
        began.append(asyncio.get_running_loop().time())
        return await asyncio.Event().wait()  # type: ignore[return-value]

    monkeypatch.setattr(Nodes, "connect", hang)
    monkeypatch.setattr(redisbus, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(redisbus, "RECONNECT_S", 0.1)
    here = await started(RedisBus("redis://127.0.0.1:1/0", KEY), stopping)
    await here.until(lambda: len(began) >= 5, "five attempts")
    steps = sorted(after - before for before, after in pairwise(began))
    assert steps[0] > 0.19
    assert steps[1] < 0.28, "an attempt and no pause behind it"


async def test_what_waits_for_redis_is_bounded_in_bytes(valkey: RedisServer, stopping: list[Bus], chat: Room) -> None:
    bus = RedisBus(valkey.url, KEY)
    here, there = await started(bus, stopping), await started(RedisBus(valkey.url, KEY), stopping)
    there.bus.subscribe(chat)
    await there.meets(here, chat)
    payload = '"' + "ن" * 50_000 + '"'  # 100 kB
    for seq in range(200):
        bus.publish(event(chat, seq, payload))
    there.received.clear()
    here.bus.publish(event(chat, 500, '"small enough"'))
    await there.until(lambda: 500 in there.heard, "what was small enough")
    assert 80 <= len(there.heard) - 1 <= redisbus.OUTBOX_BYTES // 100_000


async def test_what_waits_is_let_go_when_redis_goes(valkey: RedisServer, stopping: list[Bus], chat: Room) -> None:
    bus = RedisBus(valkey.url, KEY)
    here = await started(bus, stopping)
    await here.until(lambda: bus.state == "ok", "ok")
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while bus.state == "ok":
                bus.publish(event(chat))
                await asyncio.sleep(0.01)
        assert (bus._outbox, bus._outbox_bytes) == ([], 0)
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    await here.until(lambda: bus.state == "ok", "ok again")


async def test_a_cancellation_that_the_client_of_redis_forgets_is_said_again(
    valkey: RedisServer, stopping: list[Bus], monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[object] = []

    async def forget_once(self: RedisBus, lines: Lines) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            forgotten.append(self)
        await asyncio.Event().wait()

    monkeypatch.setattr(RedisBus, "_publish_for_ever", forget_once)
    monkeypatch.setattr(redisbus, "PROBE_S", 0.01)
    bus = RedisBus(valkey.url, KEY)
    here = await started(bus, stopping)
    await here.until(lambda: len(forgotten) >= 2, "connected anew")
    async with asyncio.timeout(PATIENCE_S):
        await bus.stop()
