"""Who is in a thread: who joins and leaves, on whatever instance, whatever the bus loses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from handlers import members, threads
from server.rooms import comparison
from server.rooms.bus import LocalBus, LocalHub
from server.rooms.log import Event
from tests.locks import holding
from tests.people import Device, Instance, Person, Push
from tests.threads import code, new_thread, refusal, rows, say

NewInstance = Callable[..., Awaitable[Instance]]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


class ForgetfulBus(LocalBus):
    """A bus that loses the events of some names, or all of them."""

    def __init__(self, hub: LocalHub) -> None:
        super().__init__(hub)
        self.lost: set[str] | None = set()

    def publish(self, event: Event) -> None:
        if self.lost is not None and event.name not in self.lost:
            super().publish(event)


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
    monkeypatch.setattr(comparison, "COMPARE_S", 0.1)
    hub = LocalHub()
    bus = ForgetfulBus(hub)
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
