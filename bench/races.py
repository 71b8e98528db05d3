"""Everybody at once, ten thousand times: `python -m bench.races`.

Two server processes on one PostgreSQL, and rounds of tests/faults/racers.py: on each offer five moves at the same
instant, through both, with the clock, the listing's end, edits and purchases in between. At the end the laws of
tests/negotiation_checker.py are asked of the whole database. It ends with 0 where each offer had one winner at most and
every law holds. `--without-locks` shows what it sees where the market's row locks are taken out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time

from rich.console import Console
from rich.table import Table

import handlers  # noqa: F401  (declares the commands that may race)
from bench.machine import Cores, describe
from bench.peers import RATES_OFF
from bench.stage import Verdict, conclude, run, some, staged
from server.migrate import migrate
from tests.faults.processes import ServerProcess
from tests.faults.racers import ACTORS, Tally, race
from tests.negotiation_checker import breaches, counted

RATES = {**RATES_OFF, "PARLEY_RATE_OFFER_MOVES": "off"}


def show(tally: Tally, found: list[str], rows: dict[str, int], taken_s: float) -> None:
    """What has happened, and what must not have."""
    console = Console(width=None if os.isatty(1) else 140)
    table = Table("how offers ended", "offers")
    for end, count in tally.ends.most_common():
        table.add_row(end, f"{count:,}")
    console.print(table)
    table = Table("why moves were refused", "moves")
    for reason, count in tally.refused.most_common():
        table.add_row(reason, f"{count:,}")
    console.print(table)
    table = Table("beside them", "times")
    for said, count in sorted(tally.beside.items()):
        table.add_row(said, f"{count:,}")
    console.print(table)
    console.print(
        f"{tally.offers:,} offers in {tally.rounds:,} rounds, {tally.moves:,} moves in {taken_s:.0f} s"
        f" ({tally.unavailable:,} answered unavailable and sent again); checked: {rows}; {describe()}."
    )
    for what in found:
        console.print(what, style="red", markup=False, soft_wrap=True)


def judge(tally: Tally, found: list[str], offers: int) -> list[Verdict]:
    """Whether each offer had one winner at most, every law holds, and enough offers were fought for."""
    return [
        Verdict("two winners, answers that don't hold, laws that are broken", some(found), "0", not found),
        Verdict("offers fought for", f"{tally.offers:,}", f"≥ {offers:,}", tally.offers >= offers),
        Verdict(f"moves, {ACTORS} at the same instant on each offer", f"{tally.moves:,}", "-", None),
        Verdict("how they ended", ", ".join(f"{end} {n:,}" for end, n in tally.ends.most_common()), "-", None),
    ]


def main() -> int:
    """Race, check, and show it."""
    options = _options()
    with staged(Cores.shared(), tools=("taskset",)) as stage:
        dsn = stage.postgres.create("races")
        asyncio.run(migrate(dsn))
        environ = {"DATABASE_URL": dsn, "PARLEY_SECRET": stage.secret, "PARLEY_DRAIN_MS": "0", **RATES}
        how = ["without_locks"] if options.without_locks else []
        servers = []
        for n in range(2):
            own = {**environ, "PARLEY_INSTANCE": f"races-{n}"}
            servers.append(ServerProcess(stage.folder / f"{n}.log", own, ("tests.faults.racing", *how), afresh=True))
            stage.stack.callback(servers[-1].kill)
            servers[-1].start()
        begun = time.monotonic()
        urls = [server.url for server in servers]
        work = race(dsn, stage.secret, urls, offers=options.offers, seconds=options.seconds, at_once=4)
        tally = asyncio.run(work)
        taken_s = time.monotonic() - begun
        logged = [str(line)[:500] for server in servers for line in server.logged() if line.get("level") == "error"]
        found = [*tally.wrong, *logged, *asyncio.run(breaches(dsn))]
        show(tally, found, asyncio.run(counted(dsn)), taken_s)
    return conclude(
        judge(tally, found, options.offers),
        "Races",
        "races" if options.write else None,
        f"python -m bench.races --offers {options.offers} --write",
        "Two server processes, and moves that start at the same instant on the same offer, through both, with the"
        " clock, the listing's end, edits and purchases in between.",
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.races", description=__doc__)
    parser.add_argument("--offers", type=int, default=10_000, help="offers to be fought for (10,000)")
    parser.add_argument("--seconds", type=float, default=1_200.0, help="and no longer than that (1,200)")
    parser.add_argument("--quick", action="store_true", help="a hundred offers: does it work?")
    parser.add_argument("--without-locks", action="store_true", help="take the row locks out")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    if options.quick:
        options.offers = 100
    if options.write and (options.offers < 10_000 or options.without_locks):
        parser.error("--write is for 10,000 offers or more, with the locks")
    return options


if __name__ == "__main__":
    run(main)
