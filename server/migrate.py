"""Migrations: `sql/migrations/NNNN_name.sql`, applied in order, one transaction a file, forward only.

What was applied is remembered in the table `migrations` with a checksum, so a file that was edited afterwards
is noticed: two databases that say they are at 7 are the same. Runners that race are put in a row by an
advisory lock.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

FOLDER = Path(__file__).resolve().parent.parent / "sql" / "migrations"
LOCK = 0x7061726C6579  # "parley": the advisory lock of whoever is migrating
LOCK_POLL_S = 0.05
LOCK_PATIENCE_S = 60.0

CREATE_TABLE = """
create table if not exists migrations (
    number int primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default clock_timestamp()
)
"""
LOCK_HOLDER = """
select a.pid, coalesce(nullif(a.application_name, ''), 'without a name') as application,
    coalesce(host(a.client_addr), 'this machine') as address,
    extract(epoch from now() - a.backend_start)::int as seconds
from pg_locks l
join pg_stat_activity a using (pid)
where l.locktype = 'advisory' and l.granted
    and l.database = (select oid from pg_database where datname = current_database())
    and (l.classid::bigint << 32) + l.objid::bigint = $1
"""


class MigrationError(Exception):
    """The database cannot be brought to this code's schema; the text names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `name` is its name without `.sql`, `checksum` the SHA-256 of its bytes."""

    number: int
    name: str
    checksum: str
    sql: str


def read(folder: Path) -> list[Migration]:
    """The folder's migrations in order; raises `MigrationError` on a bad name, a duplicate or missing number.

    Every file that is not hidden counts: one with a slip in its name would otherwise be passed over in
    silence.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError as error:
        raise MigrationError(
            f"There is no folder {folder}: the installation is not whole, install it again."
        ) from error
    migrations: list[Migration] = []
    for path in paths:
        migration = _read_file(path)
        if migrations and migration.number == migrations[-1].number:
            raise MigrationError(
                f"{migrations[-1].name} and {migration.name} have the same number. "
                "Give the one that is not applied anywhere yet the next free number."
            )
        if migration.number != len(migrations) + 1:
            raise MigrationError(f"There is no migration {len(migrations) + 1:04}, but there is {migration.name}.")
        migrations.append(migration)
    return migrations


def _read_file(path: Path) -> Migration:
    found = re.fullmatch(r"(\d{4})_[a-z0-9_]+\.sql", path.name)
    if not found or not path.is_file():
        raise MigrationError(f"{path} is not named as a migration is: NNNN_name.sql, name of a-z, 0-9 and _.")
    content = path.read_bytes()
    try:
        sql = content.decode()
    except UnicodeDecodeError as error:
        raise MigrationError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    if control := _transaction_control(sql):
        raise MigrationError(f"{path} says `{control}`: each file is one transaction already, take that out.")
    return Migration(int(found[1]), path.stem, hashlib.sha256(content).hexdigest(), sql)


# What a statement's first word may hide in: comments, dollar quotes, strings and quoted names.
_QUOTED = re.compile(r"--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*'|\"[^\"]*\"", re.DOTALL)
_CONTROL = re.compile(
    r"\s*(begin|start\s+transaction|commit|end|rollback|abort|prepare\s+transaction)\b", re.IGNORECASE
)


def _transaction_control(sql: str) -> str | None:
    """The first statement that would end the file's transaction half way."""
    for statement in _QUOTED.sub(" ", sql).split(";"):
        if found := _CONTROL.match(statement):
            return found[1]
    return None


async def migrate(dsn: str, folder: Path = FOLDER, *, patience_s: float = LOCK_PATIENCE_S) -> list[str]:
    """Apply what is pending and return its names; raises `MigrationError`, with what came before it applied.

    May be called by any number of instances at once. Waits `patience_s` at most for another that is
    migrating.
    """
    migrations = read(folder)
    try:
        connection = await asyncpg.connect(dsn)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MigrationError(f"The database cannot be reached ({error}): is it up, and DATABASE_URL right?") from error
    try:
        # A large table may take its time; but a runner that was killed should give its lock back, not sleep
        # on with it.
        await connection.execute("set statement_timeout = 0; set application_name = 'parley migrate'")
        await connection.execute("set client_connection_check_interval = '500ms'")
        await _lock(connection, patience_s)
        await connection.execute(CREATE_TABLE)
        todo = _unapplied(migrations, await _applied(connection))
        for migration in todo:
            await _apply(connection, migration)
        return [migration.name for migration in todo]
    finally:
        await connection.close()  # gives the lock back


