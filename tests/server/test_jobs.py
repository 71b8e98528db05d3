"""What runs at intervals, with a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
import structlog

from server import jobs
from server.errors import Unavailable
from tests.people import PATIENCE_S, Instance

NewInstance = Callable[..., Awaitable[Instance]]


class Clock:
    """asyncio as the jobs see it: its sleeps end when a test says so."""

    def __init__(self) -> None:
        self._asleep: dict[str, tuple[float, asyncio.Event]] = {}
        self._news = asyncio.Condition()

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        task, awake = asyncio.current_task(), asyncio.Event()
        assert task is not None
        async with self._news:
            self._asleep[task.get_name()] = seconds, awake
            self._news.notify_all()
        await awake.wait()

    async def asleep(self, name: str) -> float:
        """Wait until the task of that name sleeps; for how long it would."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: name in self._asleep)
        return self._asleep[name][0]

    async def over(self, name: str) -> float:
        """End that task's sleep, and wait until it sleeps again; for how long it would."""
        await self.asleep(name)
        self._asleep.pop(name)[1].set()
        return await self.asleep(name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(jobs, "asyncio", clock)
    return clock


async def log_events(instance: Instance, *days: float) -> str:
    """A room whose events are so many days old; its id."""
    person = await instance.person("amina")
    async with instance.parley.database.connection() as db:
        await db.execute(
            """with aged as (
                   select seq, days from unnest($2::float8[]) with ordinality as t (days, seq)
               ), moved as (update rooms set last_seq = $3 where room_id = $1)
               insert into room_events (room_id, seq, at, name, payload)
               select $1, seq, now() - make_interval(secs => days * 86400), 'test:done', '{}' from aged""",
            *(person.user_id, days, len(days)),
        )
    return person.user_id


async def seqs(instance: Instance, room_id: str) -> list[int]:
    async with instance.parley.database.connection() as db:
        rows = await db.fetch("select seq from room_events where room_id = $1 order by seq", room_id)
    return [row["seq"] for row in rows]


async def test_a_minute_after_the_start_and_then_hourly_what_is_past_its_retention_goes(
    new_instance: NewInstance, clock: Clock
) -> None:
    parley = await new_instance(PARLEY_RETENTION_DAYS="3")
    room = await log_events(parley, 40, 3.01, 2.99, 0)
    assert await clock.asleep("sweep events") == 60
    assert await seqs(parley, room) == [1, 2, 3, 4]
    assert await clock.over("sweep events") == 3600
    assert await seqs(parley, room) == [3, 4]
    async with parley.parley.database.connection() as db:
        await db.execute("update room_events set at = at - interval '1 hour' where room_id = $1", room)
    assert await clock.over("sweep events") == 3600
    assert await seqs(parley, room) == [4]


async def test_a_sweep_goes_on_until_nothing_is_left_to_sweep(
    new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "SWEEP_BATCH", 2)
    parley = await new_instance()
    room = await log_events(parley, *[31] * 5, 29)
    assert await parley.parley.jobs.sweep() == 5
    assert await seqs(parley, room) == [6]


async def test_connections_are_replaced_a_minute_after_the_start_and_then_hourly(
    new_instance: NewInstance, clock: Clock
) -> None:
    parley = await new_instance(PARLEY_POOL_MIN="2", PARLEY_POOL_MAX="2")
    database, upkeep = parley.parley.database, parley.parley.upkeep
    opened = upkeep.opened

    async def pids() -> set[int]:
        async with database.connection() as one, database.connection() as two:
            return {await db.fetchval("select pg_backend_pid()") for db in (one, two)}

    first = await pids()
    assert await pids() == first
    assert await clock.asleep("expire connections") == 60
    assert await clock.over("expire connections") == 3600
    second = await pids()
    assert not first & second
    assert await clock.over("expire connections") == 3600
    assert not second & await pids()
    async with upkeep.connection():
        assert upkeep.opened == opened, "a new one would look like a crash of PostgreSQL"


async def test_a_job_that_fails_is_tried_again_at_its_time(clock: Clock) -> None:
    outcomes: list[Exception | None] = [Unavailable(), RuntimeError("a bug"), asyncpg.InterfaceError("gone"), None]

    async def job() -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    with structlog.testing.capture_logs() as logged:
        task = asyncio.create_task(jobs._every(7.0, job, "a job"), name="a job")
        for left in (3, 2, 1, 0):
            assert await clock.over("a job") == 7
            assert len(outcomes) == left
        task.cancel()
    assert [line["event"] for line in logged] == ["job_failed"] * 3 + ["job_failed_no_more"]
    assert {line["job"] for line in logged} == {"a job"}
