"""How long whoever works with the database has waited for a connection of the pool."""

import time
from collections.abc import Callable
from typing import Any

import asyncpg

from storage._db import Connection, Database


class _Timed:
    """A pool that says of each acquisition how many seconds it took, whether a connection came or not."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.waited: Callable[[float], None] = lambda _: None
        self.release = pool.release
        self.close = pool.close
        self.terminate = pool.terminate
        self.expire_connections = pool.expire_connections

    async def acquire(self, *, timeout: float) -> Connection:
        began = time.perf_counter()
        try:
            return await self._pool.acquire(timeout=timeout)
        finally:
            self.waited(time.perf_counter() - began)


class TimedDatabase(Database):
    """A database that tells how long was waited for its connections."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._timed = _Timed(pool)
        super().__init__(self._timed)

    @classmethod
    async def open(cls, dsn: str, **options: Any) -> "TimedDatabase":
        """As `Database.open`."""
        database = await super().open(dsn, **options)
        assert isinstance(database, cls)
        return database

    def on_wait(self, waited: Callable[[float], None]) -> None:
        """Call this with the seconds of every acquisition."""
        self._timed.waited = waited
