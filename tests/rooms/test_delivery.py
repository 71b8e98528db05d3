"""Delivery: each room's events in order, each once, none missing, whatever the bus does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.errors import Unavailable
from server.rooms import comparison, log, repair
from server.rooms import delivery as delivery_module
from server.rooms.delivery import Delivery
from server.rooms.local import TAIL_BYTES, TAIL_EVENTS
from server.rooms.log import Event
from server.rooms.names import Room, user_room
from server.rooms.sockets import Socket
from storage import Connection, Database
from storage import rooms as table
from tests.people import Instance
from tests.rooms.watching import (
    AT,
    Phone,
    SilentBus,
    Watched,
    commit,
    enter,
    hearing,
    new_room,
    removal,
    seqs,
    stand,
    until,
)

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
    [(repair, "ROOMS", 2), (repair, "ROWS", 4), (repair, "BYTES", 250), (delivery_module, "EARLY_EVENTS", 2)],
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


async def test_an_ephemeral_effect_that_fails_stops_nobody(delivery: Delivery, bus: SilentBus, chat: Room) -> None:
    def heard(event: Event) -> None:
        raise RuntimeError("a bug")

    delivery.on_heard("test:typed", heard)
    delivery.deliver(log.ephemeral(chat, "test:typed", "{}"))
    delivery.announce(log.ephemeral(chat, "test:typed", "{}"))
    assert len(bus.published) == 1


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


async def test_a_long_transaction_makes_no_comparison_find_the_same_again(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room
) -> None:
    own = await new_room(database)
    async with database.unit() as slow:
        await slow.execute("select pg_current_xact_id()")  # it has its id, and keeps xmin back
        async with database.connection() as db:
            before = await table.find_snapshot(db)
            await commit(database, chat)
            first = await table.list_moved(db, before)
            assert chat.id in {head.room_id for head in first.heads}
            second = await table.list_moved(db, first.snapshot)
            assert chat.id not in {head.room_id for head in second.heads}
            await log.append(slow, [log.Entry(own, "test:done", "{}")])
            third = await table.list_moved(db, second.snapshot)
            assert own.id not in {head.room_id for head in third.heads}
    async with database.connection() as db:
        last = await table.list_moved(db, third.snapshot)
    assert {head.room_id for head in last.heads} & {own.id, chat.id} == {own.id}


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


@pytest.mark.parametrize("is_all", [False, True], ids=["a comparison", "a comparison of all heads"])
async def test_what_is_blanked_in_the_log_is_forgotten_whatever_the_bus_loses(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room, is_all: bool
) -> None:
    other = await new_room(database)
    for room in (chat, other):
        stand(delivery, amina, room)
    events = await commit(database, chat, chat, other, payload='"a secret"')
    for event in events:
        delivery.deliver(event)
    await delivery.comparison.compare()
    assert delivery.tail_after(chat, 0) == events[:2]  # what is new is no reason to forget
    async with database.connection() as db:
        await db.execute("update room_events set payload = '{}' where room_id = $1 and seq = 1", chat.id)
    await (delivery.comparison.compare_all() if is_all else delivery.comparison.compare())
    assert delivery.tail_after(chat, 0) is None
    assert is_all or delivery.tail_after(other, 0) == events[2:]
    assert (delivery.tail_after(chat, 2), delivery.repair.task) == ([], None)


async def test_over_a_new_connection_every_head_is_compared(
    shared_database: str, bus: SilentBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "COMPARE_S", 3600)
    database = await Database.open(shared_database, min_size=1, max_size=1)
    delivery = Delivery(database, bus)
    await delivery.start()
    amina, chat = enter(delivery), await new_room(database)
    stand(delivery, amina, chat)
    await delivery.comparison.compare()
    delivery.comparison._snapshot = (
        f"{2**62 + 3}:{2**62 + 3}:"  # the ids before it were lost in a crash, and come again
    )
    await commit(database, chat)
    found = delivery.comparison._note_heads
    heads: list[table.Head] = []
    monkeypatch.setattr(delivery.comparison, "_note_heads", lambda them: (heads.extend(them), found(them)))
    await delivery.comparison.compare()
    assert heads == []
    delivery.comparison._snapshot = f"{2**62 + 3}:{2**62 + 3}:"
    await database.expire_connections()
    await delivery.comparison.compare()
    await hearing(amina, chat, [1])
    await commit(database, chat)
    await delivery.comparison.compare()
    await hearing(amina, chat, [1, 2])
    await delivery.stop()
    await database.close()


async def test_a_new_epoch_is_told_once(
    migrated_database: str, bus: SilentBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "COMPARE_S", 3600)
    database = await Database.open(migrated_database, min_size=1, max_size=2)
    delivery = Delivery(database, bus)
    await delivery.start()
    told: list[UUID | None] = []
    monkeypatch.setattr(delivery.comparison, "_on_new_epoch", lambda: told.append(delivery.epoch))
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
    assert judged.rooms[chat].joining[judged].asked == 1  # it is judged once more, and that snapshot decides
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


async def test_the_tail_counts_bytes_and_not_characters(delivery: Delivery, amina: Socket, chat: Room) -> None:
    stand(delivery, amina, chat)
    for seq in range(1, 101):
        delivery.deliver(Event(chat, seq, AT, "test:done", "🌙" * 512))  # 2 KiB
    assert delivery.tail_after(chat, 100 - 32) is not None
    assert delivery.tail_after(chat, 100 - 33) is None


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
