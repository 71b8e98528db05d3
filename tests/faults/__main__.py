"""Every fault in turn, under load, for as long as you like: `python -m tests.faults --minutes 30 --write`.

Starts PostgreSQL (durable, as in earnest), Valkey and two or three instances, plays one round after the other, and adds
each to the ledger. Rounds without a fault are what others are held against, and at the end the instances must hold no
more than at first. Ends with 1 where the promise was broken. `--broken` plays short rounds against servers from which a
guarantee was taken out, and ends with 1 where that was not noticed.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
import uvloop

from bench import machine
from tests.faults import ledger, page
from tests.faults.footprints import Footprint, baseline, settled
from tests.faults.mutations import LOAD, MUTATIONS, caught, is_caught
from tests.faults.registry import Fault, faults
from tests.faults.rounds import CONTROL, Load, Round, play
from tests.faults.stage import staged

LENGTHS_S = (1.0, 4.0, 12.0)  # of a fault, drawn for each round
LEDGER = page.PAGE.with_suffix(".jsonl")


def main() -> int:
    """Play; 0 where everything held."""
    options = _options()
    machine.describe()
    machine.commit()
    with _folder() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        held = runner.run(_mutate(folder, options) if options.broken else _play(folder, options))
    if options.write:
        page.PAGE.write_text(page.written(list(ledger.read(options.ledger))))
        print(f"written: {page.PAGE.name}")
    return 0 if held else 1


async def _play(folder: Path, options: argparse.Namespace) -> bool:
    """Rounds of all kinds, until the time is over; whether the promise held in all of them."""
    run, ends, held = _now(), monotonic() + options.minutes * 60, True
    kinds = [faults[name] for name in options.kinds]
    async with staged(folder, instances=options.instances, is_durable=True, afresh=True) as stage:

        async def one(fault: Fault, seconds: float, control_ms: float = 0.0, before: Sequence[Footprint] = ()) -> Round:
            nonlocal held
            load = Load(options.people, options.people // 4, options.pause_ms / 1000, 2.0, seconds, 1.0, 60.0)
            played = replace(await play(stage, fault, load), control_ms=control_ms)
            if before:
                played = replace(played, findings=[*played.findings, *await settled(stage, before)])
            held = held and not played.breaches
            _tell(played)
            entry = ledger.entry_of(
                played,
                at=_now(),
                run=run,
                seconds=seconds,
                instances=options.instances,
                load=load,
                machine=machine.describe(),
                commit=machine.commit(),
                errors=stage.errors(),
            )
            ledger.add(options.ledger, entry)
            return played

        await one(CONTROL, CONTROL.short_s)
        before = await baseline(stage)
        for fault in _in_turn(kinds, options.times):
            if options.times is None and monotonic() > ends:
                break
            seconds = max(fault.short_s, random.choice(LENGTHS_S) if options.seconds is None else options.seconds)
            try:
                control = (
                    await one(replace(CONTROL, pause_s=fault.pause_s), seconds) if fault.must.is_ack_steady else None
                )
                await one(fault, seconds, control.measures.ack_during_ms if control else 0.0)
            except pytest.skip.Exception as why:
                print(f"{fault.name}: left out, {why}", flush=True)
        await one(CONTROL, CONTROL.short_s, before=before)
    return held


def _in_turn(kinds: list[Fault], times: int | None) -> Iterator[Fault]:
    """All kinds again and again, each time in another order."""
    done = 0
    while times is None or done < times:
        yield from random.sample(kinds, len(kinds))
        done += 1


async def _mutate(folder: Path, options: argparse.Namespace) -> bool:
    """Each guarantee taken out in turn; whether all were noticed."""
    run, all_caught = _now(), True
    for mutation in MUTATIONS.values():
        within = folder / f"{mutation.name}.{mutation.fault}"
        within.mkdir()
        within.chmod(0o711)
        played, tries = await caught(within, mutation)
        print(f"without {mutation.title}, at try {tries}: ", end="")
        _tell(played)
        all_caught = all_caught and is_caught(played, mutation)
        ledger.add(
            options.ledger,
            ledger.entry_of(
                played,
                broken=mutation.name,
                at=_now(),
                run=run,
                seconds=played.fault.short_s,
                instances=2,
                load=LOAD,
                tries=tries,
                machine=machine.describe(),
                commit=machine.commit(),
            ),
        )
    return all_caught


def _tell(played: Round) -> None:
    found = played.measures
    print(
        f"{played.fault.name}: {found.acked:,} acked, {found.unknown:,} without an answer, {found.cuts:,} cuts;"
        f" away {found.away_s:.2f} s, first ack {found.first_ack_s:.2f} s, caught up {found.caught_up_s:.2f} s,"
        f" lag {found.lag_s:.2f} s, ack p99 {found.ack_before_ms:.0f} → {found.ack_during_ms:.0f} ms"
        f"{f' (without a fault {played.control_ms:.0f} ms)' if played.control_ms else ''}; {played.offers} offers",
        *(f"  BROKEN: {line}" for line in played.breaches[:5]),
        *(f"  late: {line}" for line in played.late),
        *(() if played.has_shown else ("  nobody felt it",)),
        *(f"  by {note}" for note in played.notes),
        *(f"  {finding.name}: {finding.value:.2f} {finding.unit}".rstrip() for finding in played.findings),
        sep="\n",
        flush=True,
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the run that PostgreSQL's own user may enter where we are root."""
    folder = Path(tempfile.mkdtemp(prefix="parley-faults-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--times", type=int, help="each kind so often, however long that takes")
    parser.add_argument("--kinds", nargs="+", choices=list(faults), default=list(faults), metavar="KIND")
    parser.add_argument("--seconds", type=float, help=f"of each fault (drawn from {LENGTHS_S})")
    parser.add_argument("--instances", type=int, default=2, help="of Parley (2)")
    parser.add_argument("--people", type=int, default=48, help="who talk, each in two groups of eight (48)")
    parser.add_argument("--pause-ms", type=float, default=40.0, help="from an ack to the next send (40)")
    parser.add_argument("--ledger", type=Path, default=LEDGER, metavar="FILE", help="(docs/reliability.jsonl)")
    parser.add_argument("--broken", action="store_true", help="take the guarantees out, each must be noticed")
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md of the ledger")
    options = parser.parse_args()
    if not 1 <= options.instances <= 8 or options.people < 8:
        parser.error("--instances is 1 to 8, --people 8 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
