"""Connecting and resuming: hello, the replay, and what has to be loaded afresh."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from tests.people import ConnectRefused, Device, Instance, Person


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


def seqs(device: Device, conversation_id: str) -> list[int]:
    return [push.seq for push in device.of(f"conversation:{conversation_id}")]


async def fill(person: Person, conversation_id: str, count: int, text: str = "…") -> None:
    """Send that many messages over HTTP, in batches."""
    await asyncio.gather(
        *(
            person.post("message:send", conversation_id=conversation_id, client_id=uuid4().hex, text=f"{text}{n}")
            for n in range(count)
        )
    )


async def log_events(instance: Instance, conversation_id: str, count: int) -> None:
    """Append that many events to the conversation's log, as quickly as PostgreSQL can."""
    connection = await asyncpg.connect(instance.dsn)
    try:
        await connection.execute(
            """select count(*) from append_events(
                   array_fill($1::uuid, array[$2::int]), array_fill('message:created'::text, array[$2::int]),
                   array_fill('{"text": "logged"}'::text, array[$2::int]), array_fill(null::uuid, array[$2::int]))""",
            conversation_id,
            count,
        )
    finally:
        await connection.close()


async def test_nothing_precedes_hello_and_it_says_where_everything_stands(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    await fill(amina, their_chat, 3)
    device = await bilal.connect()
    hello = device.hello
    assert hello["protocol"] == 1
    assert (hello["user_id"], hello["session_id"]) == (bilal.user_id, bilal.session_id)
    assert hello["rooms"] == {f"user:{bilal.user_id}": 1, f"conversation:{their_chat}": 3}
    assert (hello["reset"], hello["truncated"]) == ([], False)
    assert hello["instance"] == parley.config.instance
    await amina.post("message:send", conversation_id=their_chat, client_id="live", text="live")
    await device.hearing("message:created", text="live")
    assert seqs(device, their_chat) == [4]


async def test_fifty_missed_events_come_before_the_live_ones(amina: Person, bilal: Person, their_chat: str) -> None:
    phone, other = await amina.connect(), await bilal.connect()
    await phone.send(their_chat, "before")
    await other.hearing("message:created", text="before")
    after = other.position(their_chat)
    await other.leave()
    for n in range(50):
        await phone.send(their_chat, f"missed {n}")
    again = await bilal.connect(rooms={f"conversation:{their_chat}": after}, epoch=other.hello["epoch"])
    await phone.send(their_chat, "live")
    await again.hearing("message:created", text="live")
    assert again.hello["reset"] == []
    assert again.texts(their_chat) == [f"missed {n}" for n in range(50)] + ["live"]
    assert seqs(again, their_chat) == list(range(after + 1, after + 52))


async def test_reconnects_while_everybody_talks_miss_nothing(parley: Instance, amina: Person, bilal: Person) -> None:
    chat = await parley.chat(amina, bilal)
    phone = await amina.connect()
    device = await bilal.connect()
    heard: list[int] = []

    async def talk() -> None:
        for n in range(200):
            await phone.send(chat, str(n))

    talking = asyncio.create_task(talk())
    while not talking.done():
        a_few = asyncio.create_task(device.until(lambda all_heard: len(all_heard) > 3))
        await asyncio.wait({a_few, talking}, return_when=asyncio.FIRST_COMPLETED)
        a_few.cancel()
        await device.leave()
        heard += seqs(device, chat)
        device = await bilal.connect(rooms={f"conversation:{chat}": max(heard, default=0)})
    await talking
    await device.until(lambda _: (seqs(device, chat) or heard)[-1] == 200, "the last message")
    assert heard + seqs(device, chat) == list(range(1, 201))


async def test_a_room_too_far_behind_is_reset_and_never_filled_in_part(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    near = await parley.chat(bilal, await parley.person("carim"))
    await log_events(parley, their_chat, 1_001)
    await log_events(parley, near, 1_000)
    far_room, near_room = f"conversation:{their_chat}", f"conversation:{near}"
    device = await bilal.connect(rooms={far_room: 0, near_room: 0})
    assert device.hello["reset"] == [far_room]
    await device.hearing_up_to(near_room, 1_000)
    assert seqs(device, near) == list(range(1, 1_001))
    assert seqs(device, their_chat) == []
    await amina.post("message:send", conversation_id=their_chat, client_id="l", text="live")
    await device.hearing("message:created", text="live")
    assert seqs(device, their_chat) == [1_002]


async def test_the_budget_of_a_connect_is_spent_in_the_clients_order(parley: Instance, bilal: Person) -> None:
    chats = [await parley.chat(bilal, await parley.person(f"p{n}")) for n in range(4)]
    for chat in chats:
        await log_events(parley, chat, 900)
    rooms = [f"conversation:{chat}" for chat in reversed(chats)]
    device = await bilal.connect(rooms=dict.fromkeys(rooms, 0))
    assert device.hello["reset"] == rooms[2:]
    for room in rooms[:2]:
        await device.hearing_up_to(room, 900)


async def test_a_connects_replay_is_bounded_in_bytes(parley: Instance, amina: Person, bilal: Person) -> None:
    chats = [await parley.chat(amina, bilal, listing_id=str(uuid4())) for _ in range(2)]
    for chat in chats:
        await fill(amina, chat, 40, "ع" * 9_990)
    device = await bilal.connect(rooms={f"conversation:{chat}": 0 for chat in chats})
    assert device.hello["reset"] == [f"conversation:{chats[1]}"]
    await device.hearing_up_to(f"conversation:{chats[0]}", 40)


async def test_an_after_beyond_the_head_and_another_epoch_reset(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    room, own = f"conversation:{their_chat}", f"user:{bilal.user_id}"
    beyond = await bilal.connect(rooms={room: 7})
    assert beyond.hello["reset"] == [room]
    other_epoch = await bilal.connect(rooms={room: 0}, epoch=str(uuid4()))
    assert sorted(other_epoch.hello["reset"]) == sorted([room, own])


async def test_swept_events_reset_and_a_sync_says_so_too(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    await fill(amina, their_chat, 10)
    room = f"conversation:{their_chat}"
    connection = await asyncpg.connect(parley.dsn)
    await connection.execute(
        "update room_events set at = now() - interval '31 days' where room_id = $1 and seq <= 4", their_chat
    )
    await connection.close()
    assert await parley.parley.jobs.sweep() == 4
    assert (await bilal.connect(rooms={room: 3})).hello["reset"] == [room]
    whole = await bilal.connect(rooms={room: 4})
    assert whole.hello["reset"] == []
    await whole.hearing_up_to(room, 10)
    assert (await whole.call("room:sync", room=room, after=3))["reset"]
    synced = await whole.call("room:sync", room=room, after=4, limit=4)
    assert [event["seq"] for event in synced["events"]] == [5, 6, 7, 8]
    assert (synced["head_seq"], synced["more"], synced["reset"]) == (10, True, False)


async def test_rooms_one_may_not_join_are_left_out(parley: Instance, amina: Person, bilal: Person) -> None:
    theirs = f"conversation:{await parley.chat(bilal, await parley.person('carim'))}"
    device = await amina.connect(rooms={theirs: 0, f"user:{bilal.user_id}": 0, "conversation:nonsense": 0, "x": 1})
    assert list(device.hello["rooms"]) == [f"user:{amina.user_id}"]
    assert device.hello["reset"] == []
    answer = await device.answer("room:join", room=theirs)
    assert answer["error"]["code"] == "not_found"
    await bilal.post("message:send", conversation_id=theirs[13:], client_id="s", text="secret")
    await device.call("account:me")
    assert all(push.room == f"user:{amina.user_id}" for push in device.heard[1:])


async def test_joining_a_room_again_serves_the_replay_after_the_answer(
    amina: Person, bilal: Person, their_chat: str
) -> None:
    device, room = await bilal.connect(), f"conversation:{their_chat}"
    await device.call("room:leave", room=room)
    await fill(amina, their_chat, 5)
    await device.call("account:me")
    assert seqs(device, their_chat) == []
    joined = await device.call("room:join", room=room, after=2)
    assert joined == {"room": room, "head_seq": 5, "reset": False}
    await amina.post("message:send", conversation_id=their_chat, client_id="l", text="live")
    await device.hearing("message:created", text="live")
    assert seqs(device, their_chat) == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("auth", "code"),
    [
        ({"token": ""}, "unauthenticated"),
        ({"token": "not.a.token"}, "unauthenticated"),
        ({"rooms": {"x": -1}}, "invalid"),
        ({"rooms": {f"conversation:{n}": 0 for n in range(1_001)}}, "too_large"),
        ({"color": "red"}, "invalid"),
    ],
)
async def test_a_refused_connect_says_why(amina: Person, auth: dict[str, object], code: str) -> None:
    with pytest.raises(ConnectRefused) as refused:
        await amina.connect(**auth)  # type: ignore[arg-type]
    assert refused.value.said["data"]["code"] == code
    assert refused.value.said["message"]
