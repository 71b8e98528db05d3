"""Delivery: each room's events in order, each once, none missing, whatever the bus does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.errors import Unavailable
from server.rooms import comparison, log, repair
from server.rooms import delivery as delivery_module
from server.rooms.bus import Receive
from server.rooms.delivery import Delivery
from server.rooms.local import TAIL_BYTES, TAIL_EVENTS
from server.rooms.log import Entry, Event
from server.rooms.names import Room, user_room
from server.rooms.sockets import Socket
from server.wire import Packet
from storage import Connection, Database, Time
from storage import rooms as table
from tests.people import Instance

AT = Time("2026-11-20T17:00:00.000Z")


class SilentBus:
    """A bus that carries nothing, and remembers what it was asked to."""

    state = "ok"

    def __init__(self) -> None:
        self.rooms: list[Room] = []
        self.published: list[Event] = []

    async def start(self, receive: Receive) -> None:
        pass

    async def stop(self) -> None:
        pass

    def publish(self, event: Event) -> None:
        self.published.append(event)

    def subscribe(self, room: Room) -> None:
        self.rooms.append(room)

    def unsubscribe(self, room: Room) -> None:
        self.rooms.remove(room)


class Phone:
    """A connection as delivery sees it; `heard` is what was sent to it."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.news = asyncio.Event()

    def send(self, message: Packet, *, droppable: bool = False) -> bool:
        self.heard.append(message.text)
        self.news.set()
        return True


class Watched(Database):
    """The database, counting how often a connection is taken; down as long as `down` is not 0."""

    def __init__(self, database: Database) -> None:
        super().__init__(database._pool)
        self.taken = 0
        self.down = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.taken += 1
        if self.down:
            self.down -= 1
            raise Unavailable
        async with super().connection() as db:
            yield db


@pytest.fixture
async def database(shared_database: str) -> AsyncIterator[Watched]:
    database = await Database.open(shared_database, min_size=1, max_size=3)
    yield Watched(database)
    await database.close()


@pytest.fixture
def bus() -> SilentBus:
    return SilentBus()


@pytest.fixture
async def delivery(database: Watched, bus: SilentBus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Delivery]:
    """A delivery that compares only when a test says so."""
    monkeypatch.setattr(comparison, "COMPARE_S", 3600)
    delivery = Delivery(database, bus)
    await delivery.start()
    database.taken = 0
    yield delivery
    await delivery.stop()


@pytest.fixture
async def chat(database: Watched) -> Room:
    return await new_room(database)


@pytest.fixture
async def amina(delivery: Delivery) -> Socket:
    return enter(delivery)


async def new_room(database: Database) -> Room:
    room = Room("conversation", uuid4())
    async with database.connection() as db:
        await table.create_room(db, room.id, room.kind)
    return room


def enter(delivery: Delivery, user_id: UUID | None = None) -> Socket:
    socket = Socket(Phone(), user_id or uuid4(), uuid4())  # type: ignore[arg-type]
    socket.greeted.set_result(None)
    delivery.enter(socket)
    return socket


def stand(delivery: Delivery, socket: Socket, room: Room, head: int = 0) -> None:
    """Let a socket stand in a room, as a join without a replay does."""
    local = delivery.hold(socket, room)
    delivery.begin(local, head)
    joiner = local.joining[socket]
    joiner.position, joiner.served = local.head or 0, True
    local.open(socket)


async def commit(database: Database, *where: Room, payload: str = "{}") -> list[Event]:
    """Append one event to each of the rooms, in one transaction that nobody publishes."""

    async def work(db: Connection) -> list[Event]:
        return await log.append(db, [Entry(room, "test:done", payload) for room in where])

    return await database.transaction(work)


def seqs(socket: Socket, room: Room) -> list[int]:
    """What a phone has heard of a room."""
    marker = f'"room":"{room}","seq":'
    phone: Any = socket.connection
    return [int(text.partition(marker)[2].partition(",")[0]) for text in phone.heard if marker in text]


async def hearing(socket: Socket, room: Room, expected: list[int]) -> None:
    """Wait until a phone has heard as much of a room as is expected, and compare."""
    phone: Any = socket.connection
    async with asyncio.timeout(10):
        while len(seqs(socket, room)) < len(expected):
            phone.news.clear()
            await phone.news.wait()
    assert seqs(socket, room) == expected


