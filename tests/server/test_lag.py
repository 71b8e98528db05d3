"""What holds up the event loop is measured, and shown at a scrape."""

from __future__ import annotations

import asyncio
import time

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


async def test_every_look_that_a_standing_loop_missed_comes_late() -> None:
    looks = LoopLag()
    looks.start()
    await looked(looks, 1)
    before = looks.histogram.buckets()[-1][1]
    time.sleep(lag.LOOK_S * 10)
    await looked(looks, before + 1)
    looks.stop()
    assert looks.histogram.buckets()[-1][1] >= before + 9
    assert 4 <= slower_than(looks, "0.5") <= 6
    assert 8 <= slower_than(looks, "0.1") <= 10
    count = looks.histogram.buckets()[-1]
    await asyncio.sleep(lag.LOOK_S * 2)
    assert looks.histogram.buckets()[-1] == count


async def test_an_instance_looks_from_its_start_to_its_end(parley: Instance) -> None:
    await looked(parley.parley.lag, 2)
    async with parley.http.get(f"{parley.url}/metrics") as response:
        assert "parley_loop_lag_seconds_count 0.0" not in await response.text()
