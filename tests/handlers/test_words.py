"""What goes with a thread or a listing leaves no words in anybody's log, and the log stays whole."""

from __future__ import annotations

import asyncio
import random
import string
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, get_args, get_type_hints
from uuid import UUID

import msgspec
import pytest
from jsonschema import Draft202012Validator

import handlers  # noqa: F401  (declares the pushes)
from handlers import emptying, erasure, threads, words
from handlers.connections import PROTOCOL, Auth
from server.commands.docs import Documents
from server.commands.registry import pushes
from server.errors import Unavailable
from server.rooms.bus import LocalHub
from storage.conversations import SharedConversation
from storage.faqs import Faq
from storage.listings import SharedListing
from storage.threads import SharedThread
from tests.buses import LossyBus
from tests.market import eur, listed, set_
from tests.people import PASSWORD, Instance, Person

TOLD = "select room_id, seq, name from room_events where payload::text like '%' || $1 || '%'"
KEPT = "select count(*) from room_events where message_id = $1"
BLANKED = {  # what `without_words` knows
    "thread:changed",
    "conversation:created",
    "participant:added",
    "listing:created",
    "listing:changed",
    "listing:expired",
    "listing:sold",
    "listing:closed",
    "faq:posted",
    "faq:accepted",
    "match:found",
    "match:changed",
}
UNCONCERNED = {
    "conversation:updated": "of groups and private conversations: a thread's title is told by thread:changed",
    "participant:changed": "without the conversation",
}


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


def a_word() -> str:
    """A word that nobody else says."""
    return "".join(random.choices(string.ascii_lowercase, k=14)) + "q"


async def fetch(parley: Instance, sql: str, *arguments: Any) -> list[Any]:
    async with parley.parley.database.connection() as db:
        return list(await db.fetch(sql, *arguments))


async def said_anywhere(parley: Instance, word: str) -> list[str]:
    """The tables in which a word stands."""
    tables = await fetch(parley, "select tablename from pg_tables where schemaname = 'public'")
    found = []
    for (table,) in tables:
        if await fetch(parley, f"select from {table} t where t::text like '%{word}%' limit 1"):
            found.append(table)
    return found


async def looked_for(parley: Instance, *listings: dict[str, Any]) -> None:
    """Wait until listings are matched with one another."""
    ids = [UUID(each["listing_id"]) for each in listings]
    pair = "select from listing_matches where source_listing_id = any ($1) and matched_listing_id = any ($1)"
    async with asyncio.timeout(10):
        while not await fetch(parley, pair, ids):
            await asyncio.sleep(0.005)


async def emptied(parley: Instance, thread: str) -> None:
    """Have the rest of a thread taken away."""
    await asyncio.gather(*parley.parley.dispatcher._following)
    await emptying.empty_thread(parley.parley.services, UUID(thread))


async def logged(person: Person, room: str) -> list[dict[str, Any]]:
    """All events of a room as its log has them, each one that its push may carry, without a hole."""
    shapes = Documents(auth=Auth, protocol=PROTOCOL).model.shapes
    synced = await person.post("room:sync", room=room, after=0, limit=1_000)
    events: list[dict[str, Any]] = synced["events"]
    assert [event["seq"] for event in events] == list(range(1, synced["head_seq"] + 1))
    for event in events:
        schema = {**shapes.told[pushes[event["name"]].payload], "components": {"schemas": shapes.named}}
        Draft202012Validator(schema).validate(event["payload"])
    return events


async def remembered(person: Person, room: str, seq: int) -> list[Any]:
    """The payloads of a room as this instance serves them to a device that knows nothing of it."""
    laptop = await person.connect(rooms={room: 0})
    await laptop.hearing_up_to(room, seq)
    return [push.payload for push in laptop.of(room)]


def types_in(kind: Any) -> Iterator[Any]:
    """A type, and all that it is made of."""
    yield kind
    for part in get_args(kind):
        yield from types_in(part)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for part in get_type_hints(kind).values():
            yield from types_in(part)


def test_every_push_that_carries_words_of_the_market_is_blanked_with_them() -> None:
    wordy = (SharedThread, SharedListing, Faq, SharedConversation)
    carrying = {
        push.name
        for push in pushes.values()
        if not push.ephemeral
        and any(isinstance(kind, type) and issubclass(kind, wordy) for kind in types_in(push.payload))
    }
    assert carrying == BLANKED | UNCONCERNED.keys()


