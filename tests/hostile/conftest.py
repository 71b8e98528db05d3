"""What the attacks share: a database for all of them, and two instances with whatever becomes of their bus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from server.rooms.bus import LocalHub
from tests.buses import LossyBus
from tests.people import Instance
from tests.servers import RedisServer

BUSES = ["a bus", "a bus that loses everything", "a Redis that is killed"]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own: each attacks people of its own."""
    return shared_database


@dataclass
class Pair:
    """Two instances, and what befalls their bus when `strike` is called."""

    one: Instance
    two: Instance
    strike: Callable[[], None]


@pytest.fixture(params=BUSES)
async def pair(request: pytest.FixtureRequest, new_instance: Callable[..., Awaitable[Instance]]) -> AsyncIterator[Pair]:
    """Two instances, with each fate of a bus in turn."""
    if request.param == "a Redis that is killed":
        valkey: RedisServer = request.getfixturevalue("valkey")
        one, two = [await new_instance(REDIS_URL=valkey.url) for _ in range(2)]
        yield Pair(one, two, valkey.kill)
        if valkey.ask("ping") is None:
            valkey.start()
        return
    hub = LocalHub()
    buses = LossyBus(hub), LossyBus(hub)

    def strike() -> None:
        for bus in buses:
            bus.is_deaf = request.param != "a bus"

    one, two = [await new_instance(bus=bus) for bus in buses]
    yield Pair(one, two, strike)
