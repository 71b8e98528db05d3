"""Which threads are hot."""

from __future__ import annotations

from uuid import UUID

import pytest

from handlers import heat, threads
from server.commands.context import Work, work
from server.errors import Unavailable
from tests.people import Instance, Person
from tests.threads import new_thread, rows


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def test_a_thread_is_hot_whose_hundredth_latest_event_is_younger_than_a_day(
    parley: Instance, amina: Person, thread: str
) -> None:
    phone, jobs = await amina.connect(), parley.parley.jobs

    async def age(hours: int) -> None:
        async with parley.parley.database.connection() as db:
            await db.execute(
                "update room_events set at = now() - make_interval(hours => $2) where room_id = $1", thread, hours
            )

    async def log(events: int) -> None:
        async def unit(at_work: Work) -> None:
            await threads.lock_thread(at_work, UUID(thread))
            await at_work.lock(threads.thread_room(UUID(thread)))
            for _ in range(events):
                await threads.tell_changed(at_work, UUID(thread))

        await work(parley.parley.services, unit)

    async def turned() -> bool:
        await jobs.turn_threads()
        return bool((await amina.post("thread:get", thread_id=thread))["is_hot"])

    await log(99)
    assert not await turned()
    await log(1)
    assert await turned()
    assert (await phone.hearing("thread:changed", is_hot=True)).payload["version"] == 1
    await age(23)
    assert await turned()
    await age(25)
    assert not await turned()
    assert [push.payload["is_hot"] for push in phone.heard if push.name == "thread:changed"][-1] is False


async def test_threads_are_judged_page_by_page(
    parley: Instance, amina: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.heat.LOOKED_AT", 3)
    made = [await new_thread(amina) for _ in range(4)]
    async with parley.parley.database.connection() as db:
        await db.execute("update threads set is_hot = true where thread_id = any ($1::uuid[])", made)
    assert await parley.parley.jobs.turn_threads() >= 4
    found = [await amina.post("thread:get", thread_id=thread) for thread in made]
    assert not any(one["is_hot"] for one in found)


async def test_a_thread_that_cannot_turn_keeps_no_other_waiting(
    parley: Instance, amina: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = [await new_thread(amina) for _ in "ab"]
    await rows(parley, "update threads set is_hot = true where thread_id = any ($1::uuid[])", [stuck, other])
    real = heat._turn

    async def broken(thread_id: UUID, at_work: Work) -> bool:
        if str(thread_id) == stuck:
            raise Unavailable
        return await real(thread_id, at_work)

    monkeypatch.setattr(heat, "_turn", broken)
    await parley.parley.jobs.turn_threads()
    assert [(await amina.post("thread:get", thread_id=each))["is_hot"] for each in (stuck, other)] == [True, False]
