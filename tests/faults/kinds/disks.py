"""The disk below PostgreSQL is full. A small one of its own, so that it is really full (ENOSPC), and soon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from server.embedded import EmbeddedPostgres
from tests.faults.disks import SmallDisk
from tests.faults.registry import Must, Scene, fault
from tests.faults.stage import READY_S, Stage

EVERY_S = 0.02
NO_SPACE = b"No space left on device"
# Wide, and of nothing that repeats: a few messages are a page. Of messages to come only.
INDEX = """
create index ballast on messages (({}))
 tablespace ballast where message_id > '{}'
""".format("||".join(f"md5(client_id || '{n}')" for n in range(16)), "{}")


@asynccontextmanager
async def _small_disk(stage: Stage) -> AsyncIterator[SmallDisk | None]:
    postgres = stage.postgres
    disk = await SmallDisk.mounted(postgres._account, postgres._folder.with_name("disk"))
    try:
        yield disk
    finally:
        if disk is not None:
            await disk.gone()


def _as_its_user(postgres: EmbeddedPostgres, *command: str) -> str:
    identity = postgres._account.identity(signal.SIGKILL)
    return subprocess.run(command, check=True, capture_output=True, text=True, **identity).stdout


async def _stopped(stage: Stage) -> None:
    pid = stage.postgres.pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    async with asyncio.timeout(READY_S):
        while stage.postgres.running():
            await asyncio.sleep(EVERY_S)


def _move_out(postgres: EmbeddedPostgres, disk: SmallDisk) -> Path:
    """Put the WAL that PostgreSQL starts with on the disk, and leave a link to it; where the rest is kept.

    With it go the histories of timelines, which a standby asks for where there was a failover before.
    """
    home, kept, there = postgres._folder / "pg_wal", postgres._folder.with_name("kept_wal"), disk.files / "pg_wal"
    said = _as_its_user(postgres, str(postgres._installation.folder / "pg_controldata"), str(postgres._folder))
    found = re.search(r"REDO WAL file: +([0-9A-F]+)", said)
    assert found, said
    _as_its_user(postgres, "mkdir", "-m", "0700", str(there))
    needed = [home / found[1], *home.glob("*.history")]
    _as_its_user(postgres, "cp", "-p", *map(str, needed), str(there))
    home.rename(kept)
    home.symlink_to(there)
    return kept


def _move_back(postgres: EmbeddedPostgres, disk: SmallDisk, kept: Path) -> None:
    home = postgres._folder / "pg_wal"
    if home.is_symlink():
        home.unlink()
        _as_its_user(postgres, "cp", "-rp", str(disk.files / "pg_wal"), str(home))
    shutil.rmtree(kept)


@asynccontextmanager
async def _wal_on(stage: Stage, disk: SmallDisk) -> AsyncIterator[None]:
    """Let the WAL be on that disk for the block, for which PostgreSQL is restarted before and after."""
    async with stage.unsupervised():
        await _stopped(stage)
        kept = await asyncio.to_thread(_move_out, stage.postgres, disk)
    try:
        yield
    finally:
        async with stage.unsupervised():
            await _stopped(stage)
            await asyncio.to_thread(_move_back, stage.postgres, disk, kept)


async def _panic(stage: Stage) -> None:
    """Ask for one file of WAL after the other, until PostgreSQL says that there is no space for another."""
    log = stage.postgres._log_file
    begins = log.stat().st_size
    async with asyncio.timeout(READY_S):
        while NO_SPACE not in await asyncio.to_thread(_end_of, log, begins):
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                async with stage.connected() as db:
                    await db.fetchval("select pg_switch_wal()")
            await asyncio.sleep(EVERY_S)


def _end_of(log: Path, begins: int) -> bytes:
    with log.open("rb") as file:
        file.seek(begins)
        return file.read()


@fault(must=Must(first_ack_s=3.0), shows=lambda found: found.unknown > 0)
async def disk_full(scene: Scene, seconds: float) -> None:
    """The disk of the WAL is full: PostgreSQL ends at the next commit, and comes back only when there is room."""
    stage = scene.stage
    async with _small_disk(stage) as disk:
        if disk is None:
            await _limited(scene, seconds)
            return
        scene.notes.append("no space on a file system (ENOSPC)")
        async with _wal_on(stage, disk):
            await disk.fill()
            await _panic(stage)
            await asyncio.sleep(seconds)
            await disk.free()
            await scene.stage.postgres_ready()
            await scene.first_ack("there is room again")


async def _limited(scene: Scene, seconds: float) -> None:
    """Where no disk can be had: a limit to the size of files, which PostgreSQL takes for an error of its own."""
    scene.notes.append("a limit to the size of files (EFBIG)")
    scene.excused.add("internal")
    await scene.stage.limit_files_of_postgres("0")
    try:
        await scene.stage.keep_postgres_down(seconds)
    finally:
        await scene.stage.limit_files_of_postgres("unlimited")


@fault(shows=lambda found: found.unknown > 0)
async def tables_full(scene: Scene, seconds: float) -> None:
    """The disk of an index of the messages is full, the WAL's is not: PostgreSQL stays, and refuses to store any."""
    async with _small_disk(scene.stage) as disk, scene.stage.connected() as db:
        if disk is None:
            pytest.skip("the kernel lets nobody mount a file system in a namespace")
        newest = await db.fetchval("select uuidv7()")
        await db.execute(f"create tablespace ballast location '{disk.files}'")
        try:
            await db.execute(INDEX.format(newest))
            await disk.fill()
            await asyncio.sleep(seconds)
            await disk.free()
            await scene.first_ack("there is room again")
        finally:
            await db.execute("drop index if exists ballast")
            await db.execute("drop tablespace ballast")
            await db.execute("checkpoint")  # no recovery is to look for it
