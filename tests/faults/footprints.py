"""What the instances hold of descriptors, tasks and sessions: a process holds no more after faults than before them."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import astuple, dataclass
from pathlib import Path
from time import monotonic

from tests.faults.registry import Finding
from tests.faults.stage import Stage, Station

BASELINE_S = 60.0
QUIET_S = 2.0  # who has left is forgotten by then
LOOK_S = 0.25
SPARE_DESCRIPTORS = 8  # connections to PostgreSQL that the pool may open meanwhile, and keeps
LEFT = ("descriptors left", "tasks left", "sessions left")
SETTLED, LIVED = "descriptors, tasks and sessions as before the faults", "rounds that a process has lived through"


@dataclass(frozen=True)
class Footprint:
    """Of one process."""

    descriptors: int
    tasks: int
    sessions: int


class Footprints:
    """The baseline of each process, and how many rounds it has lived through since."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._first: dict[int, Footprint] = {}
        self._rounds: Counter[int] = Counter()

    async def look(self) -> None:
        """A round is over: count it for those that live, and take the baseline of those that are new."""
        new = [station for station in self._stage.stations if station.process.pid not in self._first]
        self._rounds.update(station.process.pid for station in self._stage.stations if station not in new)
        if new:
            await asyncio.sleep(QUIET_S)
            for station in new:
                self._first[station.process.pid] = await footprint(station)

    async def settled(self) -> list[Finding]:
        """How long it takes until each process holds what it held at first, and what it holds if that is too long."""
        begun, spare = monotonic(), (SPARE_DESCRIPTORS, 0, 0)
        known = [station for station in self._stage.stations if station.process.pid in self._first]
        if not known:
            return []
        while True:
            left = [0.0, 0.0, 0.0]
            for station in known:
                first, now = astuple(self._first[station.process.pid]), astuple(await footprint(station))
                for n, (was, is_now, more) in enumerate(zip(first, now, spare, strict=True)):
                    left[n] += max(0, is_now - was - more)
            taken_s = monotonic() - begun
            if not any(left) or taken_s > BASELINE_S:
                break
            await asyncio.sleep(LOOK_S)
        lived = max(self._rounds[station.process.pid] for station in known)
        return [
            Finding(SETTLED, taken_s, BASELINE_S, "s"),
            *(Finding(name, value, 0.0, "") for name, value in zip(LEFT, left, strict=True)),
            Finding(LIVED, float(lived), None, ""),
        ]


async def footprint(station: Station) -> Footprint:
    """Of an instance's process, now."""
    gauges = {name: float(value) for name, value in await station.scrape(r"parley_(tasks|sessions) (\S+)")}
    descriptors = len(list(Path(f"/proc/{station.process.pid}/fd").iterdir()))
    return Footprint(descriptors, int(gauges["tasks"]), int(gauges["sessions"]))
