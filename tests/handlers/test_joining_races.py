"""Joining against removals, departures and each other: who hears what, whatever comes in which order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from server.errors import Unavailable
from server.rooms import joining
from server.rooms.bus import LocalBus, LocalHub
from server.rooms.joining import Joining
from server.rooms.log import Event
from server.rooms.names import parse
from server.wire import Connection
from tests.people import Instance, Person, Push

pytestmark = pytest.mark.both_postgres


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


NewInstance = Callable[..., Awaitable[Instance]]


class GatedBus(LocalBus):
    """A bus that keeps the events of some names back until it is told to let them through."""

    def __init__(self, hub: LocalHub) -> None:
        super().__init__(hub)
        self.kept_back: set[str] = set()
        self._waiting: list[Event] = []

    def publish(self, event: Event) -> None:
        if event.name in self.kept_back:
            self._waiting.append(event)
        else:
            super().publish(event)

    def let_through(self) -> None:
        """Publish what was kept back, and keep nothing back any more."""
        self.kept_back.clear()
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            super().publish(event)


async def test_ones_own_room_cannot_be_left_under_another_name(parley: Instance, amina: Person, bilal: Person) -> None:
    phone = await amina.connect()
    for kind in ("conversation", "thread", "listing"):
        await phone.answer("room:leave", room=f"{kind}:{amina.user_id}")
    chat = await parley.chat(bilal, amina)
    await phone.hearing("conversation:created", conversation_id=chat)


async def test_naming_a_room_by_another_kind_changes_nothing_for_its_people(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    stranger = await parley.person("stranger")
    wrong = f"listing:{their_chat}"
    nosy = await stranger.connect(rooms={wrong: 0, f"conversation:{their_chat}": 0})
    assert list(nosy.hello["rooms"]) == [f"user:{stranger.user_id}"]
    assert (await nosy.answer("room:join", room=wrong))["error"]["code"] == "not_found"
    phone = await amina.connect(rooms={f"thread:{their_chat}": 0, f"conversation:{their_chat}": 0})
    sent = await (await bilal.connect()).send(their_chat, "for us two")
    push = await phone.hearing("message:created", message_id=sent["message_id"])
    assert push.room == f"conversation:{their_chat}"


async def test_who_is_let_in_again_hears_again_however_late_the_removal_arrives(
    new_instance: NewInstance,
) -> None:
    hub = LocalHub()
    buses = GatedBus(hub), GatedBus(hub)
    one, two = [await new_instance(bus=bus) for bus in buses]
    owner, neighbour, bilal = [await one.person(name) for name in ("owner", "neighbour", "bilal")]
    chat = await one.chat(owner, neighbour, bilal, kind="group")
    phone, other = await bilal.connect(to=two), await neighbour.connect(to=two)
    buses[0].kept_back = {"participant:removed"}
    await owner.post("participant:remove", conversation_id=chat, user_id=bilal.user_id)
    await owner.post("participant:add", conversation_id=chat, user_id=bilal.user_id)
    buses[0].let_through()
    await phone.until(
        lambda heard: any(p.name == "participant:added" and p.room == f"user:{bilal.user_id}" for p in heard)
    )
    await owner.post("message:send", conversation_id=chat, client_id="w", text="welcome back")
    await other.hearing("message:created", text="welcome back")
    await phone.hearing("message:created", text="welcome back")


async def test_a_replay_ends_where_a_removal_is_delivered(
    parley: Instance, amina: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = await parley.person("target")
    chat = await parley.chat(amina, target, kind="group")
    for n in range(10):
        await amina.post("message:send", conversation_id=chat, client_id=f"m{n}", text=str(n))
    gate, sent = asyncio.Event(), asyncio.Event()
    paces = 0

    async def paced(self: Connection) -> None:
        nonlocal paces
        paces += 1
        if paces == 4:
            sent.set()
            await gate.wait()

    monkeypatch.setattr(Connection, "paced", paced)
    phone = await target.connect(rooms={f"conversation:{chat}": 0})
    await sent.wait()
    await amina.post("participant:remove", conversation_id=chat, user_id=target.user_id)
    await phone.hearing("participant:removed", conversation_id=chat)
    gate.set()
    await phone.call("account:me")
    assert phone.texts(chat) == ["0", "1", "2"]


async def test_what_came_after_a_removal_is_not_served_to_a_join_judged_before_it(
    new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = LocalHub()
    one, two = [await new_instance(bus=LocalBus(hub)) for _ in range(2)]
    owner, target, third = [await one.person(name) for name in ("owner", "target", "third")]
    chat = await one.chat(owner, target, third, kind="group")
    phone = await target.connect(to=two)
    await third.connect(to=two)
    await phone.call("room:leave", room=f"conversation:{chat}")
    judge = Joining.judge

    async def judge_and_be_overtaken(self: Joining, *args: object) -> object:
        judged = await judge(self, *args)  # type: ignore[arg-type]
        monkeypatch.undo()
        await owner.post("participant:remove", conversation_id=chat, user_id=target.user_id)
        await owner.post("message:send", conversation_id=chat, client_id="s", text="secret")
        return judged

    monkeypatch.setattr(Joining, "judge", judge_and_be_overtaken)
    await phone.answer("room:join", room=f"conversation:{chat}", after=0)
    await phone.hearing("participant:removed", conversation_id=chat)
    await owner.post("message:send", conversation_id=chat, client_id="s2", text="secret too")
    await third.devices[0].hearing("message:created", text="secret too")
    await phone.call("account:me")
    assert phone.texts(chat) == []


Happen = Callable[[], Awaitable[object]]


def overtake(monkeypatch: pytest.MonkeyPatch, happen: Happen) -> None:
    """Let something happen between the next judgement's snapshot and what is made of it."""
    judge = Joining.judge

    async def overtaken(self: Joining, *args: object) -> object:
        monkeypatch.setattr(Joining, "judge", judge)
        judged = await judge(self, *args)  # type: ignore[arg-type]
        await happen()
        return judged

    monkeypatch.setattr(Joining, "judge", overtaken)


