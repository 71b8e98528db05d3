"""The pool, the unit of work, and the queries of `sql/`."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NewType, TypeAlias, TypeVar

import aiosql
import asyncpg
import msgspec
from aiosql.adapters.asyncpg import AsyncPGAdapter
from asyncpg.pool import PoolConnectionProxy

from server.errors import Unavailable
from storage._errors import DOWN, is_retryable, leave

Connection: TypeAlias = asyncpg.Connection | PoolConnectionProxy

T = TypeVar("T")

Time = NewType("Time", str)
"""An instant as the contract spells it: RFC 3339, UTC, milliseconds.

What compares times is PostgreSQL, never Python.
"""

SQL = Path(__file__).resolve().parent.parent / "sql"

STATEMENT_TIMEOUT_MS = 1_000
LOCK_TIMEOUT_MS = 700  # below the statement's: who gives up a lock is retried, behind those that have come meanwhile
TRANSACTION_TIMEOUT_S = 30.0
ACQUIRE_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 5.0
RETRIES = 3
RETRY_BACKOFF_S = (0.010, 0.050)  # the first pause is drawn from here; it doubles
RETRY_BUDGET_S = 1.0

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL counts microseconds from here


class _Adapter(AsyncPGAdapter):
    """aiosql's adapter for connections alone.

    The library's own looks at every call whether it was given a pool, by `dir`: 50 µs, a tenth of a connect's CPU.
    """

    def _ordered(self, query_name: str, parameters: Any) -> list[Any]:
        return list(self.maybe_order_params(query_name, parameters))  # type: ignore[no-untyped-call]

    async def select(
        self, conn: Connection, query_name: str, sql: str, parameters: Any, record_class: Any = None
    ) -> AsyncIterator[Any]:
        for row in await conn.fetch(sql, *self._ordered(query_name, parameters)):
            yield row if record_class is None else record_class(**row)

    async def select_one(
        self, conn: Connection, query_name: str, sql: str, parameters: Any, record_class: Any = None
    ) -> Any:
        row = await conn.fetchrow(sql, *self._ordered(query_name, parameters))
        return row if row is None or record_class is None else record_class(**row)

    async def select_value(self, conn: Connection, query_name: str, sql: str, parameters: Any) -> Any:
        return await conn.fetchval(sql, *self._ordered(query_name, parameters))

    async def insert_update_delete(self, conn: Connection, query_name: str, sql: str, parameters: Any) -> Any:
        return await conn.execute(sql, *self._ordered(query_name, parameters))


def load(noun: str, *records: type) -> Any:
    """The named queries of `sql/<noun>.sql`; `records` are the structs its `-- record_class:` lines name."""
    return aiosql.from_path(
        SQL / f"{noun}.sql",
        _Adapter,  # type: ignore[arg-type]
        record_classes={record.__name__: record for record in records},
    )


class _PlainConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection given back as it is.

    Nobody here sets, listens or locks for a session, and a reset costs a round trip.
    """

    __slots__ = ()

    def get_reset_query(self) -> str:
        return ""


@lru_cache(1024)  # the rows of a batch share one
def _decode_time(value: tuple[int]) -> Time:
    moment = _EPOCH + timedelta(microseconds=value[0])
    return Time(moment.isoformat(timespec="milliseconds")[:-6] + "Z")


