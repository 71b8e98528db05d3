"""Replays: what they may cost, and that none has a hole, whatever the client and the sweep do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from server.rooms import log, replays
from server.rooms.delivery import Delivery
from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.replays import Replays, Span
from server.rooms.sockets import Socket
from server.wire.websocket import PACE_BYTES
from storage import Connection
from storage import rooms as table
from storage._db import prepare_connection
from tests.people import Instance
from tests.rooms.watching import AT, Watched, commit, enter, seqs, stand
from tests.wire.bare import TEXT, client_frame
from tests.wire.test_guards import Deaf

NewInstance = Callable[..., Awaitable[Instance]]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


# within the budget


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events each measurement reads. An event takes 100 bytes; where 7 are missed they are too large."""
    asked: list[int] = []

    async def measure(_: Any, spans: Sequence[Span]) -> list[int | None]:
        counts = [head - after for _, after, head in spans]
        asked.append(sum(counts))
        return [2**20 + 1 if count == 7 else 100 * count for count in counts]

    monkeypatch.setattr(log, "measure", measure)
    return asked


@pytest.fixture
def reading(delivery: Delivery, database: Watched) -> Replays:
    return Replays(database, delivery, lambda *_: None)


def rooms_missing(counts: Sequence[int]) -> tuple[list[Room], dict[Room, int], dict[Room, int]]:
    rooms = [Room("conversation", uuid4()) for _ in counts]
    return rooms, dict.fromkeys(rooms, 10), {room: 10 + count for room, count in zip(rooms, counts, strict=True)}


async def test_only_rooms_that_still_fit_are_measured(reading: Replays, measured: list[int]) -> None:
    rooms, afters, heads = rooms_missing([900] * 1_000 + [0, 200])
    assert await reading.affordable(afters, heads) == [*rooms[:2], *rooms[-2:]]
    assert measured == [1_800, 200]


async def test_what_is_too_large_leaves_its_place_to_what_follows(reading: Replays, measured: list[int]) -> None:
    rooms, afters, heads = rooms_missing([7, 1_000, 1_000, 993, 1])
    assert await reading.affordable(afters, heads) == [rooms[1], rooms[2]]
    assert measured == [1_007, 1_000]


async def test_what_is_measured_in_vain_is_bounded(
    reading: Replays, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "REPLAY_BYTES", 1_000)
    rooms, afters, heads = rooms_missing([900] * 1_000 + [0])
    assert await reading.affordable(afters, heads) == [rooms[-1]]
    assert sum(measured) <= replays.MEASURED_EVENTS


async def test_the_budget_counts_bytes_and_not_characters(
    reading: Replays, delivery: Delivery, amina: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "REPLAY_BYTES", 399)
    rooms, afters, heads = rooms_missing([1, 1])
    for room, text in zip(rooms, ("🌙" * 100, "x" * 100), strict=True):
        stand(delivery, amina, room, head=10)
        delivery.deliver(Event(room, 11, AT, "test:done", text))
    assert await reading.affordable(afters, heads) == [rooms[1]]


# without a hole


# what many ask for together


