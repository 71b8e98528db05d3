"""What the comparison of every second costs: `python -m bench.comparison`.

The budget is 2 % of a core at 100,000 watched rooms and 1,000 events a second. Here one instance watches that many
rooms on a PostgreSQL of its own; events are appended at that rate by another process's connection, each to a room
drawn at random, and every comparison's CPU time is taken alone. Rooms that are behind are not repaired: that is
another cost, paid only for what the bus has lost.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path
from uuid import UUID

import asyncpg
import uvloop

from server.collector import settle
from server.embedded import EmbeddedPostgres
from server.migrate import migrate
from server.rooms.bus import LocalBus
from server.rooms.delivery import Delivery
from server.rooms.local import LocalRoom
from server.rooms.names import conversation_room
from storage import Database

ROOMS = 100_000
EVENTS_PER_S = 1_000
COMPARISONS = 12


async def measure(dsn: str) -> list[float]:
    """CPU seconds of each comparison, one a second."""
    await migrate(dsn)
    writer = await asyncpg.connect(dsn)
    rows = await writer.fetch(
        "insert into rooms (room_id, kind) select uuidv7(), 'conversation' from generate_series(1, $1)"
        " returning room_id",
        ROOMS,
    )
    ids: list[UUID] = [row[0] for row in rows]
    await writer.execute("vacuum analyze")
    database = await Database.open(dsn, min_size=2, max_size=2)
    delivery = Delivery(database, LocalBus())
    heads = dict.fromkeys(ids, 0)
    for room_id in ids:
        room = conversation_room(room_id)
        delivery._rooms[room] = LocalRoom(room)
        delivery._rooms[room].head = 0
    await delivery.comparison.start()  # it learns the epoch and where to begin
    await delivery.comparison.stop()  # and every look from here on is made below
    settle()  # as a server does
    costs = []
    for _ in range(COMPARISONS):
        await _append(writer, random.choices(ids, k=EVENTS_PER_S), heads)
        for room_id, head in heads.items():  # as if the bus had brought everything
            delivery._rooms[conversation_room(room_id)].head = head
        begun = time.process_time()
        await delivery.comparison.compare()
        costs.append(time.process_time() - begun)
    await database.close()
    await writer.close()
    return costs


async def _append(writer: asyncpg.Connection, ids: list[UUID], heads: dict[UUID, int]) -> None:
    """One second's events, in batches as group commit makes them."""
    for n in range(0, len(ids), 50):
        batch = ids[n : n + 50]
        await writer.execute(
            "select append_events($1::uuid[], $2::text[], $3::text[], $4::uuid[])",
            batch,
            ["message:created"] * len(batch),
            ['{"text": "a message of the usual length, more or less"}'] * len(batch),
            [None] * len(batch),
        )
        for room_id in batch:
            heads[room_id] += 1


def main() -> None:
    """Measure, and print one line."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        postgres = EmbeddedPostgres(Path(folder) / "data")
        postgres.start()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                costs = runner.run(measure(postgres.dsn))
        finally:
            postgres.stop()
    low, middle, high = min(costs) * 100, statistics.median(costs) * 100, max(costs) * 100
    print(
        f"{ROOMS:,} watched rooms, {EVENTS_PER_S:,} events/s: a comparison takes {middle:.2f} % of a core"
        f" ({low:.2f} to {high:.2f}, {len(costs)} comparisons; the budget is 2 %)"
    )


if __name__ == "__main__":
    main()
