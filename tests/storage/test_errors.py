"""What leaves the storage layer when PostgreSQL complains."""

from __future__ import annotations

import asyncpg
import pytest

from server.errors import Conflict, Unavailable
from storage import Connection, Database
from storage._errors import QueryFailed, translate


@pytest.fixture
async def database(migrated_database: str):  # type: ignore[no-untyped-def]
    database = await Database.open(migrated_database, min_size=1, max_size=2)
    yield database
    await database.close()


@pytest.mark.parametrize(
    ("statement", "argument"),
    [
        ("insert into users (username, email) values ($1, repeat('x', 300))", "whisper"),  # a row in the server's words
        ("select $1::int", "whisper"),  # an argument in the driver's
        ("select ($1 || '?')::int", "whisper"),  # a value in the server's
    ],
)
async def test_an_error_that_nobody_foresaw_does_not_tell_what_was_written(
    database: Database, statement: str, argument: str
) -> None:
    async def work(db: Connection) -> None:
        await db.fetch(statement, argument)

    for run in (database.transaction, database.statement):
        with pytest.raises(QueryFailed) as failed:
            await run(work)
        shown: BaseException | None = failed.value
        while shown is not None:
            assert "whisper" not in str(shown)
            shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


async def test_a_constraints_name_becomes_its_answer(database: Database) -> None:
    async def work(db: Connection) -> None:
        await db.execute("insert into users (username, email) values ('amina', $1)", "a@example.org")

    await database.transaction(work)
    with pytest.raises(Conflict) as taken:
        await database.transaction(work)
    assert taken.value.extra["reason"] == "taken"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        asyncpg.ConnectionDoesNotExistError(),
        asyncpg.CannotConnectNowError(),
        asyncpg.AdminShutdownError(),
        asyncpg.CrashShutdownError(),
        asyncpg.DatabaseDroppedError(),
        asyncpg.QueryCanceledError(),
        asyncpg.TooManyConnectionsError(),
        asyncpg.DiskFullError(),
        asyncpg.OutOfMemoryError(),
        asyncpg.PostgresIOError(),
        asyncpg.UndefinedFileError(),
        asyncpg.ReadOnlySQLTransactionError(),
        asyncpg.InterfaceError("connection is closed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_database_that_is_away_is_unavailable(error: Exception) -> None:
    assert isinstance(translate(error), Unavailable)


def test_a_bug_of_ours_is_not_taken_for_an_outage() -> None:
    assert translate(asyncpg.InterfaceError("the server expects 2 arguments for this query, 1 was passed")) is None
    assert translate(asyncpg.UndefinedColumnError()) is None


@pytest.mark.parametrize("error", [asyncpg.InternalServerError(), asyncpg.DataCorruptedError()], ids=repr)
def test_a_database_that_is_spoilt_is_not_taken_for_an_outage(error: Exception) -> None:
    assert translate(error) is None
