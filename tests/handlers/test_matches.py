"""Matches: who is found for whom, who hears of it, and what comes of it when both want it."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from handlers.matching import match_listing
from rules.matches import NOISE
from server.commands.registry import Limit
from server.rooms.bus import LocalBus, LocalHub
from storage import matches, matching
from tests.market import eur, listed, move, offer, refused, set_, thread_of
from tests.people import Device, Instance, Person
from tests.servers import execute

NewInstance = Callable[..., Awaitable[Instance]]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


def a_thing() -> str:
    """The name of a thing that no other test wants or sells: two words, so that one that is shared makes no match."""
    return " ".join("".join(random.choices(string.ascii_lowercase, k=12)) + "q" for _ in range(2))


@pytest.fixture
def thing() -> str:
    return a_thing()


async def wanted(person: Person, title: str, **terms: Any) -> dict[str, Any]:
    return await listed(person, kind="wtb", title=title, **terms)


async def sold(person: Person, title: str, **terms: Any) -> dict[str, Any]:
    return await listed(person, title=title, **terms)


async def looked_for(parley: Instance, *listings: dict[str, Any]) -> None:
    """Wait until the counterparts of listings have been looked for."""
    ids = [UUID(each["listing_id"]) for each in listings]
    async with asyncio.timeout(10), parley.parley.database.connection() as db:
        while await db.fetchval(
            "select count(*) from listings where listing_id = any ($1) and matched_edition <> edition", ids
        ):
            await asyncio.sleep(0.005)


@pytest.fixture
async def nothing_to_match(shared_database: str) -> None:
    """Of the listings that other tests have left in this database, the job finds none.

    They are many, more than an instance's own time for a statement may do on a busy machine.
    """
    await execute(shared_database, "update listings set matched_edition = edition where matched_edition <> edition")


async def mine(person: Person, listing: dict[str, Any] | None = None, **more: Any) -> list[dict[str, Any]]:
    asked = {"listing_id": listing["listing_id"]} if listing else {}
    page: dict[str, list[dict[str, Any]]] = await person.post("match:list", **asked, **more)
    return page["matches"]


async def matched(
    parley: Instance, seller: Person, buyer: Person, title: str, **terms: Any
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Something for sale, the same wanted, and their match as the buyer sees it."""
    lamp = await sold(seller, title, **terms)
    wish = await wanted(buyer, title)
    await looked_for(parley, lamp, wish)
    [match] = await mine(buyer, wish)
    return lamp, wish, match


async def act(person: Person, match: dict[str, Any], action: str, **more: Any) -> dict[str, Any]:
    done: dict[str, Any] = await person.post("match:act", match_id=match["match_id"], action=action, **more)
    return done


async def stored(parley: Instance, listing: dict[str, Any]) -> int:
    """How many matches a listing has, whoever may see them."""
    count = "select count(*) from listing_matches where $1 in (source_listing_id, matched_listing_id)"
    async with parley.parley.database.connection() as db:
        found: int = await db.fetchval(count, UUID(listing["listing_id"]))
    return found


async def nothing(*_: object) -> None:
    """Stopped before it came to that."""


async def settled(device: Device, person: Person) -> None:
    """Wait until a device has heard all that has been said in its person's own room since it came."""
    own = f"user:{person.user_id}"
    head = (await person.post("room:sync", room=own, after=0))["head_seq"]
    if head > device.hello["rooms"][own]:
        await device.hearing_up_to(own, head)


def heard_of(device: Device, name: str = "match:") -> list[tuple[str, int, str]]:
    """The pushes about matches that a device has heard."""
    return [(p.name, p.payload["score"], p.payload["status"]) for p in device.heard if p.name.startswith(name)]


@pytest.mark.parametrize("first", ["for_sale", "wtb"])
async def test_a_listing_finds_what_it_belongs_with_and_both_owners_hear_of_it(
    parley: Instance, monkeypatch: pytest.MonkeyPatch, amina: Person, bilal: Person, thing: str, first: str
) -> None:
    monkeypatch.setattr("server.jobs.match_all", nothing)
    phones = [await person.connect() for person in (amina, bilal)]
    terms = {"condition": "good", "location": {"lat": 52.5, "lng": 13.4}}
    old = await listed(amina, kind=first, title=f"A {thing} lamp", **terms)
    await looked_for(parley, old)
    other = "wtb" if first == "for_sale" else "for_sale"
    new = await listed(bilal, kind=other, title=f"{thing} lamp", **terms)
    heard = [await phone.hearing("match:found") for phone in phones]
    match = heard[0].payload
    assert heard[1].payload == match
    shared = {key for key in old if key not in ("liked", "distance_m")}
    assert match["source_listing"] == {key: new[key] for key in shared}
    assert match["matched_listing"] == {key: old[key] for key in shared}
    assert (match["score"], match["quality"], match["status"]) == (100, "excellent", "new")
    assert match["reasons"] == [
        {"reason": reason, "points": points}
        for reason, points in (("text", 50), ("price", 25), ("category", 12), ("near", 8), ("condition", 5))
    ]
    await looked_for(parley, new)
    assert await mine(amina, old) == [match] == await mine(bilal, new)
    assert await mine(bilal, old) == [match]
    assert (await amina.post("mutual:list"))["mutual_matches"] == []


