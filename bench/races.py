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
import secrets
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

import handlers  # noqa: F401  (declares the commands that may race)
from bench.machine import describe
from bench.peers import RATES_OFF
from bench.services import Postgres
from server.migrate import migrate
from tests.faults.processes import ServerProcess
from tests.faults.racers import Tally, race
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
    for what in [*tally.wrong, *found]:
        console.print(what, style="red", markup=False, soft_wrap=True)
    console.print("WRONG" if tally.wrong or found else "Each offer had one winner at most, and every law holds.")


def main() -> int:
    """Race, check, and show it."""
    parser = argparse.ArgumentParser(prog="python -m bench.races", description=__doc__)
    parser.add_argument("--offers", type=int, default=10_000, help="offers to be fought for (10,000)")
    parser.add_argument("--seconds", type=float, default=1_200.0, help="and no longer than that (1,200)")
    parser.add_argument("--without-locks", action="store_true", help="take the row locks out")
    options = parser.parse_args()
    secret = secrets.token_hex(32)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True)))
        folder.chmod(0o711)
        postgres = Postgres(folder, ",".join(map(str, sorted(os.sched_getaffinity(0)))))
        stack.callback(postgres.stop)
        dsn = postgres.create("races")
        asyncio.run(migrate(dsn))
        environ = {"DATABASE_URL": dsn, "PARLEY_SECRET": secret, "PARLEY_DRAIN_MS": "0", **RATES}
        how = ["without_locks"] if options.without_locks else []
        servers = []
        for n in range(2):
            own = {**environ, "PARLEY_INSTANCE": f"races-{n}"}
            servers.append(ServerProcess(folder / f"{n}.log", own, ("tests.faults.racing", *how)))
            stack.callback(servers[-1].kill)
            servers[-1].start()
        begun = time.monotonic()
        urls = [server.url for server in servers]
        tally = asyncio.run(race(dsn, secret, urls, offers=options.offers, seconds=options.seconds, at_once=4))
        taken_s = time.monotonic() - begun
        for server in servers:
            tally.wrong += [str(line)[:500] for line in server.logged() if line.get("level") == "error"]
        show(tally, asyncio.run(breaches(dsn)), asyncio.run(counted(dsn)), taken_s)
    return 1 if tally.wrong or tally.offers < options.offers else 0


if __name__ == "__main__":
    sys.exit(main())
