"""What happens to PostgreSQL, and on the way to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from contextlib import AsyncExitStack

import asyncpg

from tests.faults.proxy import cleared_after
from tests.faults.registry import Must, Scene, fault
from tests.faults.stage import READY_S
from tests.servers import execute

ONE_WAY_S = 0.03
EVERY_S = 0.3  # between two cuts, or two locks
OURS = "others"
END_OTHERS = """
select count(pg_terminate_backend(pid))
  from pg_stat_activity
 where usename = 'parley' and application_name <> $1
"""
STALL_MS = 600  # of a second in which nothing can be committed
DEADLOCK_MS = 20  # PostgreSQL looks for one after a whole second, by default
TOLD_S = 3.0  # what it counts it tells a second late, or when a connection ends
BYTES_PER_S = 1_000  # an answer is some hundred: felt, and over in a second or two


def _pid(scene: Scene) -> int:
    pid = scene.stage.postgres.pid
    assert pid is not None
    return pid


@fault(must=Must(first_ack_s=3.0), shows=lambda found: found.unknown > 0)
async def postgres_killed(scene: Scene, seconds: float) -> None:
    """`kill -9` of PostgreSQL; it is started again after a while, and recovers."""
    os.kill(_pid(scene), signal.SIGKILL)
    await scene.stage.keep_postgres_down(seconds)


@fault(must=Must(first_ack_s=3.0), shows=lambda found: found.unknown > 0)
async def postgres_backend_crashed(scene: Scene, seconds: float) -> None:
    """`kill -9` of one backend, upon which PostgreSQL ends all others, and is started again; again and again."""
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        with contextlib.suppress(asyncpg.PostgresError, OSError):  # it may be recovering still
            async with scene.stage.connected() as db:
                pid = await db.fetchval("select pid from pg_stat_activity where usename = 'parley' limit 1")
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(EVERY_S)
        await scene.stage.postgres_ready()


@fault(must=Must(first_ack_s=3.0), shows=lambda found: found.unknown > 0)
async def postgres_restarted(scene: Scene, seconds: float) -> None:
    """PostgreSQL is stopped as an operator does (fast), and started again after a while."""
    os.kill(_pid(scene), signal.SIGINT)
    await scene.stage.keep_postgres_down(seconds)


@fault(must=Must(caught_up_s=3.0), shows=lambda found: found.ack_median_ms > 2000 * ONE_WAY_S)
async def postgres_slow(scene: Scene, seconds: float) -> None:
    """Everything to and from PostgreSQL takes 30 ms longer, each way."""
    for station in scene.stage.stations:
        station.postgres.up.delay(ONE_WAY_S)
        station.postgres.down.delay(ONE_WAY_S)
    await cleared_after(seconds, *(station.postgres for station in scene.stage.stations))


@fault(must=Must(caught_up_s=3.0), shows=lambda found: found.ack_median_ms > 100)
async def postgres_throttled(scene: Scene, seconds: float) -> None:
    """Of what PostgreSQL says, 1 KB a second and connection comes through."""
    for station in scene.stage.stations:
        station.postgres.down.throttle(BYTES_PER_S)
    await cleared_after(seconds, *(station.postgres for station in scene.stage.stations))


@fault(must=Must(first_ack_s=3.0, caught_up_s=3.0), shows=lambda found: found.ack_stall_ms > STALL_MS, short_s=1.0)
async def postgres_unanswering(scene: Scene, seconds: float) -> None:
    """What PostgreSQL answers does not come through, what it is asked does: nobody knows what it has done."""
    for station in scene.stage.stations:
        station.postgres.down.close()
    await cleared_after(seconds, *(station.postgres for station in scene.stage.stations))


@fault(must=Must(first_ack_s=3.0, caught_up_s=3.0), shows=lambda found: found.ack_stall_ms > STALL_MS, short_s=1.0)
async def postgres_partitioned(scene: Scene, seconds: float) -> None:
    """One instance is cut off from PostgreSQL, in both directions, the others are not."""
    station = scene.stage.stations[0]
    station.postgres.up.close()
    station.postgres.down.close()
    await cleared_after(seconds, station.postgres)
    await scene.first_ack("it is reached again, of those at that instance", scene.at(0))


@fault(must=Must(first_ack_s=3.0), shows=lambda found: found.unknown > 0, short_s=1.2)
async def postgres_cut(scene: Scene, seconds: float) -> None:
    """Connections to PostgreSQL are reset amid an answer, again and again: of a commit nobody knows."""
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        for station in scene.stage.stations:
            station.postgres.down.cut_after(random.randrange(2_000))
        await asyncio.sleep(EVERY_S)
    for station in scene.stage.stations:
        await station.postgres.clear()


@fault(must=Must(first_ack_s=3.0), shows=lambda found: found.unknown > 0)
async def postgres_out_of_connections(scene: Scene, seconds: float) -> None:
    """PostgreSQL ends all connections and lets nobody in, since there are too many already."""
    async with scene.stage.connected() as db:
        await db.execute("alter role parley connection limit 0")
        try:
            await db.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'parley'")
            await asyncio.sleep(seconds)
        finally:
            await db.execute("alter role parley connection limit -1")


@fault(must=Must(first_ack_s=3.0), shows=lambda found: found.unknown > 0)
async def postgres_full(scene: Scene, seconds: float) -> None:
    """Others hold all connections that PostgreSQL has for those who are no superusers: instances' own have ended."""
    dsn = scene.stage.dsn.replace("//postgres@", "//parley@")
    async with scene.stage.connected() as db, AsyncExitStack() as stack:
        left = await db.fetchval(END_OTHERS, OURS)
        async with asyncio.timeout(READY_S):
            while left:
                with contextlib.suppress(asyncpg.TooManyConnectionsError):
                    while True:
                        held = await asyncpg.connect(dsn, server_settings={"application_name": OURS})
                        stack.push_async_callback(held.close)
                left = await db.fetchval(END_OTHERS, OURS)
        await asyncio.sleep(seconds)


