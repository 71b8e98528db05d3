"""Ephemeral pushes that say the same thing again and again: the latest of them, at most once a second."""

import asyncio
from collections.abc import Callable, Hashable

from server.rooms.log import Event

EVERY_S = 1.0


class Merging:
    """Sends the first event of a key at once, and of those that follow within a second the last one, at its end."""

    def __init__(self, send: Callable[[Event], None], every_s: float = EVERY_S) -> None:
        self._send = send
        self._every_s = every_s
        self._waiting: dict[Hashable, Event | None] = {}

    def put(self, key: Hashable, event: Event) -> None:
        """Send the event, now or at the end of the second."""
        if key in self._waiting:
            self._waiting[key] = event
        else:
            self._begin(key, event)

    def _begin(self, key: Hashable, event: Event) -> None:
        self._waiting[key] = None
        asyncio.get_running_loop().call_later(self._every_s, self._end, key)
        self._send(event)

    def _end(self, key: Hashable) -> None:
        event = self._waiting.pop(key)
        if event is not None:
            self._begin(key, event)
