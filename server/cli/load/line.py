"""One connection to a server: a WebSocket, and Engine.IO over it, without a task of its own."""

import asyncio
from typing import NamedTuple, Protocol, cast

from server.cli.load.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frames,
    Malformed,
    TurnedAway,
    handshake,
    judge_answer,
    masked,
)


class Server(NamedTuple):
    """Where a server is."""

    host: str
    port: int
    is_tls: bool


class Cut(NamedTuple):
    """Why a connection is over; `retry_after_s` is when the server would have it tried again, if it says."""

    why: str
    retry_after_s: float | None = None


class Listener(Protocol):
    """Whose connection it is."""

    def opened(self) -> None:
        """Packets may be sent."""

    def heard(self, packet: bytes) -> None:
        """A packet of Socket.IO's has come. Raises `Malformed`, which ends the connection."""

    def misheard(self, error: Malformed) -> None:
        """Something has come that should not have; the connection is over."""

    def cut(self, cut: Cut) -> None:
        """The connection is over."""


class Line(asyncio.Protocol):
    """A connection; by `end` the side that listens ends it."""

    def __init__(self, server: Server, listener: Listener) -> None:
        self._server = server
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._frames = Frames()
        self._head: bytes | None = b""
        self._accept = b""
        self._cut: Cut | None = None

    async def dial(self) -> None:
        """Connect. Raises OSError."""
        host, port, is_tls = self._server
        await asyncio.get_running_loop().create_connection(lambda: self, host, port, ssl=True if is_tls else None)

    def send(self, packet: bytes, opcode: int = TEXT) -> None:
        """Send a packet; nothing where the connection is over."""
        if self._transport is not None:
            self._transport.write(masked(packet, opcode))

    def end(self, cut: Cut) -> None:
        """Cut it, for a reason."""
        self._cut = self._cut or cut
        if self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        """Say good-bye, and close."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(masked(b"41") + masked((1000).to_bytes(2), CLOSE))
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP stands: ask for a WebSocket."""
        self._transport = cast("asyncio.Transport", transport)
        host, port, is_tls = self._server
        shown = f"[{host}]" if ":" in host else host
        request, self._accept = handshake(shown if port == (443 if is_tls else 80) else f"{shown}:{port}")
        self._transport.write(request)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._transport = None
        self._listener.cut(self._cut or Cut("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer to the handshake, then frames."""
        try:
            if self._head is not None:
                head, end, data = (self._head + data).partition(b"\r\n\r\n")
                if not end:
                    self._head = head
                    return
                judge_answer(head, self._accept)
                self._head = None
            for opcode, payload in self._frames.feed(data):
                self._take(opcode, payload)
        except TurnedAway as away:
            self.end(Cut(str(away), away.retry_after_s))
        except Malformed as error:
            self._listener.misheard(error)
            self.end(Cut(str(error)))

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.send(payload, PONG)
        elif opcode == CLOSE:
            self.end(Cut(f"closed with {int.from_bytes(payload[:2])}"))
        elif opcode == BINARY:
            raise Malformed("bytes, where text was due")
        elif opcode == TEXT and payload[:1] == b"4":
            self._listener.heard(payload)
        elif payload == b"2":
            self.send(b"3")
        elif payload[:1] == b"0":
            self._listener.opened()
        elif payload == b"1":
            self.end(Cut("the server closed it"))
        elif opcode == TEXT:
            raise Malformed(f"no packet: {payload[:80]!r}")
