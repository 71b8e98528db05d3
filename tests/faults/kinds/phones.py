"""What happens to clients, and on the way to them. Some come by a rough door, which is where it happens."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from server.wire.engineio import LOOK_S
from server.wire.session import STALL_S
from tests.faults.registry import Finding, Must, Scene, fault

EVERY_S = 0.25
MOST_BYTES = 2_500  # a connect is about a thousand
SLOW_BYTES_PER_S = 20_000
DELAY_S = 0.15
MANY = 200
MANY_REPEATS = 10  # an ack that comes later than it was waited for is one without any fault
# What 48 people say to each of them then is more than who reads slowly takes, by little: 25 to 45 KB a second.
DEAF_PAUSE_S, DEAF_WORDS = 0.08, 10
DEAF_S = 60.0  # until those who read nothing are cut, at most
ESTABLISHED = "01"
LATE_S = 2 * (LOOK_S + EVERY_S)  # the server looks once before it begins to count and once behind, as does who measures


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


@fault(must=Must(caught_up_s=5.0), shows=lambda found: found.cuts > 0, is_rough=True, short_s=4.0)
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


@fault(must=Must(caught_up_s=5.0), shows=lambda found: found.ack_worst_ms > 100, is_rough=True, short_s=1.5)
async def clients_read_slowly(scene: Scene, seconds: float) -> None:
    """Clients read 20 KB a second, and say a lot."""
    for client in scene.rough:
        client.words = MANY  # a message is felt by itself, however few there are
    for station in scene.stage.stations:
        station.rough.down.throttle(SLOW_BYTES_PER_S)
    await asyncio.sleep(seconds)
    for client in scene.rough:
        client.words = 0
    await _clear(scene)


@fault(must=Must(caught_up_s=5.0), shows=lambda found: found.ack_stall_ms > 700, is_rough=True, short_s=1.5)
async def clients_stop_reading(scene: Scene, seconds: float) -> None:
    """Clients read nothing, and go on talking."""
    for station in scene.stage.stations:
        station.rough.down.close()
    await asyncio.sleep(seconds)
    await _clear(scene)


@fault(
    must=Must(caught_up_s=5.0, is_ack_steady=True),
    shows=lambda found: found.cuts > 0,
    is_rough=True,
    is_long=True,
    short_s=STALL_S,
    module=("tests.faults.narrow",),
    pause_s=DEAF_PAUSE_S,
    words=DEAF_WORDS,
    environ={"PARLEY_PING_INTERVAL_MS": "25000", "PARLEY_PING_TIMEOUT_MS": "20000", "PARLEY_TAIL_BYTES": "65536"},
)
async def clients_deaf(scene: Scene, seconds: float) -> None:
    """With heartbeats as they are by default: some clients read nothing, others 20 KB a second; all go on talking."""
    deaf, *others = scene.stage.stations
    slow = [client for client in scene.rough if client.door != scene.stage.rough_doors[0]]
    for client in scene.clients:
        client.words = DEAF_WORDS  # as in the round without the fault
    most = 0.0
    ports = {lane.port for lane in deaf.rough.down.lanes}
    assert ports, "nobody came by the door behind which nothing is read"
    deaf.rough.down.close()
    for station in others:
        station.rough.down.throttle(SLOW_BYTES_PER_S)
    begun = (clock := asyncio.get_running_loop().time)()
    queues, taken_at, ended_at = dict.fromkeys(ports, 0), dict.fromkeys(ports, begun), dict[int, float]()
    while (now := clock()) < begun + seconds or (now < begun + DEAF_S and len(ended_at) < len(ports)):
        open_ones = _queues(deaf.process.port)
        for port in ports:
            if port not in open_ones:
                ended_at.setdefault(port, now)
            elif open_ones[port] > queues[port]:  # it has taken more from the process
                taken_at[port] = now
            queues[port] = open_ones.get(port, 0)
        most = max(most, *map(float, await deaf.scrape(r"parley_backlog_most_bytes (\S+)")))
        await asyncio.sleep(EVERY_S)
    ended = [ended_at[port] - taken_at[port] if port in ended_at else DEAF_S for port in ports]
    cuts = sum(len(client.history.aways.get(client.who.name, ())) for client in slow)
    scene.findings.append(Finding("held for a client that reads nothing", most / 2**20, 1.0, "MiB"))
    scene.findings.append(Finding("from the last byte it took to its end", max(ended), STALL_S + LATE_S, "s"))
    scene.findings.append(Finding("cuts of those that read 20 KB a second", float(cuts), 0.0, ""))
    reasons = await deaf.scrape(r'parley_clients_cut_total\{reason="(\w+)"\} [1-9]')
    scene.notes.extend(f"cut as {reason}" for reason in reasons)
    for client in scene.clients:
        client.words = 0
    await _clear(scene)


def _queues(port: int) -> dict[int, int]:
    """What the kernel has of each open connection to that port and not got rid of, in bytes, by the far end's port.

    Open ones alone: the end itself stands in the queue too.
    """
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    mine = [row for row in rows if row[3] == ESTABLISHED and int(row[1].partition(":")[2], 16) == port]
    return {int(row[2].partition(":")[2], 16): int(row[4].partition(":")[0], 16) for row in mine}


@fault(must=Must(caught_up_s=3.0), shows=lambda found: found.ack_worst_ms > 2000 * DELAY_S, is_rough=True, short_s=0.8)
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


@fault(shows=lambda found: found.repeats > MANY_REPEATS)
async def sends_doubled(scene: Scene, seconds: float) -> None:
    """Clients send everything twice, at once, as those do that are too impatient for an answer."""
    for client in scene.clients:
        client.is_doubling = True
    await asyncio.sleep(seconds)
    for client in scene.clients:
        client.is_doubling = False
