"""`python -m bench`: Parley beside Node.js, the socket engines alone and all that a message takes.

Server CPU a send, a delivery and a connect, memory a connection, latencies, and what `send()` in C takes, measured in
turn in one run. Checked in each: every message acknowledged and delivered to each member once, in the room's order,
without a gap.
"""

from __future__ import annotations

import argparse
import datetime
import json
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from bench import machine
from bench.floor import measure_floor
from bench.load import Load
from bench.machine import BenchError, Cores
from bench.measuring import Outcome, Run
from bench.pages import PAGE, write_frame
from bench.peers import PEERS, Site
from bench.report import FLOOR_OF, Report
from bench.scenarios import SCENARIOS, Scenario
from bench.services import Postgres, Redis
from bench.stage import folder_of_a_run


def main() -> int:
    """Measure what was asked for; 0 where every check held."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end by kill stops the servers too
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
        options.json.write_text(json.dumps(_raw(report), indent=1) + "\n")
    right = all(outcome.is_right for outcome in report.outcomes)
    if options.write and right:
        write_frame(report.markdown())
        console.print(f"written: {PAGE.relative_to(machine.ROOT)}")
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
    machine.check_tools()
    machine.allow_descriptors()
    machine.install_peer()
    binary = machine.load_generator()
    with folder_of_a_run() as folder, ExitStack() as stack:
        cores = Cores.of_this_machine()
        postgres = Postgres(folder, cores.rest)
        stack.callback(postgres.stop)
        redis = Redis(folder, cores.rest)
        stack.callback(redis.stop)
        secret = secrets.token_urlsafe(48)
        crowds = list({scenario.crowd.name: scenario.crowd for scenario in chosen if not scenario.bare}.values())
        sites = [Site(peer, postgres, crowds, secret, folder) for peer in PEERS]
        load = Load(binary, cores.load, options.secs, 0.5 if options.quick else 1.0, postgres.pid, redis.pid)
        run = Run(sites, postgres, redis, cores, load, folder, secret, options.reps, console.print)
        has_floor = any(scenario.name == FLOOR_OF for scenario in chosen)
        floor_us = measure_floor(cores, options.reps) if has_floor else None
        outcomes: list[Outcome] = [run.measure(scenario) for scenario in chosen]
        for site in sites:
            for line in site.complaints()[:20]:
                console.print(f"{site.peer.name} logged: {line}", markup=False, highlight=False, soft_wrap=True)
        return Report(
            outcomes,
            machine.versions() | {"PostgreSQL": postgres.version},
            machine.describe(),
            datetime.datetime.now(datetime.UTC).date().isoformat(),
            "python -m bench --write" + f" --reps {options.reps} --secs {options.secs:g}",
            options.reps,
            options.secs,
            floor_us,
        )


def _raw(report: Report) -> dict[str, object]:
    scenarios = {outcome.scenario.name: outcome.figures for outcome in report.outcomes}
    return {"date": report.date, "machine": report.machine, "versions": report.versions, "scenarios": scenarios}


sys.exit(main())
