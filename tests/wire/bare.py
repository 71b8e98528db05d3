"""`server/wire` alone on a loopback port, and clients that speak to it byte by byte."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

from server.wire import Packet
from server.wire.engineio import Engine
from server.wire.session import Reason, Session

PATIENCE_S = 10.0
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
CONTINUATION = 0x0


async def until(seen: Callable[[], object], what: str = "it never came to be") -> None:
    """Wait until `seen` answers something true."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not seen():
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(what) from None


class Above:
    """Stands on an engine: keeps what it is told, and sends every message back where it is asked to."""

    def __init__(self, *, echoes: bool = True) -> None:
        self.echoes = echoes
        self.sessions: list[Session] = []
        self.received_: list[bytes] = []
        self.ends: list[Reason] = []
        self.not_opened_ = 0

    def opening(self, request: web.Request) -> None:
        """Everybody may."""

    def opened(self, session: Session, request: web.Request) -> None:
        self.sessions.append(session)

    def not_opened(self, request: web.Request) -> None:
        self.not_opened_ += 1

    def received(self, session: Session, message: bytes, at: int, *, is_binary: bool) -> None:
        self.received_.append(message[at:])
        if message[at:] == b"malformed":
            raise ValueError("as asked")
        if message[at:] == b"broken":
            raise RuntimeError("as asked")
        if self.echoes:
            session.push(Packet((message[at:] if not is_binary else base64.b16encode(message)).decode()))

    def ended(self, session: Session, reason: Reason) -> None:
        self.ends.append(reason)


class Site:
    """What serves on a port."""

    def __init__(self, runner: web.AppRunner, http: aiohttp.ClientSession) -> None:
        self.port: int = runner.addresses[0][1]
        self._runner = runner
        self.http = http
        self.url = f"http://127.0.0.1:{self.port}"
        self.path = "/socket.io/"

    @property
    def requests(self) -> int:
        """Connections on which aiohttp serves HTTP."""
        assert self._runner.server is not None
        return sum(each.transport is not None for each in self._runner.server.connections)

    @property
    def unsent(self) -> int:
        """Bytes that wait for those who ask by HTTP."""
        assert self._runner.server is not None
        transports = [each.transport for each in self._runner.server.connections]
        return sum(transport.get_write_buffer_size() for transport in transports if transport is not None)

    async def raw(self, query: str = "", **named: Any) -> Raw:
        """A WebSocket that is open, without a protocol's manners; it has read the opening of the session."""
        one = await self.plain()
        await one.shake(f"{self.path}?EIO=4&transport=websocket{query}", **named)
        return one

    async def plain(self) -> Raw:
        """A TCP connection."""
        return Raw(*await asyncio.open_connection("127.0.0.1", self.port))

    async def poll(self, sid: str = "", **named: Any) -> str:
        """The payload of a poll, or the opening of a new session."""
        async with self.http.get(self.polling(sid), **named) as response:
            assert response.status == 200, await response.text()
            return await response.text()

    async def open_polling(self) -> str:
        """A new session's sid."""
        sid: str = json.loads((await self.poll())[1:])["sid"]
        return sid

    async def post(self, sid: str, body: str | bytes) -> int:
        """The status of a POST."""
        async with self.http.post(self.polling(sid), data=body) as response:
            return response.status

    def polling(self, sid: str = "") -> str:
        """The URL of polling."""
        return f"{self.url}{self.path}?EIO=4&transport=polling{f'&sid={sid}' if sid else ''}"


