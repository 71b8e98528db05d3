"""Frames handed to the kernel past the transport: in order with those that go by it, on a descriptor that is its."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.wire.websocket import WebSocket

MOST = 131_072


class Owner:
    """Whom the WebSocket works for: whether something waits, as it is told."""

    def __init__(self) -> None:
        self.waits = False
        self.is_lost = False

    def received(self, message: bytes, *, is_binary: bool) -> None:
        pass

    def slowed(self) -> None:
        self.waits = True

    def flowing(self) -> None:
        self.waits = False

    def lost(self, *, malformed: bool) -> None:
        self.is_lost = True


class Pair:
    """A WebSocket, and the other end of its connection."""

    def __init__(self, ws: WebSocket, owner: Owner, far: socket.socket) -> None:
        self.ws, self.owner, self.far = ws, owner, far

    async def read(self, size: int) -> bytes:
        got = b""
        async with asyncio.timeout(10):
            while len(got) < size:
                got += await asyncio.get_running_loop().sock_recv(self.far, 65_536)
        return got


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    far.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    owner = Owner()
    ws = WebSocket(transport, owner, MOST, deflated=False)
    transport.set_protocol(ws)
    ws.begin()
    yield Pair(ws, owner, far)
    ws.abort()
    await asyncio.sleep(0)
    far.close()


async def test_what_the_kernel_does_not_take_waits_in_the_transport_and_the_owner_is_told(pair: Pair) -> None:
    frames = [bytes([65 + n]) * 3_000 for n in range(20)]
    for frame in frames:
        if pair.owner.waits:
            pair.ws.write(frame)
            continue
        try:
            sent = pair.ws.send(frame)
        except BlockingIOError:
            sent = 0
        if sent < len(frame):
            pair.ws.write(frame[sent:])
    assert pair.owner.waits
    assert pair.ws.backlog
    assert await pair.read(60_000) == b"".join(frames)
    async with asyncio.timeout(10):
        while pair.owner.waits:
            await asyncio.sleep(0)
    assert pair.ws.backlog == 0


async def test_a_closed_websocket_sends_nothing_and_leaves_the_descriptor_to_the_transport(pair: Pair) -> None:
    descriptor = pair.ws.transport.get_extra_info("socket").fileno()
    assert pair.ws.send != pair.ws._write_all
    pair.ws.detach()
    assert pair.ws._socket is None
    assert pair.ws.send(b"nobody hears this") == 17
    os.fstat(descriptor)  # still open
    pair.ws.write(b"the transport stands")
    assert await pair.read(20) == b"the transport stands"


async def test_an_end_from_afar_takes_the_way_past_the_transport_away(pair: Pair) -> None:
    pair.far.close()
    async with asyncio.timeout(10):
        while not pair.owner.is_lost:
            await asyncio.sleep(0)
    assert pair.ws._socket is None
    assert pair.ws.send(b"too late") == 8


async def test_where_the_transport_encrypts_nothing_goes_past_it(pair: Pair) -> None:
    class Encrypting:
        """A transport of TLS, as far as a WebSocket asks."""

        def __init__(self) -> None:
            self.written: list[bytes] = []

        def get_extra_info(self, name: str) -> Any:
            return pair.ws.transport.get_extra_info("socket") if name == "socket" else object()

        def set_write_buffer_limits(self, high: int) -> None:
            assert high == 0

        def write(self, frames: bytes) -> None:
            self.written.append(frames)

    transport = Encrypting()
    ws = WebSocket(transport, Owner(), MOST, deflated=False)  # type: ignore[arg-type]
    ws.begin()
    assert ws.send(b"secret") == 6
    assert transport.written == [b"secret"]
