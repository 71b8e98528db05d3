"""How events travel between instances: fast, and allowed to lose. The log makes good whatever is lost here.

Two implementations with one contract, checked by one test suite: `LocalBus` within a process, `RedisBus` over Redis
pub/sub. The contract: what is published reaches `receive` of the other started buses that subscribe to its room, at
most once each, the publisher not included; nothing here raises towards the publisher, and nothing waits.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from server.rooms.log import Event
from server.rooms.names import Room

Receive = Callable[[Event], None]


class Bus(Protocol):
    """Carries events between instances."""

    async def start(self, receive: Receive) -> None:
        """Begin to receive. Does not wait for a broker that is down."""

    async def stop(self) -> None:
        """Stop receiving and free everything."""

    def publish(self, event: Event) -> None:
        """Send an event to the other instances."""

    def subscribe(self, room: Room) -> None:
        """Receive the events of a room from now on."""

    def unsubscribe(self, room: Room) -> None:
        """Receive the events of a room no more."""

    @property
    def state(self) -> str:
        """`ok`, or `degraded` while events reach other instances through the log alone."""


class LocalHub:
    """What the buses of one process meet on."""

    def __init__(self) -> None:
        self.buses: set[LocalBus] = set()


class LocalBus:
    """The bus within one process: an instance of its own has a hub of its own."""

    state = "ok"

    def __init__(self, hub: LocalHub | None = None) -> None:
        self._hub = hub or LocalHub()
        self._rooms: set[Room] = set()
        self._receive: Receive | None = None

    async def start(self, receive: Receive) -> None:
        self._receive = receive
        self._hub.buses.add(self)

    async def stop(self) -> None:
        self._hub.buses.discard(self)

    def publish(self, event: Event) -> None:
        for other in self._hub.buses:
            if other is not self:
                other.take(event)

    def take(self, event: Event) -> None:
        """Receive what another bus of the hub has published, in a turn of the loop of its own."""
        if self._receive is not None and event.room in self._rooms:
            asyncio.get_running_loop().call_soon(self._receive, event)

    def subscribe(self, room: Room) -> None:
        self._rooms.add(room)

    def unsubscribe(self, room: Room) -> None:
        self._rooms.discard(room)
