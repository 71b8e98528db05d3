"""What a process holds is held against what the same process held, not another that has its place."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.faults import footprints
from tests.faults.footprints import LIVED, Footprint, Footprints


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[int, Footprint]:
    """What processes hold, by pid."""
    by_pid: dict[int, Footprint] = {}

    async def footprint(station: SimpleNamespace) -> Footprint:
        return by_pid[station.process.pid]

    monkeypatch.setattr(footprints, "footprint", footprint)
    monkeypatch.setattr(footprints, "QUIET_S", 0.0)
    monkeypatch.setattr(footprints, "BASELINE_S", 0.0)
    return by_pid


async def test_what_is_left_is_of_each_process_since_it_was_new(held: dict[int, Footprint]) -> None:
    held |= {1: Footprint(50, 20, 0), 2: Footprint(50, 20, 0), 3: Footprint(90, 60, 0)}
    first, second = (SimpleNamespace(process=SimpleNamespace(pid=pid)) for pid in (1, 2))
    watched = Footprints(SimpleNamespace(stations=[first, second]))  # type: ignore[arg-type]
    assert await watched.settled() == []
    for _ in range(3):
        await watched.look()
    held[1] = Footprint(60, 23, 1)
    second.process.pid = 3
    left = {finding.name: finding.value for finding in await watched.settled()}
    assert [left[name] for name in footprints.LEFT] == [2.0, 3.0, 1.0]
    assert left[LIVED] == 2
    await watched.look()
    held[1], held[3] = Footprint(58, 20, 0), Footprint(91, 61, 0)
    left = {finding.name: finding.value for finding in await watched.settled()}
    assert [left[name] for name in footprints.LEFT] == [0.0, 1.0, 0.0]
