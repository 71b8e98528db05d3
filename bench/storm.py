"""Everybody comes back at once: `python -m bench.storm`.

5,000 clients, each in 5 rooms, connect to a server that has just started, as after a crash: all at the same moment,
each with the seqs that it has seen. Each has missed 20 events in all, 4 a room, and counts as resumed when it has been
told of every one of them. Checked: nothing missed, doubled or out of order, no room reset, nobody turned away, and that
all have resumed within 20 s of the first connect. The server has one core; the clients and PostgreSQL share the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from bench.crowds import Crowd
from bench.load import Figures
from bench.machine import BenchError, Cores
from bench.seeding import jwt
from bench.services import wait_until_quiet
from bench.stage import DEFAULT_RATES, Stage, Verdict, conclude, run, some, staged

CLIENTS, ROOMS_EACH, CIRCLE = 5_000, 5, 10
SEEN, MISSED = 4, 4  # events of each room
ALL_S = 20.0
BATCH = 1_000  # rooms a statement


async def seed_events(dsn: str, crowd: Crowd) -> None:
    """Give each room events as messages make them, by the function that the server appends with."""
    payload = json.dumps({"text": "a message of the usual length, more or less", "attachments": [], "reactions": []})
    connection = await asyncpg.connect(dsn)
    try:
        for _ in range(SEEN + MISSED):
            for n in range(0, crowd.conversations, BATCH):
                rooms = crowd.conversation_ids[n : n + BATCH]
                await connection.execute(
                    "select append_events($1::uuid[], $2::text[], $3::text[], $4::uuid[])",
                    rooms,
                    ["message:created"] * len(rooms),
                    [payload] * len(rooms),
                    [None] * len(rooms),
                )
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


def write_returning(crowd: Crowd, secret: str, into: Path) -> None:
    """The load generator's file, with the rooms that each names and how many events it has missed there."""
    mint = jwt(secret)
    with into.open("w") as file:
        for n in range(crowd.people):
            rooms = {f"conversation:{room}": SEEN for room in crowd.rooms_of(n)}
            resumed = json.dumps(rooms, separators=(",", ":"))
            print(mint(crowd, n), "-", crowd.talks_in(n), 0, 0, resumed, MISSED * ROOMS_EACH, file=file)


def storm(stage: Stage, crowd: Crowd, times: int) -> list[Figures]:
    """Let it break over a fresh server, so many times."""
    site = stage.parley([crowd])
    asyncio.run(seed_events(site.dsn, crowd))
    people = stage.folder / "storm.people"
    write_returning(crowd, stage.secret, people)
    found = []
    for _ in range(times):
        (server,) = stage.serve(site, DEFAULT_RATES)
        stage.postgres.checkpoint()
        wait_until_quiet([server.pid])
        asked = {"--opening": crowd.people, "--hello-rooms": ROOMS_EACH, "--secs": 1, "--connect": 60}
        found.append(stage.load.drive(people, [server], asked, ["--resume"]))
        server.stop()
    if errors := site.errors():
        raise BenchError(f"The server logged errors: {some(errors)}")
    return found


def main() -> int:
    """Let them come; 0 where everything held."""
    options = _options()
    clients = CLIENTS // 10 if options.quick else CLIENTS
    crowd = Crowd("storm", clients, CIRCLE, ROOMS_EACH, 0)
    with staged(Cores.of_this_machine()) as stage:
        found = storm(stage, crowd, options.times)
    return conclude(
        _verdicts(found, clients),
        f"Reconnect storm, {clients:,} clients",
        "storm" if options.write else None,
        f"python -m bench.storm --times {options.times} --write",
        f"{clients:,} clients with {ROOMS_EACH}"
        f" rooms and {MISSED * ROOMS_EACH} missed events each connect at once to a server that has just started; the"
        f" slowest of {options.times}. The server has one core, clients and PostgreSQL the other.",
    )


def _verdicts(found: Sequence[Figures], clients: int) -> list[Verdict]:
    slowest = max(found, key=lambda figures: figures["connect_s"])
    all_s = slowest["connect_s"]
    replayed = sum(int(figures["delivered"]) for figures in found)
    return [
        Verdict(
            "missed, doubled, out of order, turned away",
            f"{len(found) * clients:,} resumed, {replayed:,} events",
            "0 wrong",
            all(figures["ok"] for figures in found),
        ),
        Verdict("all resumed", f"{all_s:.1f} s", f"≤ {ALL_S:g} s", all_s <= ALL_S),
        Verdict(
            "half resumed, 99 % resumed",
            f"{slowest['resumed_p50_ms'] / 1000:.1f} s, {slowest['resumed_p99_ms'] / 1000:.1f} s",
            "-",
            None,
        ),
        Verdict(
            "CPU a client: server, PostgreSQL",
            f"{slowest['cpu_us_per_connect']:,.0f} µs, {slowest['database_us_per_connect']:,.0f} µs",
            "-",
            None,
        ),
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.storm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=3, help="how many storms, each over a fresh server (3)")
    parser.add_argument("--quick", action="store_true", help="one storm of 500 clients: does it work?")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    if options.quick:
        options.times = 1
    if not 1 <= options.times <= 20:
        parser.error("--times is 1 to 20")
    if options.write and options.quick:
        parser.error("--write is for a whole run: leave out --quick")
    return options


if __name__ == "__main__":
    run(main)
