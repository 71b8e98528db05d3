"""The parent of several workers, which share one port: it starts them, keeps them alive, and ends them.

Each is a process of its own that begins afresh (`parley worker`), with a listening socket of its own on the port
(SO_REUSEPORT): the kernel spreads connects over those that listen, so one that is gone gets none. The parent serves
nobody. Where it is killed itself, the kernel kills the workers (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from server.config import Config
from server.config_kinds import INSTANCE_CHARS
from server.embedded_files import dying_with
from server.supervision import how

ROOT = Path(__file__).resolve().parents[2]
PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0  # before a worker that ended is started again: doubled each time
STEADY_S = 60.0  # one that has lived as long is started again after the first pause
NOT_STARTED = (OSError, subprocess.SubprocessError)  # it ended before it served, or could not be forked at all
END_S = 60.0  # for workers to drain: twice as long as a transaction may take

logger = structlog.get_logger("parley")


def pauses() -> Iterator[float]:
    """How long to wait, in seconds, before each new start of one that goes on ending."""
    pause = PAUSE_S
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_S)


class Port:
    """Holds a port for the workers, from before the first listens until the last has ended; nothing is accepted here.

    Raises OSError where it is taken. SO_REUSEPORT would let a second server of the same user share it unasked.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self.number = port
        self._held: list[socket.socket] = []
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            self._bind(family, kind, protocol, address, shared=False).close()
            self._held.append(self._bind(family, kind, protocol, address, shared=True))

    def _bind(self, family: int, kind: int, protocol: int, address: Sequence[object], *, shared: bool) -> socket.socket:
        held = socket.socket(family, kind, protocol)
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier server may linger
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
            if family == socket.AF_INET6:
                held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as asyncio listens
            held.bind((address[0], self.number, *address[2:]))
            # Of two that do not listen yet SO_REUSEADDR lets both bind: a second crew would find the port free.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except OSError as error:
            held.close()
            raise OSError(error.errno, f"Port {self.number} of {self._host}: {error.strerror}") from error
        self.number = held.getsockname()[1]
        return held

    def release(self) -> None:
        """Let others have it."""
        for held in self._held:
            held.close()


@dataclass(frozen=True, slots=True)
class Post:
    """What one worker of a crew is: its name, its command, its environment."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]


def posts(config: Config, port: int, redis_url: str, dsn: str | None) -> list[Post]:
    """The workers of a server, who read the settings as it did; `dsn` is of its own PostgreSQL, where it has one."""
    shared = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),  # this very code
        "PARLEY_WORKERS": str(config.workers),
        "PARLEY_PORT": str(port),
        "REDIS_URL": redis_url,
    }
    command = [sys.executable, "-P", "-m", "server.cli", "worker", *([f"--dsn={dsn}"] if dsn else [])]
    made = []
    for n in range(1, config.workers + 1):
        name = f"{config.instance[: INSTANCE_CHARS - 3]}-{n}"
        own = {"PARLEY_INSTANCE": name}
        if config.metrics_port:
            own["PARLEY_METRICS_PORT"] = str(config.metrics_port + n - 1)
        made.append(Post(name, command, shared | own))
    return made


class Worker:
    """One worker's process, and the next one at its post."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._process: Process | None = None

    @property
    def name(self) -> str:
        """The instance's."""
        return self._post.name

    async def start(self) -> None:
        """Start it and return when it serves. Raises ChildProcessError where it ends before, and what a fork raises."""
        self._process = process = await asyncio.create_subprocess_exec(
            *self._post.command,
            env=self._post.environ,
            stdin=DEVNULL,
            stdout=PIPE,
            start_new_session=True,  # a Ctrl-C is for the parent, which passes it on
            preexec_fn=dying_with(os.getpid(), signal.SIGKILL),
        )
        assert process.stdout is not None
        if not await process.stdout.readline():
            raise ChildProcessError(f"{self._post.name} ended before it served ({how(await process.wait())}).")

    async def keep(self) -> None:
        """Start it again whenever it ends, after pauses that grow while it goes on ending."""
        waits, loop = pauses(), asyncio.get_running_loop()
        while self._process is not None:
            started = loop.time()
            ended = how(await self._process.wait())
            if loop.time() - started > STEADY_S:
                waits = pauses()
            pause = next(waits)
            logger.error("worker_ended", worker=self._post.name, how=ended, again_in_s=pause)
            await asyncio.sleep(pause)
            try:
                await self.start()
            except NOT_STARTED as error:
                logger.error("worker_not_started", worker=self._post.name, error=str(error))
                continue
            logger.warning("worker_started_again", worker=self._post.name, pid=self._process.pid)

    async def end(self) -> None:
        """Tell it to drain and wait until it has; one that takes too long is killed."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(END_S):
                await self._process.wait()
        except TimeoutError:
            logger.error("worker_killed", worker=self._post.name, after_s=END_S)
            self._process.kill()
            await self._process.wait()


class Crew:
    """All workers of a server. Its loop has to be the main thread's: they end with the thread that starts them."""

    def __init__(self, manned: Sequence[Post]) -> None:
        self._workers = [Worker(post) for post in manned]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start them all at once and return when all serve. Raises ChildProcessError where one can't."""
        self._tasks = [asyncio.create_task(worker.start()) for worker in self._workers]
        await asyncio.gather(*self._tasks)
        self._tasks = [asyncio.create_task(worker.keep()) for worker in self._workers]

    async def renew(self) -> None:
        """End each and start it again, one after another: those that serve are at most one fewer meanwhile.

        One that does not start is tried again, as is one that ends by itself.
        """
        for n, worker in enumerate(self._workers):
            self._tasks[n].cancel()
            await asyncio.wait([self._tasks[n]])
            await worker.end()
            try:
                await worker.start()
            except NOT_STARTED as error:
                logger.error("worker_not_started", worker=worker.name, error=str(error))
            self._tasks[n] = asyncio.create_task(worker.keep())

    async def end(self) -> None:
        """Start none any more, and end them all at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.end() for worker in self._workers))
