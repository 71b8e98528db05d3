"""The pool, the unit of work, and the way from PostgreSQL's errors to ours."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NewType, NoReturn, TypeAlias, TypeVar

import aiosql
import asyncpg
import msgspec
from aiosql.adapters.asyncpg import AsyncPGAdapter
from asyncpg.pool import PoolConnectionProxy

from server.errors import Conflict, NotFound, Overtaken, ParleyError, Unavailable

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

_RETRYABLE = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    Overtaken,
)
# Two instances may insert one (sender, client_id) at the same moment; the next try finds the other's row and answers
# from it.
_RACES = frozenset({"messages_client_id_key"})
# What passes, or what an operator sees to, each class of SQLSTATEs whole. Not class XX: that is a bug of PostgreSQL's,
# or a file that is spoilt, and has to be heard of.
_DOWN = (
    asyncpg.PostgresConnectionError,  # 08
    asyncpg.InsufficientResourcesError,  # 53: no disk, memory or connection is left
    asyncpg.OperatorInterventionError,  # 57: it ends, it starts, it has taken too long
    asyncpg.PostgresSystemError,  # 58: what it runs on has failed it, the disk mostly
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,  # said of a connection that dies just as it is used
    OSError,
    TimeoutError,
)
TAKEN: Mapping[str, Callable[[], ParleyError]] = {
    "users_username_key": lambda: Conflict("taken", "This username is taken: choose another."),
    "users_email_key": lambda: Conflict("taken", "This e-mail address has an account already: sign in."),
    "users_phone_key": lambda: Conflict("taken", "This phone number has an account already."),
    "users_whatsapp_number_key": lambda: Conflict("taken", "This WhatsApp number has an account already."),
}
_CONSTRAINTS = {**TAKEN, "wishlists_listing_id_fkey": NotFound}  # the latter: deleted while somebody liked it


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


def is_retryable(error: BaseException) -> bool:
    """Whether the whole transaction may be run again: nothing of it was kept, and the next try may pass."""
    if isinstance(error, asyncpg.UniqueViolationError):
        return error.constraint_name in _RACES
    return isinstance(error, _RETRYABLE)


def translate(error: BaseException) -> ParleyError | None:
    """The answer for an error of the database, None where it can only be a bug of ours."""
    if isinstance(error, ParleyError):
        return error
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        known = _CONSTRAINTS.get(error.constraint_name or "")
        if known is not None:
            return known()
    if is_retryable(error) or isinstance(error, _DOWN) or _is_closed(error):
        return Unavailable()
    return None


def _is_closed(error: BaseException) -> bool:
    # asyncpg says InterfaceError of a closed connection and of a caller's mistake alike.
    return isinstance(error, asyncpg.InterfaceError) and "clos" in str(error) and not isinstance(error, ValueError)


class QueryFailed(Exception):
    """A statement failed for a reason that nobody foresaw. Says what and where, without the values that were in it."""


def _leave(error: Exception) -> NoReturn:
    """Raise what leaves this module for an error: its answer where there is one, and never the text of a message.

    PostgreSQL's own errors show the row they are about, and asyncpg's the argument.
    """
    answer = translate(error)
    if answer is error:
        raise answer
    if answer is not None:
        raise answer from error
    if not isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
        raise error
    about = [getattr(error, name, None) for name in ("sqlstate", "table_name", "column_name", "constraint_name")]
    told = QueryFailed(" ".join([type(error).__name__, *filter(None, about)]))
    raise told.with_traceback(error.__traceback__) from None


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

    @classmethod
    async def open(cls, dsn: str, *, min_size: int = 5, max_size: int = 25, name: str = "parley") -> "Database":
        """Open a pool on `dsn`. Raises what asyncpg raises when the server can't be reached."""
        pool = await asyncpg.create_pool(
            dsn,
            min_size=min_size,
            max_size=max_size,
            max_inactive_connection_lifetime=0,
            connection_class=_PlainConnection,
            init=prepare_connection,
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
        return cls(pool)

    async def close(self) -> None:
        """Close every connection, waiting for those at work at most a few seconds."""
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
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
            _leave(error)

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Connection]:
        """A connection of the pool. Raises `Unavailable`, whatever keeps us from having one."""
        try:
            connection = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, *_DOWN) as error:
            raise Unavailable from error
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
            _leave(error)

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
                    _leave(error)
            await asyncio.sleep(pause)
            pause *= random.uniform(1.5, 2.5)

    async def _attempt(self, work: Callable[[Connection], Awaitable[T]], *, wrapped: bool) -> T:
        async with self._acquired() as connection, asyncio.timeout(TRANSACTION_TIMEOUT_S):
            if not wrapped:
                return await work(connection)
            async with connection.transaction():
                return await work(connection)
