"""What the bus costs by its channels: `python -m bench.bus`.

One channel a deployment, in which the events of a turn of the loop travel as one frame, is what Parley does. Beside it:
16 channels, over which the rooms are spread by their ids; and a channel a room, subscribed to by who has members in it,
as other servers do. Of each: CPU of the publisher, of the subscribers and of Redis an event, in turns of one event and
of sixteen; and what it takes to subscribe to all rooms at once, as after a crash of Redis, in time, CPU and memory.
Each room has its members on one of the subscribers, so that with one channel all others hear in vain; with eight of
them that is seven of eight.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

from bench import pages
from bench.channels import WAYS, Subscribed, Way, events_of, publish, rooms_of, subscribe
from bench.machine import Cores, check_tools, describe
from bench.services import Redis, ran_s
from bench.stage import run

SETTINGS = ((1_000, 2), (100_000, 2), (100_000, 8))
"""Rooms, and instances that share them."""
TURNS = {1: 800, 16: 6_400}
"""Events of a turn, and how many in all."""
SPREAD = "rooms, instances", "way", "publisher", "a subscriber", "all of them", "Redis", "all together"
JOIN = "rooms, instances", "way", "seconds", "CPU of a subscriber", "CPU of Redis", "memory of a subscriber", "of Redis"
QUIET_S = 0.2
SHARED = (
    "The machine was shared with other work: times are longer for it, and CPU figures are what counts. Each room has"
    " its members on one of the instances that listen; `python -m bench.bus --help` says the rest."
)


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU µs an event."""

    publisher: float
    subscribers: Sequence[float]
    redis: float

    @property
    def total(self) -> float:
        """Of all processes."""
        return self.publisher + sum(self.subscribers) + self.redis


@dataclass(frozen=True, slots=True)
class Found:
    """What a way takes in a setting; `costs` are by the events of a turn."""

    rooms: int
    instances: int
    way: Way
    joined: Sequence[Subscribed]
    redis_cpu_s: float
    redis_kb: float
    costs: dict[int, Cost]

    @property
    def title(self) -> tuple[str, str]:
        """The first cells of its rows."""
        return f"{self.rooms:,}, {self.instances}", self.way.name


@contextmanager
def child(work: Any, *arguments: object) -> Iterator[tuple[int, Connection]]:
    """A process that is told what to do by the pipe, until the block's end."""
    context = multiprocessing.get_context("fork")  # what is imported and drawn here, is so in all of them
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    assert process.pid is not None
    try:
        yield process.pid, here
    finally:
        process.terminate()
        process.join()


class Site:
    """A way in a setting: a Redis of its own, and the processes of a publisher and of the subscribers."""

    def __init__(self, stack: ExitStack, folder: Path, way: int, rooms: int, instances: int) -> None:
        self.way, self.rooms, self.instances = WAYS[way], rooms, instances
        self._server = Redis(folder, Cores.shared().rest)
        stack.callback(self._server.stop)
        url = self._server.url
        self._hearers = [
            stack.enter_context(child(subscribe, url, way, rooms, (at, instances))) for at in range(instances)
        ]
        self._sayer = stack.enter_context(child(publish, url, way, rooms))
        for _, pipe in (*self._hearers, self._sayer):
            pipe.recv()

    def join(self) -> tuple[list[Subscribed], float, float]:
        """Let all subscribe at once. What it took each; Redis' CPU seconds; and its memory."""
        kb, cpu = _used_kb(self._server), ran_s(self._server.pid)
        for _, pipe in self._hearers:
            pipe.send(None)
        joined = [pipe.recv() for _, pipe in self._hearers]
        return joined, ran_s(self._server.pid) - cpu, max(0.0, _used_kb(self._server) - kb)

    def cost(self, turn: int, count: int) -> Cost:
        """Let so many events be said and heard."""
        where = {room: n % self.instances for n, room in enumerate(rooms_of(self.rooms))}
        due = [0] * self.instances
        for event in events_of(rooms_of(self.rooms), count):
            due[where[event.room]] += 1
        _, said = self._sayer
        said.send((turn, count))
        said.recv()
        for (_, pipe), number in zip(self._hearers, due, strict=True):
            pipe.send(number)
        time.sleep(QUIET_S)
        pids = [self._sayer[0], self._server.pid, *(pid for pid, _ in self._hearers)]
        before = [ran_s(pid) for pid in pids]
        said.send(None)
        for _, pipe in (self._sayer, *self._hearers):
            pipe.recv()
        time.sleep(QUIET_S)  # who wanted nothing of the last frames has heard them too
        took = [(ran_s(pid) - was) / count * 1e6 for pid, was in zip(pids, before, strict=True)]
        return Cost(took[0], took[2:], took[1])


