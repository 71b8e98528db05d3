"""The bound on a transaction's life: what takes too long is rolled back and answered, and nobody is held up by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

import asyncpg
import pytest

from server.errors import Unavailable
from storage import Connection, Database, _db, rooms

pytestmark = pytest.mark.both_postgres

Work = Callable[[Connection], Awaitable[None]]


@pytest.fixture
async def database(shared_database: str) -> AsyncIterator[Database]:
    """A pool of one connection."""
    database = await Database.open(shared_database, min_size=1, max_size=1)
    yield database
    await database.close()


async def is_kept(dsn: str, room_id: UUID) -> bool:
    connection = await asyncpg.connect(dsn)
    try:
        return bool(await connection.fetchval("select exists (select from rooms where room_id = $1)", room_id))
    finally:
        await connection.close()


async def in_a_transaction(database: Database, work: Work) -> None:
    await database.transaction(work)


async def in_a_unit(database: Database, work: Work) -> None:
    async with database.unit() as db:
        await work(db)


async def forever(_: Connection) -> None:
    await asyncio.Event().wait()


async def in_postgresql(db: Connection) -> None:
    await db.execute("set local statement_timeout = 0")
    await db.execute("select pg_sleep(60)")


def test_the_bound_is_thirty_seconds() -> None:
    assert _db.TRANSACTION_TIMEOUT_S == 30


@pytest.mark.parametrize("run", [in_a_transaction, in_a_unit])
@pytest.mark.parametrize("linger", [forever, in_postgresql])
async def test_a_transaction_over_its_time_is_unavailable_and_nothing_of_it_is_kept(
    shared_database: str,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[Database, Work], Awaitable[None]],
    linger: Work,
) -> None:
    room_id, tries = uuid4(), 0

    async def work(db: Connection) -> None:
        nonlocal tries
        tries += 1
        await rooms.create_room(db, room_id, "conversation")
        await linger(db)

    monkeypatch.setattr(_db, "TRANSACTION_TIMEOUT_S", 0.2)
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable):
            await run(database, work)
    assert tries == 1
    assert not await is_kept(shared_database, room_id)
    async with database.connection() as db:  # the pool's only one
        assert not db.is_in_transaction()


async def test_postgresql_ends_a_transaction_that_its_server_has_forgotten(
    shared_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_db, "TRANSACTION_TIMEOUT_S", 0.2)
    database = await Database.open(shared_database, min_size=1, max_size=1)
    room_id, ended = uuid4(), asyncio.Event()
    try:
        async with database.connection() as db:
            db.add_termination_listener(lambda _: ended.set())
            await db.execute("begin")
            await rooms.create_room(db, room_id, "conversation")
            await asyncio.wait_for(ended.wait(), 10)
        assert not await is_kept(shared_database, room_id)
        async with database.connection() as db:
            assert await db.fetchval("select 1") == 1
    finally:
        await database.close()
