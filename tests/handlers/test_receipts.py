"""Marks of what was read and delivered, typing and presence: what bypasses the log, and what of it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from handlers import emptying, threads
from server.rooms.bus import LocalBus, LocalHub
from storage import presence
from tests.market import listed as listed_by
from tests.market import thread_of
from tests.people import PATIENCE_S, Device, Instance, Person, Push, Refusal
from tests.servers import execute

NewInstance = Callable[..., Awaitable[Instance]]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


@pytest.fixture
async def two(monkeypatch: pytest.MonkeyPatch, new_instance: NewInstance) -> list[Instance]:
    """Two instances on one bus, which tell of presence as fast as it changes, and make nothing good by themselves."""
    monkeypatch.setattr("server.rooms.presence.RENEW_S", 3600.0)
    monkeypatch.setattr("server.rooms.lease.LEASE_S", 3600.0)
    hub = LocalHub()
    return [await new_instance(bus=LocalBus(hub), PARLEY_PRESENCE_DEBOUNCE_MS="0") for _ in range(2)]


async def say(person: Person, chat: str, count: int = 1) -> int:
    """Send messages; the seq of the last one."""
    seq = 0
    for _ in range(count):
        sent = await person.post("message:send", conversation_id=chat, client_id=uuid4().hex, text="hello")
        seq = sent["seq"]
    return seq


def heard(device: Device, name: str) -> list[Any]:
    return [push.payload for push in device.heard if push.name == name]


def blocking(one: Person, other: Person) -> str:
    """A block as it is stored, of which nobody is told."""
    return f"insert into user_blocks (blocker_id, blocked_id) values ('{one.user_id}', '{other.user_id}')"


async def until_hearing(device: Device, name: str, last: Callable[[Any], bool]) -> Push:
    """Wait until the latest push of that name is this."""

    def seen(pushes: list[Push]) -> Push | None:
        of = [push for push in pushes if push.name == name]
        return of[-1] if of and last(of[-1].payload) else None

    found: Push = await device.until(seen, f"{name}")
    return found


# receipts


async def test_marks_move_forward_only_and_reach_ones_own_devices(
    amina: Person, bilal: Person, their_chat: str
) -> None:
    phone, laptop, other = await bilal.connect(), await bilal.connect(), await amina.connect()
    head = await say(amina, their_chat, 3)
    mark = {"conversation_id": their_chat}
    assert await phone.call("receipt:delivered", **mark, seq=head) == {"read_seq": 0, "delivered_seq": head}
    assert await phone.call("receipt:read", **mark, seq=head - 1) == {"read_seq": head - 1, "delivered_seq": head}
    assert await phone.call("receipt:read", **mark, seq=1) == {"read_seq": head - 1, "delivered_seq": head}
    assert await phone.call("receipt:read", **mark, seq=10**9) == {"read_seq": head, "delivered_seq": head}
    await until_hearing(laptop, "conversation:mine", lambda mine: mine["read_seq"] == head)
    assert [mine["unread_count"] for mine in heard(laptop, "conversation:mine")] == [3, 1, 0]
    last = await until_hearing(other, "receipt:changed", lambda receipt: receipt["read_seq"] == head)
    assert last.payload == {
        "conversation_id": their_chat,
        "user_id": bilal.user_id,
        "read_seq": head,
        "delivered_seq": head,
    }
    assert last.meta.keys() == {"room", "at"}
    assert len(heard(other, "receipt:changed")) == 2  # the first at once, the others within the second as one
    seen = await amina.post("conversation:get", conversation_id=their_chat)
    marks = {one["user_id"]: (one["read_seq"], one["delivered_seq"]) for one in seen["participants"]}
    assert marks[bilal.user_id] == (head, head)


async def test_unread_is_what_others_said_behind_the_mark(amina: Person, bilal: Person, their_chat: str) -> None:
    await say(amina, their_chat, 2)
    seq = await say(bilal, their_chat)
    await say(amina, their_chat, 2)

    async def unread() -> int:
        count: int = (await bilal.post("conversation:get", conversation_id=their_chat))["unread_count"]
        return count

    assert await unread() == 4
    await bilal.post("receipt:read", conversation_id=their_chat, seq=seq)
    assert await unread() == 2
    [message] = (await amina.post("message:history", conversation_id=their_chat, limit=1))["messages"]
    await amina.post("message:delete", message_id=message["message_id"])
    assert await unread() == 1


async def test_a_stranger_marks_nothing(parley: Instance, their_chat: str) -> None:
    stranger = await parley.person("stranger")
    for command in ("receipt:read", "receipt:delivered"):
        with pytest.raises(Refusal, match="not_found"):
            await stranger.post(command, conversation_id=their_chat, seq=1)


async def test_in_a_crowd_marks_are_ones_own_affair(
    monkeypatch: pytest.MonkeyPatch, parley: Instance, amina: Person, bilal: Person
) -> None:
    monkeypatch.setattr("handlers.receipts.CROWD", 1)
    group = await parley.chat(amina, bilal, kind="group")
    other = await amina.connect()
    head = await say(amina, group)
    await bilal.post("receipt:read", conversation_id=group, seq=head)
    await say(amina, group)
    await other.until(lambda _: other.position(group) == head + 1)
    assert heard(other, "receipt:changed") == []


async def marks_of(person: Person) -> dict[str, dict[str, tuple[int, int]]]:
    """Everybody's marks in all of somebody's conversations; they are the same wherever those are shown."""
    found = {}
    for listed in (await person.post("conversation:list"))["conversations"]:
        this = {"conversation_id": listed["conversation_id"]}
        shown = [
            listed,
            await person.post("conversation:get", **this),
            await person.post("conversation:update", **this, pinned=True),
        ]
        people = listed["participants"]
        if listed["kind"] == "private":
            [other] = {one["user_id"] for one in people} - {person.user_id}
            pair = {"kind": "private", "user_ids": [other], "listing_id": listed["listing_id"]}
            shown.append(await person.post("conversation:create", **pair, client_id=uuid4().hex))
        assert [one["participants"] for one in shown] == [people] * len(shown)
        marks = {one["user_id"]: (one["read_seq"], one["delivered_seq"]) for one in people}
        assert [(one["read_seq"], one["delivered_seq"]) for one in shown] == [marks[person.user_id]] * len(shown)
        found[listed["conversation_id"]] = marks
    return found


@pytest.mark.parametrize("who", [0, 1])
async def test_past_a_block_neither_sees_how_far_the_other_is_in_private(
    parley: Instance, amina: Person, bilal: Person, their_chat: str, who: int
) -> None:
    carim, pair = await parley.person("carim"), (amina, bilal)
    about = await parley.chat(*pair, listing_id=(await listed_by(bilal))["listing_id"])
    group, elsewhere = await parley.chat(*pair, carim, kind="group"), await parley.chat(amina, carim)
    for chat in (their_chat, about, group, elsewhere):
        await say(amina, chat, 3)
        for person in (amina, carim if chat == elsewhere else bilal):
            await person.post("receipt:delivered", conversation_id=chat, seq=2)
            await person.post("receipt:read", conversation_id=chat, seq=1)
    a, b, c = [person.user_id for person in (*pair, carim)]
    hers = await marks_of(amina)
    assert hers[their_chat] == hers[about] == {a: (1, 2), b: (1, 2)}
    await pair[who].post("user:block", user_id=pair[not who].user_id)
    await bilal.post("receipt:read", conversation_id=their_chat, seq=3)
    hidden = {a: (1, 2), b: (0, 0)}
    assert await marks_of(amina) == {**hers, their_chat: hidden, about: hidden}
    assert hers[group] == {**hidden, b: (1, 2), c: (0, 0)}
    his = await marks_of(bilal)
    assert his == {their_chat: {a: (0, 0), b: (3, 3)}, about: {a: (0, 0), b: (1, 2)}, group: hers[group]}
    assert await marks_of(carim) == {group: hers[group], elsewhere: hers[elsewhere]}
    await pair[who].post("user:unblock", user_id=pair[not who].user_id)
    assert await marks_of(amina) == {**hers, their_chat: {a: (1, 2), b: (3, 3)}}


# typing


async def test_typing_is_a_whole_list_on_every_instance_and_ends_by_itself(
    monkeypatch: pytest.MonkeyPatch, two: list[Instance]
) -> None:
    monkeypatch.setattr("server.rooms.typing.EXPIRY_S", 0.3)
    amina, bilal, carim = await two[0].person("amina"), await two[0].person("bilal"), await two[1].person("carim")
    group = await two[0].chat(amina, bilal, carim, kind="group")
    phones = [await person.connect() for person in (amina, bilal, carim)]
    assert await phones[0].call("typing:set", conversation_id=group, state="typing") == {}
    await phones[2].hearing("typing:changed")
    await phones[1].call("typing:set", conversation_id=group, state="recording")
    both = [{"user_id": amina.user_id, "state": "typing"}, {"user_id": bilal.user_id, "state": "recording"}]
    for phone in phones:
        await until_hearing(phone, "typing:changed", lambda changed: changed["typing"] == both)
    for phone in phones:
        ended = await until_hearing(phone, "typing:changed", lambda changed: changed["typing"] == [])
        assert ended.room == f"conversation:{group}"
        assert ended.meta.keys() == {"room", "at"}


async def test_what_is_sent_is_typed_no_more(amina: Person, bilal: Person, their_chat: str) -> None:
    phone, other = await amina.connect(), await bilal.connect()
    await phone.call("typing:set", conversation_id=their_chat, state="typing")
    await other.hearing("typing:changed")
    await phone.call("typing:set", conversation_id=their_chat, state="typing")  # goes on
    await phone.send(their_chat, "done")
    await until_hearing(other, "typing:changed", lambda changed: changed["typing"] == [])
    assert [len(changed["typing"]) for changed in heard(other, "typing:changed")] == [1, 0]


async def test_who_is_blocked_or_a_stranger_types_unseen(parley: Instance, amina: Person, bilal: Person) -> None:
    chat = await parley.chat(amina, bilal)
    stranger = await parley.person("stranger")
    phone, other, third = await bilal.connect(), await amina.connect(), await stranger.connect()
    with pytest.raises(Refusal, match="not_found"):
        await third.call("typing:set", conversation_id=chat, state="typing")
    await execute(parley.dsn, blocking(amina, bilal))
    assert await phone.call("typing:set", conversation_id=chat, state="typing") == {}
    await phone.call("receipt:read", conversation_id=chat, seq=0)
    await other.call("account:me")
    assert heard(other, "typing:changed") == []


# presence


async def test_presence_is_told_to_those_who_share_a_conversation_on_every_instance(two: list[Instance]) -> None:
    amina, bilal, stranger = await two[0].person("amina"), await two[1].person("bilal"), await two[1].person("s")
    await two[0].chat(amina, bilal)
    watcher = await amina.connect()
    watched = await watcher.call("presence:watch", user_ids=[bilal.user_id, stranger.user_id, str(uuid4())])
    assert watched == {"presences": [{"user_id": bilal.user_id, "state": "offline", "last_seen_at": None}]}
    phone = await bilal.connect()
    came = await watcher.hearing("presence:changed", state="online")
    assert came.payload == {"user_id": bilal.user_id, "state": "online", "last_seen_at": None}
    assert came.meta.keys() == {"room", "at"}
    assert came.room == f"user:{amina.user_id}"
    laptop = await bilal.connect(to=two[0])
    await phone.call("presence:set", state="away")
    await laptop.call("presence:set", state="away")
    await watcher.hearing("presence:changed", state="away")
    await phone.leave()
    await laptop.leave()
    left = await watcher.hearing("presence:changed", state="offline")
    assert left.payload["last_seen_at"] is not None
    [again] = (await watcher.call("presence:watch", user_ids=[bilal.user_id]))["presences"]
    assert again == left.payload
    assert await watcher.call("presence:unwatch", user_ids=[bilal.user_id]) == {}
    assert all(not instance.parley.presences._watchers for instance in two)


async def test_a_lost_connection_that_comes_back_is_not_told(two: list[Instance]) -> None:
    amina, bilal = await two[0].person("amina"), await two[0].person("bilal")
    await two[0].chat(amina, bilal)
    two[0].parley.presences._debounce_s = 30.0
    watcher = await amina.connect()
    await watcher.call("presence:watch", user_ids=[bilal.user_id])
    phone = await bilal.connect()
    await watcher.hearing("presence:changed", state="online")
    await phone.leave()
    await (await bilal.connect()).call("account:me")
    [now] = (await watcher.call("presence:watch", user_ids=[bilal.user_id]))["presences"]
    assert now["state"] == "online"
    assert "offline" not in [changed["state"] for changed in heard(watcher, "presence:changed")]


async def test_who_shares_nothing_any_more_is_watched_no_more(two: list[Instance]) -> None:
    amina, bilal = await two[0].person("amina"), await two[1].person("bilal")
    group = await two[0].chat(amina, bilal, kind="group")
    watcher, phone = await amina.connect(), await bilal.connect()
    await watcher.call("presence:watch", user_ids=[bilal.user_id])
    await phone.call("conversation:leave", conversation_id=group)
    gone = await until_hearing(watcher, "presence:changed", lambda changed: changed["state"] == "offline")
    assert gone.payload["last_seen_at"] is None
    assert two[0].parley.presences.watched_by(two[0].parley.delivery.sockets()[0]) == []


async def test_who_goes_while_their_coming_is_written_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, two: list[Instance]
) -> None:
    amina, bilal, brief = await two[0].person("amina"), await two[0].person("bilal"), await two[0].person("brief")
    await two[0].chat(amina, bilal)
    watcher = await amina.connect(to=two[1])
    await watcher.call("presence:watch", user_ids=[bilal.user_id])
    service, write, gone = two[0].parley.presences, presence.set_states, asyncio.Event()

    async def and_go(db: Any, instance_id: UUID, states: Any) -> bool:
        lives = await write(db, instance_id, states)
        for socket in two[0].parley.delivery.sockets_of(UUID(brief.user_id)):
            service.leave(socket)
            gone.set()
        return lives

    monkeypatch.setattr(presence, "set_states", and_go)
    await brief.connect()
    await asyncio.wait_for(gone.wait(), PATIENCE_S)
    await bilal.connect()
    await watcher.hearing("presence:changed", state="online")


async def test_an_instance_that_was_buried_alive_says_all_again(two: list[Instance]) -> None:
    amina, bilal = await two[0].person("amina"), await two[1].person("bilal")
    await two[0].chat(amina, bilal)
    watcher, phone = await amina.connect(), await bilal.connect()
    await watcher.call("presence:watch", user_ids=[bilal.user_id])
    await watcher.hearing("presence:changed", state="online")
    buried = two[1].parley.presences
    await execute(two[0].dsn, f"delete from presence_instances where instance_id = '{buried._lease.instance_id}'")
    await two[0].parley.presences._tell({UUID(bilal.user_id)})
    await watcher.hearing("presence:changed", state="offline")
    await buried._renew()
    await until_hearing(watcher, "presence:changed", lambda changed: changed["state"] == "online")
    assert phone.client.connected


async def test_who_is_shown_out_watches_the_others_no_more(two: list[Instance]) -> None:
    amina, bilal = await two[0].person("amina"), await two[1].person("bilal")
    group = await two[0].chat(amina, bilal, kind="group")
    phone, watcher = await amina.connect(), await bilal.connect()
    await watcher.call("presence:watch", user_ids=[amina.user_id])
    await phone.call("participant:remove", conversation_id=group, user_id=bilal.user_id)
    gone = await until_hearing(watcher, "presence:changed", lambda changed: changed["state"] == "offline")
    assert gone.payload["last_seen_at"] is None


async def test_who_shared_a_thread_that_is_gone_watches_the_others_no_more(
    monkeypatch: pytest.MonkeyPatch, two: list[Instance]
) -> None:
    monkeypatch.setattr(threads, "empty_thread", lambda *_: asyncio.sleep(0))  # stopped right after the answer
    amina, bilal, carim = [await two[n % 2].person(f"p{n}") for n in range(3)]
    await two[0].chat(amina, carim)
    thread = await thread_of(amina, bilal, carim)
    watchers = [await bilal.connect(), await carim.connect(to=two[1])]
    for watcher in watchers:
        await watcher.call("presence:watch", user_ids=[amina.user_id])
    await amina.connect()
    for watcher in watchers:
        await watcher.hearing("presence:changed", state="online")
    await amina.post("thread:delete", thread_id=thread)
    late = await bilal.connect()
    assert (await late.call("presence:watch", user_ids=[amina.user_id, carim.user_id]))["presences"] == []
    await emptying.empty_thread(two[0].parley.services, UUID(thread))
    gone = await until_hearing(watchers[0], "presence:changed", lambda changed: changed["state"] == "offline")
    assert gone.payload["last_seen_at"] is None
    assert two[1].parley.presences._watchers.of(UUID(amina.user_id)) != []  # they talk elsewhere
    assert (await watchers[1].call("presence:watch", user_ids=[amina.user_id]))["presences"][0]["state"] == "online"


async def test_a_crashed_instance_leaves_nobody_behind(two: list[Instance]) -> None:
    amina, bilal = await two[0].person("amina"), await two[1].person("bilal")
    await two[0].chat(amina, bilal)
    watcher = await amina.connect()
    await watcher.call("presence:watch", user_ids=[bilal.user_id])
    await bilal.connect()
    await watcher.hearing("presence:changed", state="online")
    crashed = two[1].parley.presences
    for task in crashed._tasks:
        task.cancel()  # it renews no more
    await execute(
        two[0].dsn,
        f"update presence_instances set expires_at = now() where instance_id = '{crashed._lease.instance_id}'",
    )
    await two[0].parley.presences._lease.bury()
    await two[0].parley.presences._read_anew()
    await watcher.hearing("presence:changed", state="offline")


async def test_who_is_blocked_sees_nobody_there(parley: Instance, amina: Person, bilal: Person) -> None:
    await parley.chat(amina, bilal)
    await execute(parley.dsn, blocking(amina, bilal))
    phones = [await amina.connect(), await bilal.connect()]
    for phone, other in zip(phones, (bilal, amina), strict=True):
        [seen] = (await phone.call("presence:watch", user_ids=[other.user_id]))["presences"]
        assert seen == {"user_id": other.user_id, "state": "offline", "last_seen_at": None}


async def test_a_block_ends_the_watch_of_both(two: list[Instance]) -> None:
    amina, bilal = await two[0].person("amina"), await two[1].person("bilal")
    await two[0].chat(amina, bilal)
    phones = [await amina.connect(), await bilal.connect()]
    for phone, other in zip(phones, (bilal, amina), strict=True):
        await phone.call("presence:watch", user_ids=[other.user_id])
    await phones[0].call("user:block", user_id=bilal.user_id)
    for phone, other in zip(phones, (bilal, amina), strict=True):
        gone = await until_hearing(phone, "presence:changed", lambda changed: changed["state"] == "offline")
        assert gone.payload == {"user_id": other.user_id, "state": "offline", "last_seen_at": None}


async def test_a_block_that_comes_while_a_watch_is_judged_ends_it(
    monkeypatch: pytest.MonkeyPatch, parley: Instance, amina: Person, bilal: Person
) -> None:
    await parley.chat(amina, bilal)
    watcher, judge = await amina.connect(), presence.list_near

    async def and_block(db: Any, watcher_id: UUID, user_ids: Any) -> Any:
        near = await judge(db, watcher_id, user_ids)
        await execute(parley.dsn, blocking(bilal, amina))
        parley.parley.presences.review(UUID(bilal.user_id))
        return near

    monkeypatch.setattr(presence, "list_near", and_block)
    await watcher.call("presence:watch", user_ids=[bilal.user_id])
    [socket] = parley.parley.delivery.sockets_of(UUID(amina.user_id))
    async with asyncio.timeout(PATIENCE_S):
        while parley.parley.presences.watched_by(socket):
            await asyncio.sleep(0.01)


async def test_what_is_asked_for_again_and_found_blocked_is_watched_no_more(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    await parley.chat(amina, bilal)
    watcher = await amina.connect()
    await watcher.call("presence:watch", user_ids=[bilal.user_id])
    await execute(parley.dsn, blocking(bilal, amina))  # and its review is lost
    [seen] = (await watcher.call("presence:watch", user_ids=[bilal.user_id]))["presences"]
    assert seen == {"user_id": bilal.user_id, "state": "offline", "last_seen_at": None}
    assert parley.parley.presences.watched_by(parley.parley.delivery.sockets()[0]) == []


async def test_a_review_that_was_lost_is_made_good_by_the_next_round(
    monkeypatch: pytest.MonkeyPatch, parley: Instance, amina: Person, bilal: Person
) -> None:
    monkeypatch.setattr("server.rooms.presence.RENEW_S", 0.05)
    await parley.chat(amina, bilal)
    parley.parley.presences._tasks[-1].cancel()
    parley.parley.presences._tasks[-1] = asyncio.create_task(parley.parley.presences._look_for_ever())
    watcher = await amina.connect()
    await bilal.connect()
    await watcher.call("presence:watch", user_ids=[bilal.user_id])
    await until_hearing(watcher, "presence:changed", lambda changed: changed["state"] == "online")
    await execute(parley.dsn, blocking(bilal, amina))
    gone = await until_hearing(watcher, "presence:changed", lambda changed: changed["state"] == "offline")
    assert gone.payload == {"user_id": bilal.user_id, "state": "offline", "last_seen_at": None}


async def test_of_who_has_gone_nothing_is_kept(two: list[Instance]) -> None:
    amina, bilal = await two[0].person("amina"), await two[0].person("bilal")
    await two[0].chat(amina, bilal)
    presences = two[0].parley.presences
    for person, other in ((amina, bilal), (bilal, amina)):
        phone = await person.connect()
        await phone.call("presence:watch", user_ids=[other.user_id])
        await phone.call("presence:set", state="away")
        await phone.leave()
    async with asyncio.timeout(PATIENCE_S):
        while presences._own or presences._due or presences._moved:
            await asyncio.sleep(0.01)
    watchers = presences._watchers
    assert not any([watchers._of, watchers._by, watchers._asking, watchers._known, presences._in_review])


async def test_a_socket_watches_so_many_people(monkeypatch: pytest.MonkeyPatch, amina: Person) -> None:
    monkeypatch.setattr("handlers.presence.WATCHED", 2)
    phone = await amina.connect()
    error = (await phone.answer("presence:watch", user_ids=[str(uuid4()) for _ in range(3)]))["error"]
    assert (error["code"], error["limit"]) == ("too_large", 2)
    error = (await phone.answer("presence:watch", user_ids=[str(uuid4()) for _ in range(201)]))["error"]
    assert (error["code"], error["limit"]) == ("too_large", 200)


async def test_ephemeral_commands_are_the_sockets_own(amina: Person, their_chat: str) -> None:
    for command, payload in (
        ("typing:set", {"conversation_id": their_chat, "state": "typing"}),
        ("presence:set", {"state": "away"}),
        ("presence:watch", {"user_ids": []}),
        ("presence:unwatch", {"user_ids": []}),
    ):
        with pytest.raises(Refusal, match="unknown_command"):
            await amina.post(command, **payload)
