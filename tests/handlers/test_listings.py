"""Listings: offered, looked at, changed under a version, liked, ended and given more time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from rules.users import Role
from storage import listings, users
from tests.locks import holding_by
from tests.market import eur, listed, refused, seen, set_, thread_of, update, watch
from tests.people import Instance, Person

FIELDS = {
    *("listing_id", "user_id", "thread_id", "kind", "title", "description", "price", "category", "condition"),
    *("quantity", "reserved", "sold", "feed", "images", "video", "thumbnail", "location", "distance_m", "status"),
    *("views", "likes", "liked", "version", "expires_at", "at"),
}


PICTURE = "https://example.org/lamp.jpg"


WHOLE = {
    "kind": "for_sale",
    "title": "مصباح القمر",
    "description": "Glows.",
    "price": {"amount": 10_000, "currency": "KWD"},
    "category": "home_decor",
    "condition": "like_new",
    "quantity": 3,
    "feed": "discover",
    "images": [PICTURE],
    "video": "https://example.org/lamp.mp4",
    "thumbnail": PICTURE,
    "location": {"lat": -33.4, "lng": 151},
}


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


# offered


async def test_a_listing_is_what_the_contract_says(amina: Person, bilal: Person) -> None:
    made = await amina.post("listing:create", client_id="a", **WHOLE)
    assert set(made) == FIELDS
    assert {name: made[name] for name in WHOLE} == WHOLE
    assert (made["user_id"], made["thread_id"], made["status"], made["version"]) == (amina.user_id, None, "active", 1)
    assert [made[name] for name in ("reserved", "sold", "views", "likes", "liked", "distance_m")] == [
        *(0, 0, 0, 0, False, None)
    ]
    assert await seen(bilal, made) == made
    ends = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < ends < timedelta(days=30, hours=1)


async def test_a_listing_needs_no_more_than_what_it_is_about(amina: Person) -> None:
    made = await listed(amina, description="")
    assert (made["condition"], made["quantity"], made["feed"], made["images"]) == (None, 1, "community", [])
    assert (made["video"], made["thumbnail"], made["location"]) == (None, None, None)


async def test_a_repeat_is_the_same_listing_as_it_is_now(amina: Person) -> None:
    made = await listed(amina, client_id="a")
    changed = await update(amina, made, title="Another")
    assert await listed(amina, client_id="a") == changed
    error = await refused(amina, "listing:create", client_id="a", **{**WHOLE, "title": "Not the same"})
    assert (error["reason"], error["current"]["listing_id"]) == ("key_reuse", made["listing_id"])


async def test_a_listing_ends_when_its_owner_says(amina: Person) -> None:
    asked = ago(days=-364)
    made = await listed(amina, expires_at=asked)
    assert datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(asked) < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("price", None, "price"),
        *(
            ("price", {"amount": amount, "currency": "EUR"}, "price.amount")
            for amount in (0, -1, 1.0, "5", True, 2**53)
        ),
        *(("price", {"amount": 5, "currency": code}, "price.currency") for code in ("eur", "XXX", "XTS", "EURO", 5)),
        ("price", {"amount": 5}, "price.currency"),
        ("price", {"amount": 5, "currency": "EUR", "tax": 1}, "price.tax"),
        ("title", "", "title"),
        ("kind", "gift", "kind"),
        ("category", "cars", "category"),
        ("condition", "old", "condition"),
        ("feed", "home", "feed"),
        *(("quantity", count, "quantity") for count in (0, -1, 1.5, True, 1_000_001)),
        *(("video", url, "video") for url in ("http://example.org", "javascript:alert(1)", "https://", "https://a b")),
        ("images", ["https://example.org", "no"], "images[1]"),
        ("images", PICTURE, "images"),
        *(("location", {"lat": lat, "lng": 0}, "location.lat") for lat in (90.1, -91, "5", True)),
        *(("location", {"lat": 0, "lng": lng}, "location.lng") for lng in (180.1, -181, None)),
        ("location", {"lat": 0}, "location.lng"),
        ("expires_at", "tomorrow", "expires_at"),
        ("expires_at", "2030-01-01T00:00:00", "expires_at"),
        ("expires_at", "0001-01-01T00:00:00+10:00", "expires_at"),
        ("expires_at", "9999-12-31T23:59:59-10:00", "expires_at"),
        ("expires_at", "2020-01-01T00:00:00Z", "expires_at"),
        ("expires_at", "2099-01-01T00:00:00Z", "expires_at"),
        ("color", "red", "color"),
        ("client_id", "", "client_id"),
    ],
)
async def test_a_listing_of_no_valid_form_is_refused(amina: Person, field: str, value: Any, path: str) -> None:
    error = await refused(amina, "listing:create", **{**WHOLE, "client_id": "a", field: value})
    assert (error["code"], list(error["fields"])) == ("invalid", [path])


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("title", "ع" * 201, 200),
        ("description", "x" * 10_001, 10_000),
        ("images", [PICTURE] * 21, 20),
        ("video", "https://example.org/" + "x" * 2_000, 2_000),
    ],
)
async def test_what_is_too_long_is_refused(amina: Person, field: str, value: Any, limit: int) -> None:
    error = await refused(amina, "listing:create", **{**WHOLE, "client_id": "a", field: value})
    assert (error["code"], error["limit"]) == ("too_large", limit)


# in a thread


async def test_a_threads_members_list_in_it_and_all_of_them_hear_of_it(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    thread = await thread_of(amina, bilal)
    device = await amina.connect()
    made = await listed(bilal, thread_id=thread)
    push = await device.hearing("listing:created")
    assert push.room == f"thread:{thread}"
    assert push.payload == {name: value for name, value in made.items() if name not in ("liked", "distance_m")}
    stranger = await parley.person("stranger")
    assert await seen(stranger, made) == made


async def test_who_is_not_in_a_thread_does_not_list_in_it(parley: Instance, amina: Person, bilal: Person) -> None:
    thread = await thread_of(amina, bilal)
    await bilal.post("thread:leave", thread_id=thread)
    for person in (bilal, await parley.person("stranger")):
        error = await refused(person, "listing:create", client_id="a", thread_id=thread, **WHOLE)
        assert error["code"] == "forbidden"
    gone = await thread_of(amina)
    await set_(parley, "update threads set deleted_at = now() where thread_id = $1", gone)
    for thread_id in (gone, str(uuid4())):
        assert (await refused(amina, "listing:create", client_id="a", thread_id=thread_id, **WHOLE))[
            "code"
        ] == "not_found"


async def test_nobody_lists_in_a_thread_that_is_being_deleted(parley: Instance, amina: Person) -> None:
    thread = await thread_of(amina)
    deleting = "update threads set deleted_at = now() where thread_id = $1"
    async with holding_by(parley.dsn, deleting, UUID(thread)) as held:
        listing = asyncio.create_task(refused(amina, "listing:create", client_id="a", thread_id=thread, **WHOLE))
        await held.stands_in_the_way_of()
    assert (await listing)["code"] == "not_found"


async def test_what_is_gone_is_seen_by_nobody(parley: Instance, amina: Person, bilal: Person) -> None:
    thread = await thread_of(amina)
    in_thread, alone = await listed(amina, thread_id=thread), await listed(amina)
    await set_(parley, "update threads set deleted_at = now() where thread_id = $1", thread)
    await set_(parley, "update listings set deleted_at = now() where listing_id = $1", alone["listing_id"])
    device = await bilal.connect()
    for listing_id in (in_thread["listing_id"], alone["listing_id"], str(uuid4())):
        for command, more in {
            "listing:get": {},
            "listing:like": {"on": True},
            "listing:update": {"version": 1, "title": "x"},
            "listing:close": {},
            "listing:extend": {},
            "faq:ask": {"text": "?", "client_id": "a"},
            "faq:list": {},
        }.items():
            assert (await refused(amina, command, listing_id=listing_id, **more))["code"] == "not_found", command
        assert (await device.answer("room:join", room=f"listing:{listing_id}"))["error"]["code"] == "not_found"
        talk = {"kind": "private", "user_ids": [amina.user_id], "client_id": "b", "listing_id": listing_id}
        assert (await refused(bilal, "conversation:create", **talk))["code"] == "not_found"
    async with parley.parley.database.connection() as db:
        assert not await listings.keep_visible(db, UUID(alone["listing_id"]))


# changed


async def test_a_change_of_its_terms_moves_the_version_and_everybody_hears_of_it(amina: Person, bilal: Person) -> None:
    thread = await thread_of(amina, bilal)
    made = await listed(amina, thread_id=thread)
    device = await watch(bilal, made)
    for n, change in enumerate(
        (
            {"title": "Another"},
            {"description": ""},
            {"price": eur(1)},
            {"category": "other"},
            {"condition": "fair"},
            {"condition": None},
            {"quantity": 5},
            {"images": [PICTURE]},
            {"images": None},
        ),
        2,
    ):
        made = await update(amina, made, **change)
        assert made["version"] == n
        assert {name: made[name] for name in change} == {"images": []} if change == {"images": None} else change
        for room in (f"thread:{thread}", f"listing:{made['listing_id']}"):
            heard = await device.until(
                lambda all_, n=n, room=room: [p for p in all_ if p.room == room and p.payload.get("version") == n]
            )
            assert heard[-1].name == "listing:changed"
            assert heard[-1].payload == {k: v for k, v in made.items() if k not in ("liked", "distance_m")}
    assert await seen(bilal, made) == made


async def test_how_it_is_shown_does_not_move_the_version(amina: Person, bilal: Person) -> None:
    made = await listed(amina, video=PICTURE, thumbnail=PICTURE, location={"lat": 1, "lng": 2})
    device = await watch(bilal, made)
    for change in ({"feed": "discover"}, {"location": {"lat": 3.5, "lng": 4}}):
        made = await update(amina, made, **change)
        assert (made["version"], {name: made[name] for name in change}) == (1, change)
        await device.hearing("listing:changed", **change)
    cleared = {"video": None, "thumbnail": None, "location": None}
    made = await update(amina, made, **cleared)
    assert (made["version"], {name: made[name] for name in cleared}) == (1, cleared)


async def test_a_change_is_of_the_version_that_one_saw(amina: Person) -> None:
    made = await listed(amina)
    changed = await update(amina, made, title="Another")
    assert await update(amina, made, title="Another") == changed  # asked again
    for version in (0, 1, 3):
        error = await refused(amina, "listing:update", listing_id=made["listing_id"], version=version, title="A third")
        assert (error["code"], error["reason"], error["current"]) == ("conflict", "version", changed)
    assert await seen(amina, made) == changed


async def test_of_two_changes_at_once_one_is_told_of_the_other(amina: Person) -> None:
    made = await listed(amina)
    asked = {"listing_id": made["listing_id"], "version": 1}
    device = await amina.connect()
    answers = await asyncio.gather(*(device.answer("listing:update", **asked, title=f"{n}") for n in range(4)))
    won = [answer["data"] for answer in answers if answer["ok"]]
    assert len(won) == 1
    assert [answer["error"]["current"] for answer in answers if not answer["ok"]] == won * 3


async def test_nobody_changes_what_is_not_theirs(amina: Person, bilal: Person, admin: Person) -> None:
    made = await listed(amina)
    for person in (bilal, admin):
        for command, more in {"listing:update": {"version": 1, "title": "x"}, "listing:extend": {}}.items():
            assert (await refused(person, command, listing_id=made["listing_id"], **more))["code"] == "forbidden"
    assert (await refused(bilal, "listing:close", listing_id=made["listing_id"]))["code"] == "forbidden"
    assert await seen(amina, made) == made


async def test_no_fewer_pieces_than_are_reserved_or_sold(parley: Instance, amina: Person) -> None:
    made = await listed(amina, quantity=5)
    await set_(parley, "update listings set reserved = 1, sold = 2 where listing_id = $1", made["listing_id"])
    error = await refused(amina, "listing:update", listing_id=made["listing_id"], version=1, quantity=2)
    assert (error["code"], error["fields"]) == (
        "invalid",
        {"quantity": "3 pieces are reserved or sold: not fewer than these"},
    )
    made = await update(amina, made, quantity=3)
    assert made["status"] == "reserved"
    assert (await update(amina, made, quantity=4))["status"] == "active"


async def test_what_nothing_is_left_of_is_sold(parley: Instance, amina: Person, bilal: Person) -> None:
    made = await listed(amina, quantity=5)
    device = await watch(bilal, made)
    await set_(parley, "update listings set sold = 2 where listing_id = $1", made["listing_id"])
    sold = await update(amina, made, quantity=2)
    assert sold["status"] == "sold"
    assert (await device.hearing("listing:sold")).payload["quantity"] == 2
    for command, more in {
        "listing:update": {"version": 2, "quantity": 9},
        "listing:close": {},
        "listing:extend": {},
    }.items():
        error = await refused(amina, command, listing_id=made["listing_id"], **more)
        assert (error["reason"], error["current"]["status"]) == ("sold", "sold"), command


async def test_its_currency_stays(amina: Person) -> None:
    made = await listed(amina)
    asked = {"listing_id": made["listing_id"], "version": 1, "price": {"amount": 1, "currency": "USD"}}
    assert list((await refused(amina, "listing:update", **asked))["fields"]) == ["price.currency"]


@pytest.mark.parametrize("field", ["title", "description", "price", "category", "quantity", "feed"])
async def test_what_it_needs_is_not_cleared(amina: Person, field: str) -> None:
    made = await listed(amina)
    error = await refused(amina, "listing:update", listing_id=made["listing_id"], version=1, **{field: None})
    assert list(error["fields"]) == [field]


# its room


async def test_everybody_may_stand_in_a_listings_room_and_is_served_what_came_before(
    amina: Person, bilal: Person
) -> None:
    made = await listed(amina)
    changed = await update(amina, made, title="Another")
    device = await bilal.connect()
    joined = await device.call("room:join", room=f"listing:{made['listing_id']}", after=0)
    assert (joined["head_seq"], joined["reset"]) == (1, False)
    assert (await device.hearing("listing:changed")).payload["version"] == 2
    again = await bilal.connect(rooms={f"listing:{made['listing_id']}": 0})
    assert again.hello["rooms"][f"listing:{made['listing_id']}"] == 1
    page = await bilal.post("room:sync", room=f"listing:{made['listing_id']}", after=0)
    assert page["events"][0]["payload"]["title"] == changed["title"]


async def test_people_talk_about_a_listing_in_a_conversation_of_its_own(amina: Person, bilal: Person) -> None:
    made = await listed(amina)
    talk = {"kind": "private", "user_ids": [amina.user_id], "listing_id": made["listing_id"]}
    about = await bilal.post("conversation:create", client_id="a", **talk)
    assert about["listing_id"] == made["listing_id"]
    assert (await bilal.post("conversation:create", client_id="b", **talk))["conversation_id"] == about[
        "conversation_id"
    ]