@pytest.mark.both_postgres
async def test_nothing_that_was_said_of_a_deleted_thread_and_what_hung_on_it_is_told_again(
    parley: Instance, monkeypatch: pytest.MonkeyPatch, amina: Person
) -> None:
    for module, name in ((words, "EVENTS"), (words, "MATCHES"), (emptying, "HANGING"), (emptying, "LISTINGS")):
        monkeypatch.setattr(module, name, 1)
    bilal = await parley.register("bilal")
    phones = [await person.connect() for person in (amina, bilal)]  # their own rooms are remembered from now on
    secret, shared = a_word(), a_word()
    thing = f"{shared} {a_word()}"  # two words, so that one that is shared with others' makes no match
    made = await amina.post("thread:create", title=secret, description=secret, category="other", client_id="1")
    thread = made["thread_id"]
    await bilal.post("thread:join", thread_id=thread)
    await amina.post("thread:update", thread_id=thread, version=1, title=f"{secret} 2")
    wish = await listed(bilal, kind="wtb", title=thing)
    picture = f"https://example.org/{secret}.png"
    lamp = await listed(
        amina,
        thread_id=thread,
        title=f"{thing} {secret}",
        description=secret,
        images=[picture],
        video=picture,
        thumbnail=picture,
        location={"lat": 1.5, "lng": 2.5},
    )
    await looked_for(parley, lamp, wish)
    room = f"listing:{lamp['listing_id']}"
    for phone in phones:
        await phone.call("room:join", room=room, after=0)
    asked = await bilal.post("faq:ask", listing_id=lamp["listing_id"], text=secret, client_id="1")
    answered = await amina.post("faq:answer", parent_id=asked["faq_id"], text=secret, client_id="2")
    await bilal.post("faq:accept", faq_id=answered["faq_id"])
    [match] = (await bilal.post("match:list", listing_id=wish["listing_id"]))["matches"]
    await bilal.post("match:act", match_id=match["match_id"], action="viewed")
    await amina.post("listing:update", listing_id=lamp["listing_id"], version=1, price=eur(9_999))
    names = {row["name"] for row in await fetch(parley, TOLD, secret)}
    assert names >= {
        "thread:changed",
        "conversation:created",
        "participant:added",
        "listing:created",
        "listing:changed",
    }
    assert names >= {"faq:posted", "faq:accepted", "match:found", "match:changed"}

    await amina.post("thread:delete", thread_id=thread)
    await emptied(parley, thread)
    assert await said_anywhere(parley, secret) == []
    for person in (amina, bilal):
        own = f"user:{person.user_id}"
        events = await logged(person, own)
        assert await remembered(person, own, events[-1]["seq"]) == [event["payload"] for event in events]
        told = [event for event in events if event["name"] in ("match:found", "match:changed")]
        assert told
        for event in told:
            sides = {event["payload"][f"{side}_listing"]["title"] for side in ("source", "matched")}
            assert sides == {thing, "deleted"}
    opened = [
        event for event in await logged(amina, f"user:{amina.user_id}") if event["name"] == "conversation:created"
    ]
    assert [event["payload"]["title"] for event in opened] == [None]
    closed = [push for push in phones[1].of(room) if push.name == "listing:closed"]
    assert [(push.payload["title"], push.payload["status"]) for push in closed] == [("deleted", "closed")]

    # What is left of the match goes with its other side.
    await bilal.post("account:delete", password=PASSWORD)
    await asyncio.gather(*parley.parley.dispatcher._following)
    assert await said_anywhere(parley, shared) == []
    await logged(amina, f"user:{amina.user_id}")


async def many_events(parley: Instance, listing: dict[str, Any], room_id: str, count: int) -> None:
    """Events that tell of a listing, as many as there would be after years."""
    await set_(
        parley,
        """
        with moved as (
            update rooms set last_seq = last_seq + $3 where room_id = $1 returning last_seq - $3 as before
        )
        insert into room_events (room_id, seq, at, name, payload, message_id)
        select $1, m.before + n, now(), 'listing:changed', e.payload, $2
          from moved m cross join generate_series(1, $3::int) n
         cross join (select payload from room_events where message_id = $2 limit 1) e
        """,
        room_id,
        listing["listing_id"],
        count,
    )