def _encode_time(value: str) -> tuple[int]:
    return ((datetime.fromisoformat(value) - _EPOCH) // timedelta(microseconds=1),)


def now() -> Time:
    """This machine's clock, for what is not decided by it."""
    return as_time(datetime.now(UTC))


def as_time(moment: datetime) -> Time:
    """An instant with a time zone as the contract spells it."""
    return Time(moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z")


async def prepare_connection(connection: asyncpg.Connection) -> None:
    """Teach a new connection our spelling of times, and to leave JSON as it is."""
    await connection.set_type_codec(
        "timestamptz", schema="pg_catalog", encoder=_encode_time, decoder=_decode_time, format="tuple"
    )
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=msgspec.Raw, format="text")


class Database:
    """A pool of connections, and units of work on it.

    Errors that a caller can act on leave as `ParleyError`; `Unavailable` where PostgreSQL is down, busy or too slow.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.on_wait: Callable[[float], None] = lambda _: None
        """Called with the seconds of every wait for a connection, whether one came or not."""
        self.opened = 0
        """How many connections have been made so far."""

    @classmethod
    async def open(cls, dsn: str, *, min_size: int = 5, max_size: int = 25, name: str = "parley") -> "Database":
        """Open a pool on `dsn`. Raises what asyncpg raises when the server can't be reached."""

        async def begin(connection: asyncpg.Connection) -> None:
            await prepare_connection(connection)
            database.opened += 1

        pool = asyncpg.create_pool(
            dsn,
            min_size=min_size,
            max_size=max_size,
            max_inactive_connection_lifetime=0,
            connection_class=_PlainConnection,
            init=begin,
            timeout=CONNECT_TIMEOUT_S,
            server_settings={
                "application_name": name,
                "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                "lock_timeout": str(LOCK_TIMEOUT_MS),
                "idle_in_transaction_session_timeout": str(int(TRANSACTION_TIMEOUT_S * 1000)),
                "jit": "off",  # short statements only: compiling one costs more than running it
                "timezone": "UTC",
            },
        )
        database = cls(pool)
        await pool
        return database

    async def close(self) -> None:
        """Close every connection, waiting for those at work at most a few seconds."""
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
            self._pool.terminate()

    def terminate(self) -> None:
        """Break every connection off, whatever is under way on it; whoever asks for one from now on has none."""
        self._pool.terminate()

    async def expire_connections(self) -> None:
        """Replace every connection at its next use: what PostgreSQL caches for one grows with its age."""
        await self._pool.expire_connections()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One connection without a transaction: each statement is its own."""
        try:
            async with self._acquired() as connection:
                yield connection
        except Exception as error:
            leave(error)

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Connection]:
        """A connection of the pool. Raises `Unavailable`, whatever keeps us from having one."""
        began = time.perf_counter()
        try:
            connection = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, *DOWN) as error:
            raise Unavailable from error
        finally:
            self.on_wait(time.perf_counter() - began)
        try:
            yield connection
        finally:
            await self._pool.release(connection)

    async def statement(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work`, a single statement that is a transaction of its own, as `transaction` does."""
        return await self._run(work, wrapped=False)

    async def transaction(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work` in a transaction; on a deadlock, a lock time-out or where it was overtaken run it again, whole.
        At most 3 further tries, after 10 to 50 ms doubling with jitter, never over a second in all; then `Unavailable`.
        """
        return await self._run(work, wrapped=True)

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[Connection]:
        """A transaction around the block, which is not run again; over 30 s it is rolled back and `Unavailable`."""
        try:
            async with self._acquired() as connection, asyncio.timeout(TRANSACTION_TIMEOUT_S), connection.transaction():
                yield connection
        except Exception as error:
            leave(error)

    async def _run(self, work: Callable[[Connection], Awaitable[T]], *, wrapped: bool) -> T:
        clock = asyncio.get_running_loop().time
        started, pause, tries = clock(), random.uniform(*RETRY_BACKOFF_S), 0
        while True:
            try:
                return await self._attempt(work, wrapped=wrapped)
            except Exception as error:
                tries += 1
                again = is_retryable(error) and tries <= RETRIES and clock() - started + pause < RETRY_BUDGET_S
                if not again:
                    leave(error)
            await asyncio.sleep(pause)
            pause *= random.uniform(1.5, 2.5)

    async def _attempt(self, work: Callable[[Connection], Awaitable[T]], *, wrapped: bool) -> T:
        async with self._acquired() as connection, asyncio.timeout(TRANSACTION_TIMEOUT_S):
            if not wrapped:
                return await work(connection)
            async with connection.transaction():
                return await work(connection)
