"""Somebody else's open transaction, which holds rooms for as long as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

PATIENCE_S = 10.0


class Holder:
    """A transaction that holds the rows of rooms."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def stands_in_the_way_of(self, others: int = 1) -> None:
        """Wait until that many other transactions wait for this one."""
        async with asyncio.timeout(PATIENCE_S):
            while others > await self._connection.fetchval(
                "select count(*) from pg_locks where not granted and transactionid = pg_current_xact_id()::xid"
            ):
                await asyncio.sleep(0)


@asynccontextmanager
async def holding(dsn: str, *room_ids: str) -> AsyncIterator[Holder]:
    """While this lasts, somebody else's transaction holds the rows of these rooms."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(
                "select from rooms where room_id = any ($1::uuid[]) order by room_id for no key update", list(room_ids)
            )
            yield Holder(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def holding_by(dsn: str, statement: str, *arguments: object) -> AsyncIterator[Holder]:
    """While this lasts, somebody else's transaction has run a statement, and holds what it has written or locked."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(statement, *arguments)
            yield Holder(connection)
    finally:
        await connection.close()
