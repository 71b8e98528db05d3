"""What the faults are done to: PostgreSQL, Valkey and instances of Parley, each connection by way of a proxy."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import asyncpg

from server.embedded import EmbeddedPostgres
from server.embedded_files import SOCKET
from server.embedded_process import _leftovers
from server.migrate import migrate
from tests.faults.lines import Door
from tests.faults.processes import ServerProcess
from tests.faults.proxy import Proxy
from tests.servers import RedisServer, database_of, execute, valkey_binary

SECRET = "a secret of the faults that is thirty-two bytes long or more"
READY_S = 60.0
RECEIVE_BYTES = 16_384
SETTINGS = {
    "PARLEY_SECRET": SECRET,
    "PARLEY_POOL_MIN": "2",
    "PARLEY_POOL_MAX": "8",
    # A connection that hears nothing is given up after two seconds, by both sides.
    "PARLEY_PING_INTERVAL_MS": "1000",
    "PARLEY_PING_TIMEOUT_MS": "1000",
    **{f"PARLEY_RATE_{name}": "off" for name in ("MESSAGE_SEND", "READS", "CONNECTS", "WRITES", "OFFER_MOVES")},
}
SHORT = {"PARLEY_DRAIN_MS": "500"}  # in rounds that are to take no time


@dataclass
class Station:
    """An instance, and the ways to it and from it. Who is to suffer from a fault of clients comes by `rough`."""

    process: ServerProcess
    front: Proxy
    rough: Proxy
    postgres: Proxy
    redis: Proxy
    module: Sequence[str] = field(default=("server.cli", "serve"))

    @property
    def proxies(self) -> tuple[Proxy, ...]:
        return self.front, self.rough, self.postgres, self.redis

    async def start(self) -> None:
        """Start the process, and return when it serves."""
        await asyncio.to_thread(self.process.start)

    async def stop(self) -> None:
        """End it as an operator does."""
        await asyncio.to_thread(self.process.stop)

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()

    async def scrape(self, sample: str) -> list[Any]:
        """What its measures have at that pattern's group; a tuple each where it has several."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.process.url}/metrics") as response:
            return re.findall(f"^{sample}", await response.text(), re.MULTILINE)

    async def clock(self) -> float:
        """What time it says it is, in seconds since the epoch."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.process.url}/metrics") as response:
            return parsedate_to_datetime(response.headers["Date"]).timestamp()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


class Stage:
    """All of it. `broken` is a module of these tests that serves instead of the command line, with its argument;
    `afresh` it is a new Python.
    """

    def __init__(
        self,
        folder: Path,
        *,
        instances: int = 2,
        is_durable: bool = False,
        broken: Sequence[str] | None = None,
        afresh: bool = False,
    ) -> None:
        self._folder = folder
        self._count = instances
        self._afresh = afresh
        self._module = broken or ("server.cli", "serve")
        self._always = SETTINGS | ({} if is_durable else SHORT)
        self._settings: dict[str, str] = {}
        self._errors = Counter[str]()
        self._supervising: asyncio.Task[None] | None = None
        self.postgres = EmbeddedPostgres(folder / "data", durable=is_durable)
        self.redis = RedisServer(valkey_binary(), folder / "redis.log")
        self.stations: list[Station] = []

    @property
    def settings(self) -> Mapping[str, str]:
        """What the instances have been given beside what they always are."""
        return self._settings

    @property
    def heartbeat_s(self) -> float:
        """The instances' interval and patience."""
        settings = self._always | self._settings
        return sum(int(settings[f"PARLEY_PING_{name}_MS"]) for name in ("INTERVAL", "TIMEOUT")) / 1000

    @property
    def dsn(self) -> str:
        """The database, as its superuser, past all proxies."""
        return database_of(self.postgres.dsn, "parley")

    @property
    def doors(self) -> list[Door]:
        """Where clients come in."""
        return [("127.0.0.1", station.front.port) for station in self.stations]

    @property
    def rough_doors(self) -> list[Door]:
        """Where clients come in who are to suffer."""
        return [("127.0.0.1", station.rough.port) for station in self.stations]

    async def start(self) -> None:
        """Start everything, and return when it serves."""
        self.postgres.start()
        self._supervising = asyncio.create_task(self.postgres.supervise())
        self.redis.start()
        # Not the superuser: its connections would be the last to be refused.
        await execute(self.postgres.dsn, "create role parley login")
        await execute(self.postgres.dsn, "create database parley owner parley")
        await migrate(self.dsn.replace("//postgres@", "//parley@"))
        for n in range(self._count):
            self.stations.append(await self._station(n))
        await asyncio.gather(*(station.start() for station in self.stations))

    async def _station(self, n: int) -> Station:
        postgres, redis = Proxy(self.postgres_socket), Proxy(("127.0.0.1", self.redis.port))
        for proxy in (postgres, redis):
            await proxy.start()
        environ = {
            **self._always,
            "PARLEY_INSTANCE": f"{n}",
            "PARLEY_DATA": str(self._folder / f"{n}"),
            "DATABASE_URL": f"postgresql://parley@127.0.0.1:{postgres.port}/parley",
            "REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
        }
        process = ServerProcess(self._folder / f"{n}.log", environ, self._module, afresh=self._afresh)
        front = Proxy(("127.0.0.1", process.port))
        rough = Proxy(("127.0.0.1", process.port), receive_bytes=RECEIVE_BYTES)
        for proxy in (front, rough):
            await proxy.start()
        return Station(process, front, rough, postgres, redis)

    @property
    def postgres_socket(self) -> Path:
        """Where PostgreSQL listens."""
        return Path(parse_qs(urlsplit(self.postgres.dsn).query)["host"][0]) / SOCKET

    async def stop(self) -> None:
        """End everything."""
        if self._supervising is not None:
            self._supervising.cancel()
        for station in self.stations:
            station.kill()
            for proxy in station.proxies:
                await proxy.stop()
        self.redis.kill()
        self.postgres.stop()

    async def mend(
        self, environ: Mapping[str, str] = MappingProxyType({}), module: Sequence[str] | None = None
    ) -> None:
        """See that all is as it should be, whatever a fault has left, and that the instances have these settings."""
        if environ != self._settings:
            for station in self.stations:
                station.kill()
                for name in self._settings:
                    del station.process._environ[name]
                station.process._environ |= self._always | environ
                station.process.module = module or self._module
            self._settings = dict(environ)
        for station in self.stations:
            for proxy in station.proxies:
                await proxy.clear()
            if not station.process.is_running():
                await station.start()
        if await self.ask_redis("ping") is None:
            self.redis.kill()
            self.redis.start()
        await self.postgres_ready()

    @asynccontextmanager
    async def unsupervised(self) -> AsyncIterator[None]:
        """Let PostgreSQL, which is about to end, not be started again before the end of the block; then it answers."""
        assert self._supervising is not None
        self._supervising.cancel()
        try:
            yield
        finally:
            self._supervising = asyncio.create_task(self.postgres.supervise())
        await self.postgres_ready()

    async def keep_postgres_down(self, seconds: float) -> None:
        """Let PostgreSQL, which is about to end, be started again only after so long; return when it answers."""
        async with self.unsupervised():
            async with asyncio.timeout(READY_S):
                while self.postgres.running():
                    await asyncio.sleep(0.01)
            await asyncio.sleep(seconds)

    async def limit_files_of_postgres(self, size: str) -> None:
        """Let PostgreSQL's processes make no file larger than that: for a process, the end of a disk."""
        pids = map(str, _leftovers(self.postgres_socket.parent))
        limit = f'for pid; do prlimit --pid "$pid" --fsize={size}: 2>&-; done'
        command = ["/bin/sh", "-c", limit, "-", *pids]
        account = self.postgres._account  # root may not have what it takes to do it for others
        await asyncio.to_thread(subprocess.run, command, check=False, **account.identity(signal.SIGKILL))

    async def postgres_ready(self) -> None:
        """Wait until PostgreSQL answers."""
        async with asyncio.timeout(READY_S):
            while True:
                try:
                    await execute(self.dsn, "select 1")
                    return
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await asyncio.sleep(0.01)

    async def ask_redis(self, command: str) -> str | None:
        """The first line of Redis' answer to a simple command; None where there is none."""
        return await asyncio.to_thread(self.redis.ask, command)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection to the database, as its superuser."""
        connection = await asyncpg.connect(self.dsn)
        try:
            yield connection
        finally:
            await connection.close()

    def errors(self) -> Counter[str]:
        """How often the instances have logged an error, by its name; until now."""
        lines = [line for station in self.stations for line in station.process.logged()]
        return Counter(str(line["event"]) for line in lines if line.get("level") in ("error", "critical"))

    def new_errors(self) -> Counter[str]:
        """The errors that were not there when this was asked the last time."""
        before, self._errors = self._errors, self.errors()
        return self._errors - before


@asynccontextmanager
async def staged(folder: Path, **how: object) -> AsyncIterator[Stage]:
    """A stage from its start to its end."""
    stage = Stage(folder, **how)  # type: ignore[arg-type]
    try:
        await stage.start()
        yield stage
    finally:
        await stage.stop()
