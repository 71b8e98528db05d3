"""Who is let into a group and who is shown out, and what they see and hear of it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.people import Device, Instance, Person, Refusal


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


@pytest.fixture
async def group(parley: Instance, amina: Person, bilal: Person) -> str:
    """The id of a group that Amina owns, with Bilal in it."""
    return await parley.chat(amina, bilal, kind="group")


async def add(by: Person, group: str, whom: Person, **fields: Any) -> Any:
    return await by.post("participant:add", conversation_id=group, user_id=whom.user_id, **fields)


async def remove(by: Person, group: str, whom: Person) -> Any:
    return await by.post("participant:remove", conversation_id=group, user_id=whom.user_id)


async def say(person: Person, group: str, *texts: str) -> None:
    for text in texts:
        await person.post("message:send", conversation_id=group, client_id=uuid4().hex, text=text)


async def texts_of(person: Person, group: str) -> list[str]:
    """The group's history as the person reads it."""
    history = await person.post("message:history", conversation_id=group)
    return [message["text"] for message in history["messages"]]


def roles(conversation: Any) -> dict[str, str]:
    return {part["user_id"]: part["role"] for part in conversation["participants"]}


async def cast(group: str, parley: Instance, amina: Person) -> dict[str, Person]:
    """A person of each role in Amina's group, and one of none."""
    people = {role: await parley.person(role) for role in ("admin", "member", "stranger")}
    await add(amina, group, people["admin"], role="admin")
    await add(amina, group, people["member"])
    return {"owner": amina, **people}


# who may


@pytest.mark.parametrize(
    ("actor", "allowed", "code"),
    [
        ("owner", {"admin", "member"}, "forbidden"),
        ("admin", {"member"}, "forbidden"),
        ("member", set(), "forbidden"),
        ("stranger", set(), "not_found"),
    ],
)
async def test_owners_let_in_and_show_out_anybody_but_owners_and_admins_members(
    parley: Instance, amina: Person, group: str, actor: str, allowed: set[str], code: str
) -> None:
    by = (await cast(group, parley, amina))[actor]
    for role in ("owner", "admin", "member"):
        whom = await parley.person("newcomer")
        if role in allowed:
            assert roles(await add(by, group, whom, role=role))[whom.user_id] == role
            assert whom.user_id not in roles(await remove(by, group, whom))
        else:
            with pytest.raises(Refusal, match=code):
                await add(by, group, whom, role=role)
        if role != "owner" and role not in allowed:
            await add(amina, group, whom, role=role)
            with pytest.raises(Refusal, match=code):
                await remove(by, group, whom)
    with pytest.raises(Refusal, match=code):
        await remove(by, group, amina)


async def test_a_stranger_learns_nothing_of_a_group(amina: Person, bilal: Person, carim: Person, group: str) -> None:
    answers = []
    for conversation_id in (group, str(uuid4())):
        for command in ("participant:add", "participant:remove"):
            payload = {"conversation_id": conversation_id, "user_id": bilal.user_id}
            answers.append(await carim.instance.post(command, payload, token=carim.token))
    assert answers == [answers[0]] * 4
    assert answers[0][0] == 404
    with pytest.raises(Refusal) as refused:
        await amina.post("participant:add", conversation_id=group, user_id=str(uuid4()))
    assert refused.value.error == answers[0][1]["error"]
    for nobody in (carim.user_id, str(uuid4())):  # who never took part, and nobody at all
        with pytest.raises(Refusal) as refused:
            await amina.post("participant:remove", conversation_id=group, user_id=nobody)
        assert refused.value.error == answers[0][1]["error"]


async def test_a_private_conversation_lets_nobody_in_and_shows_nobody_out(
    amina: Person, bilal: Person, carim: Person, their_chat: str
) -> None:
    for command, whom in ((add, carim), (remove, bilal), (remove, carim)):
        with pytest.raises(Refusal, match="forbidden"):
            await command(amina, their_chat, whom)
        with pytest.raises(Refusal, match="not_found"):
            await command(carim, their_chat, whom)
    assert (await bilal.post("conversation:get", conversation_id=their_chat))["participant_count"] == 2