async def test_a_wish_in_arabic_finds_the_same_words_spelt_otherwise(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    word = "".join(random.choices("بتثجحخدذرزسشصضطظعغفقك", k=9))
    lamp = await sold(amina, f"إ{word}ة قديمة للبيع")
    wish = await wanted(bilal, f"مطلوب ا{word}ه")  # noqa: RUF001
    await looked_for(parley, lamp, wish)
    [match] = await mine(bilal, wish)
    assert match["matched_listing"]["listing_id"] == lamp["listing_id"]
    assert match["score"] >= 60


async def test_words_that_say_nothing_of_a_thing_are_noise(parley: Instance) -> None:
    said = (
        "Wanted: looking to buy the new one, I need it for sale, used, selling my cheap second, are you interested in"
        " condition and price? مطلوب للبيع ابحث عن جديد مستعمل في حالة مناسب سعر على شراء اشتري"
    )
    async with parley.parley.database.connection() as db:
        words = await db.fetchval("select leading_words(to_tsvector('parley', searchable($1)))", said)
    assert set(words) - NOISE == {"one"}


async def test_what_changes_changes_its_matches(
    parley: Instance, monkeypatch: pytest.MonkeyPatch, amina: Person, bilal: Person, thing: str
) -> None:
    monkeypatch.setattr("server.jobs.match_all", nothing)
    lamp, wish, match = await matched(parley, amina, bilal, f"{thing} lamp")
    phone = await bilal.connect()
    dear = await amina.post("listing:update", listing_id=lamp["listing_id"], version=1, price=eur(14_000))
    changed = await phone.hearing("match:changed", match_id=match["match_id"])
    assert match["score"] - 20 == changed.payload["score"] == 72
    assert changed.payload["matched_listing"]["price"] == eur(14_000)
    await looked_for(parley, dear)
    assert await mine(bilal, wish) == [changed.payload]
    # Out of reach: it is no match any more, and comes back.
    away = await amina.post("listing:update", listing_id=lamp["listing_id"], version=2, price=eur(30_000))
    await phone.hearing("match:changed", score=0)
    await looked_for(parley, away)
    assert await mine(bilal, wish) == await mine(amina, lamp) == []
    await amina.post("listing:update", listing_id=lamp["listing_id"], version=3, price=eur(10_000))
    await phone.hearing("match:changed", score=match["score"])
    assert [each["match_id"] for each in await mine(bilal, wish)] == [match["match_id"]]
    names = [name for name, _, _ in heard_of(phone)]
    assert names == ["match:changed"] * 3


async def test_where_it_is_counts_too(parley: Instance, amina: Person, bilal: Person, thing: str) -> None:
    place = {"lat": 52.5, "lng": 13.4}
    _, wish, match = await matched(parley, amina, bilal, f"{thing} lamp", location=place)
    wish = await bilal.post("listing:update", listing_id=wish["listing_id"], version=1, location=place)
    assert wish["version"] == 1
    await looked_for(parley, wish)
    [nearer] = await mine(bilal, wish)
    assert nearer["score"] == match["score"] + 8


async def test_a_change_of_place_while_it_is_compared_is_compared_next(
    parley: Instance, monkeypatch: pytest.MonkeyPatch, amina: Person, bilal: Person, thing: str
) -> None:
    monkeypatch.setattr("server.jobs.match_all", nothing)
    monkeypatch.setattr("handlers.listings.match_listing", nothing)
    monkeypatch.setattr("handlers.terms.match_listing", nothing)
    place = {"lat": 52.5, "lng": 13.4}
    lamp, wish = await sold(amina, f"{thing} lamp", location=place), await wanted(bilal, f"{thing} lamp")
    real = matching.note_matched

    async def late(db: Any, *about: Any) -> None:
        monkeypatch.setattr(matching, "note_matched", real)
        await bilal.post("listing:update", listing_id=wish["listing_id"], version=1, location=place)
        await real(db, *about)

    monkeypatch.setattr(matching, "note_matched", late)
    wish_id = UUID(wish["listing_id"])
    assert await match_listing(parley.parley.services, wish_id)
    [match] = await mine(bilal, wish)
    assert await match_listing(parley.parley.services, wish_id)
    [nearer] = await mine(amina, lamp)
    assert nearer["score"] == match["score"] + 8
    assert not await match_listing(parley.parley.services, wish_id)  # nothing is left to be looked for


async def test_what_has_fallen_under_forty_points_is_no_match_to_anybody(
    parley: Instance, monkeypatch: pytest.MonkeyPatch, amina: Person, bilal: Person, thing: str
) -> None:
    monkeypatch.setattr("server.jobs.match_all", nothing)
    lamp, wish, match = await matched(parley, amina, bilal, f"{thing} lamp")
    await act(bilal, match, "interested")
    phone = await amina.connect()
    other = await amina.post("listing:update", listing_id=lamp["listing_id"], version=1, title=f"A {a_thing()}")
    fallen = (await phone.hearing("match:changed", match_id=match["match_id"])).payload
    assert (fallen["quality"], fallen["score"] < 40, fallen["status"]) == (None, True, "new")
    await looked_for(parley, other)
    assert await mine(amina, lamp) == []
    [kept] = await mine(bilal, wish)  # who has acted on it sees what has become of it
    assert (kept["status"], kept["quality"], kept["score"]) == ("interested", None, fallen["score"])
    for action in ("interested", "contacted"):
        error = await refused(amina, "match:act", match_id=match["match_id"], action=action)
        assert (error["reason"], error["current"]) == ("listing_changed", fallen)
    assert "mutual_match" not in await act(bilal, match, "interested")
    asked = {"listing_id": lamp["listing_id"], "listing_version": 2, "price": eur(1), "client_id": "1"}
    assert (await refused(amina, "offer:make", **asked, buyer_id=bilal.user_id))["code"] == "forbidden"
    await amina.post("listing:update", listing_id=lamp["listing_id"], version=2, title=f"{thing} lamp")
    await phone.hearing("match:changed", match_id=match["match_id"], quality="excellent")
    assert "mutual_match" in await act(amina, match, "interested")


async def test_what_changes_otherwise_pushes_nothing(
    parley: Instance, amina: Person, bilal: Person, thing: str
) -> None:
    lamp, _, _ = await matched(parley, amina, bilal, f"{thing} lamp")
    phone = await bilal.connect()
    lamp = await amina.post("listing:update", listing_id=lamp["listing_id"], version=1, quantity=3)
    await looked_for(parley, lamp)
    await settled(phone, bilal)
    assert heard_of(phone) == []


async def test_none_of_ones_own_none_of_a_kind_none_of_the_blocked_none_that_is_over(
    parley: Instance, amina: Person, bilal: Person, thing: str
) -> None:
    dalia, carim = await parley.person("dalia"), await parley.person("carim")
    title = f"{thing} lamp"
    await wanted(amina, title)
    await sold(bilal, title)
    await wanted(dalia, title)
    late = await wanted(carim, title)
    await set_(
        parley,
        "update listings set expires_at = now() - interval '1 s' where listing_id = $1",
        late["listing_id"],
    )
    gone = await wanted(bilal, title)
    await bilal.post("listing:close", listing_id=gone["listing_id"])
    await dalia.post("user:block", user_id=amina.user_id)
    for blocker in (dalia, amina):
        if blocker is amina:
            await dalia.post("user:unblock", user_id=amina.user_id)
            await amina.post("user:block", user_id=dalia.user_id)
        lamp = await sold(amina, title)
        await looked_for(parley, lamp)
        assert await mine(amina, lamp) == []
        assert await stored(parley, lamp) == 0
    await amina.post("user:unblock", user_id=dalia.user_id)
    lamp = await sold(amina, title)
    await looked_for(parley, lamp)
    [match] = await mine(amina, lamp)
    assert match["matched_listing"]["user_id"] == dalia.user_id
    await amina.post("user:block", user_id=dalia.user_id)
    assert await mine(amina, lamp) == await mine(dalia, lamp) == []  # and while they are, neither shows
    error = await refused(dalia, "match:act", match_id=match["match_id"], action="interested")
    assert (error["code"], error["reason"]) == ("conflict", "blocked")
    assert error["current"]["match_id"] == match["match_id"]


async def test_a_threads_listings_are_matched_with_its_members_alone(
    parley: Instance, amina: Person, bilal: Person, thing: str
) -> None:
    thread = await amina.post("thread:create", title="Lamps", category="other", client_id=uuid4().hex)
    here, title = {"thread_id": thread["thread_id"]}, f"{thing} lamp"
    wish = await wanted(bilal, title)
    lamp = await sold(amina, title, **here)
    await looked_for(parley, wish, lamp)
    assert await stored(parley, lamp) == await stored(parley, wish) == 0
    again = await wanted(bilal, title)  # nor the other way round
    await looked_for(parley, again)
    assert await stored(parley, again) == 0
    await bilal.post("thread:join", **here)
    lamp = await amina.post("listing:update", listing_id=lamp["listing_id"], version=1, price=eur(9_000))
    await looked_for(parley, lamp)
    assert len(await mine(amina, lamp)) == len(await mine(bilal, lamp)) == 2
    match = (await mine(bilal, lamp))[0]
    await bilal.post("thread:leave", **here)
    assert await mine(bilal, lamp) == []
    for action in ("viewed", "interested"):
        error = await refused(bilal, "match:act", match_id=match["match_id"], action=action)
        assert error == await refused(bilal, "match:act", match_id=str(uuid4()), action=action)
    assert (await act(amina, match, "interested"))["match"]["status"] == "interested"
    phone, hers = await bilal.connect(), await amina.connect()
    await amina.post("listing:update", listing_id=lamp["listing_id"], version=2, price=eur(14_000))
    await hers.hearing("match:changed")
    await settled(phone, bilal)
    assert heard_of(phone) == []
    await bilal.post("thread:join", **here)
    assert "mutual_match" in await act(bilal, match, "interested")


async def test_in_discover_feed_too(parley: Instance, amina: Person, bilal: Person, thing: str) -> None:
    _, _, match = await matched(parley, amina, bilal, f"{thing} lamp", feed="discover")
    assert match["score"] == 92


async def test_each_sees_their_own_status_and_the_other_hears_nothing_of_it(
    parley: Instance, amina: Person, bilal: Person, thing: str
) -> None:
    lamp, _, match = await matched(parley, amina, bilal, f"{thing} lamp")
    phone, other = await bilal.connect(), await amina.connect()
    for action, status in (
        ("viewed", "viewed"),
        ("contacted", "contacted"),
        ("viewed", "contacted"),
        ("dismissed", "dismissed"),
        ("interested", "interested"),
        ("reported", "dismissed"),
    ):
        done = await act(bilal, match, action, metadata={"where": "the list"})
        assert done == {"match": {**match, "status": status}}
        assert await act(bilal, match, action, metadata={"where": "the list"}) == done
    assert [each["status"] for each in await mine(amina, lamp)] == ["new"]
    await settled(phone, bilal)
    await settled(other, amina)
    statuses = [status for _, _, status in heard_of(phone)]
    assert statuses == ["viewed", "contacted", "dismissed", "interested", "dismissed"]
    assert heard_of(other) == []
    async with parley.parley.database.connection() as db:
        kept = await db.fetch(
            "select action, metadata::text from match_interactions where match_id = $1", UUID(match["match_id"])
        )
    assert {row[0] for row in kept} == {"viewed", "contacted", "dismissed", "interested", "reported"}
    assert {row[1] for row in kept} == {'{"where": "the list"}'}


async def test_what_is_dismissed_is_not_pushed_again_and_listed_on_asking(
    parley: Instance, amina: Person, bilal: Person, thing: str
) -> None:
    lamp, wish, match = await matched(parley, amina, bilal, f"{thing} lamp")
    await act(bilal, match, "dismissed")
    phone, other = await bilal.connect(), await amina.connect()
    dear = await amina.post("listing:update", listing_id=lamp["listing_id"], version=1, price=eur(12_000))
    await other.hearing("match:changed")
    await looked_for(parley, dear)
    await settled(phone, bilal)
    assert heard_of(phone) == []
    assert await mine(bilal, wish) == []
    [dismissed] = await mine(bilal, wish, status="dismissed")
    assert (dismissed["status"], dismissed["score"]) == ("dismissed", 82)


async def test_what_both_want_opens_their_conversation_and_their_negotiation(
    parley: Instance, amina: Person, bilal: Person, thing: str
) -> None:
    lamp, wish, match = await matched(parley, amina, bilal, f"{thing} lamp")
    phones = [await person.connect() for person in (amina, bilal)]
    assert "mutual_match" not in await act(amina, match, "interested")
    done = await act(bilal, match, "interested")
    mutual = done["mutual_match"]
    assert mutual["buyer_listing_id"] == wish["listing_id"]
    assert mutual["seller_listing_id"] == lamp["listing_id"]
    assert (mutual["buyer_user_id"], mutual["seller_user_id"]) == (bilal.user_id, amina.user_id)
    assert (mutual["is_mutual"], mutual["status"], done["match"]["status"]) == (True, "active", "mutual")
    negotiation = await amina.post("negotiation:get", negotiation_id=mutual["negotiation_id"])
    assert (negotiation["status"], negotiation["turn"], negotiation["round"]) == ("open", "none", 0)
    chat = await bilal.post("conversation:get", conversation_id=mutual["conversation_id"])
    assert (chat["kind"], chat["listing_id"]) == ("private", lamp["listing_id"])
    for phone in phones:
        await phone.hearing("conversation:created", conversation_id=mutual["conversation_id"])
        await phone.hearing("negotiation:changed", negotiation_id=mutual["negotiation_id"])
        assert (await phone.hearing("match:mutual")).payload == mutual
        assert (await phone.hearing("match:changed", status="mutual")).payload == done["match"]
    for person in (amina, bilal):
        assert await person.post("mutual:list") == {"mutual_matches": [mutual], "next": None}
        assert await act(person, match, "interested") == done
        assert await act(person, match, "dismissed") == done
        assert await mine(person, lamp) == [done["match"]]
    made = await offer(amina, lamp, buyer_id=bilal.user_id)
    assert made["negotiation"]["negotiation_id"] == mutual["negotiation_id"]


async def test_interest_goes_into_the_negotiation_that_there_is(
    parley: Instance, amina: Person, bilal: Person, thing: str
) -> None:
    lamp, _, match = await matched(parley, amina, bilal, f"{thing} lamp")
    made = await offer(bilal, lamp)
    await act(amina, match, "contacted")
    done = await act(bilal, match, "interested")
    assert done["mutual_match"]["negotiation_id"] == made["negotiation"]["negotiation_id"]
    assert done["mutual_match"]["conversation_id"] == made["negotiation"]["conversation_id"]


async def test_who_has_dismissed_it_since_wants_it_no_more(
    parley: Instance, amina: Person, bilal: Person, thing: str
) -> None:
    _, _, match = await matched(parley, amina, bilal, f"{thing} lamp")
    await act(amina, match, "interested")
    await act(amina, match, "dismissed")
    assert (await act(bilal, match, "interested"))["match"]["status"] == "interested"
    await act(amina, match, "viewed")
    assert "mutual_match" in await act(amina, match, "interested")


@pytest.mark.parametrize(
    ("how", "reason"),
    [("close", "listing_changed"), ("expire", "expired"), ("sell", "sold"), ("close_own", "listing_changed")],
)
async def test_nobody_is_interested_in_what_is_over(
    parley: Instance, amina: Person, bilal: Person, thing: str, how: str, reason: str
) -> None:
    lamp, wish, match = await matched(parley, amina, bilal, f"{thing} lamp")
    await act(amina, match, "interested")
    if how == "close":
        await amina.post("listing:close", listing_id=lamp["listing_id"])
    elif how == "close_own":
        await bilal.post("listing:close", listing_id=wish["listing_id"])
    elif how == "expire":
        sql = "update listings set expires_at = now() - interval '1 s' where listing_id = $1"
        await set_(parley, sql, lamp["listing_id"])
    else:
        await move(amina, "accept", await offer(bilal, lamp))
    error = await refused(bilal, "match:act", match_id=match["match_id"], action="interested")
    closed = wish if how == "close_own" else lamp
    assert (error["code"], error["reason"]) == ("conflict", reason)
    assert error["current"]["listing_id"] == closed["listing_id"]
    assert (await act(amina, match, "interested"))["match"]["status"] == "interested"  # as before
    if how != "sell":  # reserved: it may be had again
        assert await mine(bilal, wish) == []
        assert len(await mine(amina, wish)) == 1  # on which she has acted
    assert (await act(bilal, match, "dismissed"))["match"]["status"] == "dismissed"


async def test_interest_at_the_same_instant_on_two_instances_is_one_mutual_match(
    new_instance: NewInstance, thing: str
) -> None:
    hub = LocalHub()
    rates = dict.fromkeys((f"PARLEY_RATE_{limit.name}" for limit in Limit), "off")
    one, two = [await new_instance(bus=LocalBus(hub), **rates) for _ in range(2)]
    amina, bilal = await one.person("amina"), await two.person("bilal")
    phones = [await amina.connect(), await bilal.connect()]
    title, made = f"{thing} lamp", []
    for _ in range(6):
        lamp = await sold(amina, title)
        wish = await wanted(bilal, title)
        await looked_for(one, lamp, wish)
        match = next(m for m in await mine(bilal, wish) if m["matched_listing"]["listing_id"] == lamp["listing_id"])
        done = await asyncio.gather(*(act(person, match, "interested") for person in (amina, bilal, amina, bilal)))
        mutual = {each["mutual_match"]["mutual_match_id"] for each in done if "mutual_match" in each}
        assert len(mutual) == 1
        made += mutual
        for listing in (lamp, wish):
            owner = amina if listing is lamp else bilal
            await owner.post("listing:close", listing_id=listing["listing_id"])
    for person, phone in zip((amina, bilal), phones, strict=True):
        page = await person.post("mutual:list")
        assert [each["mutual_match_id"] for each in page["mutual_matches"]] == made[::-1]
        await settled(phone, person)
        told = [p.payload["mutual_match_id"] for p in phone.heard if p.name == "match:mutual"]
        assert told == [id_ for id_ in made for _ in range(2)]  # active, and closed with the listing
        opened = [p for p in phone.heard if p.name == "conversation:created"]
        assert len(opened) == 6


async def test_two_instances_that_look_at_once_find_it_once(
    new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch, thing: str
) -> None:
    monkeypatch.setattr("handlers.listings.match_listing", nothing)
    hub = LocalHub()
    one, two = [await new_instance(bus=LocalBus(hub)) for _ in range(2)]
    amina, bilal = await one.person("amina"), await two.person("bilal")
    phone, title = await bilal.connect(), f"{thing} lamp"
    lamp, wish = await sold(amina, title), await wanted(bilal, title)
    ids = [UUID(each["listing_id"]) for each in (lamp, wish)]
    assert await mine(bilal, wish) == []
    await asyncio.gather(
        *(match_listing(each.parley.services, id_) for each in (one, two) for id_ in ids for _ in "ab")
    )
    await settled(phone, bilal)
    assert [name for name, _, _ in heard_of(phone)] == ["match:found"]
    assert len(await mine(bilal, wish)) == 1


@pytest.mark.usefixtures("nothing_to_match")
async def test_a_job_finds_what_an_instance_left_and_one_that_is_had_again(
    parley: Instance, monkeypatch: pytest.MonkeyPatch, amina: Person, bilal: Person, thing: str
) -> None:
    monkeypatch.setattr("handlers.listings.match_listing", nothing)
    title = f"{thing} lamp"
    lamp, wish = await sold(amina, title), await wanted(bilal, title)
    await parley.parley.jobs.match_listings()
    assert len(await mine(bilal, wish)) == 1
    # Expired, it is passed over; with more time it looks again.
    sql = "update listings set expires_at = now() - interval '1 s' where listing_id = $1"
    await set_(parley, sql, lamp["listing_id"])
    await parley.parley.jobs.expire_listings()
    late = await wanted(bilal, title)
    await parley.parley.jobs.match_listings()
    assert await mine(bilal, late) == []
    await amina.post("listing:extend", listing_id=lamp["listing_id"])
    await parley.parley.jobs.match_listings()
    assert len(await mine(bilal, late)) == 1


@pytest.mark.usefixtures("nothing_to_match")
async def test_what_a_suspended_owner_left_waits_for_their_return_and_is_not_looked_at_until_then(
    parley: Instance, monkeypatch: pytest.MonkeyPatch, amina: Person, bilal: Person, thing: str
) -> None:
    monkeypatch.setattr("handlers.listings.match_listing", nothing)
    lamp, wish = await sold(amina, f"{thing} lamp"), await wanted(bilal, f"{thing} lamp")
    as_it_is = "update users set status = $2 where user_id = $1"
    await set_(parley, as_it_is, amina.user_id, "suspended")
    await set_(parley, as_it_is, bilal.user_id, "suspended")
    async with parley.parley.database.connection() as db:
        left = await matching.list_unmatched(db, UUID(int=UUID(lamp["listing_id"]).int - 1), 100)
    assert {UUID(lamp["listing_id"]), UUID(wish["listing_id"])}.isdisjoint(left)
    for person in (amina, bilal):
        await set_(parley, as_it_is, person.user_id, "active")
    await parley.parley.jobs.match_listings()
    assert len(await mine(bilal, wish)) == 1


@pytest.mark.parametrize("ended", ["lamp", "wish"])
async def test_what_ends_while_it_is_compared_is_not_matched(
    parley: Instance, monkeypatch: pytest.MonkeyPatch, amina: Person, bilal: Person, thing: str, ended: str
) -> None:
    real = matching.share_threads
    ends = "update listings set expires_at = now() - interval '1 s' where listing_id = $1"

    async def late(db: Any, thread_ids: Any) -> None:
        await real(db, thread_ids)
        await db.execute(ends, UUID({"lamp": lamp, "wish": wish}[ended]["listing_id"]))

    monkeypatch.setattr("handlers.listings.match_listing", nothing)
    monkeypatch.setattr("storage.matching.share_threads", late)
    lamp, wish = await sold(amina, f"{thing} lamp"), await wanted(bilal, f"{thing} lamp")
    await match_listing(parley.parley.services, UUID(wish["listing_id"]))
    assert await stored(parley, wish) == 0


@pytest.mark.usefixtures("nothing_to_match")
async def test_one_that_fails_keeps_no_other_waiting(
    parley: Instance, monkeypatch: pytest.MonkeyPatch, amina: Person, bilal: Person, thing: str
) -> None:
    real = matching.list_counterparts
    lamp = {}

    async def broken(db: Any, source: Any) -> Any:
        if str(source.listing_id) == lamp["listing_id"]:
            raise asyncpg.QueryCanceledError("too long")
        return await real(db, source)

    monkeypatch.setattr("handlers.listings.match_listing", nothing)
    monkeypatch.setattr("storage.matching.list_counterparts", broken)
    lamp.update(await sold(amina, f"{thing} lamp"))
    wish = await wanted(bilal, f"{thing} lamp")
    await parley.parley.jobs.match_listings()
    assert len(await mine(bilal, wish)) == 1


async def test_pages_are_exact_and_pass_over_what_is_not_shown(
    parley: Instance, monkeypatch: pytest.MonkeyPatch, amina: Person, bilal: Person, thing: str
) -> None:
    monkeypatch.setattr("handlers.matches.LOOK", 3)
    wish, made = await wanted(bilal, f"{thing} lamp"), []
    for _ in range(8):
        lamp = await sold(amina, f"{thing} lamp")
        await looked_for(parley, wish, lamp)
        made += await mine(amina, lamp)
    for match in (made[2], made[5], made[6]):
        await act(bilal, match, "dismissed")
    expected = [made[n]["match_id"] for n in (7, 4, 3, 1, 0)]
    for limit in (1, 2, 3, 50):
        pages, more = [], {}
        while True:
            page = await bilal.post("match:list", listing_id=wish["listing_id"], limit=limit, **more)
            assert len(page["matches"]) <= limit
            pages += page["matches"]
            if page["next"] is None:
                break
            more = {"before": page["next"]}
        assert [each["match_id"] for each in pages] == expected, limit
    assert len(await mine(bilal)) == 5
    assert len(await mine(bilal, status="dismissed")) == 3
    assert await mine(bilal, status="viewed") == []
    monkeypatch.setattr("handlers.matches.LOOKS", 1)
    page = await bilal.post("match:list", listing_id=wish["listing_id"], status="viewed")
    assert page["matches"] == []
    assert page["next"] is not None


async def test_mutual_matches_are_paged(parley: Instance, amina: Person, bilal: Person) -> None:
    made = []
    for _ in range(3):
        _, _, match = await matched(parley, amina, bilal, f"{a_thing()} lamp")
        await act(amina, match, "interested")
        made.append((await act(bilal, match, "interested"))["mutual_match"])
    first = await amina.post("mutual:list", limit=2)
    assert first["mutual_matches"] == [made[2], made[1]]
    assert await amina.post("mutual:list", limit=2, before=first["next"]) == {
        "mutual_matches": [made[0]],
        "next": None,
    }


async def test_a_mutual_match_ends_with_its_negotiation(
    parley: Instance, amina: Person, bilal: Person, thing: str
) -> None:
    lamp, _, match = await matched(parley, amina, bilal, f"{thing} lamp")
    await act(amina, match, "interested")
    mutual = (await act(bilal, match, "interested"))["mutual_match"]
    phone = await bilal.connect()
    await amina.post("listing:close", listing_id=lamp["listing_id"])
    ended = await phone.hearing("match:mutual")
    assert ended.payload == {**mutual, "status": "closed"}
    assert (await bilal.post("mutual:list"))["mutual_matches"] == [ended.payload]


async def test_a_mutual_match_becomes_a_deal_when_it_is_paid(
    parley: Instance, amina: Person, bilal: Person, thing: str
) -> None:
    lamp, _, match = await matched(parley, amina, bilal, f"{thing} lamp")
    await act(amina, match, "interested")
    mutual = (await act(bilal, match, "interested"))["mutual_match"]
    phones = [await person.connect() for person in (amina, bilal)]
    deal = (await move(amina, "accept", await offer(bilal, lamp)))["transaction"]
    for person in (bilal, amina):
        asked = {"transaction_id": deal["transaction_id"]}
        version = (await person.post("transaction:get", **asked))["version"]
        done = await person.post("transaction:confirm", **asked, version=version)
    assert done["status"] == "completed"
    for phone, person in zip(phones, (amina, bilal), strict=True):
        await phone.hearing("match:changed", status="deal_made")
        [kept] = await mine(person, lamp, status="deal_made")
        assert kept["match_id"] == match["match_id"]
        assert (await person.post("mutual:list"))["mutual_matches"] == [{**mutual, "status": "deal_made"}]
    assert (await act(bilal, match, "dismissed"))["match"]["status"] == "deal_made"


async def paid(seller: Person, buyer: Person, deal: dict[str, Any]) -> dict[str, Any]:
    """A deal in which both have said that it was paid."""
    for person in (buyer, seller):
        deal = await person.post("transaction:confirm", transaction_id=deal["transaction_id"], version=deal["version"])
    return deal


@pytest.mark.parametrize("how", ["by another negotiation", "at the asked price"])
async def test_a_mutual_match_becomes_a_deal_in_whichever_way_the_two_deal(
    parley: Instance, amina: Person, bilal: Person, thing: str, how: str
) -> None:
    lamp, _, match = await matched(parley, amina, bilal, f"{thing} lamp")
    await act(amina, match, "interested")
    await act(bilal, match, "interested")
    if how == "at the asked price":
        asked = {"listing_id": lamp["listing_id"], "version": lamp["version"], "client_id": uuid4().hex}
        deal = (await bilal.post("listing:buy", **asked))["transaction"]
    else:
        late = (await move(amina, "accept", await offer(bilal, lamp)))["transaction"]
        await set_(parley, "update transactions set pay_by = now() where transaction_id = $1", late["transaction_id"])
        await parley.parley.jobs.lapse_deals()
        deal = (await move(amina, "accept", await offer(bilal, lamp)))["transaction"]
        assert deal["negotiation_id"] != late["negotiation_id"]
    [ended] = (await bilal.post("mutual:list"))["mutual_matches"]
    assert ended["status"] == "closed"
    phone = await amina.connect()
    assert (await paid(amina, bilal, deal))["status"] == "completed"
    await phone.hearing("match:changed", status="deal_made")
    assert (await bilal.post("mutual:list"))["mutual_matches"] == [{**ended, "status": "deal_made"}]


async def test_a_deal_is_paid_while_the_thread_of_what_was_wanted_is_deleted(
    parley: Instance, amina: Person, bilal: Person, thing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread_id, lamp = await thread_of(bilal, amina), await sold(amina, thing)
    wish = await wanted(bilal, thing, thread_id=thread_id)
    await looked_for(parley, lamp, wish)
    [match] = await mine(bilal, wish)
    await act(amina, match, "interested")
    await act(bilal, match, "interested")
    deal = (await move(amina, "accept", await offer(bilal, lamp)))["transaction"]
    list_seen = matches.list_seen

    async def list_seen_before_it_goes(*asked: Any) -> Any:
        found = await list_seen(*asked)
        await set_(parley, "update threads set deleted_at = now() where thread_id = $1", thread_id)
        return found

    monkeypatch.setattr(matches, "list_seen", list_seen_before_it_goes)
    assert (await paid(amina, bilal, deal))["status"] == "completed"


async def test_metadata_is_an_object_of_four_kibibytes(
    parley: Instance, amina: Person, bilal: Person, thing: str
) -> None:
    _, _, match = await matched(parley, amina, bilal, f"{thing} lamp")
    asked = {"match_id": match["match_id"], "action": "viewed"}
    error = await refused(bilal, "match:act", **asked, metadata={"why": "x" * 4_096})
    assert (error["code"], error["limit"]) == ("too_large", 4_096)
    assert (await refused(bilal, "match:act", **asked, metadata=["x"]))["code"] == "invalid"
    assert (await refused(bilal, "match:act", **{**asked, "action": "liked"}))["code"] == "invalid"


async def test_nobody_else_sees_a_match(parley: Instance, amina: Person, bilal: Person, thing: str) -> None:
    lamp, _, match = await matched(parley, amina, bilal, f"{thing} lamp")
    dalia = await parley.person("dalia")
    assert await mine(dalia) == await mine(dalia, lamp) == []
    error = await refused(dalia, "match:act", match_id=match["match_id"], action="interested")
    assert error["code"] == "not_found"


async def test_the_log_knows_which_match_it_tells_of(
    parley: Instance, amina: Person, bilal: Person, thing: str
) -> None:
    _, _, match = await matched(parley, amina, bilal, f"{thing} lamp")
    await act(bilal, match, "viewed")
    await act(amina, match, "interested")
    async with parley.parley.database.connection() as db:
        logged = await db.fetch(
            "select room_id, name, message_id from room_events where name like 'match:%' and payload->>'match_id' = $1",
            match["match_id"],
        )
    assert {row["room_id"] for row in logged} == {UUID(amina.user_id), UUID(bilal.user_id)}
    assert [row["message_id"] for row in logged] == [UUID(match["match_id"])] * 4


async def test_a_deleted_listings_matches_and_what_was_said_of_them_go_with_it(
    parley: Instance, amina: Person, bilal: Person, thing: str
) -> None:
    lamp, wish, match = await matched(parley, amina, bilal, f"{thing} lamp")
    await act(bilal, match, "viewed")
    await set_(parley, "delete from listings where listing_id = $1", lamp["listing_id"])
    assert await mine(bilal, wish) == []
    async with parley.parley.database.connection() as db:
        assert not await db.fetchval(
            "select count(*) from match_interactions where match_id = $1", UUID(match["match_id"])
        )
