"""Our engine in the place of python-engineio's `AsyncServer`: so much of its interface as python-socketio asks for.

And what else python-socketio asks for: packets as it makes them, requests as its handlers know them.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web

from server.wire import codec
from server.wire.engineio import Engine
from server.wire.session import Session

log = logging.getLogger("parley.wire")


class Outgoing:
    """A packet as python-socketio makes them."""

    json = codec

    def __init__(
        self,
        packet_type: int = codec.EVENT,
        data: Any = None,
        namespace: str | None = None,
        id: int | None = None,  # noqa: A002 (the library's name)
        **_: Any,
    ) -> None:
        self.packet_type = packet_type
        self.data = data
        self.namespace = namespace or "/"
        self.id = id


class Facade(Engine):
    """The engine as `socketio.AsyncServer` and what instruments it know theirs."""

    async_mode = "aiohttp"

    def __init__(self, *, logger: Any = None, json: Any = None, async_handlers: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.observers: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {}
        self._kept: dict[str, dict[str, Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def sockets(self) -> dict[str, Session]:
        """The sessions by sid."""
        return self.sessions

    def attach(self, app: web.Application, socketio_path: str = "socket.io") -> None:
        """Serve an aiohttp application's requests to a path."""
        app.router.add_route("*", f"/{socketio_path.strip('/')}/", self.handle_request)

    def on(self, event: str, handler: Callable[..., Coroutine[Any, Any, None]]) -> None:
        """Have a coroutine function called on `connect` and `disconnect`; the last one given stands."""
        self.observers[event] = handler

    def observe(self, event: str, *arguments: Any) -> None:
        """Tell who wants to hear of an event."""
        observer = self.observers.get(event)
        if observer is not None:
            self.start_background_task(observer, *arguments)

    async def disconnect(self, sid: str) -> None:
        """End a session."""
        session = self.sessions.get(sid)
        if session is not None:
            session.close()

    def transport(self, sid: str) -> str:
        """What a session goes over. Raises KeyError."""
        return "websocket" if self.sessions[sid].upgraded else "polling"

    async def get_session(self, sid: str) -> dict[str, Any]:
        """What the application keeps with a session. Raises KeyError."""
        if sid not in self.sessions and sid not in self._kept:
            raise KeyError(sid)
        return self._kept.setdefault(sid, {})

    def keep(self, sid: str) -> None:
        """Have `get_session` answer for a session that has ended, until `let_go`: its handlers are hearing of it."""
        self._kept.setdefault(sid, {})

    def let_go(self, sid: str) -> None:
        """Keep nothing of the application's for a session that has ended."""
        self._kept.pop(sid, None)

    def start_background_task(
        self, target: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any, **named: Any
    ) -> asyncio.Task[Any]:
        """Run a coroutine function beside; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(target(*arguments, **named))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def sleep(self, seconds: float = 0) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def create_event(self) -> asyncio.Event:
        """Something to wait for."""
        return asyncio.Event()

    async def shutdown(self) -> None:
        """Stop the heartbeat, cut whoever is there, and break off what runs beside."""
        await super().shutdown()
        for task in list(self._tasks):
            task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a handler failed", exc_info=error)

    def _get_socket(self, sid: str) -> Session:
        return self.sessions[sid]

    def _ok(self, packets: Any = None, headers: Any = None, jsonp_index: Any = None) -> dict[str, Any]:
        """Where python-socketio's instrumentation hangs its count of polled packets; nothing is sent this way."""
        return {"response": b""}


def environ_of(request: web.Request, address: str) -> dict[str, Any]:
    """What python-socketio's handlers know of a request; nothing that keeps it alive."""
    return {
        "REMOTE_ADDR": address,
        "REQUEST_METHOD": request.method,
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query_string,
        "wsgi.url_scheme": request.scheme,
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()},
    }