async def test_of_many_let_in_at_once_no_more_than_the_bound_come_in(parley: Instance) -> None:
    small = await Instance(parley.dsn, PARLEY_GROUP_PEOPLE="3").start()
    try:
        people = [await small.person(f"p{n}") for n in range(6)]
        group = await small.chat(*people[:2], kind="group")
        answers = await asyncio.gather(*(add(people[0], group, one) for one in people[2:]), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Refusal)]
        assert [one.code for one in refused] == ["too_large"] * 3
        assert (await people[1].post("conversation:get", conversation_id=group))["participant_count"] == 3
    finally:
        await small.stop()


# what is heard


async def test_an_addition_is_heard_by_the_group_and_with_the_conversation_by_the_newcomer(
    amina: Person, bilal: Person, carim: Person, group: str
) -> None:
    other, newcomer = await bilal.connect(), await carim.connect()
    await say(amina, group, "before")
    answer = await add(amina, group, carim)
    assert (answer["participant_count"], answer["version"], answer["head_seq"]) == (3, 1, 2)
    in_group, own = await other.hearing("participant:added"), await newcomer.hearing("participant:added")
    assert (in_group.room, in_group.seq) == (f"conversation:{group}", 2)
    part = in_group.payload["participant"]
    assert in_group.payload == {"conversation_id": group, "participant": part}
    assert (part["user_id"], part["role"], part["joined_seq"]) == (carim.user_id, "member", 2)
    assert own.room == f"user:{carim.user_id}"
    assert (own.payload["conversation_id"], own.payload["participant"]) == (group, part)
    conversation = own.payload["conversation"]
    assert (conversation["conversation_id"], conversation["head_seq"]) == (group, 2)
    assert (conversation["participant_count"], conversation["unread_count"]) == (3, 0)
    assert "last_message" not in conversation


async def test_whoever_is_let_in_hears_what_follows_on_every_device_without_asking(
    amina: Person, carim: Person, group: str
) -> None:
    devices = [await carim.connect(), await carim.connect(transports=("polling", "websocket"))]
    await say(amina, group, "before", "before")
    talking = asyncio.create_task(say(amina, group, *map(str, range(20))))
    await add(amina, group, carim)
    await talking
    await say(amina, group, "last")
    for device in devices:
        await device.hearing("message:created", text="last")
        head = (await device.hearing("participant:added")).payload["conversation"]["head_seq"]
        seqs = [push.seq for push in device.of(f"conversation:{group}")]
        assert seqs == list(range(head + 1, 25))  # of 24: two before, twenty, the addition, the last one


async def test_repeats_answer_with_the_conversation_as_it_is_and_are_heard_once(
    amina: Person, bilal: Person, carim: Person, group: str
) -> None:
    device, own = await bilal.connect(), await carim.connect()
    added = await asyncio.gather(*(add(amina, group, carim) for _ in range(5)))
    assert all(answer == added[0] for answer in added)
    await say(bilal, group, "hello")
    again = await add(amina, group, carim)
    assert (again["participant_count"], again["last_message"]["text"]) == (3, "hello")
    with pytest.raises(Refusal, match="participant:promote") as promoted:
        await add(amina, group, carim, role="admin")
    error = promoted.value.error
    assert (error["code"], error["reason"], error["current"]) == ("conflict", "version", again)
    removed = await asyncio.gather(*(remove(amina, group, carim) for _ in range(5)))
    assert all(answer == removed[0] for answer in removed)
    assert removed[0]["participant_count"] == 2
    await say(amina, group, "last")
    await device.hearing("message:created", text="last")
    heard = [push.name for push in device.of(f"conversation:{group}")]
    assert heard == ["participant:added", "message:created", "participant:removed", "message:created"]
    await own.hearing("participant:removed")
    await own.call("account:me")
    in_own_room = [push.name for push in own.of(f"user:{carim.user_id}")]
    assert in_own_room == ["participant:added", "participant:removed"]


