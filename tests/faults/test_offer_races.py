"""Offers that five move at the same instant, through two servers: one wins, and the database agrees with itself.

`python -m bench.races` is the same with a hundred times as many.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import handlers  # noqa: F401  (declares the commands that may race)
from tests.faults.processes import ServerProcess
from tests.faults.racers import ACTORS, race
from tests.negotiation_checker import LAWS, breaches, counted
from tests.people import SECRET

OFFERS = 100
BOUND_S = 30.0
RATES = {f"PARLEY_RATE_{name}": "off" for name in ("OFFER_MOVES", "WRITES", "READS")}


@pytest.fixture
def two_servers(migrated_database: str, tmp_path: Path, how: list[str]) -> Iterator[list[str]]:
    """Two servers on one database, whose clocks are at work all the time; their URLs."""
    environ = {"DATABASE_URL": migrated_database, "PARLEY_SECRET": SECRET, "PARLEY_DRAIN_MS": "0", **RATES}
    module = ("tests.faults.racing", *how)
    servers = [
        ServerProcess(tmp_path / f"{n}.log", {**environ, "PARLEY_INSTANCE": f"{n}"}, module, afresh=bool(how))
        for n in range(2)
    ]
    try:
        with ThreadPoolExecutor() as side_by_side:
            list(side_by_side.map(ServerProcess.start, servers))
        yield [server.url for server in servers]
    finally:
        for server in servers:
            server.kill()


@pytest.mark.parametrize("how", [[]], ids=[""])
async def test_of_five_who_move_an_offer_at_once_one_wins(migrated_database: str, two_servers: list[str]) -> None:
    tally = await race(migrated_database, SECRET, two_servers, offers=OFFERS, seconds=BOUND_S)
    assert tally.wrong == []
    assert await breaches(migrated_database) == []
    assert tally.offers >= OFFERS
    assert tally.moves >= OFFERS * ACTORS
    assert (await counted(migrated_database))["offers"] >= tally.offers


@pytest.mark.parametrize("how", [["without_locks"]], ids=[""])
async def test_without_row_locks_the_race_is_seen_to_go_wrong(migrated_database: str, two_servers: list[str]) -> None:
    # Without locks moves collide for as long as they are tried.
    tally = await race(migrated_database, SECRET, two_servers, offers=OFFERS, seconds=BOUND_S, tries=2)
    found = await breaches(migrated_database)
    assert tally.wrong
    assert {"stock is what is reserved", "a negotiation stands as its last offer says"} & {
        breach.partition(":")[0] for breach in found
    }, found
    assert LAWS.keys() >= {breach.partition(":")[0] for breach in found}
