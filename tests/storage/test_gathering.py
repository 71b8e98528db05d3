"""Reads gathered from many callers: each gets its own, and nobody waits for whom they need not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from server.errors import Unavailable
from storage import Connection, Database, Gathering

PATIENCE_S = 10.0


@pytest.fixture
async def database(shared_database: str) -> AsyncIterator[Database]:
    database = await Database.open(shared_database, min_size=1, max_size=2)
    yield database
    await database.close()


class Reads:
    """A read that doubles its keys, when it may; `of` are the keys of each."""

    def __init__(self) -> None:
        self.of: list[list[int]] = []
        self.may = asyncio.Event()
        self.may.set()

    async def __call__(self, db: Connection, keys: Sequence[int]) -> list[int]:
        self.of.append([*keys])
        await self.may.wait()
        found: list[int] = await db.fetchval(
            "select array_agg(2 * k order by n) from unnest($1::int[]) with ordinality u(k, n)", keys
        )
        if 13 in keys:
            raise ValueError("thirteen")
        return found


async def settled(work: Sequence[asyncio.Task[int]]) -> list[int | BaseException]:
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.gather(*work, return_exceptions=True)


def asking(gathering: Gathering[int, int], *keys: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(gathering.ask(key)) for key in keys]


async def test_who_asks_in_the_same_turn_shares_a_read_and_gets_their_own(database: Database) -> None:
    reads = Reads()
    assert await settled(asking(Gathering(database, reads, most=10, flights=1), 5, 1, 5, 3)) == [10, 2, 10, 6]
    assert reads.of == [[5, 1, 5, 3]]


async def test_who_comes_while_all_reads_are_under_way_shares_the_next(database: Database) -> None:
    reads = Reads()
    reads.may.clear()
    gathering = Gathering(database, reads, most=3, flights=1)
    first = asking(gathering, 1)
    while not reads.of:
        await asyncio.sleep(0)
    others = asking(gathering, 2, 3, 4, 5)
    await asyncio.sleep(0)
    reads.may.set()
    assert await settled([*first, *others]) == [2, 4, 6, 8, 10]
    assert reads.of == [[1], [2, 3, 4], [5]]


async def test_as_many_reads_as_may_are_under_way_at_once(database: Database) -> None:
    reads = Reads()
    reads.may.clear()
    gathering = Gathering(database, reads, most=1, flights=2)
    asked = asking(gathering, 1, 2, 3)
    async with asyncio.timeout(PATIENCE_S):
        while len(reads.of) < 2:
            await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert reads.of == [[1], [2]]
    reads.may.set()
    assert await settled(asked) == [2, 4, 6]


async def test_what_a_read_raises_all_of_its_callers_get_and_nobody_else(database: Database) -> None:
    gathering = Gathering(database, Reads(), most=2, flights=1)
    one, two, three = await settled(asking(gathering, 13, 2, 3))
    assert isinstance(one, ValueError)
    assert isinstance(two, ValueError)
    assert three == 6


async def test_who_waits_no_more_is_not_read_for(database: Database) -> None:
    reads = Reads()
    reads.may.clear()
    gathering = Gathering(database, reads, most=10, flights=1)
    first = asking(gathering, 1)
    while not reads.of:
        await asyncio.sleep(0)
    gone, there = asking(gathering, 2, 3)
    await asyncio.sleep(0)
    gone.cancel()
    first[0].cancel()
    reads.may.set()
    outcome = await settled([*first, gone, there])
    assert [type(each) for each in outcome] == [asyncio.CancelledError, asyncio.CancelledError, int]
    assert reads.of == [[1], [3]]


async def test_a_database_that_is_gone_is_said_to_all_who_ask_and_not_for_ever(database: Database) -> None:
    gathering = Gathering(database, Reads(), most=10, flights=1)
    await database.close()
    for _ in range(2):
        outcome = await settled(asking(gathering, 1, 2))
        assert all(isinstance(each, Unavailable) for each in outcome)
