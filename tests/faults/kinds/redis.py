"""What happens to Redis, and on the way to it. Nobody trusts it: acks go on, and what it loses is made good."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.proxy import cleared_after
from tests.faults.registry import Must, Scene, fault

REPAIRED = Must(lag_s=2.0, caught_up_s=2.0, is_ack_steady=True)
OVERFLOW = b"x" * 4_000, 100  # a message, and how often
DELAY_S = 0.2
MANY_REPAIRED = 10  # on a machine that is busy one or two are without any fault
MINUTE_S = 60.0


async def _repaired(scene: Scene) -> float:
    found = [await station.scrape(r"parley_events_repaired_total (\S+)") for station in scene.stage.stations]
    return sum(float(value) for (value,) in found)


@asynccontextmanager
async def _repairing(scene: Scene) -> AsyncIterator[None]:
    """A fault that is felt by what comes by the log meanwhile, not by the bus."""
    before = await _repaired(scene)
    yield
    scene.sign("events that came by the log", await _repaired(scene) - before, MANY_REPAIRED)


@fault(must=REPAIRED, short_s=1.2)
async def redis_killed(scene: Scene, seconds: float) -> None:
    """`kill -9` of Redis; it is started again after a while, empty."""
    async with _repairing(scene):
        scene.stage.redis.kill()
        await asyncio.sleep(seconds)
        scene.stage.redis.start()


@fault(must=REPAIRED, short_s=MINUTE_S, is_long=True)
async def redis_away_for_a_minute(scene: Scene, seconds: float) -> None:
    """`kill -9` of Redis, which is not started again for a minute or longer."""
    await redis_killed(scene, seconds)


@fault(must=REPAIRED, short_s=1.2)
async def redis_hung(scene: Scene, seconds: float) -> None:
    """Redis stands still (SIGSTOP), its connections open, and goes on where it was."""
    async with _repairing(scene):
        os.kill(scene.stage.redis.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(scene.stage.redis.pid, signal.SIGCONT)


async def _close(scene: Scene, seconds: float, *ways: str) -> None:
    async with _repairing(scene):
        for station in scene.stage.stations:
            for way in ways:
                getattr(station.redis, way).close()
        await cleared_after(seconds, *(station.redis for station in scene.stage.stations))


@fault(must=REPAIRED, short_s=1.2)
async def redis_partitioned(scene: Scene, seconds: float) -> None:
    """Nothing passes between the instances and Redis, and nobody is told."""
    await _close(scene, seconds, "up", "down")


@fault(must=REPAIRED, short_s=1.2)
async def redis_partitioned_up(scene: Scene, seconds: float) -> None:
    """What instances say to Redis is lost on the way, what it says is not."""
    await _close(scene, seconds, "up")


@fault(must=REPAIRED, short_s=1.2)
async def redis_partitioned_down(scene: Scene, seconds: float) -> None:
    """What Redis says is lost on the way, what it is told is not: subscriptions stand, and are deaf."""
    await _close(scene, seconds, "down")


@fault(must=REPAIRED, short_s=0.8)
async def redis_slow(scene: Scene, seconds: float) -> None:
    """Everything to and from Redis takes 200 ms longer, each way."""
    async with _repairing(scene):
        for station in scene.stage.stations:
            station.redis.up.delay(DELAY_S)
            station.redis.down.delay(DELAY_S)
        await cleared_after(seconds, *(station.redis for station in scene.stage.stations))


# The instances may be back before anybody has felt it: of these two Redis itself says that they have happened.
@fault(must=REPAIRED, short_s=0.8)
async def redis_flushed(scene: Scene, seconds: float) -> None:
    """All of Redis is emptied, and every client's connection ended by it, subscriptions among them; again and again."""
    until, ended = asyncio.get_running_loop().time() + seconds, 0
    while asyncio.get_running_loop().time() < until:
        await scene.stage.ask_redis("flushall")
        for kind in ("normal", "pubsub"):
            said = await scene.stage.ask_redis(f"client kill type {kind} skipme yes")
            ended += int((said or ":0").removeprefix(":"))
        await asyncio.sleep(0.2)
    scene.sign("connections that it ended", ended)


@fault(must=REPAIRED, short_s=0.8)
async def redis_overflows(scene: Scene, seconds: float) -> None:
    """More is published than a subscriber's output buffer may hold, upon which Redis ends the subscriptions."""
    ask = scene.stage.ask_redis
    before = await asyncio.to_thread(scene.stage.redis.statistic, "client_output_buffer_limit_disconnections")
    await ask('config set client-output-buffer-limit "pubsub 100000 0 0"')
    try:
        until = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until:
            await asyncio.to_thread(scene.stage.redis.publish_everywhere, *OVERFLOW)
            await asyncio.sleep(0.1)
        ended = await asyncio.to_thread(scene.stage.redis.statistic, "client_output_buffer_limit_disconnections")
        scene.sign("subscriptions that it ended", ended - before)
    finally:
        await ask('config set client-output-buffer-limit "pubsub 33554432 8388608 60"')
