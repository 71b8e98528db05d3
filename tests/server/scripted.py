"""A server that says what a test wants it to: enough of WebSocket and Socket.IO for one person of `parley load`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from server.cli.load.line import Server
from tests.server.spoiler import Line

OWN = "user:1"


class Scripted:
    """Each connection is greeted with the next hello, the last of them again and again.

    `turned_away` are answers to the next handshakes; `answer` is given each command, and what it returns is said: a
    list of packets, or None to cut the connection.
    """

    def __init__(self, *hellos: dict[str, Any]) -> None:
        self.hellos = list(hellos) or [hello({OWN: 0})]
        self.turned_away: list[bytes] = []
        self.answer: Callable[[int, str, dict[str, Any]], list[str] | None] = lambda number, name, payload: []
        self.asked: list[tuple[int, str, dict[str, Any]]] = []
        self.auths: list[dict[str, Any]] = []
        self.line: Line | None = None
        self.connections: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    def say(self, *packets: str) -> None:
        """Say something to who is connected."""
        assert self.line is not None
        for packet in packets:
            self.line.send(packet.encode())

    def cut(self) -> None:
        """Cut who is connected."""
        assert self.line is not None
        self.line.writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        self.connections[writer] = asyncio.current_task()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if self.turned_away:
                writer.write(self.turned_away.pop(0))
                writer.close()
                return
            key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            writer.write(b"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
            self.line = line = Line(writer)
            line.send(b'0{"sid":"s"}')
            while True:
                self._take(line, (await _frame(reader)).decode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _take(self, line: Line, packet: str) -> None:
        if packet.startswith("40"):
            self.auths.append(json.loads(packet[2:]))
            line.send(b'40{"sid":"s"}')
            line.send(event("hello", self.hellos.pop(0) if len(self.hellos) > 1 else self.hellos[0]).encode())
        elif packet.startswith("42"):
            at = packet.index("[")
            asked = (int(packet[2:at]), *json.loads(packet[at:]))
            self.asked.append(asked)
            said = self.answer(*asked)
            if said is None:
                line.writer.transport.abort()
            for each in said or ():
                line.send(each.encode())


async def _frame(reader: asyncio.StreamReader) -> bytes:
    _, size = await reader.readexactly(2)
    size &= 0x7F
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2))
    key = await reader.readexactly(4)
    body = await reader.readexactly(size)
    return bytes(byte ^ key[n % 4] for n, byte in enumerate(body))


@asynccontextmanager
async def listening(scripted: Scripted) -> AsyncIterator[Server]:
    """Where it is."""
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    try:
        yield Server(*server.sockets[0].getsockname(), False)
    finally:
        server.close()
        for writer in scripted.connections:
            writer.transport.abort()
        await asyncio.gather(*(task for task in scripted.connections.values() if task is not None))


def hello(rooms: dict[str, int], *reset: str) -> dict[str, Any]:
    """The first push of a connection."""
    return {"user_id": "1", "epoch": "e", "rooms": rooms, "reset": list(reset)}


def event(name: str, payload: Any, room: str = "", seq: int = 0) -> str:
    """A push."""
    said = [name, payload, *([{"room": room, "seq": seq, "at": ""}] if room else [])]
    return "42" + json.dumps(said, separators=(",", ":"))


def ok(number: int, data: Any) -> str:
    """An answer."""
    return f"43{number}" + json.dumps([{"ok": True, "data": data}])


def refused(number: int, code: str, **more: Any) -> str:
    """An answer that is an error."""
    return f"43{number}" + json.dumps([{"ok": False, "error": {"code": code, "message": "", **more}}])
