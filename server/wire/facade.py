"""Our engine in the place of python-engineio's `AsyncServer`: so much of its interface as python-socketio asks for."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from server.wire.engineio import Engine
from server.wire.session import Session

log = logging.getLogger("parley.wire")

SID_BYTES = 15  # of randomness


class Facade(Engine):
    """The engine as `socketio.AsyncServer` and what instruments it know theirs."""

    async_mode = "aiohttp"

    def __init__(self, *, logger: Any = None, json: Any = None, async_handlers: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.observers: dict[str, Callable[..., Awaitable[None]]] = {}
        self._kept: dict[str, dict[str, Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def sockets(self) -> dict[str, Session]:
        """The sessions by sid."""
        return self.sessions

    def attach(self, app: web.Application, socketio_path: str = "socket.io") -> None:
        """Serve an aiohttp application's requests to a path."""
        app.router.add_route("*", f"/{socketio_path.strip('/')}/", self.handle_request)

    def on(self, event: str, handler: Callable[..., Awaitable[None]]) -> None:
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
        if sid not in self.sessions:
            raise KeyError(sid)
        return self._kept.setdefault(sid, {})

    def forget(self, session: Session) -> None:
        """Keep nothing of a session that has ended."""
        super().forget(session)
        self._kept.pop(session.sid, None)

    def generate_id(self) -> str:
        """An id that nobody guesses."""
        return secrets.token_urlsafe(SID_BYTES)

    def start_background_task(
        self, target: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any
    ) -> asyncio.Task[Any]:
        """Run a coroutine function beside; what it raises is logged."""
        task = asyncio.ensure_future(_logged(target(*arguments, **named)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
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

    def _get_socket(self, sid: str) -> Session:
        return self.sessions[sid]

    def _ok(self, packets: Any = None, headers: Any = None, jsonp_index: Any = None) -> dict[str, Any]:
        """Where python-socketio's instrumentation hangs its count of polled packets; nothing is sent this way."""
        return {"response": b""}


async def _logged(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("a handler failed")
        return None
