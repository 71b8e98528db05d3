"""What holds up the event loop is measured, and shown at a scrape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from server import lag
from server.lag import LoopLag
from tests.people import Instance


def slower_than(looks: LoopLag, bound: str) -> float:
    """How many looks came later than that."""
    buckets = dict(looks.histogram.buckets())
    return buckets["+Inf"] - buckets[bound]


async def looked(looks: LoopLag, times: int) -> None:
    """Wait until it has looked so often."""
    async with asyncio.timeout(20):
        while looks.histogram.buckets()[-1][1] < times:
            await asyncio.sleep(0.005)


class Loop:
    """The running loop, whose time is what a test says."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.due: list[float] = []

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, look: Callable[[], None]) -> None:
        self.due.append(due)


def test_every_look_that_a_standing_loop_missed_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, looks = Loop(), LoopLag()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    looks.start()
    for late in (0.0, -0.001, 0.0):  # a timer of uvloop's may be early
        loop.now = loop.due[-1] + late
        looks._look()
    assert (looks.histogram.buckets()[-1][1], looks.histogram.seconds) == (3, 0)
    loop.now = loop.due[-1] + 30.05
    looks._look()
    assert looks.histogram.buckets()[-1][1] == 3 + 301
    assert slower_than(looks, "0.1") == 300
    assert slower_than(looks, "10.0") == pytest.approx(201, abs=1)
    assert loop.now < loop.due[-1] <= loop.now + lag.LOOK_S


async def test_a_loop_that_is_looked_at_no_more_counts_nothing() -> None:
    looks = LoopLag()
    looks.start()
    await looked(looks, 1)
    looks.stop()
    count = looks.histogram.buckets()[-1]
    await asyncio.sleep(lag.LOOK_S * 2)
    assert looks.histogram.buckets()[-1] == count


async def test_an_instance_looks_from_its_start_to_its_end(parley: Instance) -> None:
    await looked(parley.parley.lag, 2)
    async with parley.http.get(f"{parley.url}/metrics") as response:
        assert "parley_loop_lag_seconds_count 0.0" not in await response.text()
