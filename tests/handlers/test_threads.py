"""Threads: everybody sees them, whoever joins one talks in it, and nothing of it follows whoever has left."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from handlers import emptying, heat, members, threads
from rules.users import Role
from server.commands.context import Work, work
from server.errors import Unavailable
from server.rooms.bus import LocalBus, LocalHub
from server.rooms.joining import Joining
from server.rooms.log import Event
from storage import attachments, users
from tests.locks import holding
from tests.people import PASSWORD, Device, Instance, Person, Push, Refusal

pytestmark = pytest.mark.both_postgres

NewInstance = Callable[..., Awaitable[Instance]]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


@pytest.fixture
async def carim(parley: Instance) -> Person:
    return await parley.person("carim")


@pytest.fixture
async def thread(amina: Person) -> str:
    """Amina's thread, in which she is alone."""
    return await new_thread(amina)


class LossyBus(LocalBus):
    """A bus that loses the events of some names, or all of them."""

    def __init__(self, hub: LocalHub) -> None:
        super().__init__(hub)
        self.lost: set[str] | None = set()

    def publish(self, event: Event) -> None:
        if self.lost is not None and event.name not in self.lost:
            super().publish(event)


async def new_thread(owner: Person, **fields: Any) -> str:
    given = {"title": "Pre-loved Apple", "category": "electronics", "client_id": uuid4().hex, **fields}
    thread_id: str = (await owner.post("thread:create", **given))["thread_id"]
    return thread_id


async def refusal(person: Person, command: str, **payload: Any) -> dict[str, Any]:
    with pytest.raises(Refusal) as refused:
        await person.post(command, **payload)
    return dict(refused.value.error)


async def code(person: Person, command: str, **payload: Any) -> str:
    """ok, or the code of the error."""
    _, answer = await person.instance.post(command, payload, token=person.token)
    return "ok" if answer["ok"] else str(answer["error"]["code"])


async def rows(parley: Instance, sql: str, *arguments: Any) -> list[dict[str, Any]]:
    async with parley.parley.database.connection() as db:
        return [dict(row) for row in await db.fetch(sql, *arguments)]


async def make_admin(person: Person) -> Person:
    async with person.instance.parley.database.connection() as db:
        await users.set_roles(db, UUID(person.user_id), [Role.ADMIN])
    return person


async def say(person: Person, thread: str, text: str) -> Any:
    return await person.post("message:send", conversation_id=thread, client_id=uuid4().hex, text=text)


def texts(device: Device, thread: str) -> list[str]:
    """What a device has heard to be said in a thread."""
    return [push.payload["text"] for push in device.of(f"thread:{thread}") if push.name == "message:created"]


async def standing(device: Device, thread: str) -> None:
    """Wait until a device stands in a thread's room: until it has heard that its person has joined."""
    await device.until(lambda _: [push for push in device.of(f"thread:{thread}") if push.name == "member:joined"])


def own(person: Person, name: str) -> Callable[[list[Push]], list[Push]]:
    """The pushes of that name in a person's own room."""
    room = f"user:{person.user_id}"
    return lambda heard: [push for push in heard if push.name == name and push.room == room]


# a thread


async def test_a_thread_is_made_once_and_everybody_sees_it(amina: Person, bilal: Person) -> None:
    phone = await amina.connect()
    asked = {"title": "Nintendo", "category": "other", "description": "all of it", "client_id": "one"}
    made = await amina.post("thread:create", **asked)
    assert made == {
        "thread_id": made["thread_id"],
        "title": "Nintendo",
        "description": "all of it",
        "category": "other",
        "owner_id": amina.user_id,
        "member_count": 1,
        "boost_level": None,
        "boost_points": 0,
        "is_hot": False,
        "is_pinned": False,
        "joined": True,
        "favorite": False,
        "version": 1,
        "at": made["at"],
    }
    assert await amina.post("thread:create", **asked) == made
    error = await refusal(amina, "thread:create", **{**asked, "title": "Sega"})
    assert (error["reason"], error["current"]) == ("key_reuse", made)
    assert await bilal.post("thread:get", thread_id=made["thread_id"]) == {**made, "joined": False}
    opened = (await phone.hearing("conversation:created", conversation_id=made["thread_id"])).payload
    assert (opened["kind"], opened["thread_id"], opened["title"]) == ("thread", made["thread_id"], "Nintendo")
    sent = await phone.send(made["thread_id"], "hello")
    heard = await phone.hearing("message:created", text="hello")
    assert (heard.room, heard.seq) == (f"thread:{made['thread_id']}", sent["seq"])
    assert await code(bilal, "thread:get", thread_id=str(uuid4())) == "not_found"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"category": "boats"}, "category"),
        ({"title": ""}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"description": "x" * 10_001}, "description"),
    ],
)
async def test_what_is_no_thread_is_not_made(amina: Person, fields: dict[str, Any], wrong: str) -> None:
    given = {"title": "x", "category": "other", "client_id": uuid4().hex, **fields}
    error = await refusal(amina, "thread:create", **given)
    assert error["code"] in ("invalid", "too_large")
    assert wrong in str(error)


