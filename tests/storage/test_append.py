"""The log's SQL functions as they stand in the database: seqs, outcomes, locks, and what a comparison finds."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from rules.conversations import ConversationKind
from rules.participants import ParticipantRole
from storage import conversations, messages, participants, rooms, users
from storage._db import prepare_connection
from storage._errors import is_retryable
from storage.messages import Appended, NewMessage

pytestmark = pytest.mark.both_postgres

Connect = Callable[[], Awaitable[asyncpg.Connection]]


@pytest.fixture
async def connect(shared_database: str) -> AsyncIterator[Connect]:
    """`await connect()`: one more connection, as the pool's are."""
    async with AsyncExitStack() as stack:

        async def one() -> asyncpg.Connection:
            connection = await asyncpg.connect(shared_database)
            stack.push_async_callback(connection.close, timeout=5)
            await prepare_connection(connection)
            return connection

        yield one


@pytest.fixture
async def db(connect: Connect) -> asyncpg.Connection:
    return await connect()


@pytest.fixture
async def amina(db: asyncpg.Connection) -> UUID:
    return await new_person(db)


@pytest.fixture
async def bilal(db: asyncpg.Connection) -> UUID:
    return await new_person(db)


@pytest.fixture
async def their_chat(db: asyncpg.Connection, amina: UUID, bilal: UUID) -> UUID:
    return await new_group(db, amina, bilal)


async def new_person(db: asyncpg.Connection) -> UUID:
    name = uuid4().hex
    return await users.create_user(db, username=name, email=f"{name}@example.org", password_hash=None)


async def new_room(db: asyncpg.Connection) -> UUID:
    room_id = uuid4()
    await rooms.create_room(db, room_id, "conversation")
    return room_id


async def new_group(db: asyncpg.Connection, *people: UUID) -> UUID:
    chat = await new_room(db)
    await conversations.create_conversation(db, chat, ConversationKind.GROUP, created_by=people[0])
    await participants.create_participants(db, chat, [(person, ParticipantRole.MEMBER) for person in people])
    return chat


def message(
    chat: UUID, sender: UUID, text: str = "hello", *, key: str | None = None, reply_to: UUID | None = None
) -> NewMessage:
    return NewMessage(chat, sender, key or uuid4().hex, text.encode(), text, reply_to)


async def send(db: asyncpg.Connection, *new: NewMessage, wait: bool = True) -> list[Appended]:
    return await messages.append_messages(db, new, wait=wait)


async def append(db: asyncpg.Connection, *room_ids: UUID, payload: str = "{}") -> list[rooms.Placed]:
    count = len(room_ids)
    return await rooms.append_events(db, room_ids, ["test:done"] * count, [payload] * count, [None] * count)


async def log_of(db: asyncpg.Connection, room_id: UUID, after: int = 0) -> list[rooms.LoggedEvent]:
    return await rooms.list_events(db, {room_id: after}, room_rows=100_000, rows=100_000, bytes_=2**40)


@asynccontextmanager
async def waiting(db: asyncpg.Connection, waiter: asyncpg.Connection) -> AsyncIterator[None]:
    """Leave the block when `waiter` waits for a lock that the block's end gives free."""
    yield
    async with asyncio.timeout(10):
        while not await db.fetchval("select cardinality(pg_blocking_pids($1))", waiter.get_server_pid()):
            await asyncio.sleep(0.002)


# append_events


async def test_eight_writers_leave_no_hole_and_turn_no_order(connect: Connect, db: asyncpg.Connection) -> None:
    shared = [await new_room(db) for _ in range(3)]
    writers = [await connect() for _ in range(8)]

    async def write(writer: asyncpg.Connection, number: int) -> dict[UUID, list[int]]:
        own: dict[UUID, list[int]] = {room: [] for room in shared}
        for turn in range(20):
            order = [*shared[turn % 3 :], *shared[: turn % 3], shared[number % 3]]
            for room, place in zip(order, await append(writer, *order), strict=True):
                own[room].append(place.seq)
        return own

    written = await asyncio.gather(*(write(writer, number) for number, writer in enumerate(writers)))
    assert all(seqs == sorted(seqs) for own in written for seqs in own.values())
    heads = await heads_of(db, shared)
    for room in shared:
        logged = await log_of(db, room)
        assert [event.seq for event in logged] == list(range(1, heads[room] + 1))
        assert sorted(itertools.chain.from_iterable(own[room] for own in written)) == [e.seq for e in logged]
        assert [event.at for event in logged] == sorted(event.at for event in logged)
    assert sum(heads.values()) == 8 * 20 * 4


