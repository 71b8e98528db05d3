"""`server/wire` alone, with the contract that the official protocol suites ask of a server.

    python -m bench.conformance --port 3000

serves Socket.IO at `/socket.io/` (on connect it emits `auth` with the client's auth object, on `/` and on `/custom`;
`message` comes back as `message-back`; `message-with-ack` is acked with its arguments) and an Engine.IO echo at
`/engine.io/`. The suites are in the repository socketio/socket.io, under docs/engine.io-protocol/v4-test-suite and
docs/socket.io-protocol/v5-test-suite: `npm install && npm test` in each, against this port.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import typer
import uvloop
from aiohttp import web

from server.wire import Server
from server.wire.codec import Encoding, Packet
from server.wire.engineio import Engine
from server.wire.frames import Kind
from server.wire.session import Reason, Session

PAYLOAD_BYTES = 1_000_000


class _Message(Packet):
    """An Engine.IO message that is no Socket.IO packet."""

    def __init__(self, message: bytes, *, is_binary: bool) -> None:
        super().__init__("" if is_binary else message.decode(), [message] if is_binary else [])
        self._is_binary = is_binary

    def messages(self, encoding: Encoding) -> list[str | bytes]:
        return list(self.attachments) if self._is_binary else [self.text]

    def _payloads(self, encoding: Encoding) -> Iterable[tuple[Kind, bytes]]:
        if self._is_binary:
            return [(Kind.BINARY, self.attachments[0])]
        return [(Kind.TEXT, f"4{self.text}".encode())]


class Echo:
    """Stands on an engine, and sends every message back."""

    def opening(self, request: web.Request) -> None:
        """Everybody may."""

    def opened(self, session: Session, request: web.Request) -> None:
        """Nothing to keep."""

    def not_opened(self, request: web.Request) -> None:
        """Nothing to give back."""

    def received(self, session: Session, message: bytes, at: int, *, is_binary: bool) -> None:
        session.push(_Message(message[at:], is_binary=is_binary))

    def ended(self, session: Session, reason: Reason) -> None:
        """Nothing to forget."""


def _handlers(server: Server, namespace: str) -> None:
    async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
        await server.emit("auth", auth or {}, to=sid, namespace=namespace)

    async def message(sid: str, *arguments: Any) -> None:
        await server.emit("message-back", arguments, to=sid, namespace=namespace)

    async def message_with_ack(sid: str, *arguments: Any) -> tuple[Any, ...]:
        return arguments

    server.on("connect", connect, namespace=namespace)
    server.on("message", message, namespace=namespace)
    server.on("message-with-ack", message_with_ack, namespace=namespace)


def build(ping_interval_ms: int, ping_timeout_ms: int) -> web.Application:
    """The server that the suites ask, with the sessions that end when it does."""
    server = Server(
        ping_interval_ms=ping_interval_ms,
        ping_timeout_ms=ping_timeout_ms,
        connect_timeout_ms=1_000,
        frame_bytes=PAYLOAD_BYTES,
        origins=["*"],
    )
    for namespace in ("/", "/custom"):
        _handlers(server, namespace)
    echo = Engine(
        ping_interval=ping_interval_ms / 1000,
        ping_timeout=ping_timeout_ms / 1000,
        most_bytes=PAYLOAD_BYTES,
        origins=["*"],
    )
    echo.above = Echo()
    app = web.Application()
    server.attach(app)
    app.router.add_route("*", "/engine.io/", echo.handle_request)

    async def end(_: web.Application) -> None:
        await server.shutdown()
        await echo.shutdown()

    app.on_shutdown.append(end)
    return app


async def serve(port: int, ping_interval_ms: int, ping_timeout_ms: int) -> None:
    """Serve until cancelled."""
    runner = web.AppRunner(build(ping_interval_ms, ping_timeout_ms), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    typer.echo(f"http://127.0.0.1:{port}")
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main(port: int = 3000, ping_interval_ms: int = 300, ping_timeout_ms: int = 200) -> None:
    """Serve what the official protocol suites ask for."""
    uvloop.run(serve(port, ping_interval_ms, ping_timeout_ms))


if __name__ == "__main__":
    typer.run(main)