async def test_threads_are_listed_pinned_first_then_the_newest(parley: Instance, amina: Person, bilal: Person) -> None:
    admin = await make_admin(bilal)
    made = [await new_thread(amina, category="beauty", title=f"T{n}") for n in range(6)]
    pinned = made[2]
    await admin.post("thread:update", thread_id=pinned, version=1, is_pinned=True)
    await admin.post("thread:join", thread_id=made[4])
    await admin.post("thread:delete", thread_id=made[5])

    async def listed(person: Person, limit: int = 2, **asked: Any) -> list[str]:
        found, before, pages = [], None, 0
        while True:
            page = await person.post("thread:list", limit=limit, **asked, **({"before": before} if before else {}))
            assert len(page["threads"]) <= limit
            found += [one["thread_id"] for one in page["threads"]]
            if (before := page["next"]) is None:
                return [thread_id for thread_id in found if thread_id in made]
            assert (pages := pages + 1) < 500

    newest = [pinned, made[4], made[3], made[1], made[0]]
    assert await listed(bilal, category="beauty") == newest
    assert await listed(bilal, limit=100) == newest
    assert await listed(bilal, joined=True) == [made[4]]
    assert await listed(amina, joined=True) == newest
    assert await listed(amina, joined=True, category="books") == []
    assert await listed(bilal, joined=False, category="beauty") == [pinned, made[3], made[1], made[0]]
    error = await refusal(bilal, "thread:list", before="x")
    assert list(error["fields"]) == ["before"]


async def test_a_page_of_threads_ends_at_its_bytes(amina: Person) -> None:
    for _ in range(10):
        await new_thread(amina, description="😀" * 9_000, category="furniture")
    page = await amina.post("thread:list", joined=True, limit=100)
    assert 1 <= len(page["threads"]) < 10
    rest = await amina.post("thread:list", joined=True, limit=100, before=page["next"])
    assert len(page["threads"]) + len(rest["threads"]) == 10


async def test_its_owner_changes_a_thread_and_administrators_pin_it(
    amina: Person, bilal: Person, carim: Person, thread: str
) -> None:
    phone = await amina.connect()
    change = {"thread_id": thread, "version": 1, "title": "Apples", "description": "green", "category": "books"}
    changed = await amina.post("thread:update", **change)
    assert (changed["title"], changed["description"], changed["category"], changed["version"]) == (
        "Apples", "green", "books", 2,
    )  # fmt: skip
    heard = await phone.hearing("thread:changed", version=2)
    assert heard.payload == {key: value for key, value in changed.items() if key not in ("joined", "favorite")}
    assert heard.room == f"thread:{thread}"
    assert await amina.post("thread:update", **change) == changed  # asked again
    error = await refusal(amina, "thread:update", **{**change, "title": "Pears"})
    assert (error["reason"], error["current"]) == ("version", changed)
    assert await code(bilal, "thread:update", **change) == "forbidden"
    assert await code(amina, "thread:update", thread_id=thread, version=2, is_pinned=True) == "forbidden"
    admin = await make_admin(carim)
    assert await code(admin, "thread:update", thread_id=thread, version=2, title="Mine") == "forbidden"
    assert (await admin.post("thread:update", thread_id=thread, version=2, is_pinned=True))["is_pinned"]
    cleared = await amina.post("thread:update", thread_id=thread, version=3, description=None)
    assert (cleared["description"], cleared["is_pinned"], cleared["version"]) == (None, True, 4)
    talk = await amina.post("conversation:get", conversation_id=thread)
    assert (talk["kind"], talk["title"], talk["version"]) == ("thread", "Apples", 4)
    assert len([push for push in phone.heard if push.name == "thread:changed"]) <= 3


