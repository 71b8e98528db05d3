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


@dataclass(frozen=True, slots=True)
class Stage:
    """A run's folder, services and load generator; `secret` signs its tokens."""

    folder: Path
    cores: Cores
    postgres: Postgres
    redis: Redis
    load: Load
    secret: str
    stack: ExitStack

    def parley(self, crowds: Sequence[Crowd]) -> Site:
        """A Parley whose database is full of these people."""
        return Site(PARLEY, self.postgres, crowds, self.secret, self.folder)

    def serve(self, site: Site, settings: Mapping[str, str] = NO_SETTINGS, *, instances: int = 1) -> list[Process]:
        """Start instances of it, which end with the stage; `settings` go before those of the bench."""
        servers = site.start(instances, self.cores.server, self.redis.url if instances > 1 else None, settings)
        for server in servers:
            self.stack.callback(server.stop)
        return servers


@contextmanager
def staged(cores: Cores, *, secs: float = 4.0, warm_s: float = 1.0) -> Iterator[Stage]:
    """Set everything up, and leave nothing."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end by kill stops the servers too
    machine.check_tools(("taskset", "gcc"))
    machine.allow_descriptors()
    binary = machine.load_generator()
    with folder_of_a_run() as folder, ExitStack() as stack:
        postgres = Postgres(folder, cores.rest)
        stack.callback(postgres.stop)
        redis = Redis(folder, cores.rest)
        stack.callback(redis.stop)
        load = Load(binary, cores.load, secs, warm_s, postgres.pid, redis.pid)
        yield Stage(folder, cores, postgres, redis, load, secrets.token_urlsafe(48), stack)


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
        return self.measure, self.figure, self.must, {True: "yes", False: "NO", None: "-"}[self.holds]


def conclude(verdicts: Sequence[Verdict], title: str, part: str | None, about: str) -> int:
    """Show the verdicts, on request write them into docs/benchmarks.md as `part`; the exit code.

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
        pages.write_part(part, f"{about}\n\n{pages.table(columns, [verdict.row for verdict in verdicts])}")
        console.print(f"written: {pages.PAGE.relative_to(machine.ROOT)}")
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
