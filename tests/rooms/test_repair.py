"""Repair: many rooms behind at once, bounds, failures, and what is lost for good."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from server.errors import Unavailable
from server.rooms import log, repair
from server.rooms.delivery import Delivery
from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.sockets import Socket
from tests.rooms.watching import (
    AT,
    SilentBus,
    Watched,
    commit,
    enter,
    hearing,
    new_room,
    removal,
    seqs,
    stand,
)

LONG = f'"{"x" * 98}"'  # a payload of 100 bytes

Read = Callable[..., Awaitable[Any]]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of each statement that is read from now on, how many rooms it asks for, and how many rows of each."""
    asked: list[tuple[int, int]] = []
    original = log.read

    async def read(db: Any, afters: Any, **bounds: int) -> Any:
        asked.append((len(afters), bounds["room_rows"]))
        return await original(db, afters, **bounds)

    monkeypatch.setattr(log, "read", read)
    return asked


def overtake(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], Awaitable[None]]) -> None:
    """Let something happen between the next statement and what is done with it."""
    original = log.read

    async def read(*args: Any, **bounds: int) -> Any:
        monkeypatch.setattr(log, "read", original)
        found = await original(*args, **bounds)
        await happen()
        return found

    monkeypatch.setattr(log, "read", read)


async def finished(delivery: Delivery) -> None:
    """Wait until nothing is being repaired that was expected before."""
    timers = asyncio.Event()
    asyncio.get_running_loop().call_later(repair.REORDER_S, timers.set)
    await timers.wait()
    if delivery.repair.task is not None:
        await asyncio.wait_for(asyncio.shield(delivery.repair.task), 10)


async def test_rooms_without_number_are_read_some_at_a_time(
    delivery: Delivery,
    database: Watched,
    amina: Socket,
    reads: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repair, "ROOMS", 5)
    monkeypatch.setattr(repair, "ROWS", 10)
    rooms = [await new_room(database) for _ in range(12)]
    for room in rooms:
        stand(delivery, amina, room)
    await commit(database, *rooms * 3)
    delivery.repair._at_once = 5
    await delivery.comparison.compare()
    for room in rooms:
        await hearing(amina, room, [1, 2, 3])
    assert max(rooms for rooms, _ in reads) == 5
    assert all(rooms * rows <= 10 for rooms, rows in reads)


async def test_a_statement_that_fails_is_followed_by_smaller_ones(
    delivery: Delivery,
    database: Watched,
    amina: Socket,
    reads: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repair, "RETRY_S", 0.001)
    within = log.read

    async def slow(db: Any, afters: Any, **bounds: int) -> Any:
        found = await within(db, afters, **bounds)
        if len(afters) > 3:
            raise Unavailable  # the statement's time is up
        return found

    monkeypatch.setattr(log, "read", slow)
    rooms = [await new_room(database) for _ in range(12)]
    for room in rooms:
        stand(delivery, amina, room)
    await commit(database, *rooms)
    await delivery.comparison.compare()
    for room in rooms:
        await hearing(amina, room, [1])
    sizes = [rooms for rooms, _ in reads]
    assert sizes[:3] == [12, 6, 3]
    assert 6 in sizes[3:]  # it tries more again


@pytest.mark.parametrize("fails", [True, False])
async def test_a_late_event_from_the_bus_does_not_hide_what_was_asked_for(
    delivery: Delivery,
    database: Watched,
    amina: Socket,
    chat: Room,
    fails: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repair, "ROWS", 3)
    monkeypatch.setattr(repair, "RETRY_S", 0.001)
    stand(delivery, amina, chat)
    events = await commit(database, *[chat] * 12)

    async def come() -> None:
        delivery.repair._begin(delivery._rooms[chat], 5)  # as the fifth does that the bus brings
        if fails:
            raise Unavailable

    overtake(monkeypatch, come)
    await delivery.comparison.compare()
    await hearing(amina, chat, list(range(1, 13)))
    assert len(events) == 12


@pytest.mark.parametrize("leaves", [True, False], ids=["left", "with a hole"])
async def test_a_room_that_comes_to_nothing_costs_no_other_its_turn(
    delivery: Delivery,
    database: Watched,
    amina: Socket,
    leaves: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repair, "BYTES", 250)
    big, small = await new_room(database), await new_room(database)
    bilal = enter(delivery)
    stand(delivery, bilal, big)
    stand(delivery, amina, small)
    await commit(database, *[big] * 5, payload=LONG)
    await commit(database, *[small] * 2, payload=LONG)

    async def leave() -> None:
        delivery.exit(bilal)

    if leaves:
        overtake(monkeypatch, leave)
    else:
        async with database.connection() as db:
            await db.execute("delete from room_events where room_id = $1 and seq = 1", big.id)
    local, other = delivery._rooms[big], delivery._rooms[small]
    delivery.repair.expect(local, 5)
    delivery.repair.expect(other, 2)
    await hearing(amina, small, [1, 2])