async def test_of_two_changes_at_once_one_wins(amina: Person, thread: str) -> None:
    answers = await asyncio.gather(
        *(
            amina.instance.post("thread:update", {"thread_id": thread, "version": 1, "title": title}, token=amina.token)
            for title in ("one", "two")
        )
    )
    assert sorted(status for status, _ in answers) == [200, 409]


async def test_a_favorite_is_ones_own_and_of_those_who_have_joined(amina: Person, bilal: Person, thread: str) -> None:
    assert (await amina.post("thread:favorite", thread_id=thread))["favorite"] is True
    assert await code(bilal, "thread:favorite", thread_id=thread) == "forbidden"
    await bilal.post("thread:join", thread_id=thread)
    assert (await bilal.post("thread:get", thread_id=thread))["favorite"] is False
    assert (await amina.post("thread:favorite", thread_id=thread, on=False))["favorite"] is False
    assert await code(amina, "thread:favorite", thread_id=str(uuid4())) == "not_found"


# who is in it


async def test_whoever_joins_sees_all_of_it_and_hears_all_that_follows(
    amina: Person, bilal: Person, thread: str
) -> None:
    before = await say(amina, thread, "before")
    await amina.post("message:edit", message_id=before["message_id"], text="edited", version=1)
    phone, other = await bilal.connect(), await amina.connect()
    room = f"thread:{thread}"
    assert room in other.hello["rooms"]
    assert (await phone.answer("room:join", room=room))["error"]["code"] == "not_found"
    assert await code(bilal, "message:send", conversation_id=thread, client_id="x", text="no") == "not_found"
    joined = await phone.call("thread:join", thread_id=thread)
    assert (joined["joined"], joined["member_count"]) == (True, 2)
    assert await phone.call("thread:join", thread_id=thread) == joined  # asked again
    for device in (phone, other):
        heard = await device.hearing("member:joined")
        assert (heard.room, heard.payload) == (room, {"thread_id": thread, "user_id": bilal.user_id})
    [added] = await phone.until(own(bilal, "participant:added"))
    assert added.payload["conversation"]["head_seq"] == heard.seq - 1
    await say(amina, thread, "after")
    await phone.hearing("message:created", text="after")
    assert texts(phone, thread) == ["after"]
    page = await phone.call("message:history", conversation_id=thread)
    assert [message["text"] for message in page["messages"]] == ["edited", "after"]
    mine = await phone.call("conversation:get", conversation_id=thread)
    assert (mine["unread_count"], mine["participant_count"]) == (1, 2)
    assert {one["user_id"]: one["role"] for one in mine["participants"]} == {
        amina.user_id: "owner",
        bilal.user_id: "member",
    }
    found = await phone.call("message:search", query="edited", conversation_id=thread)
    assert [message["text"] for message in found["messages"]] == ["edited"]
    again = await bilal.connect(rooms={room: 0})
    synced = await phone.call("room:sync", room=room, after=0)
    await again.hearing_up_to(room, synced["head_seq"])
    served = [(push.name, push.payload, push.seq) for push in again.of(room)]
    assert served == [(event["name"], event["payload"], event["seq"]) for event in synced["events"]]
    live = [(push.name, push.payload, push.seq) for push in phone.of(room)]
    assert live == served[-len(live) :]
    assert served[1][1]["text"] == "edited"


