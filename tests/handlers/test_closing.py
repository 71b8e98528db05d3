"""Listings end: closed, expired, or put off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from handlers.closing import expire_listings
from rules.users import Role
from server.errors import Unavailable
from server.rooms.bus import LocalBus, LocalHub
from storage import listings, users
from tests.market import listed, move, offer, refused, seen, set_, stock, thread_of, watch
from tests.people import Instance, Person


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


@pytest.fixture
async def admin(parley: Instance) -> Person:
    """Who may close what is not theirs."""
    root = await parley.person("root")
    async with parley.parley.database.connection() as db:
        await users.set_roles(db, UUID(root.user_id), [Role.ADMIN])
    return root


def ago(**time: float) -> str:
    """A time before now, or, of a negative one, after it."""
    return (datetime.now(UTC) - timedelta(**time)).isoformat()


async def run_out(parley: Instance, listing: dict[str, Any]) -> None:
    """Let a listing's time be over."""
    await set_(
        parley, "update listings set expires_at = now() - interval '1 s' where listing_id = $1", listing["listing_id"]
    )


async def test_a_closed_listing_is_closed_for_good(amina: Person, bilal: Person) -> None:
    thread = await thread_of(amina, bilal)
    made = await listed(amina, thread_id=thread)
    device = await watch(bilal, made)
    for _ in range(2):
        closed = await amina.post("listing:close", listing_id=made["listing_id"])
        assert (closed["status"], closed["version"]) == ("closed", 1)
    await amina.post("thread:update", thread_id=thread, version=1, title="later")
    await device.hearing("thread:changed")
    assert sorted(push.room or "" for push in device.heard if push.name == "listing:closed") == sorted(
        [f"thread:{thread}", f"listing:{made['listing_id']}"]
    )
    for command, more in {"listing:update": {"version": 1, "title": "x"}, "listing:extend": {}}.items():
        error = await refused(amina, command, listing_id=made["listing_id"], **more)
        assert (error["reason"], error["current"]) == ("listing_changed", closed)


async def test_administrators_close_what_is_not_theirs(amina: Person, admin: Person) -> None:
    made = await listed(amina)
    assert (await admin.post("listing:close", listing_id=made["listing_id"]))["status"] == "closed"


async def test_what_is_negotiated_ends_with_the_listing(amina: Person, bilal: Person) -> None:
    made = await listed(amina)
    offered = await offer(bilal, made)
    device = await bilal.connect()
    await amina.post("listing:close", listing_id=made["listing_id"])
    push = await device.hearing("negotiation:changed")
    assert push.payload["status"] == "closed"
    after = await bilal.post("negotiation:get", negotiation_id=offered["negotiation"]["negotiation_id"])
    told = {"status": "cancelled", "close_reason": "listing_closed"}
    assert {name: after["current_offer"][name] for name in told} == told


async def test_what_has_been_agreed_outlives_the_listing(amina: Person, bilal: Person) -> None:
    made = await listed(amina)
    deal = await move(amina, "accept", await offer(bilal, made))
    await amina.post("listing:close", listing_id=made["listing_id"])
    assert deal["negotiation"]["status"] == "agreed"
    after = await bilal.post("negotiation:get", negotiation_id=deal["negotiation"]["negotiation_id"])
    assert after["status"] == "agreed"
    assert (await seen(amina, made))["reserved"] == 1


async def test_a_listing_is_expired_at_its_time_and_everybody_hears_of_it(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    made = await listed(amina)
    offered = await offer(bilal, made)
    device = await watch(bilal, made)
    await run_out(parley, made)
    push = await device.hearing("listing:expired", listing_id=made["listing_id"])
    assert (push.room, push.payload["status"]) == (f"listing:{made['listing_id']}", "expired")
    after = await bilal.post("negotiation:get", negotiation_id=offered["negotiation"]["negotiation_id"])
    assert (after["status"], after["current_offer"]["close_reason"]) == ("closed", "listing_closed")


async def test_an_expiry_that_nobody_has_written_yet_is_seen(
    parley: Instance, amina: Person, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rest(_: Any) -> int:
        return 0

    monkeypatch.setattr("server.jobs.expire_listings", rest)
    made = await listed(amina)
    await run_out(parley, made)
    assert (await seen(bilal, made))["status"] == "expired"
    assert (await stock(parley, made))[2] == "active"


async def test_many_instances_expire_a_listing_once(new_instance: Callable[..., Awaitable[Instance]]) -> None:
    hub = LocalHub()
    instances = [await new_instance(bus=LocalBus(hub)) for _ in range(3)]
    amina = await instances[0].person("amina")
    made = [await listed(amina) for _ in range(5)]
    device = await amina.connect()
    for one in made:
        await device.call("room:join", room=f"listing:{one['listing_id']}")
        await run_out(instances[0], one)
    await asyncio.gather(*(expire_listings(each.parley.services) for each in instances for _ in range(3)))
    for one in made:
        await device.hearing("listing:expired", listing_id=one["listing_id"])
        await amina.post("listing:extend", listing_id=one["listing_id"])
        await device.hearing("listing:changed", listing_id=one["listing_id"])
    names = [push.name for push in device.heard if push.name.startswith("listing:")]
    assert sorted(names) == ["listing:changed"] * 5 + ["listing:expired"] * 5


async def test_one_that_does_not_end_keeps_no_other_from_it(
    parley: Instance, amina: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = await listed(amina), await listed(amina)
    device = await watch(amina, other)
    lock = listings.lock_expired

    async def refuse(db: Any, listing_id: UUID) -> Any:
        if str(listing_id) == stuck["listing_id"]:
            raise Unavailable
        return await lock(db, listing_id)

    monkeypatch.setattr(listings, "lock_expired", refuse)
    for one in (stuck, other):
        await run_out(parley, one)
    await expire_listings(parley.parley.services)
    await device.hearing("listing:expired", listing_id=other["listing_id"])
    monkeypatch.undo()
    await expire_listings(parley.parley.services)


async def test_an_expired_listing_gets_more_time(parley: Instance, amina: Person, bilal: Person) -> None:
    made = await listed(amina)
    device = await watch(bilal, made)
    await run_out(parley, made)
    await expire_listings(parley.parley.services)
    await device.hearing("listing:expired")
    again = await amina.post("listing:extend", listing_id=made["listing_id"])
    assert (again["status"], again["version"]) == ("active", 1)
    assert again["expires_at"] >= made["expires_at"]
    assert (await device.hearing("listing:changed")).payload["status"] == "active"


async def test_an_end_is_put_off_and_not_brought_forward(amina: Person) -> None:
    made = await listed(amina, expires_at=ago(days=-60))
    asked = {"listing_id": made["listing_id"]}
    assert (await amina.post("listing:extend", **asked)) == made  # it ends later than in thirty days already
    later = await amina.post("listing:extend", **asked, expires_at=ago(days=-364))
    assert later["expires_at"] > made["expires_at"]
    assert await amina.post("listing:extend", **asked, expires_at=later["expires_at"]) == later
    for at in (made["expires_at"], ago(seconds=1), ago(days=-366)):
        error = await refused(amina, "listing:extend", **asked, expires_at=at)
        assert list(error["fields"]) == ["expires_at"]
