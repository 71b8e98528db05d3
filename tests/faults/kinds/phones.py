"""What happens to clients, and on the way to them. Some come by a rough door, which is where it happens."""

from __future__ import annotations

import asyncio
import random

from tests.faults.registry import Must, Scene, fault

EVERY_S = 0.25
MOST_BYTES = 2_500  # a connect is about a thousand
SLOW_BYTES_PER_S = 20_000
DELAY_S = 0.15


async def _clear(scene: Scene) -> None:
    for station in scene.stage.stations:
        await station.rough.clear()


@fault(must=Must(away_s=5.0), shows=lambda found: found.cuts > 0, is_rough=True, short_s=1.0)
async def clients_cut_amid_what_they_say(scene: Scene, seconds: float) -> None:
    """Connections are reset amid a frame of the client's, again and again."""
    await _cut(scene, seconds, "up")


@fault(must=Must(away_s=5.0), shows=lambda found: found.cuts > 0, is_rough=True, short_s=1.0)
async def clients_cut_amid_what_they_hear(scene: Scene, seconds: float) -> None:
    """Connections are reset amid a frame of the server's, again and again."""
    await _cut(scene, seconds, "down")


async def _cut(scene: Scene, seconds: float, way: str) -> None:
    until = asyncio.get_running_loop().time() + seconds
    roads = [getattr(station.rough, way) for station in scene.stage.stations]
    for road in roads:
        road.cut_after(0)
    while asyncio.get_running_loop().time() < until:
        for road in roads:
            road.reset_after = random.randrange(MOST_BYTES)  # of each link, since it is there
        await asyncio.sleep(EVERY_S)
    await _clear(scene)


@fault(must=Must(caught_up_s=5.0), shows=lambda found: found.cuts > 0, is_rough=True, short_s=3.5)
async def clients_half_open(scene: Scene, seconds: float) -> None:
    """Nothing passes between clients and server, and neither is told: in a tunnel. Later all of it comes at once."""
    for station in scene.stage.stations:
        station.rough.up.close()
        station.rough.down.close()
    await asyncio.sleep(seconds)
    await _clear(scene)


@fault(must=Must(away_s=5.0), shows=lambda found: found.cuts > 0, is_rough=True)
async def clients_half_closed(scene: Scene, seconds: float) -> None:
    """The server is told that a client will say nothing more; the other way stays open."""
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        for station in scene.stage.stations:
            station.rough.up.end()
        await asyncio.sleep(EVERY_S)


@fault(must=Must(caught_up_s=5.0), shows=lambda found: found.ack_slowest_ms > 100, is_rough=True, short_s=1.5)
async def clients_read_slowly(scene: Scene, seconds: float) -> None:
    """Clients read a little, all the time: nobody is cut for that."""
    for station in scene.stage.stations:
        station.rough.down.throttle(SLOW_BYTES_PER_S)
    await asyncio.sleep(seconds)
    await _clear(scene)


@fault(must=Must(caught_up_s=5.0), shows=lambda found: found.ack_slowest_ms > 500, is_rough=True, short_s=1.5)
async def clients_stop_reading(scene: Scene, seconds: float) -> None:
    """Clients read nothing, and go on talking."""
    for station in scene.stage.stations:
        station.rough.down.close()
    await asyncio.sleep(seconds)
    await _clear(scene)


@fault(
    must=Must(caught_up_s=3.0), shows=lambda found: found.ack_slowest_ms > 1000 * DELAY_S, is_rough=True, short_s=0.8
)
async def clients_far_away(scene: Scene, seconds: float) -> None:
    """Everything to and from clients takes 150 ms longer, each way."""
    for station in scene.stage.stations:
        station.rough.up.delay(DELAY_S)
        station.rough.down.delay(DELAY_S)
    await asyncio.sleep(seconds)
    await _clear(scene)


@fault(must=Must(caught_up_s=5.0), shows=lambda found: found.cuts > 0, is_rough=True, short_s=2.5)
async def door_hangs(scene: Scene, seconds: float) -> None:
    """Clients are cut, and what they come back to accepts their connections and says nothing."""
    for station in scene.stage.stations:
        station.rough.hangs = True
        station.rough.reset()
    await asyncio.sleep(seconds)
    for station in scene.stage.stations:
        station.rough.reset()
    await _clear(scene)


@fault(must=Must(away_s=5.0), shows=lambda found: found.cuts > 0)
async def reconnect_storm(scene: Scene, seconds: float) -> None:
    """All connections of all clients are reset at once, and once more amid their coming back."""
    for _ in range(2):
        for station in scene.stage.stations:
            station.front.reset()
            station.rough.reset()
        await asyncio.sleep(seconds / 2)


@fault(shows=lambda found: found.acked > 0)
async def sends_doubled(scene: Scene, seconds: float) -> None:
    """Clients send everything twice, at once, as those do that are too impatient for an answer."""
    for client in scene.clients:
        client.is_doubling = True
    await asyncio.sleep(seconds)
    for client in scene.clients:
        client.is_doubling = False