async def test_all_of_talk_works_in_a_thread(amina: Person, bilal: Person, thread: str) -> None:
    await bilal.post("thread:join", thread_id=thread)
    phone, other = await bilal.connect(), await amina.connect()
    room = f"thread:{thread}"
    assert (room in phone.hello["rooms"], f"conversation:{thread}" in phone.hello["rooms"]) == (True, False)
    for command in ("room:join", "room:sync"):
        asked = {"room": f"conversation:{thread}", "after": 0}
        assert (await phone.answer(command, **asked))["error"]["code"] == "not_found"
    nosy = await bilal.connect(rooms={f"conversation:{thread}": 0, room: 0})
    assert f"conversation:{thread}" not in nosy.hello["rooms"]
    sent = await phone.send(thread, "helo")
    assert await phone.call("message:react", message_id=sent["message_id"], emoji="👍", on=True)
    edited = await phone.call("message:edit", message_id=sent["message_id"], text="hello", version=1)
    await phone.call("typing:set", conversation_id=thread, state="typing")
    await phone.call("receipt:read", conversation_id=thread, seq=sent["seq"])
    await phone.call("message:delete", message_id=sent["message_id"])
    expected = ("message:created", "message:reacted", "message:edited", "typing:changed", "receipt:changed")
    for name in (*expected, "message:deleted"):
        assert (await other.hearing(name)).room == room, name
    assert edited["text"] == "hello"
    theirs = await say(bilal, thread, "spam")
    await amina.post("message:delete", message_id=theirs["message_id"])  # as the thread's owner
    mine = await amina.post("conversation:update", conversation_id=thread, pinned=True, archived=True)
    assert (mine["pinned"], mine["archived"]) == (True, True)
    back = await amina.connect()
    assert room in back.hello["rooms"]  # joined threads are, archived or not
    await say(bilal, thread, "wake up")
    await back.hearing("message:created", text="wake up")
    listed = await amina.post("conversation:list", archived=True)  # and it stays where she has put it
    assert [one["conversation_id"] for one in listed["conversations"]] == [thread]
    await bilal.post("account:update", full_name="Bilal of the Threads")
    assert (await back.hearing("profile:changed", user_id=bilal.user_id)).room == room


async def test_who_is_in_a_thread_is_for_each_to_say(amina: Person, bilal: Person, carim: Person, thread: str) -> None:
    await bilal.post("thread:join", thread_id=thread)
    for command in ("participant:add", "participant:remove", "participant:promote"):
        for target in (bilal, carim):
            assert await code(amina, command, conversation_id=thread, user_id=target.user_id) == "forbidden"
        assert await code(carim, command, conversation_id=thread, user_id=bilal.user_id) == "not_found"
    left = await refusal(bilal, "conversation:leave", conversation_id=thread)
    assert left["code"] == "forbidden"
    assert "thread:leave" in left["message"]
    titled = await refusal(amina, "conversation:update", conversation_id=thread, title="x", version=1)
    assert titled["code"] == "forbidden"
    assert "thread:update" in titled["message"]


async def test_nothing_of_a_thread_follows_whoever_has_left(amina: Person, bilal: Person, thread: str) -> None:
    await bilal.post("thread:join", thread_id=thread)
    phone, other = await bilal.connect(), await amina.connect()
    left = await phone.call("thread:leave", thread_id=thread)
    assert (left["joined"], left["member_count"]) == (False, 1)
    assert await phone.call("thread:leave", thread_id=thread) == left  # asked again
    assert (await phone.until(own(bilal, "member:left")))[0].payload == {"thread_id": thread, "user_id": bilal.user_id}
    assert (await other.hearing("member:left")).room == f"thread:{thread}"
    await say(amina, thread, "about Bilal")
    await other.hearing("message:created", text="about Bilal")
    await phone.call("account:me")
    assert texts(phone, thread) == []
    for command, more in (
        ("message:history", {}), ("message:send", {"client_id": "x", "text": "x"}), ("conversation:get", {}),
        ("receipt:read", {"seq": 1}),
    ):  # fmt: skip
        assert await code(bilal, command, conversation_id=thread, **more) == "not_found"
    assert await code(bilal, "room:sync", room=f"thread:{thread}", after=0) == "not_found"
    assert f"thread:{thread}" not in (await bilal.connect(rooms={f"thread:{thread}": 0})).hello["rooms"]
    await phone.call("thread:join", thread_id=thread)
    await say(amina, thread, "welcome back")
    await phone.hearing("message:created", text="welcome back")
    assert texts(phone, thread) == ["welcome back"]
    page = await bilal.post("message:history", conversation_id=thread)
    assert [message["text"] for message in page["messages"]] == ["about Bilal", "welcome back"]


