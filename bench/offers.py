"""Offer moves a second, and how long each takes: `python -m bench.offers`.

A closed loop of workers, each with a seller and a buyer who haggle to the end: the buyer makes an offer, the seller
counters, the buyer counters, the seller accepts; then the worker goes on with the next buyer. Twice: all on one
listing, whose seller, stock and rooms they share, and each pair on one of 10,000 listings of a hundred sellers. One
server process on a core of its own; over HTTP, so that each move's session is looked up too. CPU is that of the
server's and PostgreSQL's processes by the scheduler's books, for each move.

`--profile` counts instead, of one server inside this process, the statements of each command and the time in them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
import asyncpg
from rich.console import Console
from rich.table import Table

from bench import pages
from bench.haggling import CROWD, LISTINGS, MOVES, SELLERS, Haggling, Pair, Taken, fill, hot, spread
from bench.machine import Cores, describe
from bench.peers import RATES_OFF
from bench.services import Postgres, Process
from bench.stage import run, staged
from server.app import Parley
from server.config import load
from storage import _db

WORKERS = 32
WARM_S = 2.0
PROFILED = 20  # pairs
COLUMNS = ("", "moves/s", "p50 ms", "p99 ms", "server µs a move", "PostgreSQL µs a move", "unavailable")


@dataclass(frozen=True)
class Figures:
    """What a measurement says: CPU in microseconds a move."""

    title: str
    taken: Taken
    seconds: float
    server_us: float
    postgres_us: float

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Under `COLUMNS`: of all moves, and of each kind."""
        cpu = (f"{self.server_us:,.0f}", f"{self.postgres_us:,.0f}", str(self.taken.unavailable))
        kinds = [self._row(f"of these, {command}", self.taken.of[command], ("", "", "")) for command in MOVES]
        return [self._row(self.title, self.taken.all, cpu), *kinds]

    def _row(self, title: str, taken: list[float], cpu: tuple[str, ...]) -> tuple[str, ...]:
        p99 = statistics.quantiles(taken, n=100, method="inclusive")[-1]
        return title, f"{len(taken) / self.seconds:,.0f}", f"{statistics.median(taken):.1f}", f"{p99:.1f}", *cpu


async def measure(
    title: str, pairs: Iterator[Pair], server: Process, postgres: Postgres, secret: str, secs: float, workers: int
) -> Figures:
    """Haggle for so many seconds, after some that don't count."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        haggling = Haggling(http, f"http://127.0.0.1:{server.port}", secret)
        begun = time.perf_counter()
        ends = begun + WARM_S + secs
        running = asyncio.gather(*(haggling.run(pairs, ends) for _ in range(workers)))
        await asyncio.sleep(WARM_S)
        haggling.taken, begun, before = Taken(), time.perf_counter(), (_cpu_s(server.pid), _cpu_s(postgres.pid))
        await running
    seconds, moves = time.perf_counter() - begun, len(haggling.taken.all)
    used = (_cpu_s(server.pid) - before[0], _cpu_s(postgres.pid) - before[1])
    return Figures(title, haggling.taken, seconds, used[0] / moves * 1e6, used[1] / moves * 1e6)


def _cpu_s(pid: int) -> float:
    """What a process, and the processes that it has started and that live, have run, in seconds."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if pid in {parent, int(path.name)}:
                total += (
                    sum(int((task / "schedstat").read_text().split()[0]) for task in (path / "task").iterdir()) / 1e9
                )
        except OSError:
            continue  # it has ended
    return total


def show(measured: Sequence[Figures], workers: int, machine: str) -> None:
    """The table."""
    table = Table(*COLUMNS)
    for each in measured:
        for row in each.rows:
            table.add_row(*row)
    console = Console(width=None if os.isatty(1) else 140)
    console.print(table)
    console.print(f"{_how(workers)} {machine}.")


def write(measured: Sequence[Figures], workers: int, command: str) -> None:
    """The part of the page."""
    table = pages.table(COLUMNS, [row for each in measured for row in each.rows])
    pages.write_part("offers", command, f"{_how(workers)}\n\n{table}")


def _how(workers: int) -> str:
    return f"{workers} pairs in a closed loop, over HTTP; one server process."


