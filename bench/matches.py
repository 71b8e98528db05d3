"""How long a listing takes to find its counterparts among 100,000: `python -m bench.matches`.

The listings are bench.listings', of people who are in all of their threads; so many of them are looked at as if they
had just been written, wanted ones and such that are for sale. Three figures each: PostgreSQL's search for candidates
alone; that with reading and comparing them; and all of it, until the matches are stored and their owners' pushes are in
the log. The aim is a p95 of 50 ms for the candidates; beside it stands the CPU that PostgreSQL took for them, which a
busy machine does not lengthen much.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import asyncpg
from rich.console import Console
from rich.table import Table

from bench import pages
from bench.history import CROWD
from bench.listings import LISTINGS, fill
from bench.machine import Cores, describe
from bench.stage import run, staged
from handlers.matching import match_listing
from rules.matches import LEAST, score, total
from server.app import Parley
from server.config import load
from storage import matching

AIM_MS = 50.0
WARM = 5  # listings of each kind that don't count
COLUMNS = ("of one listing", "p50 ms", "p95 ms", "aim, p95", "reached")

EVERYBODY = """
insert into thread_members (thread_id, user_id)
select t.thread_id, u.user_id from threads t cross join (select distinct user_id from listings) u
on conflict (thread_id, user_id) do nothing
"""
AT_RANDOM = """
select listing_id from listings
 where kind = $1 and status = 'active' and expires_at > now()
 order by md5(listing_id::text) limit $2
"""


@dataclass
class Timing:
    """Of one kind of listings, in milliseconds; how many candidates each had, and how many of these were matches."""

    kind: str
    candidates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    compared: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    found: list[int] = field(default_factory=list)
    matched: list[int] = field(default_factory=list)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Under `COLUMNS`."""
        return [
            _row(f"{self.kind}: candidates", self.candidates, has_aim=True),
            _row(f"{self.kind}: candidates, PostgreSQL's CPU", self.cpu, has_aim=True),
            _row(f"{self.kind}: candidates, read and compared", self.compared, has_aim=False),
            _row(f"{self.kind}: all, stored and pushed", self.whole, has_aim=False),
        ]


def _row(title: str, taken: list[float], *, has_aim: bool) -> tuple[str, ...]:
    aim, reached = (f"{AIM_MS:g}", pages.YES_OR_NO[p95(taken) <= AIM_MS]) if has_aim else ("-", "-")
    return title, f"{statistics.median(taken):.1f}", f"{p95(taken):.1f}", aim, reached


def p95(taken: Sequence[float]) -> float:
    """What no more than one in twenty took longer than."""
    return statistics.quantiles(taken, n=20, method="inclusive")[-1]


async def match(dsn: str, secret: str, times: int) -> list[Timing]:
    """Match listings of both kinds, one at a time, on an instance of its own."""
    config = load({"DATABASE_URL": dsn, "PARLEY_SECRET": secret, "PARLEY_PORT": "0"})
    parley = Parley(config, dsn, (secret,))
    await parley.start()
    try:
        return [await _measure(parley, dsn, kind, times) for kind in ("wtb", "for_sale")]
    finally:
        await parley.stop()


async def _measure(parley: Parley, dsn: str, kind: str, times: int) -> Timing:
    connection = await asyncpg.connect(dsn)
    timing = Timing(kind)
    try:
        for n, (listing_id,) in enumerate(await connection.fetch(AT_RANDOM, kind, WARM + times)):
            await connection.execute("update listings set matched_edition = 0 where listing_id = $1", listing_id)
            if n == WARM:
                timing = Timing(kind)
            await _look(parley, listing_id, timing)
    finally:
        await connection.close()
    return timing


async def _look(parley: Parley, listing_id: UUID, timing: Timing) -> None:
    async with parley.database.connection() as db:
        source = await matching.find_unmatched(db, listing_id)
        assert source is not None
        pid = await db.fetchval("select pg_backend_pid()")
        before = _ran_ms(pid)

        async def ask() -> object:
            return await db.fetch("select listing_id from find_counterparts($1, $2)", listing_id, source.sought)

        await _timed(timing.candidates, ask)
        timing.cpu.append(_ran_ms(pid) - before)

        async def compare() -> None:
            others = await matching.list_counterparts(db, source)
            subject = source.subject()
            points = [total(score(subject, other.subject())) for other in others]
            timing.found.append(len(others))
            timing.matched.append(sum(each >= LEAST for each in points))

        await _timed(timing.compared, compare)
    await _timed(timing.whole, lambda: match_listing(parley.services, listing_id))


async def _timed(taken: list[float], work: Callable[[], Awaitable[object]]) -> None:
    begun = time.perf_counter()
    await work()
    taken.append((time.perf_counter() - begun) * 1000)


def _ran_ms(pid: int) -> float:
    """The CPU that a process has had."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def show(timings: Sequence[Timing], machine: str) -> None:
    """The table."""
    table = Table(*COLUMNS)
    for timing in timings:
        for row in timing.rows:
            table.add_row(*row)
    console = Console(width=None if os.isatty(1) else 140)
    console.print(table)
    load_average = os.getloadavg()[0]
    console.print(f"{found(timings)} {LISTINGS:,} listings; {machine}; load average at the end {load_average:.1f}.")


def write(timings: Sequence[Timing], command: str) -> None:
    """The part of the page."""
    table = pages.table(COLUMNS, [row for timing in timings for row in timing.rows])
    pages.write_part("matches", command, f"Among {LISTINGS:,} listings. {found(timings)}\n\n{table}")


def found(timings: Sequence[Timing]) -> str:
    """What there was to compare."""
    return " ".join(
        f"{timing.kind}: {statistics.mean(timing.found):.0f} candidates and {statistics.mean(timing.matched):.0f}"
        f" matches a listing, of {len(timing.whole)}."
        for timing in timings
    )


def main() -> int:
    """Fill, match, and show it; 0 where the candidates are found within the aim."""
    options = _options()
    random.seed(7)
    with staged(Cores.of_this_machine(), tools=("taskset",)) as stage:
        site = stage.parley([CROWD])
        asyncio.run(fill(site.dsn))
        asyncio.run(prepare(site.dsn))
        stage.postgres.checkpoint()
        timings = asyncio.run(match(site.dsn, stage.secret, options.times))
    show(timings, describe())
    if options.write:
        write(timings, f"python -m bench.matches --times {options.times} --write")
    return 0 if all(p95(timing.candidates) <= AIM_MS for timing in timings) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.matches", description=__doc__)
    parser.add_argument("--times", type=int, default=200, help="listings of each kind (200)")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    if not 20 <= options.times <= 10_000:
        parser.error("--times is 20 to 10,000")
    return options


async def prepare(dsn: str) -> None:
    """Everybody is in every thread."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(EVERYBODY)
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


if __name__ == "__main__":
    run(main)
