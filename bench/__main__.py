"""`python -m bench`: Parley beside Node.js, the socket engines alone and all that a message takes.

Server CPU a send, a delivery and a connect, memory a connection, latencies, and what `send()` in C takes, measured in
turn in one run. Checked in each: every message acknowledged and delivered to each member once, in the room's order,
without a gap.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench import machine
from bench.drawing import draw_report
from bench.floor import measure_floor
from bench.machine import BenchError, Cores
from bench.measuring import Outcome, Run
from bench.pages import PAGE, today, write_frame, write_picture
from bench.peers import PEERS, Site
from bench.report import FLOOR_OF, Report
from bench.scenarios import SCENARIOS, Scenario
from bench.stage import staged


def main() -> int:
    """Measure what was asked for; 0 where every check held."""
    options = _options()
    console = Console(stderr=True)
    try:
        chosen = _choose(options.scenario)
        if options.write and (options.quick or len(chosen) < len(SCENARIOS)):
            raise BenchError("--write is for a whole run: leave out --quick and --scenario.")
        report = _run(options, chosen, console)
    except BenchError as error:
        console.print(f"bench: {error}", style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        return 130
    report.show(Console(width=None if sys.stdout.isatty() else 180))
    if options.json:
        options.json.write_text(json.dumps(report.raw(), indent=1) + "\n")
    right = all(outcome.is_right for outcome in report.outcomes)
    if options.write and right:
        write_frame(report.markdown())
        for name, svg in draw_report(report).items():
            write_picture(name, svg)
        console.print(f"written: {PAGE.name}")
    return 0 if right else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    parser.add_argument("--scenario", help=f"which, separated by commas: {names} (default: all)")
    parser.add_argument("--reps", type=int, default=3, help="measurements of each server (3)")
    parser.add_argument("--secs", type=float, default=4.0, help="seconds of each (4)")
    parser.add_argument("--quick", action="store_true", help="one of a second each: does it work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    parser.add_argument("--write", action="store_true", help="rewrite docs/benchmarks.md")
    options = parser.parse_args()
    if not (1 <= options.reps <= 100 and 0.1 <= options.secs <= 300):
        parser.error("--reps is 1 to 100, --secs 0.1 to 300")
    if options.quick:
        options.reps, options.secs = 1, 1.0
    return options


def _choose(names: str | None) -> Sequence[Scenario]:
    if names is None:
        return SCENARIOS
    known = {scenario.name: scenario for scenario in SCENARIOS}
    try:
        return [known[name.strip()] for name in names.split(",")]
    except KeyError as error:
        raise BenchError(f"There is no scenario {error.args[0]!r}; there are {', '.join(known)}.") from None


def _run(options: argparse.Namespace, chosen: Sequence[Scenario], console: Console) -> Report:
    cores = Cores.of_this_machine()
    with staged(cores, secs=options.secs, warm_s=0.5 if options.quick else 1.0, tools=tuple(machine.TOOLS)) as stage:
        machine.install_peer()
        crowds = list({scenario.crowd.name: scenario.crowd for scenario in chosen if not scenario.bare}.values())
        sites = [Site(peer, stage.postgres, crowds, stage.secret, stage.folder) for peer in PEERS]
        run = Run(sites, stage, options.reps, console.print)
        has_floor = any(scenario.name == FLOOR_OF for scenario in chosen)
        floor_us = measure_floor(cores, options.reps) if has_floor else None
        outcomes: list[Outcome] = [run.measure(scenario) for scenario in chosen]
        for site in sites:
            for line in site.complaints()[:20]:
                console.print(f"{site.peer.name} logged: {line}", markup=False, highlight=False, soft_wrap=True)
        return Report(
            outcomes,
            machine.versions() | {"PostgreSQL": stage.postgres.version},
            machine.describe(),
            today(),
            _command(options),
            options.reps,
            options.secs,
            floor_us,
        )


def _command(options: argparse.Namespace) -> str:
    scenario = f" --scenario {options.scenario}" if options.scenario else ""
    return f"python -m bench{' --write' * options.write}{scenario} --reps {options.reps} --secs {options.secs:g}"


if __name__ == "__main__":
    sys.exit(main())
