"""Bad input by the hundred thousand: `python -m bench.hostile`.

A server process on a database of its own, and the visits of tests/wire/hostile.py to it: broken frames, packets and
requests in JSON, msgpack and HTTP, half of the connections cut in the middle. It ends with 0 where the server neither
crashed nor answered `internal` nor logged an error, kept no session, task or descriptor of them, and its loop was never
later than 50 ms in 99 of 100 looks. The same seed makes the same visits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import handlers  # noqa: F401  (declares the commands that are called amiss)
from bench.crowds import pairs
from bench.machine import Cores, describe
from bench.peers import RATES_OFF
from bench.seeding import jwt, prepare_parley
from bench.stage import Verdict, conclude, run, some, staged
from tests.faults.processes import ServerProcess
from tests.servers import until
from tests.wire.hostile import Mischief, Tally, besiege

FRAMES = 100_000
LAG_MS = 50.0
BASELINE_S = 60.0
AT_ONCE = 16
SPARE_DESCRIPTORS = 8  # connections to PostgreSQL that the pool has opened meanwhile

Figures = dict[str, Any]


class Watched(ServerProcess):
    """A server that tells what it holds."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._figures = folder / "figures"
        super().__init__(folder / "log", environ, ("tests.wire.watched", str(self._figures)), afresh=True)

    def look(self) -> Figures:
        """What it holds now."""
        self._figures.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        until(self._figures.exists, "the server tells what it holds")
        figures: Figures = json.loads(self._figures.read_text())
        return figures

    def settled(self, before: Figures) -> Figures:
        """What it holds when it has let go of what it will, or has had its time for that."""
        deadline = time.monotonic() + BASELINE_S
        while (now := self.look()) and time.monotonic() < deadline:
            if not now["sessions"] and not _left(before, now):
                break
            time.sleep(0.25)
        return now


def _left(before: Figures, after: Figures) -> list[str]:
    """What is there now and was not before."""
    spare = {"sessions": 0, "connections": 0, "watched": 0, "tasks": 0, "descriptors": SPARE_DESCRIPTORS}
    return [
        f"{after[what]} {what} are left, {before[what]} before"
        for what, more in spare.items()
        if after[what] > before[what] + more
    ]


def _show(tally: Tally, under: Figures, found: list[str], taken_s: float) -> None:
    console = Console(width=None if os.isatty(1) else 140)
    for title, counts in (("visits", tally.visits), ("how they ended", tally.ends)):
        table = Table(title, "times")
        for what, count in counts.most_common():
            table.add_row(what, f"{count:,}")
        console.print(table)
    console.print(
        f"{taken_s:.0f} s; loop lag p50 {under['lag_p50_ms']:.1f}, most {under['lag_most_ms']:.0f} ms"
        f" of {under['samples']:,} looks; {under['rss'] / 2**20:.0f} MiB resident; {describe()}."
    )
    for what in found[:20]:
        console.print(what, style="red", markup=False, soft_wrap=True)


def judge(tally: Tally, under: Figures, found: list[str], frames: int) -> list[Verdict]:
    """Whether nothing broke, nothing is left, enough was sent, and the others were not kept waiting."""
    return [
        Verdict("crashes, errors, ghosts, what is left of them", some(found), "0", not found),
        Verdict("frames", f"{tally.frames:,}", f"≥ {frames:,}", tally.frames >= frames),
        Verdict("visits", ", ".join(f"{visit} {n:,}" for visit, n in tally.visits.most_common()), "-", None),
        Verdict("loop lag, p99", f"{under['lag_p99_ms']:.1f} ms", f"≤ {LAG_MS:g} ms", under["lag_p99_ms"] <= LAG_MS),
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description=__doc__)
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"frames to be sent ({FRAMES:,})")
    parser.add_argument("--seed", type=int, default=1, help="what the frames are made from (1)")
    parser.add_argument("--quick", action="store_true", help="2,000 frames: does it work?")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    if options.quick:
        options.frames = 2_000
    if options.write and options.frames < FRAMES:
        parser.error(f"--write is for {FRAMES:,} frames or more")
    return options


def main() -> int:
    """Besiege, look, and show it."""
    options = _options()
    with staged(Cores.shared(), tools=("taskset",)) as stage:
        dsn = stage.postgres.create("hostile")
        crowd = pairs(8, senders=8)
        asyncio.run(prepare_parley(dsn, [crowd]))
        environ = {
            "DATABASE_URL": dsn,
            "PARLEY_SECRET": stage.secret,
            "PARLEY_DRAIN_MS": "0",
            "PARLEY_CONNECT_TIMEOUT_MS": "2000",
            "PARLEY_POOL_MIN": "10",
            "PARLEY_RATE_OFFER_MOVES": "off",
        }
        server = Watched(stage.folder, environ | RATES_OFF)
        stage.stack.callback(server.kill)
        server.start()
        mint = jwt(stage.secret)
        tokens = [mint(crowd, person) for person in range(crowd.people)]
        ids = [str(each) for each in (*crowd.user_ids[:4], *crowd.conversation_ids)]
        warm = asyncio.run(besiege(server.port, Mischief(0, tokens, ids), 500, AT_ONCE))
        time.sleep(1)
        before = server.look()
        begun = time.monotonic()
        tally = asyncio.run(besiege(server.port, Mischief(options.seed, tokens, ids), options.frames, AT_ONCE))
        taken_s = time.monotonic() - begun
        under = server.look()
        found = warm.wrong + tally.wrong
        after = server.settled(before)
        found += _left(before, after)
        if after["errors"]:
            found.append(f"{after['errors']} errors were logged")
        found += [
            f"{line.get('event')}: {str(line.get('exception'))[-600:]}"
            for line in server.logged()
            if line.get("level") in ("error", "critical")
        ]
        _show(tally, under, found, taken_s)
    return conclude(
        judge(tally, under, found, options.frames),
        "Bad input",
        "hostile" if options.write else None,
        f"python -m bench.hostile --frames {options.frames} --write",
        f"Broken frames, packets and requests in JSON, msgpack and HTTP, by {AT_ONCE} visitors at once; half"
        " of the connections are cut in the middle. Lag is how late a timer of 5 ms comes, in a process that shares two"
        " cores with its attackers; what a standing loop lets pass counts.",
    )


if __name__ == "__main__":
    run(main)