async def test_an_owner_who_leaves_hands_over_and_the_last_one_deletes(
    amina: Person, bilal: Person, carim: Person, thread: str
) -> None:
    assert "delete" in (await refusal(amina, "thread:leave", thread_id=thread))["message"]
    await bilal.post("thread:join", thread_id=thread)
    await carim.post("thread:join", thread_id=thread)
    phone = await carim.connect()
    await amina.post("thread:leave", thread_id=thread)
    changed = await phone.hearing("thread:changed", owner_id=bilal.user_id)
    assert (changed.payload["member_count"], changed.payload["version"]) == (2, 2)
    assert await code(amina, "thread:update", thread_id=thread, version=2, title="Mine") == "forbidden"
    assert (await bilal.post("thread:update", thread_id=thread, version=2, title="Bilal's"))["version"] == 3
    seen = await carim.post("conversation:get", conversation_id=thread)
    assert [(one["user_id"], one["role"]) for one in seen["participants"]] == [
        (bilal.user_id, "owner"),
        (carim.user_id, "member"),
    ]
    await bilal.post("thread:leave", thread_id=thread)
    assert await code(carim, "thread:leave", thread_id=thread) == "forbidden"
    await carim.post("thread:delete", thread_id=thread)


async def test_no_interleaving_of_departures_leaves_a_thread_without_its_owner(parley: Instance, amina: Person) -> None:
    thread, people = await new_thread(amina), [await parley.person(f"p{n}") for n in range(4)]
    await asyncio.gather(*(person.post("thread:join", thread_id=thread) for person in people))
    codes = await asyncio.gather(*(code(person, "thread:leave", thread_id=thread) for person in [amina, *people]))
    assert sorted(codes) == ["forbidden", *["ok"] * 4]
    [left] = await rows(parley, "select owner_id, member_count from threads where thread_id = $1", thread)
    [part] = await rows(
        parley,
        "select user_id, role from conversation_participants where conversation_id = $1 and left_at is null",
        thread,
    )
    assert (left["member_count"], part["role"], part["user_id"]) == (1, "owner", left["owner_id"])


async def test_of_joins_at_once_each_counts_once(parley: Instance, amina: Person, thread: str) -> None:
    people = [await parley.person(f"p{n}") for n in range(5)]
    phone = await amina.connect()
    await asyncio.gather(*(person.post("thread:join", thread_id=thread) for person in people for _ in range(2)))
    assert (await amina.post("thread:get", thread_id=thread))["member_count"] == 6
    await say(amina, thread, "all here")
    await phone.hearing("message:created", text="all here")
    joined = [push.payload["user_id"] for push in phone.heard if push.name == "member:joined"]
    assert sorted(joined) == sorted(person.user_id for person in people)


async def test_one_joins_so_many_threads_and_no_more(
    parley: Instance, amina: Person, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "JOINED", 2)
    made = [await new_thread(amina) for _ in range(2)]
    error = await refusal(amina, "thread:create", title="x", category="other", client_id="third")
    assert (error["code"], error["limit"]) == ("too_large", 2)
    made.append(await new_thread(await parley.person("carim")))
    codes = await asyncio.gather(*(code(bilal, "thread:join", thread_id=thread) for thread in made))
    assert sorted(codes) == ["ok", "ok", "too_large"]
    assert len(await rows(parley, "select from thread_members where user_id = $1", bilal.user_id)) == 2


# devices on other instances, a bus that loses, crowds


async def test_devices_on_other_instances_come_and_go_with_their_person(new_instance: NewInstance) -> None:
    hub = LocalHub()
    one, two = [await new_instance(bus=LocalBus(hub)) for _ in range(2)]
    amina, bilal = await one.person("amina"), await one.person("bilal")
    thread = await new_thread(amina)
    devices = [await bilal.connect(to=instance) for instance in (one, two, two)]
    await bilal.post("thread:join", thread_id=thread)
    await asyncio.gather(*(standing(device, thread) for device in devices))
    await say(amina, thread, "one")
    for device in devices:
        await device.hearing("message:created", text="one")
    await devices[0].call("thread:leave", thread_id=thread)
    for device in devices:
        await device.until(own(bilal, "member:left"))
    await say(amina, thread, "two")
    await asyncio.gather(*(device.call("account:me") for device in devices))
    assert [texts(device, thread) for device in devices] == [["one"]] * 3