@pytest.mark.parametrize("seqs_lost", [[2], [1, 2, 3, 4, 5]], ids=["one", "all"])
async def test_the_people_of_a_room_with_a_hole_are_sent_back(
    delivery: Delivery, database: Watched, bus: SilentBus, amina: Socket, chat: Room, seqs_lost: list[int]
) -> None:
    other = await new_room(database)
    bilal, connecting = enter(delivery), enter(delivery)
    for room in (chat, other):
        stand(delivery, amina, room, head=1)
    stand(delivery, bilal, other, head=1)
    delivery.hold(connecting, chat)
    await commit(database, *[chat] * 5, *[other] * 5)
    async with database.connection() as db:
        await db.execute("delete from room_events where room_id = $1 and seq = any ($2)", chat.id, seqs_lost)
    await delivery.comparison.compare_all()
    await hearing(bilal, other, [2, 3, 4, 5])
    await finished(delivery)
    assert [socket.connection.is_dropped for socket in (amina, bilal, connecting)] == [True, False, True]  # type: ignore[attr-defined]
    assert (amina.rooms, connecting.rooms) == ({}, {})
    assert (bus.rooms, delivery.watched) == ([other], 1)
    assert seqs(amina, chat) == []


async def test_a_room_that_a_removal_has_emptied_is_gone_whatever_still_waits_in_it(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room
) -> None:
    stand(delivery, amina, chat)
    for seq in (3, 2):
        delivery.deliver(Event(chat, seq, AT, "test:done", "{}"))
    delivery.deliver(removal(delivery, amina, chat, 1))
    assert (delivery.watched, delivery.tails.bytes) == (0, 0)
    stand(delivery, amina, chat)
    local = delivery._rooms[chat]
    delivery._mend(local, [removal(delivery, amina, chat, 1), Event(chat, 2, AT, "test:done", "{}")])
    assert (delivery.watched, delivery.tails.bytes, local.head) == (0, 0, 1)


async def test_nothing_is_read_any_more_once_it_has_stopped(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room
) -> None:
    stand(delivery, amina, chat)
    await commit(database, chat, chat)
    delivery.deliver(Event(chat, 2, AT, "test:done", "{}"))
    await delivery.stop()
    database.taken = 0
    await finished(delivery)
    assert (delivery.repair.task, database.taken) == (None, 0)


async def test_the_bus_ends_before_what_it_asks_for(
    delivery: Delivery, bus: SilentBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    for name, part in (("bus", bus), ("repair", delivery.repair), ("comparison", delivery.comparison)):
        original = part.stop

        async def stop(name: str = name, original: Callable[[], Awaitable[None]] = original) -> None:
            ended.append(name)
            await original()

        monkeypatch.setattr(part, "stop", stop)
    await delivery.stop()
    assert ended.index("bus") < ended.index("repair")


SECRET, BLANK = '"a secret"', '"blank"'


async def blank(database: Watched, chat: Room, seq: int) -> None:
    """Blank an event in the log, without a word to anybody."""
    async with database.connection() as db:
        sql = "update room_events set payload = $3::text::json where room_id = $1 and seq = $2"
        await db.execute(sql, chat.id, seq, BLANK)


def remembered(delivery: Delivery, chat: Room) -> list[str]:
    events = delivery.tail_after(chat, 0)
    assert events is not None
    return [event.payload for event in events]


@pytest.mark.parametrize("by", ["the bus", "the comparison"])
async def test_what_was_read_before_it_was_blanked_is_read_again(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand(delivery, amina, chat)
    await commit(database, chat, chat, chat, payload=SECRET)

    async def is_blanked() -> None:
        await blank(database, chat, 2)
        if by == "the bus":
            delivery.forget_tail(chat)
        else:
            await delivery.comparison.compare()

    await delivery.comparison.compare()
    overtake(monkeypatch, is_blanked)
    await hearing(amina, chat, [1, 2, 3])
    assert remembered(delivery, chat) == [SECRET, BLANK, SECRET]


async def test_what_waited_for_its_turn_while_it_was_blanked_is_read_from_the_log(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room
) -> None:
    stand(delivery, amina, chat)
    events = await commit(database, chat, chat, chat, payload=SECRET)
    delivery.deliver(events[2])
    await blank(database, chat, 3)
    delivery.forget_tail(chat)
    for event in events[:2]:
        delivery.deliver(event)
    await hearing(amina, chat, [1, 2, 3])
    assert remembered(delivery, chat) == [SECRET, SECRET, BLANK]


async def test_what_the_bus_brings_behind_its_blanking_is_read_from_the_log(
    delivery: Delivery, database: Watched, amina: Socket, chat: Room
) -> None:
    stand(delivery, amina, chat)
    events = await commit(database, chat, chat, payload=SECRET)
    await blank(database, chat, 1)
    await delivery.comparison.compare()
    for event in events:
        delivery.deliver(event)
    await hearing(amina, chat, [1, 2])
    assert remembered(delivery, chat) == [BLANK, SECRET]
