"""Waiting for a connection of the pool is timed, whether one comes or not."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import Unavailable
from storage import Database, _db

HELD_S = 0.2


async def test_every_wait_for_a_connection_is_told(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await Database.open(migrated_database, min_size=1, max_size=1)
    waits: list[float] = []
    database.on_wait = waits.append

    async def hold(seconds: float) -> None:
        async with database.connection() as db:
            await db.execute("select pg_sleep($1::float8)", seconds)

    await hold(0)
    assert len(waits) == 1
    assert waits[0] < HELD_S
    first = asyncio.ensure_future(hold(HELD_S))
    while len(waits) < 2:
        await asyncio.sleep(0)
    await hold(0)
    await first
    assert waits[2] > HELD_S * 0.8
    monkeypatch.setattr(_db, "ACQUIRE_TIMEOUT_S", 0.05)
    async with database.connection():
        with pytest.raises(Unavailable):
            await hold(0)
    assert len(waits) == 5
    assert waits[4] >= 0.05
    await database.close()