@pytest.mark.parametrize("crowd", [500, 1], ids=["in the log", "in a crowd"])
async def test_whatever_the_bus_loses_devices_come_and_go(
    new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch, crowd: int
) -> None:
    monkeypatch.setattr(members, "CROWD", crowd)
    hub = LocalHub()
    bus = LossyBus(hub)
    one, two = await new_instance(bus=bus), await new_instance(bus=LocalBus(hub))
    amina, bilal, other = [await one.person(name) for name in ("amina", "bilal", "other")]
    thread = await new_thread(amina)
    await other.post("thread:join", thread_id=thread)
    phone, witness = await bilal.connect(to=two), await other.connect(to=two)
    bus.lost = None  # all of it
    await bilal.post("thread:join", thread_id=thread)
    await say(amina, thread, "one")
    await phone.hearing("message:created", text="one")
    await bilal.post("thread:leave", thread_id=thread)
    await phone.until(own(bilal, "member:left"))
    await say(amina, thread, "two")
    await witness.hearing("message:created", text="two")
    await phone.call("account:me")
    assert texts(phone, thread) == ["one"]


async def test_in_a_crowd_comings_and_goings_are_told_and_not_logged(
    amina: Person, bilal: Person, thread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "CROWD", 1)
    phone, other = await amina.connect(), await bilal.connect()
    await other.call("thread:join", thread_id=thread)
    told = await phone.hearing("member:joined", user_id=bilal.user_id)
    assert (told.room, "seq" in told.meta) == (f"thread:{thread}", False)
    await say(amina, thread, "hello")
    await other.hearing("message:created", text="hello")
    await other.call("thread:leave", thread_id=thread)
    assert "seq" not in (await phone.hearing("member:left", user_id=bilal.user_id)).meta
    [left] = await other.until(own(bilal, "member:left"))
    assert left.seq > 0
    await say(amina, thread, "unheard")
    await phone.hearing("message:created", text="unheard")
    await other.call("account:me")
    assert texts(other, thread) == ["hello"]
    synced = await amina.post("room:sync", room=f"thread:{thread}", after=0)
    assert {event["name"] for event in synced["events"]} == {"message:created"}


@pytest.mark.parametrize("crowd", [500, 1], ids=["in the log", "in a crowd"])
async def test_who_leaves_and_comes_back_under_fire_misses_nothing_of_their_time(
    new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch, crowd: int
) -> None:
    monkeypatch.setattr(members, "CROWD", crowd)
    hub = LocalHub()
    one, two = [await new_instance(bus=LocalBus(hub)) for _ in range(2)]
    amina, bilal, other = [await one.person(name) for name in ("amina", "bilal", "other")]
    thread, room = await new_thread(amina), ""
    await other.post("thread:join", thread_id=thread)
    room = f"thread:{thread}"
    phone, witness, sender = await bilal.connect(to=two), await other.connect(), await amina.connect(to=two)
    for n in range(6):
        await asyncio.gather(
            bilal.post("thread:join" if n % 2 == 0 else "thread:leave", thread_id=thread),
            *(sender.send(thread, f"{n} {m}") for m in range(4)),
        )
    await bilal.post("thread:join", thread_id=thread)
    last = await sender.send(thread, "last")
    await phone.hearing("message:created", text="last")
    heard = [push.seq for push in phone.of(room) if "seq" in push.meta]
    assert heard == sorted(set(heard))
    whole = await witness.hearing_up_to(room, last["seq"])
    seqs = [push.seq for push in whole if "seq" in push.meta]
    assert set(heard) <= set(seqs)
    assert seqs == list(range(seqs[0], last["seq"] + 1))


async def test_a_send_that_waits_behind_its_senders_departure_is_not_stored(
    amina: Person, bilal: Person, thread: str
) -> None:
    await bilal.post("thread:join", thread_id=thread)
    async with holding(amina.instance.dsn, thread) as held:
        leaving = asyncio.create_task(bilal.post("thread:leave", thread_id=thread))
        await held.stands_in_the_way_of(1)
        sending = asyncio.create_task(
            code(bilal, "message:send", conversation_id=thread, client_id="late", text="late")
        )
        await asyncio.sleep(0.05)
    await leaving
    assert await sending == "not_found"
    page = await amina.post("message:history", conversation_id=thread)
    assert page["messages"] == []


# its end


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
insert into listing_matches (match_id, source_listing_id, matched_listing_id, score)
values (gen_random_uuid(), $1, $2, 90)
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


# heat


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


def test_the_push_names_say_what_they_should() -> None:
    assert re.fullmatch(r"<durable or ephemeral push member:left to thread, user>", repr(members.member_left))