async def test_a_removal_is_heard_by_the_person_and_nothing_after_it(
    amina: Person, bilal: Person, carim: Person, group: str
) -> None:
    await add(amina, group, carim)
    devices, listener = [await carim.connect(), await carim.connect()], await bilal.connect()
    await say(amina, group, "before")
    answer = await remove(amina, group, carim)
    assert carim.user_id not in roles(answer)
    removed = await listener.hearing("participant:removed")
    assert (removed.room, removed.seq) == (f"conversation:{group}", answer["head_seq"])
    assert removed.payload == {"conversation_id": group, "user_id": carim.user_id, "by": amina.user_id}
    await say(amina, group, "after")
    await listener.hearing("message:created", text="after")
    for device in devices:
        own = await device.until(lambda heard: next((p for p in heard if _is_own_removal(p, carim)), None))
        assert own.payload == removed.payload
        await device.call("account:me")
        assert device.texts(group) == ["before"]
        assert device.position(group) <= removed.seq


def _is_own_removal(push: Any, person: Person) -> bool:
    return bool(push.name == "participant:removed" and push.room == f"user:{person.user_id}")


async def test_whoever_was_shown_out_finds_nothing_there(amina: Person, carim: Person, group: str) -> None:
    await add(amina, group, carim)
    device = await carim.connect()
    await device.send(group, "mine", "mine")
    await remove(amina, group, carim)
    answers = [
        await device.answer("message:send", conversation_id=group, client_id="new", text="too late"),
        await device.answer("message:history", conversation_id=group),
        await device.answer("conversation:get", conversation_id=group),
        await device.answer("participant:add", conversation_id=group, user_id=carim.user_id),
        await device.answer("room:join", room=f"conversation:{group}", after=0),
        await device.answer("room:sync", room=f"conversation:{group}", after=0),
    ]
    assert [answer["error"]["code"] for answer in answers] == ["not_found"] * 6
    assert await carim.post("conversation:list") == {"conversations": [], "next": None}
    again = await carim.connect(rooms={f"conversation:{group}": 0})
    assert list(again.hello["rooms"]) == [f"user:{carim.user_id}"]
    assert again.hello["reset"] == []
    assert await texts_of(amina, group) == ["mine"]


# what is seen


async def _everything_seen(person: Person, group: str) -> list[list[str]]:
    """The texts that the person gets of the group by every way there is."""
    room, device = f"conversation:{group}", await person.connect(rooms={f"conversation:{group}": 0})
    head = device.hello["rooms"][room]
    assert device.hello["reset"] == []
    ways = [await texts_of(person, group)]
    for after in ({"after_seq": 0}, {"before_seq": head + 1}):
        page = await person.post("message:history", conversation_id=group, **after)
        ways.append([message["text"] for message in page["messages"]])
        assert not page["more"]
    synced = await device.call("room:sync", room=room, after=0)
    assert (synced["reset"], synced["more"], synced["head_seq"]) == (False, False, head)
    ways.append([event["payload"]["text"] for event in synced["events"] if event["name"] == "message:created"])
    ways.append(await _heard_up_to(device, group, head))
    await device.call("room:leave", room=room)
    rejoined = Device(device.client)
    device.client.on("*", rejoined.hears)
    joined = await device.call("room:join", room=room, after=0)
    assert joined == {"room": room, "head_seq": head, "reset": False}
    ways.append(await _heard_up_to(rejoined, group, head))
    return ways


async def _heard_up_to(device: Device, group: str, head: int) -> list[str]:
    await device.hearing_up_to(f"conversation:{group}", head)
    return device.texts(group)


async def test_newcomers_see_a_group_from_their_joining_on(
    amina: Person, bilal: Person, carim: Person, group: str
) -> None:
    await say(amina, group, "before", "before too")
    await add(amina, group, carim)
    assert await texts_of(carim, group) == []
    assert (await carim.post("conversation:get", conversation_id=group))["last_message"] is None
    await say(bilal, group, "after", "after too")
    assert await _everything_seen(carim, group) == [["after", "after too"]] * 6
    seen = await carim.post("conversation:get", conversation_id=group)
    assert (seen["unread_count"], seen["read_seq"], seen["last_message"]["text"]) == (2, 3, "after too")
    assert await texts_of(bilal, group) == ["before", "before too", "after", "after too"]


