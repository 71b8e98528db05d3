"""What happens to Redis, and on the way to it. Nobody trusts it: acks go on, and what it loses is made good."""

from __future__ import annotations

import asyncio
import os
import signal

from server.rooms.repair import REORDER_S
from tests.faults.measures import Measures
from tests.faults.registry import Must, Scene, fault

REPAIRED = Must(lag_s=2.0, caught_up_s=2.0, is_ack_steady=True)
OVERFLOW = b"x" * 4_000, 100  # a message, and how often
DELAY_S = 0.2


def _lagged(found: Measures) -> bool:
    """Something was waited for as for the plain reorder, and read."""
    return found.lag_s > REORDER_S


@fault(must=REPAIRED, shows=_lagged, short_s=1.2)
async def redis_killed(scene: Scene, seconds: float) -> None:
    """`kill -9` of Redis; it is started again after a while, empty."""
    scene.stage.redis.kill()
    await asyncio.sleep(seconds)
    scene.stage.redis.start()


@fault(must=REPAIRED, shows=_lagged, short_s=1.2)
async def redis_hung(scene: Scene, seconds: float) -> None:
    """Redis stands still (SIGSTOP), its connections open, and goes on where it was."""
    os.kill(scene.stage.redis.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        os.kill(scene.stage.redis.pid, signal.SIGCONT)


async def _close(scene: Scene, seconds: float, *ways: str) -> None:
    for station in scene.stage.stations:
        for way in ways:
            getattr(station.redis, way).close()
    await asyncio.sleep(seconds)
    for station in scene.stage.stations:
        await station.redis.clear()


@fault(must=REPAIRED, shows=_lagged, short_s=1.2)
async def redis_partitioned(scene: Scene, seconds: float) -> None:
    """Nothing passes between the instances and Redis, and nobody is told."""
    await _close(scene, seconds, "up", "down")


@fault(must=REPAIRED, shows=_lagged, short_s=1.2)
async def redis_partitioned_up(scene: Scene, seconds: float) -> None:
    """What instances say to Redis is lost on the way, what it says is not."""
    await _close(scene, seconds, "up")


@fault(must=REPAIRED, shows=_lagged, short_s=1.2)
async def redis_partitioned_down(scene: Scene, seconds: float) -> None:
    """What Redis says is lost on the way, what it is told is not: subscriptions stand, and are deaf."""
    await _close(scene, seconds, "down")


@fault(must=REPAIRED, shows=_lagged, short_s=0.8)
async def redis_slow(scene: Scene, seconds: float) -> None:
    """Everything to and from Redis takes 200 ms longer, each way."""
    for station in scene.stage.stations:
        station.redis.up.delay(DELAY_S)
        station.redis.down.delay(DELAY_S)
    await asyncio.sleep(seconds)
    for station in scene.stage.stations:
        await station.redis.clear()


# The instances may be back before anybody has felt it: of these two Redis itself says that they have happened.
@fault(must=REPAIRED, shows=lambda found: found.acked > 0, short_s=0.8)
async def redis_flushed(scene: Scene, seconds: float) -> None:
    """All of Redis is emptied, and every client's connection ended by it, subscriptions among them; again and again."""
    until, ended = asyncio.get_running_loop().time() + seconds, 0
    while asyncio.get_running_loop().time() < until:
        await scene.stage.ask_redis("flushall")
        for kind in ("normal", "pubsub"):
            said = await scene.stage.ask_redis(f"client kill type {kind} skipme yes")
            ended += int((said or ":0").removeprefix(":"))
        await asyncio.sleep(0.2)
    assert ended, "nobody was connected"


@fault(must=REPAIRED, shows=lambda found: found.acked > 0, short_s=0.8)
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
        assert ended > before, "nothing has overflowed"
    finally:
        await ask('config set client-output-buffer-limit "pubsub 33554432 8388608 60"')
