"""A way to an instance that does something to what is pushed on it, as a server with a fault would."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence

from server.cli.load.frames import TEXT, Frames


class Line:
    """One client's connection; `rooms` are those of which it has heard something."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.rooms: set[bytes] = set()

    def send(self, packet: bytes, opcode: int = TEXT) -> None:
        """Say something to the client."""
        size = len(packet)
        length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65_536 else b""
        self.writer.write(bytes((0x80 | opcode,)) + (length or b"\x7f" + size.to_bytes(8)) + packet)


Spoil = Callable[[Line, bytes, Sequence[Line]], bool]
"""(the line, a packet on it, all lines) → whether it has done something else with it than to pass it on."""


class Spoiler:
    """Listens on `url`, and passes all on but the first packets, so many, that `spoil` is true of."""

    def __init__(self, target: str, spoil: Spoil, *, times: int = 1) -> None:
        self._host, self._port = target.removeprefix("http://").split(":")
        self._spoil = spoil
        self._times = times
        self.lines: list[Line] = []
        self.spoilt = 0

    async def __aenter__(self) -> Spoiler:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for line in self.lines:
            line.writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, int(self._port))
        line = Line(writer)
        with contextlib.suppress(OSError):
            await asyncio.gather(_pump(reader, back), self._listen(there, line))

    async def _listen(self, reader: asyncio.StreamReader, line: Line) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line.writer.write(head)
        if b" 101 " not in head:
            await _pump(reader, line.writer)
            return
        self.lines.append(line)
        frames = Frames()
        while data := await reader.read(65_536):
            for opcode, payload in frames.feed(data):
                if opcode != TEXT or not self._does(line, payload):
                    line.send(payload, opcode)
        line.writer.close()

    def _does(self, line: Line, packet: bytes) -> bool:
        line.rooms |= set(re.findall(rb'"((?:user|conversation):[0-9a-f-]{36})"', packet))
        if self.spoilt == self._times:
            return False
        has_spoilt = self._spoil(line, packet, self.lines)
        self.spoilt += has_spoilt
        return has_spoilt


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()


def drop(name: str) -> Spoil:
    """A push does not come."""
    return lambda line, packet, lines: _is(packet, name)


def double(name: str) -> Spoil:
    """A push comes twice."""

    def spoil(line: Line, packet: bytes, lines: Sequence[Line]) -> bool:
        if _is(packet, name):
            line.send(packet)
            line.send(packet)
        return _is(packet, name)

    return spoil


def swap(name: str) -> Spoil:
    """A push comes behind the next; that is two times."""
    held: list[tuple[Line, bytes]] = []

    def spoil(line: Line, packet: bytes, lines: Sequence[Line]) -> bool:
        if not _is(packet, name) or (held and held[0][0] is not line):
            return False
        held.append((line, packet))
        if len(held) == 2:
            for _, each in reversed(held):
                line.send(each)
        return True

    return spoil


def misdirect(name: str, *, is_lost: bool) -> Spoil:
    """A push goes to somebody who has nothing to do with it, too or instead."""

    def spoil(line: Line, packet: bytes, lines: Sequence[Line]) -> bool:
        if not _is(packet, name):
            return False
        strangers = [each for each in lines if not any(_id_of(own) in packet for own in each.rooms)]
        if strangers:
            strangers[0].send(packet)
            if not is_lost:
                line.send(packet)
        return bool(strangers)

    return spoil


def alter(name: str, what: bytes, into: bytes) -> Spoil:
    """A push says something else to one."""

    def spoil(line: Line, packet: bytes, lines: Sequence[Line]) -> bool:
        is_it = _is(packet, name) and re.search(what, packet) is not None
        if is_it:
            line.send(re.sub(what, into, packet))
        return is_it

    return spoil


def cut_each(after: int) -> Spoil:
    """Each connection is cut when so much has come on it; one that comes back is not cut again."""
    heard: dict[Line, int] = {}

    def spoil(line: Line, packet: bytes, lines: Sequence[Line]) -> bool:
        heard[line] = heard.get(line, 0) + 1
        is_enough = heard[line] == after and line in lines[:8]
        if is_enough:
            line.writer.transport.abort()
        return is_enough

    return spoil


def lose_answer(packet_start: bytes = b"43") -> Spoil:
    """A command is not answered."""
    return lambda line, packet, lines: packet.startswith(packet_start)


def _id_of(room: bytes) -> bytes:
    return room.partition(b":")[2]


def _is(packet: bytes, name: str) -> bool:
    return packet.startswith(b'42["%s",' % name.encode())
