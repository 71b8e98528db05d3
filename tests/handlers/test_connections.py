"""Connecting and resuming: hello, the replay, and what has to be loaded afresh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from handlers import connections
from server.rooms import joining
from tests.market import listed
from tests.people import ConnectRefused, Device, Instance, Person


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


@pytest.fixture
async def db(shared_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for what no command can do."""
    connection = await asyncpg.connect(shared_database)
    yield connection
    await connection.close()


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
    chats = [await parley.chat(amina, bilal, listing_id=(await listed(amina))["listing_id"]) for _ in range(2)]
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


async def test_a_hello_of_more_rooms_than_the_bound_says_so(
    parley: Instance, amina: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ROOMS", 2)
    people = [await parley.person(name) for name in ("bilal", "carim", "dalia")]
    chats = [await parley.chat(amina, person) for person in people[:2]]
    assert (await amina.connect()).hello["truncated"] is False
    chats.append(await parley.chat(amina, people[2]))
    for n, chat in enumerate(chats):  # the most recently active are the last
        await amina.post("message:send", conversation_id=chat, client_id=f"first {n}", text="…")
    own, *rooms = f"user:{amina.user_id}", *(f"conversation:{chat}" for chat in chats)
    device = await amina.connect()
    assert device.hello["truncated"] is True
    assert device.hello["rooms"].keys() == {own, *rooms[1:]}
    naming = await amina.connect(rooms={rooms[0]: 0})
    assert naming.hello["truncated"] is True
    assert naming.hello["rooms"].keys() == {own, *rooms}
    for n, chat in enumerate(chats):
        await amina.post("message:send", conversation_id=chat, client_id=f"live {n}", text=f"live {n}")
    await naming.hearing("message:created", text="live 2")
    await device.hearing("message:created", text="live 2")
    assert [naming.texts(chat)[-1:] for chat in chats] == [["live 0"], ["live 1"], ["live 2"]]
    assert [device.texts(chat) for chat in chats] == [[], ["live 1"], ["live 2"]]


async def _by_socket(person: Person) -> None:
    await person.connect()


async def _by_http(person: Person) -> None:
    await person.post("account:me")


@pytest.mark.parametrize("visit", [_by_socket, _by_http])
async def test_when_a_session_was_last_seen_is_written_once_a_minute(
    amina: Person, db: asyncpg.Connection, visit: Callable[[Person], Awaitable[None]]
) -> None:
    async def seen() -> Any:
        return await db.fetchval("select last_seen_at from user_sessions where session_id = $1", amina.session_id)

    async def seen_before(seconds: float) -> Any:
        await db.execute(
            "update user_sessions set last_seen_at = now() - make_interval(secs => $2) where session_id = $1",
            *(amina.session_id, seconds),
        )
        return await seen()

    lately = await seen_before(40)
    await visit(amina)
    assert await seen() == lately
    long_ago = await seen_before(61)
    await visit(amina)
    now = await seen()
    assert 61 <= (now - long_ago).total_seconds() < 71
    await visit(amina)
    assert await seen() == now


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


@pytest.mark.parametrize("stands", [False, True], ids=["from outside", "standing there"])
async def test_a_join_that_cannot_be_filled_says_reset_and_goes_on_live(
    amina: Person, bilal: Person, their_chat: str, db: asyncpg.Connection, stands: bool
) -> None:
    await fill(amina, their_chat, 10)
    await db.execute("delete from room_events where room_id = $1 and seq <= 4", their_chat)  # as the sweep does
    device, room = await bilal.connect(), f"conversation:{their_chat}"
    for head, after in ((10, 3), (11, 0), (12, 13), (13, 1_000_000)):
        if not stands:
            await device.call("room:leave", room=room)
        assert await device.call("room:join", room=room, after=after) == {"room": room, "head_seq": head, "reset": True}
        await amina.post("message:send", conversation_id=their_chat, client_id=f"{room}{head}", text="live")
        await device.hearing_up_to(room, head + 1)
    assert seqs(device, their_chat) == [11, 12, 13, 14]
    joined = await device.call("room:join", room=room, after=4)  # what follows is there
    assert joined == {"room": room, "head_seq": 14, "reset": False}
    await device.until(lambda _: len(seqs(device, their_chat)) == 14)
    assert seqs(device, their_chat)[4:] == list(range(5, 15))


async def test_a_sync_beyond_the_head_resets_and_one_at_the_head_has_nothing(
    amina: Person, bilal: Person, their_chat: str
) -> None:
    await fill(amina, their_chat, 3)
    room = f"conversation:{their_chat}"
    nothing = {"events": [], "head_seq": 3, "more": False}
    assert await bilal.post("room:sync", room=room, after=4) == {**nothing, "reset": True}
    assert await bilal.post("room:sync", room=room, after=3) == {**nothing, "reset": False}


async def test_a_sync_has_no_bound_on_how_far_it_is_behind(
    amina: Person, bilal: Person, their_chat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "REPLAY_ROOM_EVENTS", 3)
    await fill(amina, their_chat, 7)
    room = f"conversation:{their_chat}"
    device = await bilal.connect(rooms={room: 3})
    assert device.hello["reset"] == [room]
    assert (await device.call("room:join", room=room, after=3))["reset"]
    assert not (await device.call("room:join", room=room, after=4))["reset"]
    first = await device.call("room:sync", room=room, after=0, limit=5)
    assert ([event["seq"] for event in first["events"]], first["more"]) == ([1, 2, 3, 4, 5], True)
    rest = await device.call("room:sync", room=room, after=5)
    assert ([event["seq"] for event in rest["events"]], rest["more"]) == ([6, 7], False)
    assert (first["reset"], rest["reset"]) == (False, False)


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
