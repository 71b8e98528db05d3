"""Presence of one instance, step by step: in pages, whatever fails between two of them, with reviews at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog

from rules.conversations import ConversationKind
from rules.presence import PresenceState
from server.errors import Unavailable
from server.rooms import lease
from server.rooms import presence as module
from server.rooms.delivery import Delivery
from server.rooms.lease import Lease
from server.rooms.presence import Presences
from server.rooms.sockets import Socket
from storage import Connection, Database, blocks, conversations, participants, presence, rooms, users
from storage.participants import ParticipantRole
from storage.presence import Presence
from tests.rooms.watching import SilentBus, Watched, enter

ONLINE, AWAY, OFFLINE = PresenceState.ONLINE, PresenceState.AWAY, PresenceState.OFFLINE
PATIENCE_S = 10.0


@pytest.fixture
async def presences(database: Watched, delivery: Delivery, bus: SilentBus) -> AsyncIterator[Presences]:
    """Presences that do nothing but what a test says."""
    presences = Presences(database, delivery, bus, Lease(database), debounce_s=0.0)
    await presences._renew()
    yield presences
    await presences.stop()


@pytest.fixture
def told(presences: Presences) -> list[tuple[Socket, UUID, str]]:
    """What watchers were told."""
    told: list[tuple[Socket, UUID, str]] = []
    presences.on_changed = lambda socket, one: told.append((socket, one.user_id, str(one.state)))
    return told


async def people(database: Database, count: int) -> list[UUID]:
    """People who share a conversation."""

    async def create(db: Connection) -> list[UUID]:
        names = [f"somebody.{uuid4().hex}" for _ in range(count)]
        who = [
            await users.create_user(db, username=name, email=f"{name}@example.org", password_hash=None)
            for name in names
        ]
        chat = uuid4()
        await rooms.create_room(db, chat, "conversation")
        await conversations.create_conversation(db, chat, ConversationKind.GROUP, created_by=who[0])
        await participants.create_participants(db, chat, [(one, ParticipantRole.MEMBER) for one in who])
        return who

    return await database.transaction(create)


async def block(database: Database, one: UUID, other: UUID) -> None:
    """A block of which nobody is told."""
    async with database.connection() as db:
        await blocks.create_block(db, one, other)


async def states(database: Database, who: Collection[UUID]) -> list[str]:
    async with database.connection() as db:
        found = {one.user_id: str(one.state) for one in await presence.list_presences(db, who)}
    return [found[one] for one in who]


async def watch(presences: Presences, socket: Socket, who: Collection[UUID]) -> None:
    with presences.asking(socket, list(who)):
        presences.watch(socket, list(who), [Presence(one, OFFLINE, None) for one in who])


def of_one_instance(monkeypatch: pytest.MonkeyPatch, presences: Presences) -> list[int]:
    """How many people each statement wrote for this instance."""
    sizes, write = [], presence.set_states

    async def spy(db: Connection, instance_id: UUID, states: Mapping[UUID, PresenceState]) -> bool:
        if instance_id == presences._lease.instance_id:
            sizes.append(len(states))
        return await write(db, instance_id, states)

    monkeypatch.setattr(presence, "set_states", spy)
    return sizes


# what is written


async def test_what_many_say_is_written_in_pages_and_where_one_fails_the_rest_later(
    monkeypatch: pytest.MonkeyPatch, database: Watched, delivery: Delivery, presences: Presences
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    who = await people(database, 5)
    sizes = of_one_instance(monkeypatch, presences)
    for one in who:
        presences.say(enter(delivery, one), ONLINE)
    write = presence.set_states

    async def once(*args: Any) -> bool:
        if sizes:
            raise Unavailable
        return await write(*args)

    monkeypatch.setattr(presence, "set_states", once)
    with pytest.raises(Unavailable):
        await presences._write()
    assert sorted(await states(database, who)) == ["offline"] * 3 + ["online"] * 2
    monkeypatch.setattr(presence, "set_states", write)
    await presences._write()
    assert sizes == [2, 2, 1]
    assert await states(database, who) == ["online"] * 5


async def test_an_instance_that_a_crash_of_postgresql_has_made_forgotten_says_all_again_at_its_next_word(
    monkeypatch: pytest.MonkeyPatch, database: Watched, delivery: Delivery, presences: Presences
) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0.0)
    who = await people(database, 2)
    forgotten = presences._lease.instance_id
    presences.say(enter(delivery, who[0]), ONLINE)
    await presences._write()
    async with database.connection() as db:
        await db.execute("delete from presences where instance_id = $1", forgotten)
        await db.execute("delete from presence_instances where instance_id = $1", forgotten)
    presences.say(enter(delivery, who[1]), ONLINE)
    await presences._write()
    await presences._write()
    assert presences._lease.instance_id != forgotten
    assert await states(database, who) == ["online"] * 2


async def test_who_says_nothing_is_said_again_over_a_new_connection(
    monkeypatch: pytest.MonkeyPatch, database: Watched, delivery: Delivery, presences: Presences
) -> None:
    monkeypatch.setattr(module, "DOUBT_S", 0.01)
    [amina] = await people(database, 1)
    presences._debounce_s = 3_600.0  # and not when she may be told of again
    presences.say(enter(delivery, amina), ONLINE)
    await presences._write()
    async with database.connection() as db:
        await db.execute("delete from presence_instances where instance_id = $1", presences._lease.instance_id)
    work = [asyncio.create_task(part()) for part in (presences._work_for_ever, presences._renew_for_ever)]
    await asyncio.sleep(0.1)
    assert await states(database, [amina]) == ["offline"]
    database.opened += 1  # as when PostgreSQL has come back
    async with asyncio.timeout(PATIENCE_S):
        while await states(database, [amina]) != ["online"]:
            await asyncio.sleep(0.01)
    for task in work:
        task.cancel()


async def test_an_outage_is_a_warning_and_a_bug_an_error_and_the_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, database: Watched, delivery: Delivery, presences: Presences
) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0.0)
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    first, second = [Unavailable, OSError, Unavailable, None], [TimeoutError, RuntimeError, KeyError, None]
    write, fails = presence.set_states, [*first, *second]

    async def spoilt(*args: Any) -> bool:
        error = fails.pop(0)
        if error is not None:
            raise error
        return await write(*args)

    monkeypatch.setattr(presence, "set_states", spoilt)
    work = asyncio.create_task(presences._work_for_ever())
    with structlog.testing.capture_logs() as logged:
        async with asyncio.timeout(PATIENCE_S):
            for one, left in zip(await people(database, 2), (len(second), 0), strict=True):
                presences.say(enter(delivery, one), ONLINE)
                while len(fails) > left or await states(database, [one]) != ["online"]:
                    await asyncio.sleep(0.001)
    work.cancel()
    levels = [(line["event"], line["log_level"], "exc_info" in line) for line in logged]
    over = ("presence_failed_no_more", "info", False)
    waits, failed = ("presence_failed", "warning", False), ("presence_failed", "error", True)
    assert levels == [waits, over, failed, failed, over]


async def test_who_leaves_when_a_write_was_kept_and_not_answered_is_there_no_more(
    monkeypatch: pytest.MonkeyPatch, database: Watched, delivery: Delivery, presences: Presences
) -> None:
    [amina] = await people(database, 1)
    phone, write = enter(delivery, amina), presence.set_states

    async def unanswered(*args: Any) -> None:
        await write(*args)
        raise Unavailable

    monkeypatch.setattr(presence, "set_states", unanswered)
    presences.say(phone, ONLINE)
    with pytest.raises(Unavailable):
        await presences._write()
    assert await states(database, [amina]) == ["online"]
    presences.leave(phone)
    monkeypatch.setattr(presence, "set_states", write)
    await presences._write()
    assert await states(database, [amina]) == ["offline"]
    assert not presences._own
    assert not presences._due


async def test_who_comes_back_while_others_are_written_is_written_next(
    monkeypatch: pytest.MonkeyPatch, database: Watched, delivery: Delivery, presences: Presences
) -> None:
    amina, bilal = await people(database, 2)
    phone, write = enter(delivery, amina), presence.set_states

    async def meanwhile(*args: Any) -> bool:
        presences.say(phone, ONLINE)
        return await write(*args)

    monkeypatch.setattr(presence, "set_states", meanwhile)
    presences.say(phone, ONLINE)
    presences.leave(phone)
    presences.say(enter(delivery, bilal), ONLINE)
    await presences._write()
    monkeypatch.setattr(presence, "set_states", write)
    await presences._write()
    assert await states(database, [amina, bilal]) == ["online", "online"]


async def test_what_was_written_under_an_id_that_ended_meanwhile_is_written_again(
    monkeypatch: pytest.MonkeyPatch, database: Watched, delivery: Delivery, presences: Presences
) -> None:
    who = await people(database, 2)
    phones, write = [enter(delivery, one) for one in who], presence.set_states
    presences.say(phones[0], ONLINE)
    await presences._write()

    async def and_end(*args: Any) -> bool:
        lives = await write(*args)
        await presences._lease.bury(presences._lease.instance_id)
        await presences._renew()
        return lives

    monkeypatch.setattr(presence, "set_states", and_end)
    presences.say(phones[1], ONLINE)
    await presences._write()
    assert await states(database, who) == ["offline", "offline"]
    assert [presences._own[one].written for one in who] == [None, None]
    monkeypatch.setattr(presence, "set_states", write)
    await presences._write()
    assert await states(database, who) == ["online", "online"]


async def test_stopping_takes_all_back_in_pages(
    monkeypatch: pytest.MonkeyPatch, database: Watched, delivery: Delivery, presences: Presences
) -> None:
    monkeypatch.setattr(lease, "BURIED", 2)
    who = await people(database, 5)
    for one in who:
        presences.say(enter(delivery, one), AWAY)
    await presences._write()
    assert await states(database, who) == ["away"] * 5
    await presences.stop()
    assert await states(database, who) == ["offline"] * 5
    async with database.connection() as db:
        found = await presence.list_presences(db, who)
        assert None not in [one.last_seen_at for one in found]


# the lease


async def test_what_a_dead_instance_left_is_buried_page_by_page_each_for_good(
    monkeypatch: pytest.MonkeyPatch, database: Watched
) -> None:
    monkeypatch.setattr(lease, "BURIED", 2)
    who = await people(database, 5)
    dead, undertaker, bury = Lease(database), Lease(database), presence.bury
    await dead.renew()
    async with database.connection() as db:
        await presence.set_states(db, dead.instance_id, dict.fromkeys(who, ONLINE))
        await presence.renew(db, dead.instance_id, -1)
    pages: list[int] = []

    async def once(db: Connection, instance_id: UUID, most: int) -> bool:
        if instance_id != dead.instance_id:  # of another test
            return await bury(db, instance_id, most)
        pages.append(most)
        if len(pages) == 2:
            raise Unavailable
        return await bury(db, instance_id, most)

    monkeypatch.setattr(presence, "bury", once)
    with pytest.raises(Unavailable):
        await undertaker.bury()
    async with database.connection() as db:
        count = "select count(*) from presences where instance_id = $1"
        assert await db.fetchval(count, dead.instance_id) == 3
        await undertaker.bury()
        assert await db.fetchval(count, dead.instance_id) == 0
    assert pages == [2, 2, 2, 2]
    async with database.connection() as db:
        found = await presence.list_presences(db, who)
    assert None not in [one.last_seen_at for one in found]


async def test_the_heart_beats_however_long_the_round_takes(
    monkeypatch: pytest.MonkeyPatch, presences: Presences
) -> None:
    monkeypatch.setattr(module, "RENEW_S", 0.0)
    stuck, beats, renew = asyncio.Event(), asyncio.Semaphore(0), presence.renew

    async def forever(*_: Any) -> list[UUID]:
        stuck.set()
        await asyncio.Event().wait()
        return []

    async def counted(*args: Any) -> bool:
        beats.release()
        return await renew(*args)

    monkeypatch.setattr(presence, "close_instances", forever)
    monkeypatch.setattr(presence, "renew", counted)
    await presences.start()
    async with asyncio.timeout(PATIENCE_S):
        await stuck.wait()
        for _ in range(5):
            await beats.acquire()
    monkeypatch.undo()


async def test_what_fails_in_a_round_keeps_nothing_else_of_it_from_being_done(
    monkeypatch: pytest.MonkeyPatch,
    database: Watched,
    delivery: Delivery,
    presences: Presences,
    told: list[tuple[Socket, UUID, str]],
) -> None:
    amina, bilal, carim = await people(database, 3)
    phone, done = enter(delivery, amina), asyncio.Event()
    presences.on_changed = lambda socket, one: (told.append((socket, one.user_id, str(one.state))), done.set())[1]

    async def fail(*_: Any) -> list[UUID]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(presence, "close_instances", fail)
    monkeypatch.setattr(presence, "list_presences", fail)
    await watch(presences, phone, [bilal, carim])
    await block(database, bilal, amina)
    round_ = asyncio.create_task(presences._look_for_ever())
    await asyncio.wait_for(done.wait(), PATIENCE_S)
    round_.cancel()
    monkeypatch.undo()
    assert told == [(phone, bilal, "offline")]
    assert presences.watched_by(phone) == [carim]


# what is watched


async def test_what_is_watched_is_read_in_pages_and_where_one_fails_the_rest_later(
    monkeypatch: pytest.MonkeyPatch,
    database: Watched,
    delivery: Delivery,
    presences: Presences,
    told: list[tuple[Socket, UUID, str]],
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    amina, *others = await people(database, 6)
    phone = enter(delivery, amina)
    await watch(presences, phone, others)
    for one in others:
        presences.say(enter(delivery, one), ONLINE)
    await presences._write()
    presences._moved.clear()
    sizes, read = [], presence.list_presences

    async def spy(db: Connection, who: Collection[UUID]) -> list[Presence]:
        sizes.append(len(who))
        if len(sizes) == 2:
            raise Unavailable
        return await read(db, who)

    monkeypatch.setattr(presence, "list_presences", spy)
    with pytest.raises(Unavailable):
        await presences._read_anew()
    assert len(told) == 2
    assert len(presences._moved) == 3
    await presences._tell(presences._moved)
    assert sizes == [2, 2, 2, 1]
    assert sorted(told, key=str) == sorted([(phone, one, "online") for one in others], key=str)


async def test_what_a_newcomer_finds_is_told_to_those_who_knew_something_else(
    database: Watched, delivery: Delivery, presences: Presences, told: list[tuple[Socket, UUID, str]]
) -> None:
    amina, bilal, carim = await people(database, 3)
    first, second = enter(delivery, amina), enter(delivery, carim)
    await watch(presences, first, [bilal])
    presences.say(enter(delivery, bilal), ONLINE)
    await presences._write()
    presences._moved.clear()  # the bus has lost it
    presences.watch(second, [bilal], [])
    with presences.asking(second, [bilal]):
        presences.watch(second, [bilal], [Presence(bilal, ONLINE, None)])
    await presences._tell(presences._moved)
    assert (first, bilal, "online") in told


async def test_who_asks_is_told_nothing_before_it_is_judged_and_all_that_moved_meanwhile(
    database: Watched, delivery: Delivery, presences: Presences, told: list[tuple[Socket, UUID, str]]
) -> None:
    amina, bilal = await people(database, 2)
    phone = enter(delivery, amina)
    presences.say(enter(delivery, bilal), ONLINE)
    with presences.asking(phone, [bilal]):
        await presences._write()
        await presences._tell({bilal})
        presences._moved.clear()
        assert told == []
        assert presences.watch(phone, [bilal], [Presence(bilal, OFFLINE, None)]) == [Presence(bilal, OFFLINE, None)]
    await presences._tell(set(presences._moved))
    assert told == [(phone, bilal, "online")]


async def test_a_review_ends_what_is_asked_for_and_the_answer_says_so(
    database: Watched, delivery: Delivery, presences: Presences, told: list[tuple[Socket, UUID, str]]
) -> None:
    amina, bilal = await people(database, 2)
    phone = enter(delivery, amina)
    with presences.asking(phone, [bilal]):
        await block(database, bilal, amina)
        presences.review(bilal)
        await presences._look_again()
        assert presences.watch(phone, [bilal], [Presence(bilal, ONLINE, None)]) == [Presence(bilal, OFFLINE, None)]
    assert presences.watched_by(phone) == []
    assert told == []


async def test_what_fails_while_it_is_judged_is_asked_for_no_more_and_what_was_watched_before_is(
    bus: SilentBus, database: Watched, delivery: Delivery, presences: Presences
) -> None:
    amina, bilal, carim = await people(database, 3)
    phone = enter(delivery, amina)
    await watch(presences, phone, [bilal])
    with pytest.raises(Unavailable), presences.asking(phone, [bilal, carim]):
        raise Unavailable
    assert presences.watched_by(phone) == [bilal]
    assert [room.id for room in bus.rooms if room.kind == "presence"] == [bilal]


async def test_of_who_leaves_while_it_is_judged_nothing_is_kept(
    bus: SilentBus, database: Watched, delivery: Delivery, presences: Presences
) -> None:
    amina, bilal = await people(database, 2)
    phone = enter(delivery, amina)
    presences.say(phone, ONLINE)
    with presences.asking(phone, [bilal]):
        delivery.exit(phone)
        presences.leave(phone)
        presences.watch(phone, [bilal], [Presence(bilal, OFFLINE, None)])
    await watch(presences, phone, [bilal])
    presences.say(phone, AWAY)
    await presences._write()
    watchers = presences._watchers
    assert not any([watchers._of, watchers._by, watchers._asking, watchers._known, presences._own, presences._due])
    assert not any(room.kind == "presence" for room in bus.rooms)


# who may watch


async def test_a_round_judges_all_who_watch_in_pages_and_lets_go_of_those_who_may_not_any_more(
    monkeypatch: pytest.MonkeyPatch,
    database: Watched,
    delivery: Delivery,
    presences: Presences,
    told: list[tuple[Socket, UUID, str]],
) -> None:
    monkeypatch.setattr(module, "PAIRS", 2)
    who = await people(database, 4)
    phones = {one: enter(delivery, one) for one in who}
    for one in who:
        await watch(presences, phones[one], [other for other in who if other != one])
    blocked, blocker = who[1], who[2]
    await block(database, blocker, blocked)
    sizes, judge = [], presence.list_apart

    async def spy(db: Connection, pairs: Collection[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
        sizes.append(len(pairs))
        return await judge(db, pairs)

    monkeypatch.setattr(presence, "list_apart", spy)
    await presences._judge_anew()
    assert sizes == [3, 3, 3, 3]  # a socket is judged whole
    assert sorted(told, key=str) == sorted(
        [(phones[blocked], blocker, "offline"), (phones[blocker], blocked, "offline")], key=str
    )
    assert [len(presences.watched_by(phones[one])) for one in who] == [3, 2, 2, 3]


async def test_a_round_judges_so_many_pairs_and_the_next_one_those_behind_them_whatever_failed(
    monkeypatch: pytest.MonkeyPatch, database: Watched, delivery: Delivery, presences: Presences
) -> None:
    monkeypatch.setattr(module, "PAIRS", 1)
    monkeypatch.setattr(module, "JUDGED", 2)
    star, *fans = await people(database, 6)
    for fan in fans:
        await watch(presences, enter(delivery, fan), [star])
    judged: list[UUID] = []

    async def spy(_: Connection, pairs: Collection[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
        judged.extend(watcher_id for watcher_id, _ in pairs)
        if len(judged) == 3:
            raise Unavailable
        return set()

    monkeypatch.setattr(presence, "list_apart", spy)
    await presences._judge_anew()
    assert judged == fans[:2]
    with pytest.raises(Unavailable):
        await presences._judge_anew()
    await presences._judge_anew()
    assert judged == fans


async def test_a_review_of_many_watchers_is_judged_in_pages_and_where_one_fails_again(
    monkeypatch: pytest.MonkeyPatch, database: Watched, delivery: Delivery, presences: Presences
) -> None:
    monkeypatch.setattr(module, "PAIRS", 2)
    star, *fans = await people(database, 6)
    phones = [enter(delivery, fan) for fan in fans]
    for phone, fan in zip(phones, fans, strict=True):
        await watch(presences, phone, [star])
        await block(database, star, fan)
    sizes, judge = [], presence.list_apart

    async def spy(db: Connection, pairs: Collection[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
        sizes.append(len(pairs))
        if len(sizes) == 2:
            raise Unavailable
        return await judge(db, pairs)

    monkeypatch.setattr(presence, "list_apart", spy)
    presences.review(star)
    with pytest.raises(Unavailable):
        await presences._look_again()
    await presences._look_again()
    assert sizes == [2, 2, 2, 1]
    assert not presences._watchers


async def test_a_review_that_is_heard_while_one_is_judged_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, database: Watched, delivery: Delivery, presences: Presences
) -> None:
    amina, bilal = await people(database, 2)
    phone, judge = enter(delivery, amina), presence.list_apart
    await watch(presences, phone, [bilal])

    async def and_block(db: Connection, pairs: Collection[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
        apart = await judge(db, pairs)
        await block(database, bilal, amina)
        presences.review(bilal)
        return apart

    monkeypatch.setattr(presence, "list_apart", and_block)
    presences.review(bilal)
    await presences._look_again()
    monkeypatch.setattr(presence, "list_apart", judge)
    await presences._look_again()
    assert presences.watched_by(phone) == []