async def test_events_of_one_call_take_their_seqs_in_its_order(db: asyncpg.Connection) -> None:
    one, two = await new_room(db), await new_room(db)
    placed = await rooms.append_events(
        db, [two, one, two, one, two], list("abcde"), [f'"{n}"' for n in range(5)], [None] * 5
    )
    assert [(place.ord, place.seq) for place in placed] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)]
    assert len({place.at for place in placed}) == 1
    assert [(event.name, event.payload) for event in await log_of(db, two)] == [
        ("a", '"0"'),
        ("c", '"2"'),
        ("e", '"4"'),
    ]


async def test_a_payload_is_kept_to_the_byte(db: asyncpg.Connection) -> None:
    room = await new_room(db)
    payload = '{ "b": 1,\t"a" : [1.0, 1e2],  "b": "\\u0041 \\" ✓ 🌙\u2028" }'
    await append(db, room, payload=payload)
    assert [event.payload for event in await log_of(db, room)] == [payload]


async def test_a_push_to_no_room_is_an_error_and_writes_nothing(db: asyncpg.Connection) -> None:
    room = await new_room(db)
    with pytest.raises(LookupError):
        async with db.transaction():
            await append(db, room, uuid4())
    assert await log_of(db, room) == []


async def test_what_is_rolled_back_leaves_no_hole(db: asyncpg.Connection) -> None:
    room = await new_room(db)
    await append(db, room)
    rolled_back = db.transaction()
    await rolled_back.start()
    assert [place.seq for place in await append(db, room, room)] == [2, 3]
    await rolled_back.rollback()
    assert [place.seq for place in await append(db, room)] == [2]


# append_messages


async def test_eight_senders_leave_no_hole_and_keep_their_order(connect: Connect, db: asyncpg.Connection) -> None:
    people = [await new_person(db) for _ in range(8)]
    chats = [await new_group(db, *people) for _ in range(2)]
    senders = [await connect() for _ in people]

    async def talk(sender: asyncpg.Connection, person: UUID) -> None:
        for n in range(15):
            rows = await send(sender, *(message(chat, person, f"{n}.{m}") for chat in chats for m in range(3)))
            assert {row.outcome for row in rows} == {"sent"}

    await asyncio.gather(*(talk(sender, person) for sender, person in zip(senders, people, strict=True)))
    for chat in chats:
        logged = await log_of(db, chat)
        assert [event.seq for event in logged] == list(range(1, 8 * 15 * 3 + 1))
        assert [event.at for event in logged] == sorted(event.at for event in logged)
        stored = await messages.list_after(db, people[0], chat, 0, most=1_000)
        assert [msgspec.json.encode(one).decode() for one in stored] == [event.payload for event in logged]
        for person in people:
            own = [one.text for one in stored if one.sender_id == person]
            assert own == [f"{n}.{m}" for n in range(15) for m in range(3)]


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        'quotes " and \\ and }',
        "}",
        "\x01\x1f\x7f\t\n\r",
        "السلام عليكم 👩‍👩‍👧 \u2028\u2029\ufeff",
        "%s $1 :name",
    ],
)
async def test_the_payload_is_the_message_encoded(
    db: asyncpg.Connection, amina: UUID, their_chat: UUID, text: str
) -> None:
    [first] = await send(db, message(their_chat, amina, text))
    [row] = await send(db, message(their_chat, amina, text, reply_to=first.message_id))
    [stored] = await messages.list_after(db, amina, their_chat, first.seq or 0, most=1)
    assert row.payload == msgspec.json.encode(stored).decode()
    assert (stored.message_id, stored.seq, stored.at) == (row.message_id, row.seq, row.at)
    assert (stored.text, stored.reply_to_id) == (text, first.message_id)
    assert [event.payload for event in await log_of(db, their_chat)] == [first.payload, row.payload]
    assert json.loads(row.payload or "")["text"] == text


