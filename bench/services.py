"""What both servers stand on: a PostgreSQL and a Redis of the run's own, and processes pinned to a core."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

from bench.machine import ROOT, BenchError, valkey_server
from server.embedded import EmbeddedPostgres

LISTEN_S = 30.0
STOP_S = 15.0
QUIET_S = 10.0
QUIET_SHARE = 0.03  # of a core: what an idle server's heartbeats and polls may take


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A server process on a core of its own, listening on a loopback port from `__init__` to `stop`."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], port: int, cores: str, log: Path) -> None:
        self.port = port
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["taskset", "-c", cores, *command],
                env=environ,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + LISTEN_S
        while not _listens(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise BenchError(f"{command[0]} does not listen; the end of its log:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """Its process id (taskset has become the server)."""
        return self._process.pid

    def stop(self) -> None:
        """End it, politely first."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until_quiet(pids: Sequence[int]) -> None:
    """Wait until these processes have done what the last measurement left them (2,000 disconnects, say)."""
    deadline, pause = time.monotonic() + QUIET_S, 0.25
    while time.monotonic() < deadline:
        before = sum(map(ran_s, pids))
        time.sleep(pause)
        if sum(map(ran_s, pids)) - before < QUIET_SHARE * pause * len(pids):
            return


def ran_s(pid: int) -> float:
    """The CPU seconds that a process has had."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except FileNotFoundError:
        return 0.0  # it, or a thread of it, has ended: the load generator will say so


class Redis:
    """A Valkey without persistence."""

    def __init__(self, folder: Path, cores: str) -> None:
        port = free_port()
        options = {"--port": str(port), "--bind": "127.0.0.1", "--save": "", "--appendonly": "no", "--dir": str(folder)}
        command = [str(valkey_server()), *(word for option in options.items() for word in option)]
        self._process = Process(command, os.environ, port, cores, folder / "valkey.log")
        self.url = f"redis://127.0.0.1:{port}/0"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def stop(self) -> None:
        """End it."""
        self._process.stop()


class Postgres:
    """A durable PostgreSQL on a new folder, with a database for each server."""

    def __init__(self, folder: Path, cores: str) -> None:
        self._server = EmbeddedPostgres(folder / "postgres", durable=True)
        self._server.start()
        self._pin(cores)
        self.version = asyncio.run(self._ask("show server_version")).split()[0]

    def _pin(self, cores: str) -> None:
        """The postmaster and what it has started; what it starts later inherits."""
        wanted = {int(core) for core in cores.split(",")}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                if self.pid in {parent, int(path.name)}:
                    os.sched_setaffinity(int(path.name), wanted)

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        if self._server.pid is None:
            raise BenchError("PostgreSQL has ended.")
        return self._server.pid

    def create(self, name: str) -> str:
        """Make a database; its dsn."""
        asyncio.run(self._ask(f"create database {name}"))
        before, _, after = self._server.dsn.partition("@/")
        return f"{before}@/{name}?{after.partition('?')[2]}"

    def checkpoint(self) -> None:
        """Begin every measurement alike: with the whole of PostgreSQL's checkpoint behind it."""
        asyncio.run(self._ask("checkpoint"))

    def stop(self) -> None:
        """End it."""
        self._server.stop()

    async def _ask(self, statement: str) -> str:
        connection = await asyncpg.connect(self._server.dsn)
        try:
            return str(await connection.fetchval(statement))
        finally:
            await connection.close()


def libpq(dsn: str) -> dict[str, str]:
    """A dsn as libpq's environment, which Node's pg reads too."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    return {
        "PGHOST": query["host"][0],
        "PGPORT": query["port"][0],
        "PGUSER": parts.username or "postgres",
        "PGDATABASE": parts.path.removeprefix("/"),
    }