async def test_a_newcomer_may_not_reply_to_what_they_do_not_see(amina: Person, carim: Person, group: str) -> None:
    before = await amina.post("message:send", conversation_id=group, client_id="b", text="before")
    await add(amina, group, carim)
    send = {"conversation_id": group, "client_id": "r", "text": "?", "reply_to_id": before["message_id"]}
    with pytest.raises(Refusal) as refused:
        await carim.post("message:send", **send)
    assert refused.value.code == "not_found"
    assert await texts_of(amina, group) == ["before"]


async def test_whoever_comes_back_begins_anew(amina: Person, bilal: Person, carim: Person, group: str) -> None:
    await add(amina, group, carim, role="admin")
    device = await carim.connect()
    await say(carim, group, "in")
    await remove(amina, group, carim)
    await say(bilal, group, "out")
    again = await add(amina, group, carim)
    assert roles(again)[carim.user_id] == "member"
    await say(bilal, group, "in again")
    await device.hearing("message:created", text="in again")
    assert device.texts(group) == ["in", "in again"]
    assert await _everything_seen(carim, group) == [["in again"]] * 6
    seen = await carim.post("conversation:get", conversation_id=group)
    assert seen["unread_count"] == 1
    assert await texts_of(bilal, group) == ["in", "out", "in again"]


async def test_whoever_is_shown_out_and_in_again_and_again_hears_only_what_is_theirs(
    amina: Person, bilal: Person, group: str
) -> None:
    device = await bilal.connect()
    for n in range(10):
        await say(amina, group, f"in {n}")
        if n % 2:  # else the removal may overtake the joining: who is out by then is not told what was said
            await device.hearing("message:created", text=f"in {n}")
        await remove(amina, group, bilal)
        await say(amina, group, f"out {n}")
        await add(amina, group, bilal)
    await say(amina, group, "last")
    await device.hearing("message:created", text="last")
    heard = device.texts(group)
    assert not any(text.startswith("out") for text in heard)
    assert [text for text in heard if text[-1] in "13579"] == ["in 1", "in 3", "in 5", "in 7", "in 9"]
    assert heard == sorted(set(heard), key=lambda text: (text == "last", text))


async def test_nothing_is_stored_after_a_removal_that_sends_race_with(amina: Person, bilal: Person, group: str) -> None:
    phone, out = await amina.connect(), await bilal.connect()
    sends = [
        asyncio.create_task(out.answer("message:send", conversation_id=group, client_id=f"r{n}", text=f"r{n}"))
        for n in range(60)
    ]
    await asyncio.wait(sends, return_when=asyncio.FIRST_COMPLETED)
    await remove(amina, group, bilal)
    answers = await asyncio.gather(*sends)
    removed = await phone.hearing("participant:removed")
    acked = [answer["data"]["seq"] for answer in answers if answer["ok"]]
    assert all(seq < removed.seq for seq in acked)
    assert {answer["error"]["code"] for answer in answers if not answer["ok"]} <= {"not_found"}
    await say(amina, group, "last")
    page = await amina.post("message:history", conversation_id=group, limit=200)
    assert [message["seq"] for message in page["messages"]] == [*acked, removed.seq + 1]


async def test_nobody_shows_themselves_out(amina: Person, bilal: Person, group: str) -> None:
    for person in (amina, bilal):
        with pytest.raises(Refusal) as refused:
            await remove(person, group, person)
        assert refused.value.code == "forbidden"


@pytest.mark.parametrize("role", ["king", "", 1, None, "OWNER"])
async def test_a_role_that_is_none_is_invalid(amina: Person, carim: Person, group: str, role: Any) -> None:
    with pytest.raises(Refusal) as refused:
        await add(amina, group, carim, role=role)
    assert (refused.value.code, list(refused.value.error["fields"])) == ("invalid", ["role"])