async def test_each_message_of_a_batch_has_the_outcome_of_its_own(
    db: asyncpg.Connection, amina: UUID, bilal: UUID, their_chat: UUID
) -> None:
    elsewhere = await new_group(db, bilal)
    [old] = await send(db, message(their_chat, amina, "once", key="old"))
    [foreign] = await send(db, message(elsewhere, bilal, "not here"))
    rows = await send(
        db,
        message(their_chat, amina, "first"),
        message(their_chat, amina, "once", key="old"),
        message(elsewhere, amina, "no part in it"),
        message(uuid4(), amina, "no room"),
        message(their_chat, bilal, "answer", reply_to=old.message_id),
        message(their_chat, bilal, "reply to what is elsewhere", reply_to=foreign.message_id),
        message(their_chat, bilal, "reply to nothing", reply_to=uuid4()),
        message(their_chat, bilal, "once", key="old"),  # another sender's key is another key
    )
    assert [row.outcome for row in rows] == [
        "sent", "repeat", "not_found", "not_found", "sent", "no_reply", "no_reply", "sent",
    ]  # fmt: skip
    assert [row.ord for row in rows] == list(range(1, 9))
    assert (rows[1].message_id, rows[1].seq, rows[1].at) == (old.message_id, old.seq, old.at)
    assert [rows[n].seq for n in (0, 4, 7)] == [2, 3, 4]
    [reuse] = await send(db, message(their_chat, amina, "another", key="old"))
    assert reuse.outcome == "key_reuse"
    [moved] = await send(db, message(elsewhere, bilal, "once", key="old"))
    assert moved.outcome == "repeat"  # its digest covers the conversation too, where the handler makes it
    assert await heads_of(db, [their_chat]) == {their_chat: 4}


async def test_what_is_sent_says_of_which_kind_its_room_is_and_what_is_closed_takes_nothing(
    db: asyncpg.Connection, amina: UUID, their_chat: UUID
) -> None:
    thread = await new_group(db, amina)
    await db.execute("update rooms set kind = 'thread' where room_id = $1", thread)
    [once] = await send(db, message(thread, amina, "once", key="once"))
    assert once.kind == "thread"
    await db.execute("update conversations set closed_at = now() where conversation_id = $1", thread)
    rows = await send(
        db,
        message(thread, amina, "late"),
        message(their_chat, amina),
        message(thread, amina, "once", key="once"),
        message(thread, amina, "other", key="once"),
    )
    assert [row.outcome for row in rows] == ["not_found", "sent", "repeat", "key_reuse"]
    assert [row.kind for row in rows] == [None, "conversation", None, None]
    assert await heads_of(db, [thread]) == {thread: 1}


async def test_a_reply_to_what_was_said_before_one_came_is_none(
    db: asyncpg.Connection, amina: UUID, bilal: UUID
) -> None:
    chat = await new_group(db, amina)
    [before] = await send(db, message(chat, amina, "before"))
    await participants.add_participant(db, chat, bilal, ParticipantRole.MEMBER, before.seq or 0)
    [after] = await send(db, message(chat, amina, "after"))
    rows = await send(
        db,
        message(chat, bilal, "to the old", reply_to=before.message_id),
        message(chat, bilal, "to the new", reply_to=after.message_id),
    )
    assert [row.outcome for row in rows] == ["no_reply", "sent"]


async def test_a_room_that_is_held_is_busy_and_the_others_go_on(
    connect: Connect, db: asyncpg.Connection, amina: UUID, their_chat: UUID
) -> None:
    other = await new_group(db, amina)
    holder = await connect()
    async with holder.transaction():
        await rooms.lock_rooms(holder, [their_chat])
        rows = await send(
            db,
            message(their_chat, amina),
            message(other, amina),
            message(their_chat, uuid4()),
            message(uuid4(), amina),
            wait=False,
        )
        assert [row.outcome for row in rows] == ["busy", "sent", "not_found", "not_found"]  # strangers do not wait
        async with db.transaction():
            await db.execute("set local lock_timeout = '20ms'")
            with pytest.raises(asyncpg.LockNotAvailableError):
                async with db.transaction():
                    await send(db, message(their_chat, amina))
    [row] = await send(db, message(their_chat, amina), wait=False)
    assert (row.outcome, row.seq) == ("sent", 1)


