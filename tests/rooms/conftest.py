"""What the tests of delivery share: an instance's rooms without sockets, over a real log."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from server.rooms import comparison
from server.rooms.delivery import Delivery
from server.rooms.names import Room
from server.rooms.sockets import Socket
from storage import Database
from tests.rooms.watching import SilentBus, Watched, enter, new_room


@pytest.fixture
async def database(shared_database: str) -> AsyncIterator[Watched]:
    database = await Database.open(shared_database, min_size=1, max_size=3)
    yield Watched(database)
    await database.close()


@pytest.fixture
def bus() -> SilentBus:
    return SilentBus()


@pytest.fixture
async def delivery(database: Watched, bus: SilentBus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Delivery]:
    """A delivery that compares only when a test says so."""
    monkeypatch.setattr(comparison, "COMPARE_S", 3600)
    delivery = Delivery(database, bus)
    await delivery.start()
    database.taken = 0
    yield delivery
    await delivery.stop()


@pytest.fixture
async def chat(database: Watched) -> Room:
    return await new_room(database)


@pytest.fixture
async def amina(delivery: Delivery) -> Socket:
    return enter(delivery)
