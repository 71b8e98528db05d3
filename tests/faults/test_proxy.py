"""The proxy does to a connection what it says, and nothing else."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy

PATIENCE_S = 10.0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say all back, and the end when it comes."""
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write(b"bye")
        writer.close()
    except ConnectionError:
        writer.close()


class Ends:
    """A proxy before a server that says all back, and connections through it."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        self.writers.append(writer)
        return reader, writer


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[:2])
    await proxy.start()
    made = Ends(proxy)
    async with asyncio.timeout(PATIENCE_S):
        yield made
    for writer in made.writers:
        writer.close()
    await proxy.stop()
    server.close()


async def silence(reader: asyncio.StreamReader) -> bool:
    """Whether nothing comes for a moment."""
    try:
        await asyncio.wait_for(reader.readexactly(1), 0.05)
    except TimeoutError:
        return True
    return False


async def test_a_clear_proxy_passes_everything_and_the_end(ends: Ends) -> None:
    reader, writer = await ends.connect()
    said = bytes(range(256)) * 4_000
    writer.write(said)
    assert await reader.readexactly(len(said)) == said
    writer.write_eof()
    assert await reader.read() == b"bye"


async def test_a_delay_is_that_of_each_way(ends: Ends) -> None:
    reader, writer = await ends.connect()
    ends.proxy.up.delay(0.05)
    ends.proxy.down.delay(0.1)
    begun = time.monotonic()
    for word in (b"one", b"two"):
        writer.write(word)
    assert await reader.readexactly(6) == b"onetwo"
    assert time.monotonic() - begun >= 0.15


async def test_a_throttled_road_takes_its_time_and_loses_nothing(ends: Ends) -> None:
    reader, writer = await ends.connect()
    ends.proxy.down.throttle(100_000)
    begun = time.monotonic()
    writer.write(b"x" * 20_000)
    assert await reader.readexactly(20_000) == b"x" * 20_000
    assert time.monotonic() - begun >= 0.15


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_black_hole_holds_one_way_and_gives_it_back_when_it_clears(ends: Ends, way: str) -> None:
    reader, writer = await ends.connect()
    road = getattr(ends.proxy, way)
    road.close()
    writer.write(b"hello")
    assert await silence(reader)
    road.clear()
    assert await reader.readexactly(5) == b"hello"


async def test_a_sender_into_a_black_hole_is_not_read_for_ever(ends: Ends) -> None:
    _, writer = await ends.connect()
    ends.proxy.up.close()
    writer.write(b"x" * 50_000_000)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(writer.drain(), 0.2)
    (lane,) = ends.proxy.up.lanes
    assert lane._waiting_bytes < 2_000_000


async def test_a_link_is_reset_after_so_many_bytes(ends: Ends) -> None:
    reader, writer = await ends.connect()
    writer.write(b"before")
    await reader.readexactly(6)
    ends.proxy.down.cut_after(4)
    writer.write(b"amid")
    assert await reader.readexactly(4) == b"amid"
    writer.write(b"x")
    with pytest.raises(ConnectionError):
        await reader.read()


async def test_half_a_link_may_end(ends: Ends) -> None:
    reader, writer = await ends.connect()
    writer.write(b"all")
    await reader.readexactly(3)
    ends.proxy.down.end()
    assert await reader.read() == b""
    writer.write(b"more")  # it still goes up
    await writer.drain()
    assert ends.proxy.links == 1


async def test_a_proxy_that_hangs_accepts_and_says_nothing(ends: Ends) -> None:
    ends.proxy.hangs = True
    reader, writer = await ends.connect()
    writer.write(b"hello")
    assert await silence(reader)
    ends.proxy.reset()
    with pytest.raises(ConnectionError):
        await reader.read()


async def test_a_proxy_that_refuses_is_not_there_until_it_is_cleared(ends: Ends) -> None:
    await ends.proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await ends.connect()
    await ends.proxy.clear()
    reader, writer = await ends.connect()
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"


async def test_a_reset_is_one_on_both_sides(ends: Ends) -> None:
    reader, writer = await ends.connect()
    writer.write(b"hello")
    await reader.readexactly(5)
    ends.proxy.reset()
    with pytest.raises(ConnectionError):
        await reader.read()
    while ends.proxy.links or ends.proxy.down.lanes:
        await asyncio.sleep(0)


async def test_nobody_behind_is_a_reset(ends: Ends) -> None:
    ends.proxy.target = Path("/nowhere/at/all")
    reader, _ = await ends.connect()
    with pytest.raises(ConnectionError):
        await reader.read()


async def test_nothing_is_left_of_a_link_that_ends_politely(ends: Ends) -> None:
    reader, writer = await ends.connect()
    writer.write_eof()
    assert await reader.read() == b"bye"
    await nobody(ends)


@pytest.mark.parametrize("is_open", [True, False], ids=["an open road", "a black hole"])
@pytest.mark.parametrize("is_reset", [False, True], ids=["politely", "by a reset"])
async def test_who_leaves_before_there_is_a_far_side_is_gone_from_it_too(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, is_reset: bool, is_open: bool
) -> None:
    may_dial, dial = asyncio.Event(), ends.proxy._socket

    async def dial_late(target: tuple[str, int]) -> socket.socket:
        await may_dial.wait()
        return await dial(target)

    monkeypatch.setattr(ends.proxy, "_socket", dial_late)
    _, writer = await ends.connect()
    await until(lambda: ends.proxy.links == 1)
    (lane,) = ends.proxy.up.lanes
    if is_reset:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
    await until(lambda: lane._is_lost if is_reset else lane._has_heard_all)
    if not is_open:
        ends.proxy.up.close()
    may_dial.set()
    await until(lambda: lane.other is not None)
    ends.proxy.up.clear()
    await nobody(ends)  # the far side has heard of the end, and has ended too


async def nobody(ends: Ends) -> None:
    """Wait until nothing is left of any link."""
    await until(lambda: not ends.proxy.up.lanes and not ends.proxy.down.lanes)


async def until(seen: Callable[[], bool]) -> None:
    """Wait until that is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not seen():
            await asyncio.sleep(0.001)
