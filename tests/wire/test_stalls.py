"""Clients that take nothing, or little: what is held for them is bounded, and so is the time that they have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from server.wire import Packet, engineio, websocket
from server.wire import session as sessions
from server.wire.engineio import Engine
from server.wire.session import Reason, Session
from tests.wire.bare import TEXT, Above, Site, client_frame, engine_site, handshake, serving, until

STALL_S = 0.5
LONG_S = 1_000.0
MESSAGE = Packet("x" * 10_000)
SLOW_BYTES_PER_S = 20_000


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and have little patience."""
    monkeypatch.setattr(sessions, "STALL_S", STALL_S)
    monkeypatch.setattr(engineio, "LOOK_S", 0.02)


@asynccontextmanager
async def narrow(above: Above, ping_s: float) -> AsyncIterator[tuple[Site, Engine]]:
    """An engine behind sockets for which the kernel takes next to nothing."""
    engine = Engine(ping_interval=ping_s, ping_timeout=LONG_S)
    engine.above = above
    app = web.Application()
    app.router.add_route("*", "/socket.io/", engine.handle_request)
    async with serving(app) as site:
        yield site, engine
        await engine.shutdown()


class Deaf:
    """A WebSocket on a plain socket with a small buffer, which reads only when told to."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)

    async def connect(self, site: Site, above: Above) -> Session:
        """Open a session, and read no further."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", site.port))
        await loop.sock_sendall(self.socket, handshake("/socket.io/?EIO=4&transport=websocket"))
        read = b""
        while b'"maxPayload"' not in read:
            read += await loop.sock_recv(self.socket, 4096)
        session = above.sessions[-1]
        assert session._ws is not None
        session._ws.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return session

    async def take(self, most: int) -> int:
        return len(await asyncio.get_running_loop().sock_recv(self.socket, most))

    async def pong(self) -> None:
        """Answer pings that it has not read."""
        while True:
            await asyncio.get_running_loop().sock_sendall(self.socket, client_frame(TEXT, b"3"))
            await pace(0.02)


@pytest.fixture
def above() -> Above:
    return Above()


@pytest.fixture
def deaf() -> AsyncIterator[Deaf]:
    one = Deaf()
    yield one  # type: ignore[misc]
    one.socket.close()


async def pace(seconds: float) -> None:
    """What a client does between two of its deeds."""
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("pongs", [False, True], ids=["silent", "sending pongs"])
async def test_who_takes_nothing_is_cut_a_while_after_the_last_byte_it_took_and_others_go_on(
    above: Above, deaf: Deaf, pongs: bool
) -> None:
    async with narrow(above, 0.05 if pongs else LONG_S) as (site, engine):
        session = await deaf.connect(site, above)
        ponging = asyncio.ensure_future(deaf.pong()) if pongs else None
        other = await site.raw()
        while session.backlog < 300_000:
            session.push(MESSAGE)
        await until(lambda: session._stall is not None, "nobody has looked")
        await deaf.take(2_000)
        took_at = time.monotonic()
        slowest = 0.0
        while not session.is_closed:
            asked_at = time.monotonic()
            other.send("4x")
            while await other.text() == "2":
                other.send("3")
            slowest = max(slowest, time.monotonic() - asked_at)
            assert session.backlog <= websocket.BACKLOG_BYTES
            assert time.monotonic() - took_at < 10 * STALL_S, "it still stands"
            await pace(0.005)
        assert time.monotonic() - took_at > STALL_S * 0.9
        assert slowest < 0.3
        assert above.ends == [Reason.TRANSPORT_ERROR]
        assert list(engine.sessions.values()) == [above.sessions[-1]]
        other.cut()
        if ponging is not None:
            ponging.cancel()
            await asyncio.gather(ponging, return_exceptions=True)


async def test_who_takes_nothing_is_cut_at_once_when_too_much_waits(above: Above, deaf: Deaf) -> None:
    async with narrow(above, LONG_S) as (site, _):
        session = await deaf.connect(site, above)
        held = 0
        for _ in range(1_000):
            session.push(MESSAGE)
            held = max(held, session.backlog)
        await until(lambda: session.is_closed, "it still stands")
        assert websocket.BACKLOG_BYTES - 20_000 < held <= websocket.BACKLOG_BYTES + 10_100
        assert session.backlog == 0
        assert not session.push(MESSAGE)


async def test_what_may_be_dropped_is_dropped_for_who_is_far_behind(above: Above, deaf: Deaf) -> None:
    async with narrow(above, LONG_S) as (site, _):
        session = await deaf.connect(site, above)
        while session.backlog <= websocket.DROP_BYTES:
            assert session.push(MESSAGE, droppable=True)
        held = session.backlog
        for _ in range(100):
            assert not session.push(MESSAGE, droppable=True)
        assert session.backlog == held
        assert session.push(MESSAGE)


async def test_a_slow_phone_that_keeps_taking_lives(above: Above, deaf: Deaf) -> None:
    async with narrow(above, LONG_S) as (site, _):
        session = await deaf.connect(site, above)
        while session.backlog < 300_000:
            session.push(MESSAGE)
        began, taken = time.monotonic(), 0
        while time.monotonic() - began < 5 * STALL_S:
            if taken < (time.monotonic() - began) * SLOW_BYTES_PER_S:
                taken += await deaf.take(1_000)
            await pace(0.005)
        assert 0.7 < taken / (5 * STALL_S * SLOW_BYTES_PER_S) < 1.3
        assert not session.is_closed
        assert session.backlog > 200_000
        while session.backlog:
            await deaf.take(65_536)
        await until(lambda: session.is_flowing, "it does not flow again")


async def test_who_does_not_poll_is_cut_too(above: Above) -> None:
    async with engine_site(above, ping_interval=LONG_S) as (site, engine):
        idle, greedy = await site.open_polling(), await site.open_polling()
        first, second = (engine.sessions[sid] for sid in (idle, greedy))
        first.push(MESSAGE)
        held = 0
        for _ in range(1_000):
            second.push(MESSAGE)
            held = max(held, second.backlog)
        await until(lambda: second.is_closed, "it still stands")
        assert held <= websocket.BACKLOG_BYTES + 10_100
        await until(lambda: first.is_closed, "it still stands")
        assert not engine.sessions
        assert above.ends == [Reason.TRANSPORT_ERROR] * 2


async def test_what_waits_for_who_polls_slowly_is_kept(above: Above) -> None:
    async with engine_site(above, ping_interval=LONG_S) as (site, engine):
        sid = await site.open_polling()
        began, sent, heard = time.monotonic(), 0, 0
        while time.monotonic() - began < 3 * STALL_S:
            engine.sessions[sid].push(Packet(str(sent)))
            sent += 1
            heard += len((await site.poll(sid)).split("\x1e"))
            await pace(STALL_S / 3)
        assert heard == sent


async def test_pings_of_who_does_not_read_the_pongs_fill_nothing(above: Above, deaf: Deaf) -> None:
    async with narrow(above, LONG_S) as (site, _):
        session = await deaf.connect(site, above)
        ping = client_frame(0x9, os.urandom(125)) * 500
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20 * STALL_S):
                while not session.is_closed:
                    await asyncio.get_running_loop().sock_sendall(deaf.socket, ping)
                    assert session.backlog <= 2 * websocket.PACE_BYTES
        await until(lambda: session.is_closed, "it still stands")
