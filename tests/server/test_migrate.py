"""Migrations: once, whole, in order, whoever runs them and however they end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from server import migrate as migrations
from server.migrate import LOCK, MigrationError, migrate, pending, read
from tests.servers import execute

ROOT = Path(__file__).parents[2]
RUNNER = "import asyncio, sys, pathlib; from server.migrate import migrate; "
RUNNER += "print(asyncio.run(migrate(sys.argv[1], pathlib.Path(sys.argv[2]))))"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Put migrations into a folder: write(**{"0001_a": "sql"}); answers the folder."""
    folder = tmp_path / "migrations"
    folder.mkdir()

    def put(**files: str) -> Path:
        for name, sql in files.items():
            (folder / f"{name}.sql").write_text(sql)
        return folder

    return put


def runner(dsn: str, folder: Path) -> subprocess.Popen[str]:
    """Another process that migrates."""
    command = [sys.executable, "-c", RUNNER, dsn, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


async def rows(dsn: str, sql: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def applied(dsn: str) -> list[str]:
    return [str(name) for (name,) in await rows(dsn, "select name from migrations order by number")]


@pytest.mark.both_postgres
async def test_files_are_applied_in_order_and_once(database: str, write: Write) -> None:
    folder = write(**{"0002_b": "insert into a values (2)", "0001_a": "create table a (n int);"})
    assert await migrate(database, folder) == ["0001_a", "0002_b"]
    assert await migrate(database, folder) == []
    assert await rows(database, "select n from a") == [(2,)]
    write(**{"0003_c": "insert into a values (3); insert into a values (33)"})
    assert await migrate(database, folder) == ["0003_c"]
    assert await applied(database) == ["0001_a", "0002_b", "0003_c"]


async def test_racing_runners_apply_each_file_once(database: str, write: Write) -> None:
    folder = write(**{f"{n:04}_step": f"create table t{n} (n int); select pg_sleep(0.01)" for n in range(1, 11)})
    runners = [runner(database, folder) for _ in range(4)]
    done = [process.communicate(timeout=20) for process in runners]
    assert [process.returncode for process in runners] == [0] * 4, done
    assert sorted(out.strip() for out, _ in done)[:3] == [str([f"{n:04}_step" for n in range(1, 11)])] + ["[]"] * 2
    assert len(await applied(database)) == 10


@pytest.mark.both_postgres
async def test_a_failed_file_leaves_no_trace_and_names_its_line(database: str, write: Write) -> None:
    folder = write(
        **{
            "0001_good": "create table good (n int)",
            "0002_bad": "create table half (n int);\ninsert into half values (1);\n  insert into ünknown values (1);\n",
            "0003_never": "create table never (n int)",
        }
    )
    with pytest.raises(MigrationError) as raised:
        await migrate(database, folder)
    text = str(raised.value)
    assert text.startswith('0002_bad.sql, line 3, column 15: relation "ünknown" does not exist (42P01)')
    assert "Nothing of this file was applied" in text
    assert await applied(database) == ["0001_good"]
    assert await rows(database, "select to_regclass('half')::text, to_regclass('never')::text") == [(None, None)]
    write(**{"0002_bad": "create table half (n int)"})
    assert await migrate(database, folder) == ["0002_bad", "0003_never"]


async def test_a_constraint_that_fails_at_commit_is_a_failed_file_too(database: str, write: Write) -> None:
    sql = "create table t (n int unique deferrable initially deferred); insert into t values (1), (1)"
    with pytest.raises(MigrationError, match=r"0001_a.sql: duplicate key.*\n.*already exists"):
        await migrate(database, write(**{"0001_a": sql}))
    assert await rows(database, "select to_regclass('t')::text") == [(None,)]


async def test_an_edited_applied_file_is_refused(database: str, write: Write) -> None:
    folder = write(**{"0001_a": "create table a (n int)"})
    await migrate(database, folder)
    write(**{"0001_a": "create table a (n bigint)", "0002_b": "create table b (n int)"})
    with pytest.raises(MigrationError, match=r"0001_a.sql was edited .* new migration, 0003_"):
        await migrate(database, folder)
    assert await applied(database) == ["0001_a"]


async def test_a_renamed_applied_file_is_refused(database: str, write: Write) -> None:
    folder = write(**{"0001_a": "create table a (n int)"})
    await migrate(database, folder)
    (folder / "0001_a.sql").rename(folder / "0001_b.sql")
    with pytest.raises(MigrationError, match="0001_a is now called 0001_b"):
        await migrate(database, folder)


async def test_a_database_ahead_of_the_code_is_refused(database: str, write: Write) -> None:
    folder = write(**{"0001_a": "select 1", "0002_b": "select 2"})
    await migrate(database, folder)
    (folder / "0002_b.sql").unlink()
    with pytest.raises(MigrationError, match="ahead of this code: it has 0002_b, this code ends with 0001_a"):
        await migrate(database, folder)


async def test_a_hole_in_what_was_applied_is_refused(database: str, write: Write) -> None:
    folder = write(**{"0001_a": "select 1", "0002_b": "select 2"})
    await migrate(database, folder)
    await execute(database, "delete from migrations where number = 1")
    with pytest.raises(MigrationError, match="skips 0001_a, but has 0002_b"):
        await migrate(database, folder)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["0001_a", "0001_b"], "0001_a and 0001_b have the same number"),
        (["0001_a", "0003_c"], "no migration 0002, but there is 0003_c"),
        (["0000_a"], "no migration 0001, but there is 0000_a"),
        (["0001-a"], "not named as a migration"),
        (["1_a"], "not named as a migration"),
        (["0001_A"], "not named as a migration"),
        (["00001_a"], "not named as a migration"),
    ],
)
def test_a_bad_name_a_duplicate_or_a_gap_is_refused(write: Write, names: list[str], complaint: str) -> None:
    with pytest.raises(MigrationError, match=complaint):
        read(write(**dict.fromkeys(names, "select 1")))