async def test_a_removal_that_commits_while_a_send_waits_wins(
    connect: Connect, db: asyncpg.Connection, bilal: UUID, their_chat: UUID
) -> None:
    remover, sender = await connect(), await connect()
    async with remover.transaction():
        await rooms.lock_rooms(remover, [their_chat])
        sending = asyncio.create_task(send(sender, message(their_chat, bilal)))
        async with waiting(db, sender):
            await participants.remove_participant(remover, their_chat, bilal)
    assert [row.outcome for row in await sending] == ["not_found"]
    assert await log_of(db, their_chat) == []


async def test_somebody_let_in_while_their_send_waits_is_in(
    connect: Connect, db: asyncpg.Connection, their_chat: UUID
) -> None:
    carim = await new_person(db)
    owner, sender = await connect(), await connect()
    async with owner.transaction():
        await rooms.lock_rooms(owner, [their_chat])
        sending = asyncio.create_task(send(sender, message(their_chat, carim)))
        async with waiting(db, sender):
            await participants.add_participant(owner, their_chat, carim, ParticipantRole.MEMBER, 0)
    assert [row.outcome for row in await sending] == ["sent"]


async def test_of_two_sends_under_one_key_at_once_the_second_finds_the_first(
    connect: Connect, db: asyncpg.Connection, amina: UUID, their_chat: UUID
) -> None:
    first, second = await connect(), await connect()
    async with first.transaction():
        [sent] = await send(first, message(their_chat, amina, key="same"))
        repeating = asyncio.create_task(send(second, message(their_chat, amina, key="same")))
        async with waiting(db, second):
            pass
    [repeat] = await repeating
    assert (repeat.outcome, repeat.message_id, repeat.seq) == ("repeat", sent.message_id, sent.seq)
    assert await heads_of(db, [their_chat]) == {their_chat: 1}


async def test_of_one_key_in_two_rooms_at_once_the_second_is_told_to_try_again(
    connect: Connect, db: asyncpg.Connection, amina: UUID, their_chat: UUID
) -> None:
    other = await new_group(db, amina)
    first, second = await connect(), await connect()
    async with first.transaction():
        await send(first, message(their_chat, amina, "here", key="same"))
        racing = asyncio.create_task(send(second, message(other, amina, "there", key="same")))
        async with waiting(db, second):
            pass
    with pytest.raises(asyncpg.UniqueViolationError) as raised:
        await racing
    assert is_retryable(raised.value)
    [again] = await send(second, message(other, amina, "there", key="same"))
    assert again.outcome == "key_reuse"
    assert await log_of(db, other) == []


# list_moved


async def heads_of(db: asyncpg.Connection, room_ids: list[UUID]) -> dict[UUID, int]:
    return {head.room_id: head.last_seq for head in await rooms.list_heads(db, room_ids)}


async def moved(db: asyncpg.Connection, since: str) -> tuple[str, dict[UUID, int]]:
    found = await rooms.list_moved(db, since)
    return found.snapshot, {head.room_id: head.last_seq for head in found.heads}


async def test_a_comparison_finds_what_a_long_transaction_commits_late(
    connect: Connect, db: asyncpg.Connection
) -> None:
    late, early, other = await new_room(db), await new_room(db), await new_room(db)
    slow, slower = await connect(), await connect()
    since = await rooms.find_snapshot(db)
    async with slower.transaction():
        await slower.execute("select pg_current_xact_id()")  # it has its id, and has written nothing yet
        async with slow.transaction():
            await append(slow, late, late)
            since, heads = await moved(db, since)
            assert late not in heads
            await append(db, early)
            since, heads = await moved(db, since)
            assert (heads.get(early), heads.get(late)) == (1, None)
        since, heads = await moved(db, since)
        assert heads[late] == 2
        await append(slower, other)
        since, heads = await moved(db, since)
        assert other not in heads
    since, heads = await moved(db, since)
    assert heads[other] == 1


async def test_a_comparison_is_quiet_when_nothing_moved(db: asyncpg.Connection) -> None:
    room = await new_room(db)
    since = await rooms.find_snapshot(db)
    await append(db, room)
    found = await rooms.list_moved(db, since)
    assert rooms.Head(room, "conversation", 1) in found.heads
    assert found.epoch == (await rooms.find_deployment(db)).epoch
    async with asyncio.timeout(10):  # PostgreSQL's own transactions may hold xmin back for a moment
        while found.heads:
            found = await rooms.list_moved(db, found.snapshot)
    assert found.epoch == (await rooms.find_deployment(db)).epoch


