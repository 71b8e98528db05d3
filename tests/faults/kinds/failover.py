"""PostgreSQL is lost for good, and a synchronous standby takes its place."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path

import asyncpg

from server.embedded import CONNECTIONS, EmbeddedPostgres
from server.embedded_files import SOCKET
from tests.faults.registry import Must, Scene, fault
from tests.faults.stage import Stage

READY_S = 60.0


class Standby:
    """A copy of the stage's PostgreSQL that follows it, commit by commit, on a folder of its own beside it."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres
        self.folder = postgres._folder.with_name("standby")
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Copy what there is, follow what comes, and return when no commit is acknowledged without this copy."""
        account, binaries = self._postgres._account, self._postgres._installation.folder
        self.folder.mkdir(mode=0o700)
        account.owns(self.folder)
        copy = ["pg_basebackup", "-D", str(self.folder), "-R", "-X", "stream", "-c", "fast", "-U", "postgres"]
        copy[0] = str(binaries / copy[0])
        done = await asyncio.to_thread(
            subprocess.run,
            [*copy, "-h", str(self._postgres._socket)],
            capture_output=True,
            text=True,
            **account.identity(signal.SIGKILL),
        )
        if done.returncode:
            raise RuntimeError(f"pg_basebackup: {done.stderr}")
        (self.folder / f"{SOCKET}.lock").unlink()  # the copied one's, which says that somebody runs here
        command = [str(binaries / "postgres"), "-D", str(self.folder), "-k", str(self.folder)]
        with (self.folder.parent / "standby.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-c", "listen_addresses=", "-c", f"max_connections={CONNECTIONS}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **account.identity(signal.SIGKILL),
            )
        db = await asyncpg.connect(self._postgres.dsn)
        try:
            await db.execute("alter system set synchronous_standby_names = '*'")
            await db.execute("select pg_reload_conf()")
            async with asyncio.timeout(READY_S):
                while "sync" not in await self._states(db):
                    await asyncio.sleep(0.01)
        except BaseException:
            await db.execute("alter system reset synchronous_standby_names")  # or no commit would ever end again
            await db.execute("select pg_reload_conf()")
            raise
        finally:
            await db.close()

    async def _states(self, db: asyncpg.Connection) -> list[str]:
        return [row[0] for row in await db.fetch("select sync_state from pg_stat_replication")]

    async def promote(self) -> Path:
        """Take over; where it listens."""
        db = await asyncpg.connect(user="postgres", database="postgres", host=str(self.folder))
        try:
            assert await db.fetchval("select pg_promote()")
        finally:
            await db.close()
        return self.folder / SOCKET

    async def stop(self) -> None:
        """End it, with all that it has on its disk."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            await asyncio.to_thread(self._process.wait)
            self._process = None


def _lead(stage: Stage, socket: Path) -> None:
    """Let what comes for PostgreSQL go there from now on."""
    for station in stage.stations:
        station.postgres.target = socket
        station.postgres.reset()


@fault(must=Must(first_ack_s=3.0), shows=lambda found: found.unknown > 0)
async def postgres_failed_over(scene: Scene, seconds: float) -> None:
    """`kill -9` of PostgreSQL, whose disk is gone; a synchronous standby takes over, and later its disk moves back."""
    stage, postgres = scene.stage, scene.stage.postgres
    home, lost = postgres._folder, postgres._folder.with_name("lost")
    standby = Standby(postgres)
    try:
        await standby.start()
        async with stage.unsupervised():
            pid = postgres.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            _lead(stage, await standby.promote())
            await scene.first_ack("the standby leads")
            await asyncio.sleep(seconds)
            await standby.stop()
            home.rename(lost)
            standby.folder.rename(home)
        _lead(stage, stage.postgres_socket)
    finally:
        await standby.stop()
        for folder in (lost, standby.folder):
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
