"""Likes and views, and how they are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from handlers import likes as likes_handler
from handlers.likes import write_counts
from server.errors import Unavailable
from tests.locks import holding_by
from tests.market import listed, refused, seen, update, watch
from tests.people import Instance, Person


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def counted(parley: Instance, owner: Person, listing: dict[str, Any], **counts: int) -> dict[str, Any]:
    """Write until a listing's counts are these: whoever looks for its counterparts may hold it for a moment."""
    async with asyncio.timeout(5):
        while True:
            await write_counts(parley.parley.services)
            one: dict[str, Any] = await seen(owner, listing)
            if counts.items() <= one.items():
                return one


async def test_likes_are_counted_exactly_in_the_answer_and_soon_for_others(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    made = await listed(amina)
    asked = {"listing_id": made["listing_id"]}
    for _ in range(2):
        liked = await bilal.post("listing:like", **asked, on=True)
        assert (liked["likes"], liked["liked"]) == (1, True)
    assert (await amina.post("listing:like", **asked, on=True))["likes"] == 2
    assert (await counted(parley, amina, made, likes=2))["liked"] is True
    assert [(await seen(bilal, made))[name] for name in ("likes", "liked")] == [2, True]
    for _ in range(2):
        assert (await amina.post("listing:like", **asked, on=False))["likes"] == 1
    await counted(parley, amina, made, likes=1)


async def test_views_of_others_are_counted_and_of_the_owner_not(parley: Instance, amina: Person, bilal: Person) -> None:
    made = await listed(amina)
    for person in (amina, bilal, bilal, amina):
        await seen(person, made)
    await counted(parley, amina, made, views=2)
    await write_counts(parley.parley.services)
    assert (await seen(amina, made))["views"] == 2


async def test_counts_come_of_themselves_and_move_nothing_else(amina: Person, bilal: Person) -> None:
    made = await listed(amina)
    device = await watch(bilal, made)
    await bilal.post("listing:like", listing_id=made["listing_id"], on=True)
    await seen(bilal, made)
    async with asyncio.timeout(5):
        while (one := await seen(amina, made))["views"] != 1 or one["likes"] != 1:
            await asyncio.sleep(0.05)
    assert one == {**made, "views": 1, "likes": 1}
    await update(amina, made, title="Another")
    push = await device.hearing("listing:changed")
    assert (push.payload["views"], push.payload["likes"], push.seq) == (1, 1, 1)


async def test_counts_wait_for_no_lock_and_nothing_is_lost(parley: Instance, amina: Person, bilal: Person) -> None:
    held_one, other = await listed(amina), await listed(amina)
    locking = "select from listings where listing_id = $1 for no key update"
    async with holding_by(parley.dsn, locking, UUID(held_one["listing_id"])):
        for one in (held_one, other):
            await seen(bilal, one)
            await bilal.post("listing:like", listing_id=one["listing_id"], on=True)
        await counted(parley, amina, other, views=1, likes=1)
        held = await seen(amina, held_one)
        assert (held["views"], held["likes"]) == (0, 0)
    await counted(parley, amina, held_one, views=1, likes=1)


async def test_counts_of_what_is_gone_are_dropped_and_what_is_held_keeps_no_other_waiting(
    parley: Instance, amina: Person, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likes_handler, "BATCH", 1)
    held_one, other, gone = await listed(amina), await listed(amina), uuid4()
    tallies = parley.parley.services.tallies
    locking = "select from listings where listing_id = $1 for no key update"
    async with holding_by(parley.dsn, locking, UUID(held_one["listing_id"])):
        tallies.liked.add(gone)
        tallies.views[gone] += 1
        for one in (held_one, other):
            await seen(bilal, one)
        await counted(parley, amina, other, views=1)
        assert (set(tallies.views), tallies.liked) == ({UUID(held_one["listing_id"])}, set())


async def test_what_is_deleted_while_somebody_likes_it_is_not_found(
    amina: Person, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await listed(amina)
    real = likes_handler.likes.set_like

    async def late(db: Any, user_id: UUID, listing_id: UUID, *, on: bool) -> bool:
        await db.execute("delete from listings where listing_id = $1", listing_id)
        return await real(db, user_id, listing_id, on=on)

    monkeypatch.setattr("storage.likes.set_like", late)
    error = await refused(bilal, "listing:like", listing_id=made["listing_id"], on=True)
    assert error["code"] == "not_found"


async def test_counts_that_could_not_be_written_are_written_later(
    parley: Instance, amina: Person, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await listed(amina)

    async def fail(*_: Any) -> None:
        raise Unavailable

    monkeypatch.setattr(likes_handler, "_write", fail)
    await seen(bilal, made)
    with pytest.raises(Unavailable):
        await write_counts(parley.parley.services)
    monkeypatch.undo()
    await write_counts(parley.parley.services)
    assert (await seen(amina, made))["views"] == 1


async def test_an_instance_that_stops_writes_what_it_has_counted(
    new_instance: Callable[..., Awaitable[Instance]], parley: Instance, amina: Person, bilal: Person
) -> None:
    made = await listed(amina)
    other = await Instance(parley.dsn).start()
    other.parley.services.tallies.views[UUID(made["listing_id"])] = 3
    await other.stop()
    assert (await seen(amina, made))["views"] == 3


async def test_likes_of_many_at_once_are_all_counted(parley: Instance, amina: Person) -> None:
    made = await listed(amina)
    people = [await parley.person(f"p{n}") for n in range(8)]
    asked = {"listing_id": made["listing_id"], "on": True}
    await asyncio.gather(*(person.post("listing:like", **asked) for person in people))
    assert (await people[0].post("listing:like", **asked))["likes"] == 8
    await write_counts(parley.parley.services)
    assert (await seen(amina, made))["likes"] == 8