async def pending(connection: Any) -> list[str]:
    """The names of this code's migrations that the database has not; empty when it is current.

    For /readyz: one small query. A database that is ahead has nothing pending: while a newer release is
    rolled out, the older instances go on serving. `connection` is an asyncpg connection, or one lent by a
    pool, outside a transaction.
    """
    try:
        applied = {row["number"] for row in await connection.fetch("select number from migrations")}
    except asyncpg.UndefinedTableError:
        applied = set()
    return [migration.name for migration in _shipped() if migration.number not in applied]


@functools.cache
def _shipped() -> Sequence[Migration]:
    """This code's migrations, read once: they are as fixed as the code is while it runs."""
    return read(FOLDER)


async def _lock(connection: asyncpg.Connection, patience_s: float) -> None:
    """Become the one who migrates.

    By polling: a session that waits in pg_advisory_lock holds a snapshot, for which `create index
    concurrently` in the session that has the lock waits in turn.
    """
    deadline = time.monotonic() + patience_s
    while not await connection.fetchval("select pg_try_advisory_lock($1)", LOCK):
        if time.monotonic() > deadline:
            holder = await connection.fetchrow(LOCK_HOLDER, LOCK)
            if holder is None:
                continue  # it has just let go
            raise MigrationError(
                f"Another session has been migrating this database for {holder['seconds']} s: process "
                f"{holder['pid']} of PostgreSQL, {holder['application']!r} from {holder['address']}. "
                f"Let it finish and start again; if it hangs: select pg_terminate_backend({holder['pid']})"
            )
        await asyncio.sleep(LOCK_POLL_S)


async def _applied(connection: asyncpg.Connection) -> list[Migration]:
    rows = await connection.fetch("select number, name, checksum from migrations order by number")
    return [Migration(row["number"], row["name"], row["checksum"], "") for row in rows]


def _unapplied(migrations: Sequence[Migration], applied: Sequence[Migration]) -> Sequence[Migration]:
    """What is still to be applied; raises unless the applied ones are the first of this code's, unchanged."""
    for ordinal, old in enumerate(applied):
        if ordinal >= len(migrations):
            raise MigrationError(
                f"The database is ahead of this code: it has {old.name}, this code ends with "
                f"{migrations[-1].name if migrations else 'none'}. "
                "Run the newer release, or restore a database of this one."
            )
        new = migrations[ordinal]
        if old.number != new.number:
            raise MigrationError(
                f"The table migrations skips {new.name}, but has {old.name}: restore it from a backup."
            )
        if old.name != new.name:
            raise MigrationError(
                f"The migration applied as {old.name} is now called {new.name}: give it its name back."
            )
        if old.checksum != new.checksum:
            raise MigrationError(
                f"{new.name}.sql was edited after it was applied. Put it back as it was, "
                f"and write the change as a new migration, {len(migrations) + 1:04}_….sql."
            )
    return migrations[len(applied) :]


async def _apply(connection: asyncpg.Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "insert into migrations (number, name, checksum) values ($1, $2, $3)",
                migration.number, migration.name, migration.checksum,
            )  # fmt: skip
    except asyncpg.PostgresError as error:
        raise MigrationError(_complaint(migration, error)) from error
    except (OSError, asyncpg.InterfaceError) as error:
        raise MigrationError(f"{migration.name}.sql: the connection broke ({error}). Start again.") from error


def _complaint(migration: Migration, error: asyncpg.PostgresError) -> str:
    """PostgreSQL's message, where in the file it is, and that the file left no trace."""
    place = f"{migration.name}.sql"
    if position := getattr(error, "position", None):
        before = migration.sql[: int(position) - 1]  # PostgreSQL counts characters, from 1
        place += f", line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"
    lines = [f"{place}: {error} ({error.sqlstate})"]
    lines += [f"{label}: {text}" for label in ("detail", "hint", "context") if (text := getattr(error, label, None))]
    return "\n".join([*lines, "Nothing of this file was applied; the files before it were."])
