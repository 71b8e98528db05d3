"""What the instances hold of descriptors, tasks and sessions: when all is over, no more than before."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from time import monotonic

import aiohttp

from tests.faults.registry import Finding
from tests.faults.stage import Stage, Station

BASELINE_S = 60.0
QUIET_S = 2.0  # who has left is forgotten by then
LOOK_S = 0.25
SPARE_DESCRIPTORS = 8  # connections to PostgreSQL that the pool may open meanwhile, and keeps


@dataclass(frozen=True)
class Footprint:
    """Of one instance."""

    descriptors: int
    tasks: int
    sessions: int


async def footprints(stage: Stage) -> list[Footprint]:
    """Of each instance, now."""
    return [await _of(station) for station in stage.stations]


async def baseline(stage: Stage) -> list[Footprint]:
    """Of each instance, when it has been quiet for a moment."""
    await asyncio.sleep(QUIET_S)
    return await footprints(stage)


async def _of(station: Station) -> Footprint:
    async with aiohttp.ClientSession() as http, http.get(f"{station.process.url}/metrics") as response:
        text = await response.text()
    gauges = {name: float(value) for name, value in re.findall(r"^parley_(tasks|sessions) (\S+)$", text, re.MULTILINE)}
    descriptors = len(list(Path(f"/proc/{station.process.pid}/fd").iterdir()))
    return Footprint(descriptors, int(gauges["tasks"]), int(gauges["sessions"]))


async def settled(stage: Stage, before: Sequence[Footprint]) -> list[Finding]:
    """How long it takes until all is as it was, and what is left when that takes too long."""
    begun, spare = monotonic(), (SPARE_DESCRIPTORS, 0, 0)
    while True:
        now = await footprints(stage)
        left = [
            max(0, is_now - was - more)
            for each, one in zip(before, now, strict=True)
            for was, is_now, more in zip(astuple(each), astuple(one), spare, strict=True)
        ]
        taken_s = monotonic() - begun
        if not any(left) or taken_s > BASELINE_S:
            names = ("descriptors", "tasks", "sessions")
            found = [Finding(f"{name} left", float(sum(left[n::3])), 0.0, "") for n, name in enumerate(names)]
            return [Finding("descriptors, tasks and sessions as before the faults", taken_s, BASELINE_S, "s"), *found]
        await asyncio.sleep(LOOK_S)
