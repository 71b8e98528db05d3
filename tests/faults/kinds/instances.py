"""What happens to instances of Parley."""

from __future__ import annotations

import asyncio
import signal
import time

from tests.faults.registry import Finding, Must, Scene, fault

EVERY_S, BACK_S = 0.02, 5.0
HOUR_S = 3_600
CLOCK_S = 10.0  # what the clocks of two processes may seem apart, read one after the other


@fault(must=Must(away_s=5.0), shows=lambda found: found.cuts > 0, ends_instances=True)
async def instance_killed(scene: Scene, seconds: float) -> None:
    """`kill -9` of an instance; it is started again after a while."""
    station = scene.stage.stations[0]
    station.kill()
    await asyncio.sleep(seconds)
    await station.start()


@fault(must=Must(first_ack_s=3.0), shows=lambda found: found.cuts > 0, ends_instances=True)
async def all_instances_killed(scene: Scene, seconds: float) -> None:
    """`kill -9` of all instances at once, each started again after a while."""
    for station in scene.stage.stations:
        station.kill()
    await asyncio.sleep(seconds)
    await asyncio.gather(*(station.start() for station in scene.stage.stations))


@fault(must=Must(away_s=5.0), shows=lambda found: found.cuts > 0, short_s=4.0)
async def instance_hung(scene: Scene, seconds: float) -> None:
    """An instance stands still (SIGSTOP), its connections open, and goes on where it was."""
    station = scene.stage.stations[0]
    there = {client.who.name: (client, client.wire) for client in scene.at(0)}
    back_s: dict[str, float] = {}
    station.signal(signal.SIGSTOP)
    begun = time.monotonic()
    try:
        while (now := time.monotonic()) < begun + seconds:
            for name, (client, wire) in there.items():
                if client.is_ready and client.wire is not wire:
                    back_s.setdefault(name, now - begun)
            await asyncio.sleep(EVERY_S)
    finally:
        station.signal(signal.SIGCONT)
    away = [name for name, (client, wire) in there.items() if client.wire is not wire and name not in back_s]
    if back_s or away:
        longest = max([*back_s.values(), *(time.monotonic() - begun for _ in away)])
        scene.findings.append(Finding("from the standstill to the last hello elsewhere", longest, BACK_S, "s"))


@fault(must=Must(away_s=3.0), shows=lambda found: found.cuts > 0, ends_instances=True)
async def rolling_restart(scene: Scene, seconds: float) -> None:
    """One instance after the other is stopped as an operator does (SIGTERM), and started again."""
    for station in scene.stage.stations:
        await station.stop()
        await station.start()
        await asyncio.sleep(seconds / len(scene.stage.stations))


@fault(must=Must(away_p99_s=3.0), shows=lambda found: found.cuts > 0, is_long=True, ends_instances=True)
async def ten_rolling_restarts(scene: Scene, seconds: float) -> None:
    """Ten times, one instance after the other is stopped as an operator does, and started again."""
    for _ in range(10):
        await rolling_restart(scene, seconds / 10)


async def _skewed(scene: Scene, seconds: float, by_s: float) -> None:
    station = scene.stage.stations[-1]
    module = station.process.module
    station.kill()
    station.process.module = ("tests.faults.skewed", f"{by_s}")
    try:
        await station.start()
        await asyncio.sleep(seconds)
        away_s = abs(await station.clock() - time.time())
        scene.sign("its clock from the others'", away_s, abs(by_s) - CLOCK_S, "s")
    finally:
        station.kill()
        station.process.module = module
    await station.start()


@fault(must=Must(caught_up_s=3.0), ends_instances=True)
async def clock_late(scene: Scene, seconds: float) -> None:
    """An instance comes back with its clock an hour late, and later with the right one."""
    await _skewed(scene, seconds, -HOUR_S)


@fault(must=Must(caught_up_s=3.0), ends_instances=True)
async def clock_early(scene: Scene, seconds: float) -> None:
    """An instance comes back with its clock an hour early, and later with the right one."""
    await _skewed(scene, seconds, HOUR_S)
