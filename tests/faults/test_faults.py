"""A short round of every kind of fault: the promise holds, in time, and the fault was felt.

`make faults` plays long ones: where acks may take no longer than without a fault, it takes such a one to see that.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.mutations import MUTATIONS, caught, is_caught
from tests.faults.rounds import CONTROL, Load, faults, play
from tests.faults.stage import Stage, staged

QUICKEST = "recognition_of_repeats sends_doubled"
REPAIRED = r"parley_events_repaired_total (\S+)"
SHORT = Load(people=8, chats=4, pause_s=0.02, before_s=0.1, during_s=None, after_s=0.05, patience_s=20.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(servers_folder: Path) -> AsyncIterator[Stage]:
    """PostgreSQL, Valkey and two instances, which one round after the other is played on."""
    folder = Path(tempfile.mkdtemp(prefix="stage-", dir=servers_folder))
    folder.chmod(0o711)
    async with staged(folder) as made:
        yield made


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", [name for name, fault in faults.items() if not fault.is_long])
async def test_the_promise_holds_through(name: str, stage: Stage) -> None:
    played = await play(stage, faults[name], SHORT)
    assert played.breaches == []
    assert played.is_felt, f"nobody has felt it: {played.measures}, {played.findings}"
    assert played.late == []


@pytest.mark.asyncio(loop_scope="module")
async def test_no_fault_shows_where_there_is_none(stage: Stage) -> None:
    before = [await station.scrape(REPAIRED) for station in stage.stations]
    played = await play(stage, CONTROL, SHORT)
    assert played.breaches == []
    assert [fault.name for fault in faults.values() if replace(played, fault=fault).is_felt] == []
    assert [await station.scrape(REPAIRED) for station in stage.stations] == before


async def test_a_guarantee_taken_out_is_noticed(servers_folder: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="mutation-", dir=servers_folder))
    folder.chmod(0o711)
    mutation = MUTATIONS[QUICKEST]
    played, _ = await caught(folder, mutation)
    assert is_caught(played, mutation)
