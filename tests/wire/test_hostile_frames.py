"""A share of the generated bad input that `python -m bench.hostile` has by the hundred thousand, against Parley."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from server.logs import BadRequests
from tests.people import Instance
from tests.wire.bare import until
from tests.wire.hostile import Mischief, besiege
from tests.wire.test_guards import nothing_left, port_of

FRAMES = 2_000
SEED = 20_261_121


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_same_seed_makes_the_same_visits() -> None:
    def some(seed: int) -> list[bytes]:
        return [b"".join(visit.writes) for visit in islice(Mischief(seed, ["token"]).visits(), 50)]

    assert some(1) == some(1) != some(2)


async def test_bad_input_breaks_nothing_and_leaves_nothing(
    new_instance: Callable[..., Awaitable[Instance]], caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    logging.getLogger("aiohttp.server").addFilter(BadRequests())  # as `parley serve` does
    fixed = {"PARLEY_POOL_MIN": "10"}  # all its connections are there from the beginning
    off = {f"PARLEY_RATE_{name}": "off" for name in ("MESSAGE_SEND", "WRITES", "READS", "CONNECTS", "OFFER_MOVES")}
    pings = {"PARLEY_PING_INTERVAL_MS": "1000", "PARLEY_PING_TIMEOUT_MS": "1000"}  # for those who poll and are gone
    parley = await new_instance(PARLEY_CONNECT_TIMEOUT_MS="1000", **pings, **fixed, **off)
    people = [await parley.person("amina"), await parley.person("bilal")]
    chat = await parley.chat(*people)
    await asyncio.sleep(0)
    before = (len(asyncio.all_tasks()), descriptors())
    ids = [chat, *(person.user_id for person in people)]
    mischief = Mischief(SEED, [person.token for person in people], ids)
    began = time.monotonic()
    tally = await besiege(port_of(parley), mischief, FRAMES, 8)
    assert not tally.wrong, tally.wrong[:3]
    assert tally.ends["lives"] > 20, tally
    assert sum(count for end, count in tally.ends.items() if end.startswith("closed with")) > 20, tally
    await nothing_left(parley)
    await until(lambda: not parley.parley.dispatcher._tasks, "commands are under way")
    await until(lambda: len(asyncio.all_tasks()) <= before[0] and descriptors() <= before[1] + 2, "tasks are left")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not errors, [record.getMessage() for record in errors[:3]]
    assert "[error" not in capsys.readouterr().out
    assert time.monotonic() - began < 60
    device = await people[0].connect()
    assert (await device.call("account:me"))["user_id"] == people[0].user_id
