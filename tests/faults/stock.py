"""Events between instances by python-socketio's own `AsyncRedisManager`, as it is, in the place of the bus and the log.

What it publishes it forgets, and what it hears it passes on as it comes: no number is looked at, nothing waits for its
turn, and nobody looks for what is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from socketio import AsyncRedisManager

import server.app
from server.rooms.bus import Receive
from server.rooms.comparison import Comparison
from server.rooms.delivery import Delivery
from server.rooms.log import Event
from server.rooms.names import Room, parse
from server.rooms.repair import Repair


class _Manager(AsyncRedisManager):  # type: ignore[misc]
    """The library's, which finds our clients where it would look for its own."""

    def __init__(self, url: str, hear: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(url)
        self._hear = hear

    async def _handle_emit(self, message: dict[str, Any]) -> None:
        if message["host_id"] != self.host_id:  # those here have it already
            self._hear(message)


class _Bus:
    """The manager as a bus."""

    state = "ok"

    def __init__(self, url: str, _: bytes = b"") -> None:
        self._manager = _Manager(url, self._take)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self, receive: Receive) -> None:
        self._receive = receive
        self._spawn(self._manager._thread())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def publish(self, event: Event) -> None:
        data = (event.payload, event.seq, event.at)
        self._spawn(self._manager.emit(event.name, data, room=str(event.room)))

    def subscribe(self, room: Room) -> None:
        """Every instance hears everything."""

    def unsubscribe(self, room: Room) -> None:
        """Every instance hears everything."""

    def _take(self, message: dict[str, Any]) -> None:
        room = parse(message["room"])
        assert room is not None
        payload, seq, at = message["data"]
        self._receive(Event(room, seq, at, message["event"], payload))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        self._tasks.add(task := asyncio.create_task(work))
        task.add_done_callback(self._tasks.discard)


async def never(_: object) -> None:
    """Stand in for what is done all the time."""
    await asyncio.Event().wait()


def stock_redis_manager() -> None:
    """Pass conversations' events on as they come, by the library's manager."""
    deliver = Delivery.deliver

    def pass_on(self: Delivery, event: Event) -> None:
        local = self._rooms.get(event.room)
        if not event.seq or event.room.kind != "conversation":
            deliver(self, event)
        elif local is not None:
            local.pass_on(event)

    Delivery.deliver = pass_on  # type: ignore[method-assign]
    Repair._run = never  # type: ignore[method-assign]
    Comparison._run = never  # type: ignore[method-assign]
    server.app.RedisBus = _Bus  # type: ignore[misc, assignment]