async def test_whoever_changes_a_payload_lets_every_comparison_know(connect: Connect, db: asyncpg.Connection) -> None:
    room, other = await new_room(db), await new_room(db)
    await append(db, room, room, room, other)
    before = await rooms.list_moved(db, "3:3:")
    assert room not in {head.room_id for head in before.blanked}
    slow = await connect()
    async with slow.transaction():
        await slow.execute("update room_events set payload = '{}' where room_id = $1 and seq = 2", room)
        during = await rooms.list_moved(db, before.snapshot)
        assert room not in {head.room_id for head in during.heads}
    after = await rooms.list_moved(db, during.snapshot)
    assert [head.last_seq for head in after.blanked if head.room_id == room] == [2]
    assert other not in {head.room_id for head in after.heads}
    await append(db, room)
    last = await rooms.list_moved(db, after.snapshot)
    assert rooms.Head(room, "conversation", 4) in last.heads
    assert room not in {head.room_id for head in last.blanked}


async def test_a_new_epoch_forgets_the_ids_of_another_cluster(connect: Connect, db: asyncpg.Connection) -> None:
    room = await new_room(db)
    await append(db, room)
    was = await rooms.find_deployment(db)
    trying = db.transaction()  # others share this database's epoch
    await trying.start()
    await db.execute("update room_events set xid = '18446744073709551000' where room_id = $1", room)
    epoch = await rooms.restored(db)
    now = await rooms.find_deployment(db)
    _, heads = await moved(db, f"{2**62 + 3}:{2**62 + 3}:")
    await trying.rollback()
    assert was.epoch != epoch == now.epoch
    assert was.digest_key == now.digest_key
    assert heads == {}


# list_events


def seqs(events: Sequence[rooms.LoggedEvent]) -> list[tuple[UUID, int]]:
    return [(event.room_id, event.seq) for event in events]


async def test_a_page_of_events_keeps_to_its_bounds_and_to_the_order_asked_for(db: asyncpg.Connection) -> None:
    one, two = await new_room(db), await new_room(db)
    await append(db, *[one, two] * 4, payload=json.dumps("x" * 98))  # a hundred bytes each

    async def read(afters: dict[UUID, int], room_rows: int, rows: int, bytes_: int) -> list[tuple[UUID, int]]:
        return seqs(await rooms.list_events(db, afters, room_rows=room_rows, rows=rows, bytes_=bytes_))

    everything = {two: 0, one: 0}
    assert await read(everything, 9, 9, 9_999) == [(two, n) for n in range(1, 5)] + [(one, n) for n in range(1, 5)]
    assert await read({two: 2, one: 4}, 9, 9, 9_999) == [(two, 3), (two, 4)]
    assert await read(everything, 1, 9, 9_999) == [(two, 1), (one, 1)]
    assert await read(everything, 9, 5, 9_999) == [(two, 1), (two, 2), (two, 3), (two, 4), (one, 1)]
    assert await read(everything, 9, 9, 300) == [(two, 1), (two, 2), (two, 3)]
    assert await read(everything, 9, 9, 299) == [(two, 1), (two, 2)]
    assert await read(everything, 9, 9, 5) == [(two, 1)]  # one at least, or nobody would ever get past it
    assert await read({uuid4(): 0}, 9, 9, 9_999) == []
    assert await read({}, 9, 9, 9_999) == []


async def test_the_bytes_of_a_page_are_counted_and_not_its_characters(db: asyncpg.Connection) -> None:
    room = await new_room(db)
    await append(db, room, room, room, payload='"' + "ع" * 49 + '"')  # a hundred bytes too
    assert len(await rooms.list_events(db, {room: 0}, room_rows=9, rows=9, bytes_=200)) == 2


async def test_the_sweep_takes_what_is_old_a_batch_at_a_time(db: asyncpg.Connection) -> None:
    room = await new_room(db)
    await append(db, *[room] * 5)
    await db.execute("update room_events set at = now() - interval '31 days' where room_id = $1 and seq <= 3", room)
    swept = [await rooms.sweep_events(db, 30, 2) for _ in range(3)]
    assert swept == [2, 1, 0]
    assert seqs(await log_of(db, room)) == [(room, 4), (room, 5)]
    assert [place.seq for place in await append(db, room)] == [6]