async def until(seen: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not seen():
            await asyncio.sleep(0.002)


# in order


async def test_the_next_event_is_delivered_and_an_older_one_dropped(
    delivery: Delivery, amina: Socket, chat: Room
) -> None:
    stand(delivery, amina, chat, head=4)
    for seq in (4, 5, 5, 3, 6, 1, 5):
        delivery.deliver(Event(chat, seq, AT, "test:done", "{}"))
    assert seqs(amina, chat) == [5, 6]
    assert delivery.delivered == 2


async def test_everybody_in_a_room_is_sent_the_same_packet(delivery: Delivery, amina: Socket, chat: Room) -> None:
    others = [enter(delivery) for _ in range(3)]
    for socket in (amina, *others):
        stand(delivery, socket, chat)
    outside = enter(delivery)
    delivery.deliver(Event(chat, 1, AT, "test:done", '{"a": 1}'))
    heard = [socket.connection.heard for socket in (amina, *others)]  # type: ignore[attr-defined]
    assert heard == [[f'2["test:done",{{"a": 1}},{{"room":"{chat}","seq":1,"at":"{AT}"}}]']] * 4
    assert seqs(outside, chat) == []


async def test_a_plain_reorder_settles_without_the_database(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room
) -> None:
    stand(delivery, amina, chat)
    events = await commit(database, *[chat] * 6)
    database.taken = 0
    for event in reversed(events):
        assert seqs(amina, chat) == []
        delivery.deliver(event)
    assert seqs(amina, chat) == [1, 2, 3, 4, 5, 6]
    settled = asyncio.Event()
    asyncio.get_running_loop().call_later(repair.REORDER_S, settled.set)  # behind the timers of the reorder
    await settled.wait()
    assert (database.taken, delivery.repaired) == (0, 0)


async def test_what_is_missing_is_read_from_the_log(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room
) -> None:
    stand(delivery, amina, chat)
    *_, last = await commit(database, *[chat] * 5, payload='{"b":  1}')
    delivery.deliver(last)
    await hearing(amina, chat, [1, 2, 3, 4, 5])
    phone: Any = amina.connection
    assert [text.count('{"b":  1}') for text in phone.heard] == [1] * 5  # what is read is what was pushed, to the byte
    assert delivery.repaired >= 4
    [again] = await commit(database, chat)
    delivery.deliver(again)
    assert seqs(amina, chat) == [1, 2, 3, 4, 5, 6]


async def test_rooms_that_are_behind_are_read_together(delivery: Delivery, database: Watched, amina: Socket) -> None:
    rooms = [await new_room(database) for _ in range(20)]
    for room in rooms:
        stand(delivery, amina, room)
    events = await commit(database, *rooms, *rooms, *rooms)
    database.taken = 0
    for event in events[-20:]:
        delivery.deliver(event)
    for room in rooms:
        await hearing(amina, room, [1, 2, 3])
    assert database.taken <= 2  # one statement; two where the timers fell into two turns of the loop


@pytest.mark.parametrize(
    ("module", "bound", "value"),
    [(repair, "ROOM_ROWS", 3), (repair, "ROWS", 4), (repair, "BYTES", 250), (delivery_module, "EARLY_EVENTS", 2)],
)
async def test_a_repair_goes_on_until_all_is_delivered_whatever_its_bounds(
    delivery: Delivery,
    database: Watched,
    amina: Socket,
    module: ModuleType,
    bound: str,
    value: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, bound, value)
    rooms = [await new_room(database) for _ in range(3)]
    for room in rooms:
        stand(delivery, amina, room)
        for event in (await commit(database, *[room] * 12, payload=f'"{"x" * 98}"'))[1:]:
            delivery.deliver(event)
    for room in rooms:
        await hearing(amina, room, list(range(1, 13)))


async def test_what_comes_while_a_repair_reads_is_delivered_in_its_turn(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room
) -> None:
    stand(delivery, amina, chat)
    first = await commit(database, *[chat] * 4)
    delivery.deliver(first[-1])
    await until(lambda: delivery.repair.task is not None)
    for event in await commit(database, *[chat] * 4):
        delivery.deliver(event)
    await hearing(amina, chat, list(range(1, 9)))


async def test_an_event_that_the_log_has_not_is_no_endless_question(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room
) -> None:
    other = await new_room(database)
    for room in (chat, other):
        stand(delivery, amina, room)
    await commit(database, other)
    database.taken = 0
    for room in (chat, other):
        delivery.deliver(Event(room, 1_000, AT, "test:done", "{}"))
    await until(lambda: delivery.repair.task is not None)
    assert delivery.repair.task is not None
    await asyncio.wait([delivery.repair.task], timeout=2)
    assert delivery.repair.task.done()
    assert database.taken < 5
    delivery.publish(await commit(database, chat, other))
    assert (seqs(amina, chat), seqs(amina, other)) == ([1], [1, 2])


async def test_a_repair_waits_for_a_database_that_is_down(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "RETRY_S", 0.01)
    stand(delivery, amina, chat)
    events = await commit(database, chat, chat)
    database.down = 3
    delivery.deliver(events[1])
    await hearing(amina, chat, [1, 2])


async def test_an_effect_that_fails_stops_nobody(delivery: Delivery, amina: Socket, chat: Room) -> None:
    seen = []

    def effect(event: Event) -> None:
        seen.append((event.seq, seqs(amina, chat)))
        raise RuntimeError("a bug")

    delivery.on("test:done", effect)
    stand(delivery, amina, chat)
    for seq in (1, 2):
        delivery.deliver(Event(chat, seq, AT, "test:done", "{}"))
    assert seqs(amina, chat) == [1, 2]
    assert seen == [(1, [1]), (2, [1, 2])]  # each once it has been sent


async def test_what_is_published_goes_to_the_bus_and_to_ones_own(
    delivery: Delivery, bus: SilentBus, amina: Socket, chat: Room
) -> None:
    stand(delivery, amina, chat)
    elsewhere = Room("conversation", uuid4())
    events = [Event(chat, 1, AT, "test:done", "{}"), Event(elsewhere, 9, AT, "test:done", "{}")]
    delivery.publish(events)
    assert bus.published == events
    assert seqs(amina, chat) == [1]


# comparison


async def test_a_comparison_finds_what_nobody_published(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room
) -> None:
    stand(delivery, amina, chat)
    await commit(database, chat, chat, await new_room(database))
    await delivery.comparison.compare()
    await hearing(amina, chat, [1, 2])


async def test_without_anything_asked_a_push_arrives_within_two_comparisons(
    database: Watched, bus: SilentBus, chat: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert comparison.COMPARE_S + repair.REORDER_S < 2
    monkeypatch.setattr(comparison, "COMPARE_S", 0.02)
    delivery = Delivery(database, bus)
    await delivery.start()
    amina = enter(delivery)
    stand(delivery, amina, chat)
    for n in range(1, 4):
        await commit(database, chat)
        await hearing(amina, chat, list(range(1, n + 1)))
    await delivery.stop()


async def test_a_room_just_watched_is_compared_by_its_own_row_once(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room
) -> None:
    local = delivery.hold(amina, chat)
    await commit(database, chat)
    await delivery.comparison.compare()
    # By now the event is behind what is asked for, in a room whose head was not known.
    await delivery.comparison.compare()
    delivery.begin(local, 0)  # the snapshot of the join was older
    local.joining[amina].position = 0
    local.open(amina)
    await delivery.comparison.compare()
    await hearing(amina, chat, [1])
    assert not delivery.comparison.fresh


async def test_a_comparison_that_fails_forgets_nothing(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room
) -> None:
    other = await new_room(database)
    stand(delivery, amina, chat)
    await delivery.comparison.compare()
    await commit(database, chat, other)
    stand(delivery, amina, other)
    database.down = 1
    with pytest.raises(Unavailable):
        await delivery.comparison.compare()
    await delivery.comparison.compare()
    await hearing(amina, chat, [1])
    await hearing(amina, other, [1])


async def test_after_failures_every_head_is_compared(
    database: Watched, bus: SilentBus, chat: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "COMPARE_S", 0.01)
    monkeypatch.setattr(comparison, "CHUNK", 1)
    compared: list[int] = []

    async def list_heads(db: Connection, room_ids: list[UUID]) -> list[table.Head]:
        compared.append(len(room_ids))
        return await original(db, room_ids)

    original = table.list_heads
    delivery = Delivery(database, bus)
    await delivery.start()
    amina, other = enter(delivery), await new_room(database)
    for room in (chat, other):
        stand(delivery, amina, room)
    await until(lambda: not delivery.comparison.fresh)
    database.down = 3
    await until(lambda: database.down < 3)
    monkeypatch.setattr(table, "list_heads", list_heads)
    await commit(database, chat, other)
    for room in (chat, other):
        await hearing(amina, room, [1])
    assert compared[:2] == [1, 1]
    await delivery.stop()


async def test_a_new_epoch_is_told_once(
    migrated_database: str, bus: SilentBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "COMPARE_S", 3600)
    database = await Database.open(migrated_database, min_size=1, max_size=2)
    delivery = Delivery(database, bus)
    await delivery.start()
    told: list[UUID | None] = []

    async def tell() -> None:
        told.append(delivery.epoch)

    delivery.on_new_epoch(tell)
    await delivery.comparison.compare()
    assert told == []
    epoch = await database.transaction(table.restored)
    await delivery.comparison.compare()
    await delivery.comparison.compare()
    await delivery.comparison.compare_all()
    assert told == [epoch]
    await delivery.stop()
    await database.close()


async def test_a_new_epoch_closes_the_sockets_and_the_next_hello_resets_everything(
    new_instance: Callable[..., Any],
) -> None:
    parley: Instance = await new_instance()
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    chat = await parley.chat(amina, bilal)
    phone = await amina.connect()
    was = phone.hello["epoch"]
    gone = asyncio.Event()
    phone.client.on("disconnect", gone.set)
    await phone.send(chat, "before")
    epoch = await parley.parley.database.transaction(table.restored)
    await asyncio.wait_for(gone.wait(), 10)
    back = await amina.connect(epoch=was, rooms={f"conversation:{chat}": 1})
    assert back.hello["epoch"] == str(epoch) != was
    assert set(back.hello["reset"]) == {f"conversation:{chat}", f"user:{amina.user_id}"}


# who watches


async def test_a_room_is_subscribed_to_as_long_as_somebody_watches(
    delivery: Delivery, bus: SilentBus, amina: Socket, chat: Room
) -> None:
    bilal = enter(delivery)
    delivery.hold(amina, chat)
    stand(delivery, bilal, chat)
    assert (bus.rooms, delivery.watched) == ([chat], 1)
    assert delivery.release(amina, chat)
    assert not delivery.release(amina, chat)
    assert bus.rooms == [chat]
    delivery.exit(bilal)
    assert (bus.rooms, delivery.watched, bilal.rooms) == ([], 0, {})
    delivery.deliver(Event(chat, 1, AT, "test:done", "{}"))
    delivery.exit(amina)
    assert delivery.sockets_of(amina.user_id) == []


async def test_a_joining_socket_hears_nothing_before_it_is_served_and_then_the_next(
    delivery: Delivery, amina: Socket, chat: Room
) -> None:
    bilal = enter(delivery)
    stand(delivery, bilal, chat)
    local = delivery.hold(amina, chat)
    delivery.deliver(Event(chat, 1, AT, "test:done", "{}"))
    local.joining[amina].position, local.joining[amina].served = 3, True
    for seq in (2, 3, 4, 5):
        delivery.deliver(Event(chat, seq, AT, "test:done", "{}"))
    assert seqs(amina, chat) == [4, 5]  # it was served up to 3, before this instance was
    assert seqs(bilal, chat) == [1, 2, 3, 4, 5]


async def test_what_arrives_before_the_head_is_known_waits_for_it(
    delivery: Delivery, amina: Socket, chat: Room
) -> None:
    local = delivery.hold(amina, chat)
    local.open(amina)
    for seq in (8, 6, 7):
        delivery.deliver(Event(chat, seq, AT, "test:done", "{}"))
    assert seqs(amina, chat) == []
    delivery.begin(local, 6)
    assert seqs(amina, chat) == [7, 8]
    delivery.begin(local, 2)  # the head is known
    assert local.head == 8


def removal(delivery: Delivery, person: Socket, room: Room, seq: int) -> Event:
    """An event that ends a person's standing in a room."""
    delivery.on_end("test:gone", lambda event: UUID(json.loads(event.payload)))
    return Event(room, seq, AT, "test:gone", f'"{person.user_id}"')


async def test_a_removal_takes_all_of_a_persons_sockets_out(delivery: Delivery, amina: Socket, chat: Room) -> None:
    tablet, bilal = enter(delivery, amina.user_id), enter(delivery)
    for socket in (amina, tablet, bilal):
        stand(delivery, socket, chat)
    stand(delivery, amina, user_room(amina.user_id))
    delivery.deliver(removal(delivery, amina, chat, 1))
    delivery.deliver(Event(chat, 2, AT, "test:done", "{}"))
    assert [seqs(socket, chat) for socket in (amina, tablet, bilal)] == [[1], [1], [1, 2]]
    assert list(amina.rooms) == [user_room(amina.user_id)]


async def test_a_late_removal_leaves_those_who_came_back_behind_it(
    delivery: Delivery, amina: Socket, chat: Room
) -> None:
    back, judged, member = (enter(delivery, amina.user_id) for _ in range(3))
    evicted: list[tuple[Socket, Room, int]] = []
    delivery.on_evicted(lambda *what: evicted.append(what))
    for socket, position in ((amina, 4), (back, 5), (judged, -1)):
        delivery.hold(socket, chat).joining[socket].position = position
    stand(delivery, member, chat, head=4)
    delivery.deliver(removal(delivery, amina, chat, 5))
    assert [chat in socket.rooms for socket in (amina, back, judged, member)] == [False, True, True, False]
    assert judged.rooms[chat].joining[judged].ended == 5  # the snapshot of its judgement decides
    assert sorted(id(who) for who, _, _ in evicted) == sorted([id(amina), id(member)])
    assert {what for _, *what_ in evicted for what in [tuple(what_)]} == {(chat, 5)}


async def test_a_removal_during_a_connect_is_remembered(delivery: Delivery, amina: Socket, chat: Room) -> None:
    connecting = Socket(Phone(), uuid4(), uuid4())  # type: ignore[arg-type]
    delivery.enter(connecting)
    stand(delivery, amina, chat)
    delivery.deliver(removal(delivery, connecting, chat, 1))
    assert connecting.evicted == {chat: 1}
    delivery.exit(connecting)
    assert connecting.greeted.cancelled()
    assert connecting.is_gone


# the tail


async def test_the_tail_answers_what_it_has_whole_and_nothing_else(
    delivery: Delivery, amina: Socket, chat: Room
) -> None:
    assert delivery.tail_after(chat, 0) is None
    stand(delivery, amina, chat, head=10)
    assert delivery.tail_after(chat, 10) == []
    for seq in range(11, 16):
        delivery.deliver(Event(chat, seq, AT, "test:done", "{}"))

    def tail(after: int) -> list[int] | None:
        events = delivery.tail_after(chat, after)
        return None if events is None else [event.seq for event in events]

    assert tail(10) == [11, 12, 13, 14, 15]
    assert tail(13) == [14, 15]
    assert tail(15) == []
    assert tail(9) is None  # 10 was never here
    assert tail(16) is None  # beyond the head


@pytest.mark.parametrize(("size", "kept"), [(10, TAIL_EVENTS), (1024, 64), (TAIL_BYTES + 1, 0)])
async def test_the_tail_is_bounded_in_events_and_bytes(
    delivery: Delivery, amina: Socket, chat: Room, size: int, kept: int
) -> None:
    stand(delivery, amina, chat)
    for seq in range(1, 301):
        delivery.deliver(Event(chat, seq, AT, "test:done", "x" * size))
    tail = delivery.tail_after(chat, 300 - kept)
    assert tail is not None
    assert len(tail) == kept
    assert delivery.tail_after(chat, 300 - kept - 1) is None