def added(person: Person, times: int = 1) -> Callable[[list[Push]], bool]:
    """Whether a device has heard in its person's own room that they were let in."""
    room = f"user:{person.user_id}"
    return lambda heard: sum(p.name == "participant:added" and p.room == room for p in heard) >= times


async def test_who_is_let_in_while_their_join_is_judged_hears_everything(
    parley: Instance, amina: Person, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    carim = await parley.person("carim")
    chat = await parley.chat(amina, bilal, kind="group")
    phone = await carim.connect()

    async def let_in() -> None:
        await amina.post("participant:add", conversation_id=chat, user_id=carim.user_id)
        await phone.until(added(carim))

    overtake(monkeypatch, let_in)
    assert (await phone.answer("room:join", room=f"conversation:{chat}"))["ok"]
    await amina.post("message:send", conversation_id=chat, client_id="w", text="welcome")
    await phone.hearing("message:created", text="welcome")


async def test_who_is_shown_out_and_let_in_while_their_join_is_judged_hears_everything(
    parley: Instance, amina: Person, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await parley.chat(amina, bilal, kind="group")
    await amina.connect()
    phone = await bilal.connect()
    await phone.call("room:leave", room=f"conversation:{chat}")

    async def out_and_in() -> None:
        await amina.post("participant:remove", conversation_id=chat, user_id=bilal.user_id)
        await amina.post("participant:add", conversation_id=chat, user_id=bilal.user_id)
        await phone.until(added(bilal))

    overtake(monkeypatch, out_and_in)
    assert (await phone.answer("room:join", room=f"conversation:{chat}"))["ok"]
    await amina.post("message:send", conversation_id=chat, client_id="w", text="welcome")
    await phone.hearing("message:created", text="welcome")


async def test_who_is_let_in_while_a_removal_is_reviewed_hears_everything(
    parley: Instance, amina: Person, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await parley.chat(amina, bilal, kind="group")
    phone = await bilal.connect()

    async def let_in() -> None:
        await amina.post("participant:add", conversation_id=chat, user_id=bilal.user_id)
        await phone.until(added(bilal))

    overtake(monkeypatch, let_in)
    await amina.post("participant:remove", conversation_id=chat, user_id=bilal.user_id)
    await phone.until(added(bilal))
    await amina.post("message:send", conversation_id=chat, client_id="w", text="welcome")
    await phone.hearing("message:created", text="welcome")


@pytest.mark.parametrize("removed", [True, False])
async def test_joining_again_while_one_is_reviewed_is_judged_by_what_holds_then(
    new_instance: NewInstance, removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = LocalHub()
    buses = GatedBus(hub), GatedBus(hub)
    one, two = [await new_instance(bus=bus) for bus in buses]
    owner, bilal = await one.person("owner"), await two.person("bilal")
    chat = await one.chat(owner, bilal, await one.person("third"), kind="group")
    room = parse(f"conversation:{chat}")
    assert room is not None
    phone = await bilal.connect()
    [socket] = two.parley.delivery.sockets()
    buses[0].kept_back = {"participant:removed"}

    async def shown_out() -> None:
        if removed:
            await owner.post("participant:remove", conversation_id=chat, user_id=bilal.user_id)
        two.parley.joining.review(socket, room)

    overtake(monkeypatch, shown_out)
    answer = await phone.answer("room:join", room=f"conversation:{chat}", after=0)
    assert answer["ok"] is not removed


async def test_who_the_server_lets_in_too_late_is_sent_back(
    parley: Instance, amina: Person, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "REPLAY_ROOM_EVENTS", 3)
    carim = await parley.person("carim")
    chat = await parley.chat(amina, bilal, kind="group")
    phone = await carim.connect()
    judge = Joining.judge

    async def late(self: Joining, *args: object) -> object:
        monkeypatch.setattr(Joining, "judge", judge)
        for n in range(6):
            await amina.post("message:send", conversation_id=chat, client_id=f"w{n}", text=str(n))
        return await judge(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Joining, "judge", late)
    await amina.post("participant:add", conversation_id=chat, user_id=carim.user_id)
    await phone.gone()
    assert phone.texts(chat) == []
    back = await carim.connect(rooms={f"conversation:{chat}": 1})
    assert back.hello["reset"] == [f"conversation:{chat}"]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), Unavailable()])
async def test_who_the_server_fails_to_let_in_is_sent_back(
    parley: Instance, amina: Person, bilal: Person, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    carim = await parley.person("carim")
    chat = await parley.chat(amina, bilal, kind="group")
    phone = await carim.connect()

    async def fail() -> None:
        raise error

    overtake(monkeypatch, fail)
    await amina.post("participant:add", conversation_id=chat, user_id=carim.user_id)
    await phone.gone()


async def test_who_is_let_in_while_a_join_of_theirs_fails_is_sent_back(
    parley: Instance, amina: Person, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    carim = await parley.person("carim")
    chat = await parley.chat(amina, bilal, kind="group")
    phone = await carim.connect()

    async def let_in_and_fail() -> None:
        await amina.post("participant:add", conversation_id=chat, user_id=carim.user_id)
        await phone.until(added(carim))
        raise Unavailable

    overtake(monkeypatch, let_in_and_fail)
    answer = await phone.answer("room:join", room=f"conversation:{chat}")
    assert answer["error"]["code"] == "unavailable"
    await phone.gone()


async def test_a_review_changes_nothing_for_who_stands_rightly(
    parley: Instance, amina: Person, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await parley.chat(amina, bilal, kind="group")
    room = f"conversation:{chat}"
    phone, other = await bilal.connect(), await amina.connect()
    await other.send(chat, "before")
    await phone.hearing("message:created", text="before")
    heard: list[str] = []

    async def talk() -> None:
        await other.send(chat, "meanwhile")
        await other.hearing("message:created", text="meanwhile")
        heard.extend(phone.texts(chat))

    overtake(monkeypatch, talk)
    server = parley.parley
    [socket] = [s for s in server.delivery.sockets() if str(s.user_id) == bilal.user_id]
    server.joining.review(socket, parse(room))  # type: ignore[arg-type]
    await phone.hearing("message:created", text="meanwhile")
    await other.send(chat, "after")
    await phone.hearing("message:created", text="after")
    assert heard == ["before"]
    assert [push.seq for push in phone.of(room)] == [1, 2, 3]


async def test_a_review_puts_out_who_has_been_removed_before_the_conversation_says_so(
    new_instance: NewInstance,
) -> None:
    hub = LocalHub()
    buses = GatedBus(hub), GatedBus(hub)
    one, two = [await new_instance(bus=bus) for bus in buses]
    owner, bilal = await one.person("owner"), await two.person("bilal")
    chat = await one.chat(owner, bilal, await one.person("third"), kind="group")
    room = parse(f"conversation:{chat}")
    assert room is not None
    phone = await bilal.connect()
    [socket] = two.parley.delivery.sockets()
    buses[0].kept_back = {"message:created", "participant:removed"}
    await owner.post("message:send", conversation_id=chat, client_id="m", text="late")
    await owner.post("participant:remove", conversation_id=chat, user_id=bilal.user_id)
    two.parley.joining.review(socket, room)
    async with asyncio.timeout(10):
        while room in socket.rooms:
            await asyncio.sleep(0)
    buses[0].let_through()
    await phone.hearing("participant:removed", conversation_id=chat)
    await owner.post("participant:add", conversation_id=chat, user_id=bilal.user_id)
    await phone.until(added(bilal))
    await owner.post("message:send", conversation_id=chat, client_id="w", text="welcome back")
    await phone.hearing("message:created", text="welcome back")
    assert phone.texts(chat) == ["welcome back"]


async def test_nothing_of_a_conversation_follows_the_removal_in_ones_own_room(new_instance: NewInstance) -> None:
    hub = LocalHub()
    buses = GatedBus(hub), GatedBus(hub)
    one, two = [await new_instance(bus=bus) for bus in buses]
    owner, bilal, third = await one.person("owner"), await two.person("bilal"), await two.person("third")
    chat = await one.chat(owner, bilal, third, kind="group")
    phone, other = await bilal.connect(), await third.connect()
    buses[0].kept_back = {"message:created"}  # the bus loses it, and so the conversation waits for the log
    await owner.post("message:send", conversation_id=chat, client_id="m", text="late")
    await owner.post("participant:remove", conversation_id=chat, user_id=bilal.user_id)
    own = f"user:{bilal.user_id}"
    await phone.until(lambda heard: any(p.name == "participant:removed" and p.room == own for p in heard))
    await other.hearing("participant:removed", conversation_id=chat)
    await phone.call("account:me")
    last = [push.room for push in phone.heard if push.room in (own, f"conversation:{chat}")][-1]
    assert last == own


async def test_who_is_gone_before_the_join_is_judged_stands_nowhere(
    parley: Instance, amina: Person, their_chat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = await amina.connect()
    room = f"conversation:{their_chat}"
    await phone.call("room:leave", room=room)
    judge, judging, gate, done = Joining.judge, asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(self: Joining, *args: object) -> object:
        judging.set()
        await gate.wait()
        try:
            return await judge(self, *args)  # type: ignore[arg-type]
        finally:
            done.set()

    monkeypatch.setattr(Joining, "judge", slow)
    joining = asyncio.create_task(phone.answer("room:join", room=room))
    await judging.wait()
    joining.cancel()
    await phone.leave()
    delivery = parley.parley.delivery
    async with asyncio.timeout(10):
        while delivery.sockets():
            await asyncio.sleep(0)
    gate.set()
    await done.wait()
    await amina.post("account:me")
    assert delivery.watched == 0


async def test_three_connects_in_parallel_posts_leave_nothing_behind(parley: Instance, amina: Person) -> None:
    url = f"{parley.url}/socket.io/?EIO=4&transport=polling"
    async with parley.http.get(url) as response:
        sid = json.loads((await response.text())[1:])["sid"]
    connect = "40" + json.dumps({"token": amina.token})

    async def post() -> None:
        async with parley.http.post(f"{url}&sid={sid}", data=connect):
            pass

    await asyncio.gather(*(post() for _ in range(3)))  # the second is one too many, and ends the session
    server = parley.parley
    async with asyncio.timeout(10):
        while server.wire.sessions or server.delivery.sockets():  # the first is being judged still
            await asyncio.sleep(0)
    assert (len(server.wire), server.delivery.watched) == (0, 0)
    assert not server.wire.manager.rooms


async def test_a_list_ends_at_its_bytes_and_goes_on_behind_them(parley: Instance, amina: Person) -> None:
    chats = [await parley.chat(amina, await parley.person(f"p{n}")) for n in range(16)]
    for chat in chats:
        await amina.post("message:send", conversation_id=chat, client_id=f"l{chat}", text="😀" * 5_000)
    phone = await amina.connect()
    listed, before, pages = [], None, 0
    while True:
        page = await phone.call("conversation:list", limit=100, **({"before": before} if before else {}))
        assert len(json.dumps(page, ensure_ascii=False).encode()) < 300 * 1024
        listed += [one["conversation_id"] for one in page["conversations"]]
        pages += 1
        if (before := page["next"]) is None:
            break
    assert pages > 1
    assert listed == chats[::-1]