@pytest.fixture
async def db(migrated_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(migrated_database)
    await prepare_connection(connection)
    yield connection
    await connection.close()


async def logged(db: Connection, *counts: int) -> list[Room]:
    """Rooms with so many events each."""
    rooms = [Room("conversation", uuid4()) for _ in counts]
    for room, count in zip(rooms, counts, strict=True):
        await table.create_room(db, room.id, room.kind)
        for _ in range(count):
            await log.append(db, [log.Entry(room, "message:created", '{"text":"0123456789"}')])
    return rooms


def shown(pages: Sequence[Sequence[Event] | None]) -> list[list[int] | None]:
    return [None if page is None else [event.seq for event in page] for page in pages]


async def test_those_who_ask_together_get_their_own(db: Connection) -> None:
    one, other, empty = await logged(db, 4, 2, 0)
    asked = [(one, 2), (other, 0), (empty, 0), (one, 0), (other, 2), (one, 2)]
    # What nothing follows while others of its room get something is asked for once more: it may have been cut off.
    assert shown(await replays._read(db, asked)) == [[3, 4], [1, 2], [], [1, 2, 3, 4], None, [3, 4]]
    assert shown(await replays._read(db, [(other, 2)])) == [[]]


async def test_who_has_no_place_in_a_statement_asks_again(db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, empty = await logged(db, 4, 2, 0)
    monkeypatch.setattr(replays, "PAGES_ROWS", 3)
    assert shown(await replays._read(db, [(one, 0), (other, 0), (empty, 0)])) == [[1, 2, 3], None, None]
    monkeypatch.undo()
    monkeypatch.setattr(replays, "PAGES_BYTES", 50)
    assert shown(await replays._read(db, [(one, 0), (other, 0), (empty, 0)])) == [[1, 2], None, None]


async def test_those_who_measure_together_get_their_own(db: Connection) -> None:
    one, other = await logged(db, 4, 2)
    await db.execute("delete from room_events where room_id = $1 and seq = 1", other.id)
    size = len('{"text":"0123456789"}')
    asked = [[(one, 1, 4), (other, 1, 2)], [(one, 3, 4), (other, 0, 2)], []]
    assert await replays._measure(db, asked) == [[3 * size, size], [size, None], []]


async def test_a_hole_in_the_middle_resets_a_join_and_a_sync(new_instance: NewInstance) -> None:
    parley = await new_instance()
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    chat = await parley.chat(amina, bilal)
    room = f"conversation:{chat}"
    for n in range(10):
        await amina.post("message:send", conversation_id=chat, client_id=f"k{n}", text=str(n))
    await delete_event(parley, chat, 5)
    device = await bilal.connect()
    assert (await device.call("room:join", room=room, after=2))["reset"]
    synced = await device.call("room:sync", room=room, after=2)
    assert (synced["events"], synced["reset"]) == ([], True)
    synced = await device.call("room:sync", room=room, after=2, limit=2)
    assert ([event["seq"] for event in synced["events"]], synced["more"], synced["reset"]) == ([3, 4], True, False)
    assert not (await device.call("room:join", room=room, after=5))["reset"]
    await device.hearing_up_to(room, 10)
    assert [push.seq for push in device.of(room)] == [6, 7, 8, 9, 10]


async def test_a_hole_that_comes_up_while_it_is_served_sends_the_client_back(
    new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    parley = await new_instance()
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    chat = await parley.chat(amina, bilal)
    for n in range(10):
        await amina.post("message:send", conversation_id=chat, client_id=f"k{n}", text=str(n))
    device = await bilal.connect()

    async def count_events(_: Any, room_id: UUID, after: int, head: int) -> int:
        await delete_event(parley, chat, 5)  # as soon as they have been counted
        return head - after

    monkeypatch.setattr(table, "count_events", count_events)
    joined = await device.call("room:join", room=f"conversation:{chat}", after=2)
    assert not joined["reset"]
    await device.gone()
    assert [push.seq for push in device.of(f"conversation:{chat}")] in ([], [3, 4])


async def delete_event(parley: Instance, conversation_id: str, seq: int) -> None:
    """As the sweep may do between two of its batches."""
    db = await asyncpg.connect(parley.dsn)
    await db.execute("delete from room_events where room_id = $1 and seq = $2", UUID(conversation_id), seq)
    await db.close()


# in memory


async def test_after_a_replay_from_the_tail_memory_holds_no_packets(new_instance: NewInstance) -> None:
    parley = await new_instance()
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    chat = await parley.chat(amina, bilal)
    phone = await amina.connect()
    for n in range(20):
        await phone.send(chat, str(n))
    device = await bilal.connect(rooms={f"conversation:{chat}": 0})
    await device.hearing_up_to(f"conversation:{chat}", 20)
    await device.call("account:me")
    tail = parley.parley.delivery.tail_after(Room("conversation", UUID(chat)), 0)
    assert tail is not None
    assert [event.seq for event in tail if event._packet is not None] == []


@pytest.fixture
def deaf() -> Iterator[list[Deaf]]:
    """Sockets to close."""
    opened: list[Deaf] = []
    yield opened
    for one in opened:
        one.socket.close()


async def test_what_is_blanked_while_a_slow_client_is_served_is_read_again(
    delivery: Delivery, database: Watched, reading: Replays, amina: Socket, chat: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand(delivery, enter(delivery), chat)
    for event in await commit(database, chat, chat, chat, payload='"a secret"'):
        delivery.deliver(event)
    local = delivery.hold(amina, chat)
    joiner = local.joining[amina]
    joiner.judge(0, 3)

    async def paced() -> None:
        if seqs(amina, chat) == [1]:
            async with database.connection() as db:
                await db.execute("update room_events set payload = '{}' where room_id = $1", chat.id)
            delivery.forget_tail(chat)

    monkeypatch.setattr(amina.connection, "paced", paced, raising=False)
    await reading.serve(amina, local, joiner)
    heard: Any = amina.connection
    assert seqs(amina, chat) == [1, 2, 3]
    assert ["secret" in text for text in heard.heard] == [True, False, False]


async def test_joins_of_a_client_that_reads_nothing_hold_no_pages(
    new_instance: NewInstance, deaf: list[Deaf], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, holding = 0, set()
    serve, page = Replays.serve, Replays._page

    async def serving(self: Replays, *args: Any) -> None:
        nonlocal begun
        begun += 1
        await serve(self, *args)
        holding.discard(asyncio.current_task())

    async def paging(self: Replays, *args: Any) -> Any:
        holding.add(asyncio.current_task())
        return await page(self, *args)

    parley = await new_instance()
    for listening in parley.parley._site._server.sockets:  # type: ignore[union-attr]
        listening.setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)  # the kernel would take megabytes
    amina = await parley.person("amina")
    chat = await parley.chat(amina, await parley.person("bilal"))
    for n in range(12):
        await amina.post(
            "message:send", conversation_id=chat, client_id=f"k{n}", text="🌙" * 9_990
        )  # two are more than the pace, whatever the kernel takes of them
    phone = Deaf(parley)
    deaf.append(phone)
    session = parley.parley.wire.eio.sessions[await phone.connect(amina)]
    monkeypatch.setattr(Replays, "serve", serving)
    monkeypatch.setattr(Replays, "_page", paging)
    for n in range(30):
        ask = f'42{n}["room:join",{{"room":"conversation:{chat}","after":0}}{" " * 60}]'
        await phone.send(client_frame(TEXT, ask.encode()))
    async with asyncio.timeout(10):
        while begun < 30 or session.backlog <= PACE_BYTES:
            await asyncio.sleep(0.001)
    assert len(holding) <= 1