def test_a_file_without_its_ending_is_not_passed_over(write: Write) -> None:
    folder = write(**{"0001_a": "select 1"})
    (folder / ".0002_b.sql.swp").touch()
    assert [migration.name for migration in read(folder)] == ["0001_a"]
    (folder / "0002_b").write_text("select 2")
    with pytest.raises(MigrationError, match="not named as a migration"):
        read(folder)


@pytest.mark.parametrize(
    "sql",
    ["create table a (n int); COMMIT; select 1", "/* x */ begin; select 1", "rollback", "start  transaction"],
)
def test_a_file_that_ends_its_own_transaction_is_refused(write: Write, sql: str) -> None:
    with pytest.raises(MigrationError, match="each file is one transaction already"):
        read(write(**{"0001_a": sql}))


async def test_quoted_text_is_not_taken_for_transaction_control(database: str, write: Write) -> None:
    sql = """
    -- a comment; commit; here
    create table "a; commit" (n text default 'x''; rollback; ');
    create function f() returns void language plpgsql as $body$ begin perform 1; end; $body$;
    """
    assert await migrate(database, write(**{"0001_a": sql})) == ["0001_a"]


def test_a_file_that_is_not_utf8_is_refused(write: Write) -> None:
    folder = write()
    (folder / "0001_a.sql").write_bytes(b"select '\xff'")
    with pytest.raises(MigrationError, match="not UTF-8 text"):
        read(folder)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="installation is not whole"):
        read(tmp_path / "nowhere")


async def test_who_holds_the_lock_is_said_when_patience_ends(database: str, write: Write) -> None:
    other = await asyncpg.connect(database, server_settings={"application_name": "the other one"})
    try:
        await other.execute("select pg_advisory_lock($1)", LOCK)
        with pytest.raises(MigrationError, match="'the other one' from this machine") as raised:
            await migrate(database, write(**{"0001_a": "select 1"}), patience_s=0.1)
        assert f"pg_terminate_backend({other.get_server_pid()})" in str(raised.value)
    finally:
        await other.close()


async def test_a_waiting_runner_goes_on_when_the_lock_is_free(database: str, write: Write) -> None:
    other = await asyncpg.connect(database)
    await other.execute("select pg_advisory_lock($1)", LOCK)
    waiting = asyncio.create_task(migrate(database, write(**{"0001_a": "select 1"})))
    counted = "select count(*)::int from pg_stat_activity where application_name = 'parley migrate' and datname = $1"
    async with asyncio.timeout(10):
        while not await other.fetchval(counted, await other.fetchval("select current_database()")):
            await asyncio.sleep(0)
    await other.close()
    assert await waiting == ["0001_a"]


async def test_a_runner_killed_in_the_middle_leaves_a_whole_state(database: str, write: Write) -> None:
    slow = "create table half (n int); insert into half values (1); select pg_sleep(60); -- the kill comes here"
    folder = write(**{"0001_a": "create table a (n int)", "0002_slow": slow})
    process = runner(database, folder)
    sleeping = "select pid from pg_stat_activity where query like '%the kill comes here' and wait_event = 'PgSleep'"
    watcher = await asyncpg.connect(database)
    async with asyncio.timeout(10):
        while not await watcher.fetch(sleeping):
            await asyncio.sleep(0)
    await watcher.close()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (folder / "0002_slow.sql").write_text("create table half (n int)")
    assert await migrate(database, folder) == ["0002_slow"]  # the dead runner's session has been noticed and undone
    assert await applied(database) == ["0001_a", "0002_slow"]
    assert await rows(database, "select n from half") == []


async def test_the_statement_timeout_is_off(database: str, write: Write) -> None:
    name = database.partition("@/")[2].partition("?")[0]
    await execute(database, f"alter database {name} set statement_timeout = '20ms'")
    assert await migrate(database, write(**{"0001_a": "select pg_sleep(0.1)"})) == ["0001_a"]


async def test_a_database_out_of_reach_is_said_without_its_password(write: Write) -> None:
    with pytest.raises(MigrationError, match="cannot be reached") as raised:
        await migrate("postgresql://parley:hunter2@127.0.0.1:1/parley", write(**{"0001_a": "select 1"}))
    assert "hunter2" not in str(raised.value)


async def test_pending_is_what_readiness_asks(database: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(**{"0001_a": "select 1", "0002_b": "select 2"})
    monkeypatch.setattr(migrations, "_shipped", lambda: read(folder))
    connection = await asyncpg.connect(database)
    try:
        assert await pending(connection) == ["0001_a", "0002_b"]
        await migrate(database, folder)
        assert await pending(connection) == []
        (folder / "0002_b.sql").unlink()
        assert await pending(connection) == []  # the database is ahead: a newer release is being rolled out
    finally:
        await connection.close()