def measure(folder: Path, rooms: int, instances: int, reps: int) -> list[Found]:
    """All ways in a setting, in turn, so that whatever the machine does meanwhile hits all alike."""
    rooms_of(rooms)
    with ExitStack() as stack:
        sites = [Site(stack, folder, way, rooms, instances) for way in range(len(WAYS))]
        joined = [site.join() for site in sites]
        costs: dict[tuple[Site, int], list[Cost]] = defaultdict(list)
        for rep in range(reps):
            for turn, count in TURNS.items():
                for site in in_turn(sites, rep):
                    costs[site, turn].append(site.cost(turn, count))
        return [
            Found(rooms, instances, site.way, *joining, {turn: _middle(costs[site, turn]) for turn in TURNS})
            for site, joining in zip(sites, joined, strict=True)
        ]


def in_turn(sites: Sequence[Site], rep: int) -> list[Site]:
    """The order of a repetition: who came last in the one before comes first."""
    return list(reversed(sites)) if rep % 2 else list(sites)


def _middle(costs: Sequence[Cost]) -> Cost:
    return sorted(costs, key=lambda cost: cost.total)[len(costs) // 2]


def _used_kb(server: Redis) -> float:
    with redis.Redis.from_url(server.url) as client:
        client.memory_purge()
        info: dict[str, Any] = client.info("memory")
    return float(info["used_memory"]) / 1024


def spread_rows(found: Sequence[Found], turn: int) -> list[tuple[str, ...]]:
    """CPU µs an event, under `SPREAD`."""
    rows = []
    for each in found:
        cost = each.costs[turn]
        figures = cost.publisher, statistics.mean(cost.subscribers), sum(cost.subscribers), cost.redis, cost.total
        rows.append((*each.title, *(f"{figure:.1f}" for figure in figures)))
    return rows


def join_rows(found: Sequence[Found]) -> list[tuple[str, ...]]:
    """Under `JOIN`."""
    return [
        (
            *each.title,
            f"{max(one.seconds for one in each.joined):.3f} s",
            f"{statistics.mean(one.cpu_s for one in each.joined):.3f} s",
            f"{each.redis_cpu_s:.3f} s",
            f"{statistics.mean(one.kb for one in each.joined) / 1024:.1f} MB",
            f"{each.redis_kb / 1024:.1f} MB",
        )
        for each in found
    ]


def turning(found: Sequence[Found], turn: int) -> str:
    """With how many instances one channel takes as much as a channel a room, by the line through two and eight."""
    rooms = max(each.rooms for each in found)
    lines = {}
    for way in (WAYS[0], WAYS[-1]):
        few, many = [each for each in found if each.way is way and each.rooms == rooms]
        slope = (many.costs[turn].total - few.costs[turn].total) / (many.instances - few.instances)
        lines[way.name] = few.costs[turn].total - slope * few.instances, slope
    (base, slope), (other_base, other_slope) = lines.values()
    if slope <= other_slope:
        return "never"
    return f"at {max(0.0, (other_base - base) / (slope - other_slope)):.0f} instances"


def tables(found: Sequence[Found]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """All of them, with their titles."""
    each = [
        (
            f"CPU µs an event, {turn} a turn" if turn > 1 else "CPU µs an event, one a turn",
            SPREAD,
            spread_rows(found, turn),
        )
        for turn in TURNS
    ]
    return [*each, ("All rooms subscribed to at once", JOIN, join_rows(found))]


def verdict(found: Sequence[Found]) -> str:
    """Where it would turn."""
    said = [f"{turning(found, turn)} where a turn has {turn} event{'s' * (turn > 1)}" for turn in TURNS]
    return f"One channel takes as much CPU in all as a channel a room {', '.join(said)}."


def write(found: Sequence[Found], command: str) -> None:
    """The part of the page."""
    parts = [SHARED]
    for title, columns, rows in tables(found):
        parts += [f"**{title}**", pages.table(columns, rows)]
    pages.write_part("bus", command, "\n\n".join([*parts, verdict(found)]))


def main() -> int:
    """Measure every way in every setting, and show it."""
    options = _options()
    check_tools(("taskset",))
    settings = SETTINGS[:1] if options.quick else SETTINGS
    describe()
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as folder:
        for rooms, instances in settings:
            found += measure(Path(folder), rooms, instances, options.reps)
    console = Console(width=None if os.isatty(1) else 160)
    for title, columns, rows in tables(found):
        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if not options.quick:
        console.print(verdict(found))
    if options.write:
        write(found, f"python -m bench.bus --reps {options.reps} --write")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.bus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reps", type=int, default=5, help="measurements of each, of which the middle one counts (5)")
    parser.add_argument("--quick", action="store_true", help="once, of few rooms: does it work?")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    if options.write and options.quick:
        parser.error("--write is for a whole run: leave out --quick")
    if not 1 <= options.reps <= 20:
        parser.error("--reps is 1 to 20")
    if options.quick:
        options.reps = 1
    return options


if __name__ == "__main__":
    run(main)
