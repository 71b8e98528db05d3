"""A short round of every kind of fault: the promise holds, and the fault was felt. `make faults` plays long ones."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.rounds import Load, faults, play
from tests.faults.stage import Stage, staged

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
    assert played.has_shown, f"nobody has felt it: {played.measures}"
