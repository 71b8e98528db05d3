"""The questions of `bench.growth`: what is set up for each size, what is measured, and what the figures must be."""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from bench.crowds import Crowd
from bench.load import Figures
from bench.plots import Panel, Point
from bench.seeding import jwt, write_people
from bench.services import Process, wait_until_quiet
from bench.stage import Stage

FLAT = 0.2
SOCKETS = 10_000
DELIVERIES_PER_S, SENDS_PER_S = 25_000, 300  # what a server does at ease, whatever the size of the rooms
FILL_S = 900.0
# Settings without which so many sockets of one address are too many.
ROOMY = {"PARLEY_SOCKETS_PER_ADDRESS": "20000"}

MESSAGES = """
insert into messages (message_id, conversation_id, seq, sender_id, client_id, body_hmac, type, text, at)
select uuidv7(), $1, seq, $2, 'growth-' || seq, '\\x00', 'text', 'what was said as number ' || seq, now()
  from generate_series(1, $3::bigint) as seq
"""
EVENTS = """
insert into room_events (room_id, seq, at, name, payload)
select $1, seq, now(), 'message:created', '{"text": "what was said"}' from generate_series(1, $2::bigint) as seq
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found: `holds` says whether it grows as it should, `is_right` whether nothing was lost or doubled."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    verdict: str
    panel: Panel
    holds: bool
    is_right: bool


@dataclass(frozen=True, slots=True)
class Line:
    """What a size costs: `base`, and `slope` for each of it."""

    base: float
    slope: float

    def at(self, size: float) -> float:
        return self.base + size * self.slope


def fit(points: Sequence[Point]) -> Line:
    """The line of the least squares of relative errors: the small sizes count as much as the large ones."""
    weights = [1 / y**2 for _, y in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    across = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True)) / across
    return Line(mean_y - slope * mean_x, slope)


def spread(values: Sequence[float]) -> float:
    """How far the farthest of them lies from their middle, as a share."""
    middle = (max(values) + min(values)) / 2
    return (max(values) - middle) / middle


def ask_rooms(stage: Stage, reps: int, *, quick: bool) -> Answer:
    """What a delivery costs in small rooms and in large ones."""
    sockets = 1_000 if quick else SOCKETS
    sizes = [size for size in (10, 100, 1_000, 10_000) if size <= sockets]
    crowds = [Crowd(f"rooms-{size}", sockets, size, 1, sockets // size) for size in sizes]
    asking = Asking(stage, crowds)
    (server,) = stage.serve(asking.site, ROOMY)
    idle = asking.measure(server, crowds[0], {}, ["--idle"])["idle_cpu_percent"]
    for _ in range(reps):
        for size, crowd in zip(sizes, crowds, strict=True):
            rate = min(SENDS_PER_S, DELIVERIES_PER_S / size)
            asking.note(crowd, asking.measure(server, crowd, {"--rate": rate}))
    server.stop()
    costs = [
        asking.median(crowd, "cpu_us_per_send") - idle * 1e4 / max(asking.median(crowd, "sends_per_s"), 0.1)
        for crowd in crowds
    ]
    points = list(zip(map(float, sizes), costs, strict=True))
    line = fit(points)
    marginal = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(points)]
    off = max(abs(each / line.slope - 1) for each in marginal)
    rows = [
        (
            f"{size:,}",
            f"{cost:,.0f}",
            f"{line.at(size):,.0f}",
            f"{cost / line.at(size) - 1:+.1%}",
            f"{step:.2f}" if step else "-",
        )
        for size, cost, step in zip(sizes, costs, [0.0, *marginal], strict=True)
    ]
    return Answer(
        f"A delivery, in rooms of {sizes[0]:,} to {sizes[-1]:,}",
        (
            "people in the room",
            "CPU a send, µs",
            "the line's",
            "off it",
            "µs for each delivery more than in the row above",
        ),
        rows,
        f"A send costs {line.base:.0f} µs and {line.slope:.2f} µs a delivery; the marginal cost of a delivery is off"
        f" that by {off:.0%} at most ({FLAT:.0%} allowed). {sockets:,} idle sockets take {idle:.1f} % of a core, which"
        " is taken off.",
        Panel("CPU a send", "people in the room", "µs", points, [(s, line.at(s)) for s in sizes], is_log_y=True),
        off <= FLAT,
        asking.is_right,
    )


def ask_messages(stage: Stage, reps: int, *, quick: bool) -> Answer:
    """What a send costs in short conversations and in long ones."""
    counts = [1_000, 10_000] if quick else [1_000, 10_000, 100_000, 1_000_000]
    crowds = [Crowd(f"said-{count}", 2, 2, 1, 1) for count in counts]
    asking = Asking(stage, crowds)
    asyncio.run(_fill(asking.site.dsn, list(zip(crowds, counts, strict=True))))
    (server,) = stage.serve(asking.site)
    asking.in_turn(server, crowds, reps, {})
    server.stop()
    return _of_sends(
        asking, crowds, counts, "messages in the conversation", "one sender, so that a batch has one message"
    )


def ask_conversations(stage: Stage, reps: int, *, quick: bool) -> Answer:
    """What a send costs among few conversations and among many, all of them watched."""
    each = [1, 10] if quick else [1, 10, 100, 1_000]
    crowds = [Crowd(f"talks-{rooms}", 400, 4, rooms, 100) for rooms in each]
    asking = Asking(stage, crowds)
    (server,) = stage.serve(asking.site)
    asking.in_turn(server, crowds, reps, {})
    server.stop()
    counts = [crowd.conversations for crowd in crowds]
    return _of_sends(asking, crowds, counts, "conversations watched", "400 sockets, 100 senders")


def ask_memory(stage: Stage, reps: int, *, quick: bool) -> Answer:
    """What few connections take of memory, and many."""
    counts = [250, 500] if quick else [500, 1_000, 2_000, 4_000, 8_000]
    crowd = Crowd("resting", counts[-1], 2, 1, 0)
    asking = Asking(stage, [crowd])
    grown: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(reps):
        for count in counts:
            (server,) = stage.serve(asking.site, ROOMY)
            figures = asking.measure(server, crowd, {}, ["--idle"], first=count)
            server.stop()
            grown[count].append((figures["rss_after_kb"] - figures["rss_before_kb"]) / 1024)
    points = [(float(count), statistics.median(values)) for count, values in grown.items()]
    line = fit(points)
    off = max(abs(mb / line.at(count) - 1) for count, mb in points)
    return Answer(
        f"Memory, with {counts[0]:,} to {counts[-1]:,} connections",
        ("connections", "grown by, MB", "the line's", "off it"),
        [(f"{n:,.0f}", f"{mb:.1f}", f"{line.at(n):.1f}", f"{mb / line.at(n) - 1:+.1%}") for n, mb in points],
        f"{line.base:.1f} MB, and {line.slope * 1024:.1f} KB a connection; off that by {off:.0%} at most"
        f" ({FLAT:.0%} allowed).",
        Panel(
            "Memory", "connections", "MB more", points, [(n, line.at(n)) for n in (0.0, points[-1][0])], is_log_x=False
        ),
        off <= FLAT,
        asking.is_right,
    )


def _of_sends(asking: Asking, crowds: Sequence[Crowd], counts: Sequence[int], of: str, how: str) -> Answer:
    servers = [asking.median(crowd, "cpu_us_per_send") for crowd in crowds]
    databases = [asking.median(crowd, "database_us_per_send") for crowd in crowds]
    off, off_both = spread(servers), spread([a + b for a, b in zip(servers, databases, strict=True)])
    return Answer(
        f"A send, with {counts[0]:,} to {counts[-1]:,} {of}",
        (of, "CPU a send, µs", "PostgreSQL's, µs", "ack p50 · p99, ms"),
        [
            (
                f"{count:,}",
                f"{server:.0f}",
                f"{database:.0f}",
                f"{asking.median(crowd, 'ack_p50_ms'):.1f} · {asking.median(crowd, 'ack_p99_ms'):.1f}",
            )
            for crowd, count, server, database in zip(crowds, counts, servers, databases, strict=True)
        ],
        f"With {how}. The server's CPU lies within ±{off:.0%}, with PostgreSQL's together ±{off_both:.0%}"
        f" ({FLAT:.0%} allowed).",
        Panel("CPU a send", of, "µs", list(zip(map(float, counts), servers, strict=True))),
        off <= FLAT,
        asking.is_right,
    )


class Asking:
    """A Parley with crowds of several sizes, and what was measured of each."""

    def __init__(self, stage: Stage, crowds: Sequence[Crowd]) -> None:
        self._stage = stage
        self._found: dict[str, list[Figures]] = {}
        self.site = stage.parley(crowds)
        self.is_right = True

    def measure(
        self,
        server: Process,
        crowd: Crowd,
        options: dict[str, object],
        flags: Sequence[str] = (),
        *,
        first: int | None = None,
    ) -> Figures:
        """One measurement of a crowd, or of the first of it."""
        people = self._stage.folder / f"{crowd.name}.people"
        if not people.exists():
            write_people([crowd], 1, jwt(self._stage.secret), people)
        if first is not None:
            people = _first(people, first)
        load = self._stage.load
        self._stage.postgres.checkpoint()
        wait_until_quiet([server.pid])
        asked = {"--secs": load.secs, "--warm": load.warm_s, "--hello-rooms": crowd.rooms_each, **options}
        figures = load.drive(people, [server], asked, flags)
        self.is_right = self.is_right and bool(figures["ok"])
        return figures

    def note(self, crowd: Crowd, figures: Figures) -> None:
        self._found.setdefault(crowd.name, []).append(figures)

    def in_turn(self, server: Process, crowds: Sequence[Crowd], reps: int, options: dict[str, object]) -> None:
        """Measure the crowds in turn, after a round that does not count."""
        for rep in range(-1, reps):
            for crowd in crowds:
                figures = self.measure(server, crowd, options)
                if rep >= 0:
                    self.note(crowd, figures)

    def median(self, crowd: Crowd, key: str) -> float:
        return statistics.median(figures[key] for figures in self._found[crowd.name])


def _first(people: Path, count: int) -> Path:
    into = people.with_suffix(f".{count}")
    into.write_text("".join(people.read_text().splitlines(keepends=True)[:count]))
    return into


async def _fill(dsn: str, talks: Sequence[tuple[Crowd, int]]) -> None:
    """Conversations of so many messages, with their logs. The index of words is made afterwards: that is quicker."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("set synchronous_commit = off")
        index = await connection.fetchval("select indexdef from pg_indexes where indexname = 'messages_words'")
        await connection.execute("drop index messages_words")
        for crowd, count in talks:
            room = crowd.conversation_ids[0]
            await connection.execute(MESSAGES, room, crowd.user_ids[1], count, timeout=FILL_S)
            await connection.execute(EVENTS, room, count, timeout=FILL_S)
            await connection.execute("update rooms set last_seq = $2 where room_id = $1", room, count)
        await connection.execute(index, timeout=FILL_S)
        await connection.execute("vacuum analyze", timeout=FILL_S)
    finally:
        await connection.close()