@fault(must=Must(first_ack_s=3.0), shows=lambda found: found.ack_stall_ms > STALL_MS, short_s=1.0)
async def table_locked(scene: Scene, seconds: float) -> None:
    """Somebody holds the table of messages alone, as an ill-timed `alter table` does."""
    async with scene.stage.connected() as db, db.transaction():
        await db.execute("lock table messages in access exclusive mode")
        await asyncio.sleep(seconds)


@fault()
async def rooms_locked(scene: Scene, seconds: float) -> None:
    """Others hold the rows of rooms, two each, in an order that leads to deadlocks with one another."""
    ids = sorted({each for client in scene.clients for each in client.who.conversation_ids})
    before = await _deadlocks(scene)
    until = asyncio.get_running_loop().time() + seconds

    async def hold(db: asyncpg.Connection, seed: int) -> None:
        draw, step = random.Random(seed // 2), -1 if seed % 2 else 1  # two draw the same rooms, and go opposite ways
        await db.execute(f"set deadlock_timeout = {DEADLOCK_MS}")
        while asyncio.get_running_loop().time() < until:
            try:
                async with db.transaction():
                    for room in draw.sample(ids, min(2, len(ids)))[::step]:
                        await db.execute("select 1 from rooms where room_id = $1 for update", room)
                        await asyncio.sleep(EVERY_S / 2)
            except asyncpg.DeadlockDetectedError:
                continue

    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(scene.stage.connected()) for _ in range(4)]
        await asyncio.gather(*(hold(db, n) for n, db in enumerate(connections)))
    told_by = asyncio.get_running_loop().time() + TOLD_S
    while (met := await _deadlocks(scene) - before) == 0 and asyncio.get_running_loop().time() < told_by:
        await asyncio.sleep(0.05)
    scene.sign("deadlocks met", met)


async def _deadlocks(scene: Scene) -> int:
    async with scene.stage.connected() as db:
        found: int = await db.fetchval("select deadlocks from pg_stat_database where datname = current_database()")
        return found


@fault(must=Must(first_ack_s=3.0), shows=lambda found: found.unknown > 0)
async def postgres_read_only(scene: Scene, seconds: float) -> None:
    """The database takes no writes, as one that is a standby all of a sudden."""
    await execute(scene.stage.postgres.dsn, "alter database parley set default_transaction_read_only = on")
    try:
        for station in scene.stage.stations:
            station.postgres.reset()
        await asyncio.sleep(seconds)
    finally:
        await execute(scene.stage.postgres.dsn, "alter database parley reset default_transaction_read_only")
        for station in scene.stage.stations:
            station.postgres.reset()
