"""The end of a thread: gone for everybody at once, and what hangs on it soon after."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from handlers import emptying, threads
from server.commands.context import Work
from server.errors import Unavailable
from server.rooms.bus import LocalBus, LocalHub
from server.rooms.joining import Joining
from storage import attachments
from tests.people import PASSWORD, Device, Instance, Person
from tests.threads import code, make_admin, new_thread, rows, say

NewInstance = Callable[..., Awaitable[Instance]]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


FILE = """
insert into message_attachments
       (attachment_id, owner_id, name, content_type, size, sha256, status, completed_at, file_id, message_id, position)
values ($1, $2, 'a.png', 'image/png', 1, sha256('a'), 'complete', now(), $1, $3, 1)
"""


async def may_read(parley: Instance, person: Person, attachment_id: UUID) -> bool:
    async with parley.parley.database.connection() as db:
        return await attachments.find_visible(db, attachment_id, UUID(person.user_id)) is not None


async def test_a_deleted_thread_is_gone_for_everybody_at_once(
    parley: Instance, amina: Person, bilal: Person, carim: Person, thread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "empty_thread", lambda *_: asyncio.sleep(0))  # stopped right after the answer
    await bilal.post("thread:join", thread_id=thread)
    said = await say(bilal, thread, "something")
    file_id = uuid4()
    await rows(parley, FILE, file_id, amina.user_id, UUID(said["message_id"]))
    assert await may_read(parley, bilal, file_id)
    phone, room = await bilal.connect(), f"thread:{thread}"
    assert await code(bilal, "thread:delete", thread_id=thread) == "forbidden"
    assert len((await bilal.post("message:search", query="something"))["messages"]) == 1
    deleted = await amina.post("thread:delete", thread_id=thread)
    assert (deleted["thread_id"], deleted["joined"]) == (thread, False)
    assert (await amina.post("thread:delete", thread_id=thread))["thread_id"] == thread  # asked again
    end = await phone.hearing("thread:deleted")
    assert (end.room, end.payload) == (room, {"thread_id": thread})
    by_thread = ("get", "join", "leave", "favorite")
    assert {await code(bilal, f"thread:{verb}", thread_id=thread) for verb in (*by_thread, "delete")} == {"not_found"}
    for command, payload in (
        ("thread:update", {"thread_id": thread, "version": 1, "title": "x"}),
        ("message:send", {"conversation_id": thread, "client_id": "x", "text": "x"}),
        ("message:history", {"conversation_id": thread}),
        ("message:react", {"message_id": said["message_id"], "emoji": "👍", "on": True}),
        ("message:delete", {"message_id": said["message_id"]}),
        ("message:search", {"conversation_id": thread, "query": "something"}),
        ("conversation:get", {"conversation_id": thread}),
        ("conversation:update", {"conversation_id": thread, "pinned": True}),
        ("receipt:read", {"conversation_id": thread, "seq": 1}),
        ("room:sync", {"room": room, "after": 0}),
        ("report:file", {"subject": {"kind": "conversation", "id": thread}, "reason": "spam", "client_id": "a"}),
        ("report:file", {"subject": {"kind": "message", "id": said["message_id"]}, "reason": "spam", "client_id": "b"}),
    ):
        assert await code(bilal, command, **payload) == "not_found", command
    assert (await bilal.post("message:search", query="something"))["messages"] == []
    assert not await may_read(parley, bilal, file_id)
    assert thread not in str(await bilal.post("conversation:list"))
    assert thread not in str(await bilal.post("thread:list", joined=True))
    assert (await phone.answer("room:join", room=room))["error"]["code"] == "not_found"
    assert room not in (await bilal.connect(rooms={room: 0})).hello["rooms"]
    assert not parley.parley.delivery.is_watched(threads.thread_room(UUID(thread)))
    assert phone.of(room)[-1].name == "thread:deleted"
    assert (await rows(parley, "select from thread_members where thread_id = $1", thread)) != []
    monkeypatch.undo()
    monkeypatch.setattr(emptying, "MEMBERS", 1)
    assert await parley.parley.jobs.empty_threads() >= 1
    assert await rows(parley, "select from thread_members where thread_id = $1", thread) == []
    here = "select from conversation_participants where conversation_id = $1 and left_at is null"
    assert await rows(parley, here, thread) == []
    assert (await bilal.post("message:search", query="something"))["messages"] == []
    assert (await amina.post("thread:delete", thread_id=thread))["title"] == "deleted"
    assert await parley.parley.jobs.empty_threads() == 0


async def test_an_administrator_deletes_a_thread(amina: Person, bilal: Person, thread: str) -> None:
    await (await make_admin(bilal)).post("thread:delete", thread_id=thread)
    assert await code(amina, "thread:delete", thread_id=thread) == "not_found"


async def test_deletion_amid_sends_is_the_last_that_anybody_hears(new_instance: NewInstance) -> None:
    hub = LocalHub()
    one, two = [await new_instance(bus=LocalBus(hub)) for _ in range(2)]
    people = [await one.person(f"p{n}") for n in range(3)]
    thread = await new_thread(people[0])
    for person in people[1:]:
        await person.post("thread:join", thread_id=thread)
    devices = [await person.connect(to=(one, two)[n % 2]) for n, person in enumerate(people)]

    async def talk(device: Device) -> list[int]:
        stored = []
        for n in range(30):
            answer = await device.answer(
                "message:send", conversation_id=thread, client_id=f"{id(device)} {n}", text="x"
            )
            if not answer["ok"]:
                assert answer["error"]["code"] == "not_found"
                break
            stored.append(answer["data"]["seq"])
        return stored

    talking = [asyncio.create_task(talk(device)) for device in devices]
    await devices[1].hearing("message:created")
    await people[0].post("thread:delete", thread_id=thread)
    stored = sorted(seq for seqs in await asyncio.gather(*talking) for seq in seqs)
    ends = [await device.hearing("thread:deleted") for device in devices]
    assert len({end.seq for end in ends}) == 1
    assert stored[-1] < ends[0].seq
    await asyncio.gather(*(device.call("account:me") for device in devices))
    for device in devices:
        heard = [push.seq for push in device.of(f"thread:{thread}")]
        assert heard == list(range(heard[0], ends[0].seq + 1))
        assert heard[-1] == ends[0].seq


@pytest.mark.parametrize("by", ["room:join", "connecting"])
async def test_who_was_let_in_right_before_the_end_hears_of_it_and_stands_there_no_more(
    parley: Instance, amina: Person, bilal: Person, thread: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bilal.post("thread:join", thread_id=thread)
    room = threads.thread_room(UUID(thread))
    phone = await bilal.connect()
    await phone.call("room:leave", room=str(room))
    if by == "room:join":
        judge = Joining.judge

        async def judge_and_be_overtaken(self: Joining, *args: Any) -> Any:
            judged = await judge(self, *args)
            monkeypatch.undo()
            await amina.post("thread:delete", thread_id=thread)
            return judged

        monkeypatch.setattr(Joining, "judge", judge_and_be_overtaken)
        answer = await phone.answer("room:join", room=str(room))
        assert answer["ok"]
    else:
        resumable = Joining.resumable

        async def be_overtaken(self: Joining, *args: Any) -> Any:
            monkeypatch.undo()
            await amina.post("thread:delete", thread_id=thread)
            return await resumable(self, *args)

        monkeypatch.setattr(Joining, "resumable", be_overtaken)
        phone = await bilal.connect()
        assert str(room) in phone.hello["rooms"]
    await phone.hearing("thread:deleted")
    async with asyncio.timeout(10):
        while parley.parley.delivery.is_watched(room):
            await asyncio.sleep(0)


async def test_of_a_join_and_a_deletion_at_once_nobody_is_left_in_what_is_gone(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    for _ in range(5):
        thread = await new_thread(amina)
        joined, deleted = await asyncio.gather(
            code(bilal, "thread:join", thread_id=thread), code(amina, "thread:delete", thread_id=thread)
        )
        assert (joined in ("ok", "not_found"), deleted) == (True, "ok")
        await parley.parley.jobs.empty_threads()
        await asyncio.gather(*parley.parley.dispatcher._following)
        assert await rows(parley, "select from thread_members where thread_id = $1", thread) == []


async def list_in(person: Person, thread: str) -> str:
    """Something for sale in a thread; its id."""
    listing = await person.post(
        "listing:create",
        thread_id=thread,
        kind="for_sale",
        title="A lamp",
        description="It shines",
        price={"amount": 100, "currency": "EUR"},
        category="other",
        client_id=uuid4().hex,
    )
    return str(listing["listing_id"])


DEAL = """
insert into negotiations (negotiation_id, listing_id, buyer_id, seller_id, conversation_id, status, max_rounds)
values (gen_random_uuid(), $1, $2, $3, $4, 'open', 10)
"""


QUESTION = """
insert into listing_faqs (faq_id, question_id, listing_id, user_id, type, text)
select id, id, $1, $2, 'question', 'Why?' from gen_random_uuid() as id
"""


MATCH = """
insert into listing_matches (match_id, source_listing_id, matched_listing_id, source_user_id, matched_user_id, score)
select gen_random_uuid(), s.listing_id, o.listing_id, s.user_id, o.user_id, 90 from listings s, listings o
 where s.listing_id = $1 and o.listing_id = $2
