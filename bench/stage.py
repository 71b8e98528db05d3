"""What the programs of the bench play on: a folder, a PostgreSQL, a Redis, the load generator; and what they show."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from bench import machine, pages
from bench.crowds import Crowd
from bench.load import Load
from bench.machine import BenchError, Cores
from bench.peers import NO_SETTINGS, PARLEY, RATES_OFF, Site
from bench.services import Postgres, Process, Redis

DEFAULT_RATES = dict.fromkeys(RATES_OFF, "")
"""Settings that leave the rates as they are by default."""
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


class Stage:
    """A run's folder and PostgreSQL, and Redis and the load generator once asked for; `secret` signs its tokens."""

    def __init__(self, folder: Path, cores: Cores, stack: ExitStack, secs: float, warm_s: float) -> None:
        self.folder = folder
        self.cores = cores
        self.stack = stack
        self.secret = secrets.token_urlsafe(48)
        self.postgres = Postgres(folder, cores.rest)
        stack.callback(self.postgres.stop)
        self._secs, self._warm_s = secs, warm_s

    @cached_property
    def redis(self) -> Redis:
        """Started when it is first asked for."""
        redis = Redis(self.folder, self.cores.rest)
        self.stack.callback(redis.stop)
        return redis

    @cached_property
    def load(self) -> Load:
        """The load generator, as hard and as long as the run has it."""
        binary = machine.load_generator()
        return Load(binary, self.cores.load, self._secs, self._warm_s, self.postgres.pid, self.redis.pid)

    def step_aside(self) -> None:
        """Where this process asks for itself: let it run where a load generator would."""
        os.sched_setaffinity(0, set(map(int, self.cores.load.split(","))))

    def parley(self, crowds: Sequence[Crowd]) -> Site:
        """A Parley whose database is full of these people."""
        return Site(PARLEY, self.postgres, crowds, self.secret, self.folder)

    def serve(self, site: Site, settings: Mapping[str, str] = NO_SETTINGS, *, instances: int = 1) -> list[Process]:
        """Start instances of it, which end with the stage; `settings` go before those of the bench.

        What was written before goes to the disk first.
        """
        self.postgres.checkpoint()
        servers = site.start(instances, self.cores.server, self.redis.url if instances > 1 else None, settings)
        for server in servers:
            self.stack.callback(server.stop)
        return servers


@contextmanager
def staged(
    cores: Cores, *, secs: float = 4.0, warm_s: float = 1.0, tools: Sequence[str] = ("taskset", "gcc")
) -> Iterator[Stage]:
    """Set everything up, and leave nothing. gcc is for the load generator: who asks for none can do without."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end by kill stops the servers too
    machine.check_tools(tools)
    machine.allow_descriptors()
    machine.commit()
    machine.describe()
    with folder_of_a_run() as folder, ExitStack() as stack:
        yield Stage(folder, cores, stack, secs, warm_s)


@contextmanager
def folder_of_a_run() -> Iterator[Path]:
    """A folder for a run, with a short path, that PostgreSQL's own user may enter where we are root."""
    folder = Path(tempfile.mkdtemp(prefix="parley-bench-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure beside what it must be; `holds` is None where this run can't tell."""

    measure: str
    figure: str
    must: str
    holds: bool | None

    @property
    def row(self) -> tuple[str, str, str, str]:
        return self.measure, self.figure, self.must, pages.YES_OR_NO[self.holds]


def conclude(verdicts: Sequence[Verdict], title: str, part: str | None, command: str, about: str) -> int:
    """Show the verdicts, on request write them into docs/benchmarks.md as the `part` of `command`; the exit code.

    The first verdict says whether what was measured was right: where it was not, nothing is written.
    """
    columns = ("measure", "figure", "must", "holds")
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(*columns, title=title, title_justify="left")
    for verdict in verdicts:
        table.add_row(*verdict.row)
    console.print(table)
    held = all(verdict.holds is not False for verdict in verdicts)
    if part is not None and verdicts[0].holds is not False:
        pages.write_part(part, command, f"{about}\n\n{pages.table(columns, [verdict.row for verdict in verdicts])}")
    return 0 if held else 1


def run(main: Callable[[], int]) -> NoReturn:
    """Run a program of the bench to its exit code; what a person can mend is said in a line."""
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def some(lines: Sequence[str]) -> str:
    """How many there are, and the first of them."""
    return f"{len(lines)}: {'; '.join(lines[:3])}" if lines else "0"


@dataclass(slots=True)
class Watch:
    """The memory of processes over time: `look` notes it."""

    pids: Sequence[int]
    begun: float = field(default_factory=time.monotonic)
    seen: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)

    def look(self) -> None:
        """Note what each takes now, in KB."""
        self.seen.append((time.monotonic() - self.begun, tuple(map(resident_kb, self.pids))))

    def growth(self, after_s: float, over_s: float) -> float | None:
        """The most that one of them has grown from `after_s` on, as a share; each end is a median of `over_s` seconds.

        None where it was not watched for long enough. Who looks last must do so before the load goes.
        """
        until = self.seen[-1][0] - 2 if self.seen else 0.0
        first = [sizes for at, sizes in self.seen if after_s <= at < after_s + over_s]
        last = [sizes for at, sizes in self.seen if until - over_s <= at <= until]
        if not first or not last or until < after_s + 2 * over_s:
            return None
        ends = zip(zip(*first, strict=True), zip(*last, strict=True), strict=True)
        return max(float(statistics.median(late) / statistics.median(early)) - 1 for early, late in ends)


def resident_kb(pid: int) -> int:
    """What a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KB


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