@asynccontextmanager
async def counting(dsn: str, secret: str) -> AsyncIterator[tuple[str, list[tuple[str, float]]]]:
    """A server within this process, and what it asks PostgreSQL: each statement, and how long it took, in seconds."""
    asked: list[tuple[str, float]] = []
    prepare = _db.prepare_connection

    async def logged(connection: asyncpg.Connection) -> None:
        await prepare(connection)
        connection.add_query_logger(lambda query: asked.append((query.query, query.elapsed)))

    quiet = ["CLOCK_EVERY_S", "COUNT_EVERY_S", "WARN_EVERY_S", "EMPTY_EVERY_S"]
    rates = {**RATES_OFF, "PARLEY_RATE_OFFER_MOVES": "off"}
    config = load({"DATABASE_URL": dsn, "PARLEY_SECRET": secret, "PARLEY_PORT": "0", "PARLEY_DRAIN_MS": "0", **rates})
    with ExitStack() as stack:
        stack.enter_context(patch.object(_db, "prepare_connection", logged))
        for name in quiet:
            stack.enter_context(patch(f"server.jobs.{name}", 3_600.0))
        stack.enter_context(patch("server.rooms.comparison.COMPARE_S", 3_600.0))
        parley = Parley(config, dsn, (secret,))
        port = await parley.start()
        try:
            yield f"http://127.0.0.1:{port}", asked
        finally:
            await parley.stop()


async def profile(dsn: str, secret: str, pairs: Iterator[Pair]) -> None:
    """Print the statements of each command, with the median of their times."""
    found: dict[str, list[list[tuple[str, float]]]] = defaultdict(list)

    class Counted(Haggling):
        async def _move(self, person: int, command: str, **payload: Any) -> Any:
            asked.clear()
            answer = await super()._move(person, command, **payload)
            found[command].append(list(asked))
            return answer

    async with counting(dsn, secret) as (url, asked), aiohttp.ClientSession() as http:
        haggling = Counted(http, url, secret)
        for pair in itertools.islice(pairs, PROFILED):
            await haggling.haggle(pair)
    console = Console(width=140)
    for command, runs in found.items():
        usual = [run for run in runs if len(run) == statistics.mode(map(len, runs))]
        table = Table(f"{command}: {len(usual[0])} statements", "ms")
        for n, (query, _) in enumerate(usual[0]):
            words = " ".join(query.split())
            table.add_row(words[:110], f"{statistics.median(run[n][1] for run in usual) * 1000:.2f}")
        console.print(table)


def main() -> int:
    """Fill, haggle, and show it."""
    options = _options()
    with staged(Cores.of_this_machine(), tools=("taskset",)) as stage:
        stage.step_aside()
        site = stage.parley([CROWD])
        listings = asyncio.run(fill(site.dsn))
        if options.profile:
            asyncio.run(profile(site.dsn, stage.secret, hot(listings)))
            return 0
        (server,) = stage.serve(site, {"PARLEY_RATE_OFFER_MOVES": "off"})
        cases = (("all on one listing", hot(listings)), (f"over {LISTINGS:,} listings", spread(listings)))
        measured = [
            asyncio.run(measure(title, pairs, server, stage.postgres, stage.secret, options.secs, options.workers))
            for title, pairs in cases
        ]
    show(measured, options.workers, describe())
    if options.write:
        command = f"python -m bench.offers --secs {options.secs:g} --workers {options.workers} --write"
        write(measured, options.workers, command)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.offers", description=__doc__)
    parser.add_argument("--secs", type=float, default=15.0, help="seconds of each measurement (15)")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"pairs at a time ({WORKERS})")
    parser.add_argument("--quick", action="store_true", help="a second of each: does it work?")
    parser.add_argument("--profile", action="store_true", help="count statements instead")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    if options.quick:
        options.secs = 1.0
    if not (0.5 <= options.secs <= 300 and 1 <= options.workers <= SELLERS):
        parser.error(f"--secs is 0.5 to 300, --workers 1 to {SELLERS}")
    if options.write and (options.quick or options.profile):
        parser.error("--write is for a whole run: leave out --quick and --profile")
    return options


if __name__ == "__main__":
    run(main)