@asynccontextmanager
async def serving(app: web.Application, *, narrow: bool = False, **options: Any) -> AsyncIterator[Site]:
    """Serve an application on a loopback port; `narrow` behind sockets for which the kernel takes next to nothing."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, **options)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    if narrow:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    await web.SockSite(runner, listening).start()
    async with aiohttp.ClientSession() as http:
        yield Site(runner, http)
    await runner.cleanup()


@asynccontextmanager
async def engine_site(above: Above, *, narrow: bool = False, **options: Any) -> AsyncIterator[tuple[Site, Engine]]:
    """Serve an engine alone."""
    engine = Engine(**options)
    engine.above = above
    app = web.Application()
    app.router.add_route("*", "/socket.io/", engine.handle_request)
    async with serving(app, narrow=narrow) as site:
        yield site, engine
        await engine.shutdown()


async def nothing_left(engine: Engine) -> None:
    """Wait until the engine holds no session and waits for no heart."""
    await until(lambda: not engine.sessions, "a session is left")
    assert not any(engine.heartbeat._due.values())


class Frame(NamedTuple):
    """A frame as it came."""

    first: int
    payload: bytes

    @property
    def opcode(self) -> int:
        return self.first & 0x0F

    @property
    def is_final(self) -> bool:
        return bool(self.first & 0x80)

    @property
    def is_compressed(self) -> bool:
        return bool(self.first & 0x40)


def client_frame(opcode: int, payload: bytes, *, final: bool = True, rsv: int = 0, mask: bytes = b"\1\2\3\4") -> bytes:
    """A masked frame, as clients send them."""
    size = len(payload)
    first = bytes(((0x80 if final else 0) | rsv << 4 | opcode,))
    if size < 126:
        head = bytes((0x80 | size,))
    elif size < 65_536:
        head = struct.pack("!BH", 0x80 | 126, size)
    else:
        head = struct.pack("!BQ", 0x80 | 127, size)
    masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload)) if any(mask) else payload
    return first + head + mask + masked


def deflated(payload: bytes) -> bytes:
    """A payload compressed as permessage-deflate wants it."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def handshake(path: str, *, key: str | None = None, headers: dict[str, str] | None = None) -> bytes:
    """The request that asks for a WebSocket; a header that is given replaces the usual one, None by ""."""
    all_ = {
        "Host": "parley",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key or base64.b64encode(os.urandom(16)).decode(),
        **(headers or {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in all_.items() if value)
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


class Raw:
    """A connection on which every byte is chosen."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.opening: dict[str, Any] = {}
        self.head = b""

    async def shake(
        self, path: str, *, headers: dict[str, str] | None = None, behind: bytes = b"", opens: bool = True
    ) -> None:
        """Become a WebSocket, with these bytes right behind the request; read the opening where one comes."""
        self.writer.write(handshake(path, headers=headers) + behind)
        self.head = await self.answer()
        assert self.head.startswith(b"HTTP/1.1 101 "), self.head
        if opens:
            self.opening = json.loads((await self.text())[1:])

    async def answer(self) -> bytes:
        """The head of an HTTP response."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    def send(self, *texts: str | bytes) -> None:
        """Send whole messages."""
        self.writer.write(
            b"".join(
                client_frame(TEXT, text.encode()) if isinstance(text, str) else client_frame(BINARY, text)
                for text in texts
            )
        )

    async def frame(self) -> Frame:
        """The next frame. Raises IncompleteReadError, or ConnectionError, where the connection is gone."""
        async with asyncio.timeout(PATIENCE_S):
            first, second = await self.reader.readexactly(2)
            assert second < 128, "a server masks nothing"
            size = second
            if second == 126:
                size = int.from_bytes(await self.reader.readexactly(2))
            elif second == 127:
                size = int.from_bytes(await self.reader.readexactly(8))
            return Frame(first, await self.reader.readexactly(size))

    async def text(self) -> str:
        """The next message, which is a text."""
        frame = await self.frame()
        assert frame.opcode == TEXT, frame
        return frame.payload.decode()

    async def end(self) -> int | None:
        """Read to the end; the code of the close, None where the connection was cut."""
        try:
            while (frame := await self.frame()).opcode != CLOSE:
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self.cut()
        return int.from_bytes(frame.payload[:2])

    def cut(self) -> None:
        """Be gone without a word."""
        self.writer.transport.abort()


class Deaf:
    """A connection on a plain socket with a small buffer, which reads only when told to."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)
        self._address = ("127.0.0.1", port)

    async def ask(self, request: bytes) -> None:
        """Connect, and send a request."""
        await asyncio.get_running_loop().sock_connect(self.socket, self._address)
        await self.send(request)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def take(self, most: int) -> bytes:
        """What is there, or comes next; nothing where the connection is closed."""
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.get_running_loop().sock_recv(self.socket, most)

    async def until(self, expected: bytes) -> bytes:
        """Read until this has come; all that was read."""
        read = bytearray()
        while expected not in read:
            piece = await self.take(4096)
            assert piece, f"it has ended: {read[-200:]!r}"
            read += piece
        return bytes(read)

    async def rest(self) -> bytes:
        """All that comes until the connection is gone."""
        read = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := await self.take(65_536):
                read += piece
        return bytes(read)
