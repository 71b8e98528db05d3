"""Every fault in turn, under load, for as long as you like: `python -m tests.faults --minutes 30 --write`.

Starts PostgreSQL (durable, as in earnest), Valkey and two or three instances, plays one round after the other, and adds
each to the ledger. Rounds without a fault are what others are held against, and at the end the instances must hold no
more than at first. `--broken` plays short rounds against servers from which a guarantee was taken out. Ends with 1
where the promise was broken, something took longer than asked, a kind was never felt, a round could not be played to
its end, or a guarantee taken out was not noticed.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
import uvloop

from bench import machine
from bench.stage import folder_of_a_run
from tests.faults import ledger, page
from tests.faults.control import control_of, held_against, unfinished
from tests.faults.footprints import Footprints
from tests.faults.mutations import LOAD, MUTATIONS, caught, is_caught
from tests.faults.registry import Fault, faults
from tests.faults.rounds import CONTROL, Load, Round, play
from tests.faults.stage import Stage, staged

LENGTHS_S = (1.0, 4.0, 12.0)  # of a fault, drawn for each round
STEADY_LENGTHS_S = LENGTHS_S[1:]  # where acks are held against each other: a second has too few of them for a p99
LEDGER = page.PAGE.with_suffix(".jsonl")


def main() -> int:
    """Play; 0 where everything held, as fast as asked, every fault was felt and everything taken out was noticed."""
    options = _options()
    machine.describe()
    machine.commit()
    is_well = True
    try:
        with folder_of_a_run() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if options.broken != "only":
                is_well = runner.run(_play(folder, options))
            if options.broken is not None:
                is_well = runner.run(_mutate(folder, options)) and is_well
    finally:
        if options.write and (entries := list(ledger.read(options.ledger))):
            page.PAGE.write_text(page.written(entries))
            print(f"written: {page.PAGE.name}")
    return 0 if is_well else 1


class Run:
    """Rounds on one stage, each of which is written down, whatever comes of it."""

    def __init__(self, stage: Stage, options: argparse.Namespace, run: str) -> None:
        self._stage, self._options, self._run = stage, options, run
        self._footprints = Footprints(stage)
        self.is_well = True
        """Whether the promise held in all rounds, and nothing took longer than asked."""
        self.is_cut_short = False
        self.felt: set[str] = set()
        self.unfelt: set[str] = set()

    async def play(self, kinds: Sequence[Fault], ends: float) -> None:
        """All kinds in turn, until the time is over. A round that can't be played to its end is the last."""
        try:
            await self._round(CONTROL, CONTROL.short_s)
            for fault in _in_turn(kinds, self._options.times):
                if self._options.times is None and monotonic() > ends:
                    break
                await self._fault(fault)
            await self._round(CONTROL, CONTROL.short_s, is_last=True)
        except Unfinished:
            self.is_well, self.is_cut_short = False, True

    async def _fault(self, fault: Fault) -> None:
        seconds = self._options.seconds or random.choice(STEADY_LENGTHS_S if fault.must.is_ack_steady else LENGTHS_S)
        seconds = max(fault.short_s, seconds)
        try:
            control = await self._round(control_of(fault), seconds) if fault.must.is_ack_steady else None
            await self._round(fault, seconds, control)
        except pytest.skip.Exception as why:
            print(f"{fault.name}: left out, {why}", flush=True)

    async def _round(
        self, fault: Fault, seconds: float, control: Round | None = None, *, is_last: bool = False
    ) -> Round:
        people, pause_s = self._options.people, self._options.pause_ms / 1000
        load = Load(people, people // 4, pause_s, 2.0, seconds, 1.0, 60.0)
        seed = self._options.seed or random.SystemRandom().randrange(1, 2**32)
        random.seed(seed)
        at, is_over = _now(), False
        try:
            left = await self._footprints.settled() if self._ends_instances(fault) or is_last else []
            played = await play(self._stage, fault, load)
            if control is not None:
                played = held_against(played, control)
            await self._footprints.look()
            played = replace(played, findings=[*played.findings, *left])
        except Exception as error:  # whatever it is: the round has been played, and is told of
            played, is_over = unfinished(fault, error), True
        self._judge(played)
        entry = ledger.entry_of(
            played,
            at=at,
            run=self._run,
            seconds=seconds,
            instances=len(self._stage.stations),
            load=load,
            machine=machine.describe(),
            commit=machine.commit(),
            errors=sorted(self._stage.errors()),
            seed=seed,
        )
        ledger.add(self._options.ledger, entry)
        if is_over:
            raise Unfinished
        return played

    def _ends_instances(self, fault: Fault) -> bool:
        return fault.ends_instances or fault.environ != self._stage.settings

    def _judge(self, played: Round) -> None:
        _tell(played)
        self.is_well = self.is_well and not played.breaches and not played.late
        (self.felt if played.is_felt else self.unfelt).add(played.fault.name)


class Unfinished(Exception):
    """A round that the harness, or what it is played on, has not survived."""


async def _play(folder: Path, options: argparse.Namespace) -> bool:
    """Rounds of all kinds; whether the promise held in all of them, as fast as asked, and each kind was felt."""
    kinds, run, is_well = [faults[name] for name in options.kinds], _now(), True
    felt, unfelt = set[str](), set[str]()
    begun = monotonic()
    for n, instances in enumerate(options.instances, start=1):
        within = folder / f"{n}"
        within.mkdir()
        within.chmod(0o711)
        async with staged(within, instances=instances, is_durable=True, afresh=True) as stage:
            played = Run(stage, options, run)
            await played.play(kinds, begun + options.minutes * 60 * n / len(options.instances))
        is_well, felt, unfelt = is_well and played.is_well, felt | played.felt, unfelt | played.unfelt
        if played.is_cut_short:
            break
    never = sorted(unfelt - felt)
    if never:
        print(f"never felt: {', '.join(never)}", flush=True)
    return is_well and not never


def _in_turn(kinds: Sequence[Fault], times: int | None) -> Iterator[Fault]:
    """All kinds again and again, each time in another order."""
    done, lot = 0, random.Random()  # not that of the rounds, which goes by their seeds
    while times is None or done < times:
        yield from lot.sample(kinds, len(kinds))
        done += 1


async def _mutate(folder: Path, options: argparse.Namespace) -> bool:
    """Each guarantee taken out in turn; whether all were noticed."""
    run, all_caught = _now(), True
    for mutation in MUTATIONS.values():
        within = folder / f"{mutation.name}.{mutation.fault}"
        within.mkdir()
        within.chmod(0o711)
        try:
            played, tries = await caught(within, mutation)
        except Exception as error:  # the others are to be tried all the same
            played, tries = unfinished(faults[mutation.fault], error), 1
        print(f"without {mutation.title}, at try {tries}: ", end="")
        _tell(played)
        all_caught = all_caught and is_caught(played, mutation)
        entry = ledger.entry_of(
            played,
            broken=mutation.name,
            is_caught=is_caught(played, mutation),
            at=_now(),
            run=run,
            seconds=played.fault.short_s,
            instances=2,
            load=LOAD,
            tries=tries,
            machine=machine.describe(),
            commit=machine.commit(),
        )
        ledger.add(options.ledger, entry)
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
        *(() if played.is_felt else ("  nobody felt it",)),
        *(f"  by {note}" for note in played.notes),
        *(f"  {finding.name}: {finding.value:.2f} {finding.unit}".rstrip() for finding in played.findings),
        sep="\n",
        flush=True,
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--times", type=int, help="each kind so often, however long that takes")
    parser.add_argument("--kinds", nargs="+", choices=list(faults), default=list(faults), metavar="KIND")
    parser.add_argument("--seconds", type=float, help=f"of each fault (drawn from {LENGTHS_S})")
    parser.add_argument(
        "--instances", type=int, nargs="+", default=[2, 3], metavar="N", help="of Parley, one after the other (2 3)"
    )
    parser.add_argument("--people", type=int, default=48, help="who talk, each in two groups of eight (48)")
    parser.add_argument("--pause-ms", type=float, default=40.0, help="from an ack to the next send (40)")
    parser.add_argument("--ledger", type=Path, default=LEDGER, metavar="FILE", help="(docs/reliability.jsonl)")
    parser.add_argument("--seed", type=int, help="of a round that is to be played again (with --kinds, --seconds)")
    parser.add_argument(
        "--broken",
        nargs="?",
        choices=("only", "too"),
        const="only",
        help="take the guarantees out, each must be noticed: instead of the faults, or after them",
    )
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md of the ledger")
    options = parser.parse_args(arguments)
    if not all(1 <= n <= 8 for n in options.instances) or options.people < 8:
        parser.error("--instances is 1 to 8, --people 8 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