@pytest.mark.parametrize("how", ["thread", "account"])
async def test_words_in_many_events_go_in_batches_and_on_where_an_instance_was_stopped(
    parley: Instance, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    secret, person = a_word(), await parley.register("seller")
    thread = (await person.post("thread:create", title="Lamps", category="other", client_id="1"))["thread_id"]
    lamp = await listed(person, title=secret, thread_id=thread)
    await many_events(parley, lamp, lamp["listing_id"], 25)
    monkeypatch.setattr(words, "EVENTS", 10)
    batches: list[int] = []
    real = words.blank

    async def stopped(*arguments: Any) -> bool:
        done = await real(*arguments)
        if done:
            [(left,)] = await fetch(parley, KEPT, UUID(lamp["listing_id"]))  # as others see it, before the commit
            batches.append(left)
        if len(batches) == 2:
            raise Unavailable
        return done

    monkeypatch.setattr(words, "blank", stopped)
    monkeypatch.setattr(threads, "empty_thread", lambda *_: asyncio.sleep(0))
    if how == "thread":
        await person.post("thread:delete", thread_id=thread)
        with pytest.raises(Unavailable):
            await emptying.empty_thread(parley.parley.services, UUID(thread))
    else:
        await person.post("account:delete", password=PASSWORD)
    assert batches == [26, 16]
    assert [left for (left,) in await fetch(parley, KEPT, UUID(lamp["listing_id"]))] == [16]
    assert len(await fetch(parley, "select from listings where title = $1", secret)) == 1  # its row goes last
    monkeypatch.setattr(words, "blank", real)
    if how == "thread":
        await emptying.empty_thread(parley.parley.services, UUID(thread))
    else:
        await asyncio.gather(*parley.parley.dispatcher._following, return_exceptions=True)
        assert await erasure.erase_talk(parley.parley.services, UUID(person.user_id))
        await emptying.empty_thread(parley.parley.services, UUID(thread))
    assert await said_anywhere(parley, secret) == []


async def test_an_account_is_not_kept_waiting_by_what_is_said_of_its_listings(
    parley: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "EVENTS", 1)
    going_on = asyncio.Event()
    real = erasure.erase_talk

    async def behind(*arguments: Any) -> bool:
        if len(arguments) == 2:  # all that is left, behind the answer
            await going_on.wait()
        return await real(*arguments)

    monkeypatch.setattr(erasure, "erase_talk", behind)
    secret, person = a_word(), await parley.register("seller")
    lamp = await listed(person, title=secret)
    await person.post("listing:update", listing_id=lamp["listing_id"], version=1, price=eur(5))
    await many_events(parley, lamp, lamp["listing_id"], 25)
    await person.post("account:delete", password=PASSWORD)
    [(left,)] = await fetch(parley, KEPT, UUID(lamp["listing_id"]))
    assert left > 0
    going_on.set()
    await asyncio.gather(*parley.parley.dispatcher._following)
    assert await said_anywhere(parley, secret) == []


async def test_what_both_wanted_stays_without_the_words_of_who_is_erased(parley: Instance, amina: Person) -> None:
    bilal, shared, thing, secret = await parley.register("bilal"), a_word(), a_word(), a_word()
    phone = await amina.connect()
    lamp = await listed(amina, title=f"{shared} {thing}")
    wish = await listed(bilal, kind="wtb", title=f"{shared} {thing} {secret}")
    await looked_for(parley, lamp, wish)
    [match] = (await amina.post("match:list", listing_id=lamp["listing_id"]))["matches"]
    for person in (amina, bilal):
        await person.post("match:act", match_id=match["match_id"], action="interested")
    await phone.hearing("match:mutual")
    await bilal.post("account:delete", password=PASSWORD)
    await asyncio.gather(*parley.parley.dispatcher._following)
    assert await said_anywhere(parley, secret) == []
    [mutual] = (await amina.post("mutual:list"))["mutual_matches"]
    assert (mutual["buyer_listing_id"], mutual["status"]) == (wish["listing_id"], "closed")
    own = f"user:{amina.user_id}"
    events = await logged(amina, own)
    assert await remembered(amina, own, events[-1]["seq"]) == [event["payload"] for event in events]
    titles = {
        event["payload"][f"{side}_listing"]["title"]
        for event in events
        if event["name"] in ("match:found", "match:changed")
        for side in ("source", "matched")
    }
    assert titles == {lamp["title"], "deleted"}


def in_memory(instance: Instance, word: str) -> bool:
    """Whether a word stands in what an instance remembers of its rooms' logs."""
    rooms = instance.parley.delivery._rooms.values()
    return any(word in event.payload for room in rooms for event in (*room.tail, *room.early.values()))


async def test_what_is_erased_is_in_no_instances_memory_after_two_seconds_whatever_the_bus_loses(
    new_instance: Callable[..., Awaitable[Instance]],
) -> None:
    hub = LocalHub()
    buses = LossyBus(hub), LossyBus(hub)
    one, two = [await new_instance(bus=bus) for bus in buses]
    asker, seller, secret = await one.register("asker"), await two.person("seller"), a_word()
    phone = await seller.connect()
    lamp = await listed(seller, title="a lamp")
    await asker.post("faq:ask", listing_id=lamp["listing_id"], text=secret, client_id="1")
    await phone.hearing("faq:posted", text=secret)
    assert in_memory(two, secret)
    for bus in buses:
        bus.is_deaf = True
    await asker.post("account:delete", password=PASSWORD)
    await asyncio.gather(*one.parley.dispatcher._following)
    erased = time.monotonic()
    while in_memory(two, secret):
        assert time.monotonic() - erased < 2.0
        await asyncio.sleep(0.01)
    own = f"user:{seller.user_id}"
    events = await logged(seller, own)
    assert await remembered(seller, own, events[-1]["seq"]) == [event["payload"] for event in events]
    assert secret not in str(events)
