"""The figures as tables: on the terminal, and in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from rich.console import Console
from rich.table import Table

from bench.measuring import Outcome, Spread
from bench.pages import table
from bench.peers import NODE, PARLEY

PAGE = Path(__file__).parent / "page.md"

COST = ("scenario", "measure", "Node.js", "Parley", "ratio", "aim", "checks")
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
        for title, columns, rows in self._tables():
            shown = Table(*columns, title=title, title_justify="left")
            for row in rows:
                shown.add_row(*row)
            console.print(shown)

    def markdown(self) -> str:
        """The page: `bench/page.md` with the tables in it."""
        tables = [f"## {title}\n\n{table(columns, rows)}" for title, columns, rows in self._tables()]
        return Template(PAGE.read_text()).substitute(
            date=self.date,
            machine=self.machine,
            command=self.command,
            reps=self.reps,
            secs=f"{self.secs:g}",
            tables="\n\n".join(tables),
            versions=", ".join(f"{name} {version}" for name, version in self.versions.items()),
        )

    def _tables(self) -> list[tuple[str, tuple[str, ...], Rows]]:
        talks = [outcome for outcome in self.outcomes if outcome.scenario.talks]
        rests = [outcome for outcome in self.outcomes if not outcome.scenario.talks]
        bare = [outcome for outcome in self.outcomes if outcome.scenario.bare]
        whole = [outcome for outcome in self.outcomes if not outcome.scenario.bare]
        tables = [
            ("Cost on the server: the socket engines alone", COST, [_cost(outcome) for outcome in bare]),
            ("A delivery to a room of 1,000, and the floor under it", FLOOR, self._floor()),
            ("Cost on the server: all that a message takes", COST, [_cost(outcome) for outcome in whole]),
            ("Speed, and what else it takes", TALK, [_talk(o, peer) for o in talks for peer in o.figures]),
            ("Connecting and resting", CONNECTS, [_rest(o, peer) for o in rests for peer in o.figures]),
        ]
        return [each for each in tables if each[2]]

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
    return title, measure.title, *spreads, f"{ratio:.2f}", aim, "hold" if outcome.is_right else "FAILED"


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