"""


async def test_what_is_listed_in_a_deleted_thread_goes_unless_deals_stand_on_it(
    parley: Instance, amina: Person, bilal: Person, thread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emptying, "LISTINGS", 2)
    monkeypatch.setattr(emptying, "HANGING", 1)
    doomed = [await list_in(amina, thread) for _ in range(3)]
    dealt = await list_in(amina, thread)
    about = [await parley.chat(bilal, amina, listing_id=listing) for listing in (*doomed, dealt)]
    await rows(parley, DEAL, dealt, bilal.user_id, amina.user_id, about[3])
    for listing in (doomed[0], doomed[0], dealt):
        await rows(parley, QUESTION, listing, bilal.user_id)
        await bilal.post("listing:like", listing_id=listing, on=True)
    await amina.post("listing:like", listing_id=doomed[0], on=True)
    await rows(parley, MATCH, doomed[1], dealt)
    phone = await bilal.connect()
    await amina.post("thread:delete", thread_id=thread)
    for conversation_id in about[:3]:
        changed = await phone.hearing("conversation:updated", conversation_id=conversation_id)
        assert changed.payload["listing_id"] is None
    ids = [*doomed, dealt]
    await asyncio.gather(*parley.parley.dispatcher._following)
    await parley.parley.jobs.empty_threads()
    [kept] = await rows(
        parley, "select listing_id, thread_id, status from listings where listing_id = any ($1::uuid[])", ids
    )
    assert (str(kept["listing_id"]), kept["thread_id"], kept["status"]) == (dealt, None, "closed")
    for table in ("wishlists", "listing_faqs"):
        hanging = await rows(parley, f"select listing_id from {table} where listing_id = any ($1::uuid[])", ids)
        assert [str(each["listing_id"]) for each in hanging] == [dealt]
    [ended] = await rows(parley, "select status from negotiations where listing_id = $1", dealt)
    assert ended["status"] == "closed"
    assert (await bilal.post("conversation:get", conversation_id=about[3]))["listing_id"] == dealt
    closed = "select room_id from room_events where room_id = any ($1::uuid[]) and name = 'listing:closed'"
    assert sorted(str(row["room_id"]) for row in await rows(parley, closed, ids)) == sorted(ids)
    assert await parley.chat(amina, bilal) not in about  # of which those that lost their listing are none


async def test_a_thread_that_cannot_be_emptied_keeps_no_other_waiting(
    parley: Instance, amina: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "empty_thread", lambda *_: asyncio.sleep(0))  # stopped right after the answer
    stuck, other = [await new_thread(amina) for _ in "ab"]
    for thread in (stuck, other):
        await amina.post("thread:delete", thread_id=thread)
    real = emptying._empty_some

    async def broken(thread_id: UUID, at_work: Work) -> bool:
        if str(thread_id) == stuck:
            raise Unavailable
        return await real(thread_id, at_work)

    monkeypatch.setattr(emptying, "_empty_some", broken)
    await parley.parley.jobs.empty_threads()
    left = "select thread_id from threads where thread_id = any ($1::uuid[]) and emptied_at is null"
    assert [str(each["thread_id"]) for each in await rows(parley, left, [stuck, other])] == [stuck]


async def test_a_person_who_is_erased_leaves_their_threads_and_takes_those_that_are_theirs_alone(
    parley: Instance, bilal: Person, carim: Person
) -> None:
    person, word = await parley.register("leaver"), f"w{uuid4().hex}"
    mine, shared = await new_thread(person, title=word, description=word), await new_thread(person)
    await person.post("thread:update", thread_id=mine, version=1, description=f"{word} {word}")
    theirs = await new_thread(bilal)
    await bilal.post("thread:join", thread_id=shared)
    await person.post("thread:join", thread_id=theirs)
    await carim.post("thread:join", thread_id=theirs)
    for thread in (mine, shared, theirs):
        await say(person, thread, word)
    phone = await bilal.connect()
    await person.post("account:delete", password=PASSWORD)
    await asyncio.gather(*parley.parley.dispatcher._following)
    await parley.parley.jobs.empty_threads()
    await phone.hearing("thread:changed", thread_id=shared, owner_id=bilal.user_id)
    for thread in (shared, theirs):
        await phone.until(
            lambda _, thread=thread: [p for p in phone.of(f"thread:{thread}") if p.name == "message:deleted"]
        )
        assert [p for p in phone.of(f"thread:{thread}") if p.name == "member:left"]
    assert await code(bilal, "thread:get", thread_id=mine) == "not_found"
    assert (await bilal.post("thread:get", thread_id=theirs))["member_count"] == 2
    assert await rows(parley, "select from thread_members where user_id = $1", person.user_id) == []
    tables = "select tablename as name from pg_tables where schemaname = 'public'"
    for table in await rows(parley, tables):
        found = await rows(parley, f"select t::text from {table['name']} t where t::text like '%{word}%'")
        assert found == [], table
