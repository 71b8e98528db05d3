"""The figures as tables: on the terminal, and in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from bench.measuring import Outcome, Spread
from bench.pages import YES_OR_NO, shown, table
from bench.peers import NODE, PARLEY

PAGE = Path(__file__).parent / "page.md"

COST = ("scenario", "measure", "Node.js", "Parley", "ratio", "aim", "reached", "checks")
FLOOR = ("", "CPU a delivery", "Node.js ÷ this")
FLOOR_OF = "bare-room"
TALK = (
    "scenario",
    "server",
    "sends/s",
    "deliveries/s",
    "ack p50 · p99 ms",
    "delivery p50 · p99 ms",
    "PostgreSQL µs a send",
    "Redis µs a send",
    "server CPU %",
    "load CPU %",
)
CONNECTS = ("scenario", "server", "connects/s", "PostgreSQL µs a connect", "CPU % while idle")

Rows = list[tuple[str, ...]]


class Section(NamedTuple):
    """A table, and the plot that stands above it on the page: its name, and what it shows."""

    title: str
    columns: tuple[str, ...]
    rows: Rows
    plot: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The outcomes of a run, and what they are of."""

    outcomes: Sequence[Outcome]
    versions: dict[str, str]
    machine: str
    date: str
    command: str
    reps: int
    secs: float
    floor_us: float | None = None

    def show(self, console: Console) -> None:
        """Print the tables."""
        for section in self._sections():
            printed = Table(*section.columns, title=section.title, title_justify="left")
            for row in section.rows:
                printed.add_row(*row)
            console.print(printed)

    def markdown(self) -> str:
        """The page: `bench/page.md` with the tables in it."""
        sections = []
        for section in self._sections():
            plot = [shown(*section.plot)] if section.plot else []
            sections += [f"## {section.title}", *plot, table(section.columns, section.rows)]
        return Template(PAGE.read_text()).substitute(
            date=self.date,
            commit=self.versions["Parley"],
            machine=self.machine,
            command=self.command,
            reps=self.reps,
            secs=f"{self.secs:g}",
            tables="\n\n".join(sections),
            versions=", ".join(f"{name} {version}" for name, version in self.versions.items()),
        )

    def raw(self) -> dict[str, object]:
        """Every measurement, and what it is of, for JSON."""
        return {
            "date": self.date,
            "command": self.command,
            "machine": self.machine,
            "versions": self.versions,
            "floor_us": self.floor_us,
            "scenarios": {outcome.scenario.name: outcome.figures for outcome in self.outcomes},
        }

    def _sections(self) -> list[Section]:
        talks = [outcome for outcome in self.outcomes if outcome.scenario.talks]
        rests = [outcome for outcome in self.outcomes if not outcome.scenario.talks]
        bare = [outcome for outcome in self.outcomes if outcome.scenario.bare]
        whole = [outcome for outcome in self.outcomes if not outcome.scenario.bare]
        sections = [
            Section(
                "Cost on the server: the socket engines alone",
                COST,
                [_cost(outcome) for outcome in bare],
                ("cost-bare", "What each engine takes, with the spread of the run, and the floor under a delivery"),
            ),
            Section("A delivery to a room of 1,000, and the floor under it", FLOOR, self._floor()),
            Section(
                "Cost on the server: all that a message takes",
                COST,
                [_cost(outcome) for outcome in whole],
                ("cost-whole", "What each server takes, with the spread of the run"),
            ),
            Section(
                "Speed, and what else it takes",
                TALK,
                [_talk(outcome, peer) for outcome in talks for peer in outcome.figures],
                ("latency", "How long acks and deliveries take, from the median to the 99th percentile"),
            ),
            Section(
                "Connecting and resting",
                CONNECTS,
                [_rest(outcome, peer) for outcome in rests for peer in outcome.figures],
            ),
        ]
        return [section for section in sections if section.rows]

    def _floor(self) -> Rows:
        rooms = [outcome for outcome in self.outcomes if outcome.scenario.name == FLOOR_OF]
        if not rooms or self.floor_us is None:
            return []
        key = rooms[0].scenario.measure.key
        costs = [(peer, rooms[0].spread(peer, key).median) for peer in rooms[0].figures]
        costs.append(("`send()` in C, nothing else", self.floor_us))
        node = costs[0][1]
        return [(name, f"{cost:.2f} µs", f"{node / cost:.2f}" if cost else "-") for name, cost in costs]


def _cost(outcome: Outcome) -> tuple[str, ...]:
    scenario = outcome.scenario
    measure = scenario.measure
    spreads = [_spread(outcome.spread(peer.name, measure.key), measure.unit) for peer in (NODE, PARLEY)]
    ratio = outcome.ratio(PARLEY.name, NODE.name)
    aim = f"{scenario.aim:.1f}" if scenario.aim else f"≤ {scenario.most:g} {measure.unit}" if scenario.most else "-"
    title = f"{scenario.name}: {scenario.title}"
    reached = YES_OR_NO[outcome.reached(PARLEY.name, NODE.name)]
    return title, measure.title, *spreads, f"{ratio:.2f}", aim, reached, "hold" if outcome.is_right else "FAILED"


def _talk(outcome: Outcome, peer: str) -> tuple[str, ...]:
    def median(key: str) -> float:
        return outcome.spread(peer, key).median

    return (
        outcome.scenario.name,
        peer,
        f"{median('sends_per_s'):,.0f}",
        f"{median('deliveries_per_s'):,.0f}",
        f"{median('ack_p50_ms'):.1f} · {median('ack_p99_ms'):.1f}",
        f"{median('delivery_p50_ms'):.1f} · {median('delivery_p99_ms'):.1f}",
        "-" if outcome.scenario.bare else f"{median('database_us_per_send'):.0f}",
        f"{median('bus_us_per_send'):.0f}" if outcome.scenario.instances > 1 else "-",
        f"{median('server_cpu_percent'):.0f}",
        f"{median('load_cpu_percent'):.0f}",
    )


def _rest(outcome: Outcome, peer: str) -> tuple[str, ...]:
    def median(key: str) -> float:
        return outcome.spread(peer, key).median

    return (
        outcome.scenario.name,
        peer,
        f"{median('connects_per_s'):,.0f}",
        "-" if outcome.scenario.bare else f"{median('database_us_per_connect'):.0f}",
        f"{median('idle_cpu_percent'):.1f}",
    )


def _spread(spread: Spread, unit: str) -> str:
    digits = 0 if spread.median >= 100 else 1
    low, high = f"{spread.least:.{digits}f}", f"{spread.most:.{digits}f}"
    return f"{spread.median:.{digits}f} {unit} ({low} to {high})"
