"""Two instances on one PostgreSQL.

One order for everybody, removals that hold, and repair of whatever the bus loses.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from server.rooms.bus import LocalBus, LocalHub
from server.rooms.comparison import Comparison
from server.rooms.delivery import Delivery
from server.rooms.joining import Joining
from server.rooms.log import Event
from server.rooms.repair import Repair
from tests.buses import LossyBus
from tests.faults.checker import Acked, read_log, violations
from tests.faults.processes import ServerProcess, without
from tests.people import SECRET, Device, Instance, Person
from tests.servers import RedisServer, execute

REPAIRED_S = 2.0

NewInstance = Callable[..., Awaitable[Instance]]


class TurningBus(LocalBus):
    """A bus that turns the order of what it carries."""

    def publish(self, event: Event) -> None:
        asyncio.get_running_loop().call_later(random.uniform(0, 0.02), super().publish, event)


@pytest.fixture
def buses() -> tuple[LossyBus, LossyBus]:
    """The two ends of a bus within the process."""
    hub = LocalHub()
    return LossyBus(hub), LossyBus(hub)


@pytest.fixture
async def two(new_instance: NewInstance, buses: tuple[LossyBus, LossyBus]) -> list[Instance]:
    """Two instances that hear each other within the process."""
    return [await new_instance(bus=bus) for bus in buses]


@pytest.fixture
async def turned(new_instance: NewInstance) -> list[Instance]:
    """Two instances that hear each other in another order than was said."""
    hub = LocalHub()
    return [await new_instance(bus=TurningBus(hub)) for _ in range(2)]


async def _never(_: object) -> None:
    await asyncio.Event().wait()


def _deliver_at_once(monkeypatch: pytest.MonkeyPatch, instances: list[Instance]) -> None:
    """Let conversations' events reach their members as they come, and nobody look for what is missing."""
    deliver = Delivery.deliver

    def at_once(self: Delivery, event: Event) -> None:
        if event.room.kind != "conversation":
            return deliver(self, event)
        if (local := self._rooms.get(event.room)) is not None:
            local.pass_on(event)
        return None

    monkeypatch.setattr(Delivery, "deliver", at_once)
    monkeypatch.setattr(Repair, "_run", _never)
    for instance in instances:
        assert isinstance(instance.parley.bus, LocalBus)
        instance.parley.bus._receive = instance.parley.delivery.deliver  # it was told of the method as it was


async def _talk_in_ten_rooms(instances: list[Instance]) -> list[str]:
    """Ten conversations of two, who talk on two instances; what is wrong in what they saw."""
    chats, people, devices = [], [], []
    for n in range(10):
        pair = [await instance.person(f"s{n}") for instance in instances]
        chats.append(await instances[0].chat(*pair, kind="group"))
        people.append(pair)
        devices.append([await person.connect() for person in pair])

    async def talk(device: Device, chat: str, name: str) -> list[Acked]:
        acked = []
        for n in range(15):
            sent = await device.send(chat, f"{name} {n}", f"{name}-{n}")
            acked.append(Acked(device.hello["user_id"], f"{name}-{n}", sent["message_id"], sent["seq"]))
        return acked

    acked = await asyncio.gather(
        *(talk(device, chats[n], f"{n}{m}") for n, pair in enumerate(devices) for m, device in enumerate(pair))
    )
    found = []
    for n, chat in enumerate(chats):
        log = await read_log(instances[0].dsn, chat)
        assert len(log.seqs) == 30
        views = {}
        for m, device in enumerate(devices[n]):
            await device.hearing_up_to(f"conversation:{chat}", 30)
            views[f"{n}{m}"] = [push.seq for push in device.of(f"conversation:{chat}")]
        found += violations(log, [*acked[2 * n], *acked[2 * n + 1]], views)
    return found


async def test_two_instances_show_twenty_senders_one_order(two: list[Instance]) -> None:
    assert await _talk_in_ten_rooms(two) == []


async def test_two_instances_over_redis_show_twenty_senders_one_order(
    new_instance: NewInstance, any_redis_url: str
) -> None:
    instances = [await new_instance(REDIS_URL=any_redis_url) for _ in range(2)]
    assert await _talk_in_ten_rooms(instances) == []


async def test_a_bus_that_turns_the_order_changes_it_for_nobody(turned: list[Instance]) -> None:
    assert await _talk_in_ten_rooms(turned) == []


async def test_without_the_order_of_delivery_a_turned_bus_shows(
    monkeypatch: pytest.MonkeyPatch, turned: list[Instance]
) -> None:
    _deliver_at_once(monkeypatch, turned)
    found = await _talk_in_ten_rooms(turned)
    assert any(line.startswith("view:") for line in found), found


async def _remove_amid_sends(two: list[Instance]) -> list[str]:
    """Remove somebody, on one instance, who sends on both; what is wrong afterwards."""
    owner, member = await two[0].person("owner"), await two[0].person("member")
    target = await two[1].person("target")
    chat = await two[0].chat(owner, member, target, kind="group")
    listeners, phones = [[await person.connect(to=instance) for instance in two] for person in (member, target)]
    stop = asyncio.Event()

    async def talk(phone: Device) -> None:
        while not stop.is_set():
            answer = await phone.answer("message:send", conversation_id=chat, client_id=uuid4().hex, text="…")
            if not answer["ok"]:
                assert answer["error"]["code"] == "not_found"
                return

    talking = [asyncio.create_task(talk(phone)) for phone in phones for _ in range(8)]
    await listeners[0].until(lambda _: listeners[0].position(chat) > 30)
    await owner.post("participant:remove", conversation_id=chat, user_id=target.user_id)
    removed = await listeners[0].hearing("participant:removed", user_id=target.user_id)
    for phone in phones:
        await phone.hearing("participant:removed", user_id=target.user_id)
    stop.set()
    await asyncio.gather(*talking)
    await owner.post("message:send", conversation_id=chat, client_id="last", text="last")
    for listener, phone in zip(listeners, phones, strict=True):
        await listener.hearing("message:created", text="last")
        await phone.call("account:me")  # what that instance had for the phone came before this answer
    found = [
        f"stored after the removal at {removed.seq}: {message}"
        for message in (await read_log(two[0].dsn, chat)).messages
        if message.sender_id == target.user_id and message.seq > removed.seq
    ]
    for phone in phones:
        found += [
            f"delivered after the removal: {push}"
            for push in phone.of(f"conversation:{chat}")
            if push.seq > removed.seq
        ]
    return found


async def test_nothing_is_stored_or_delivered_after_a_removal(two: list[Instance]) -> None:
    for _ in range(3):
        assert await _remove_amid_sends(two) == []


async def test_nothing_is_stored_or_delivered_after_a_removal_over_redis(
    new_instance: NewInstance, any_redis_url: str
) -> None:
    instances = [await new_instance(REDIS_URL=any_redis_url) for _ in range(2)]
    for _ in range(3):
        assert await _remove_amid_sends(instances) == []


async def test_a_removal_that_leaves_the_sockets_in_the_room_is_caught(
    monkeypatch: pytest.MonkeyPatch, new_instance: NewInstance, buses: tuple[LossyBus, LossyBus]
) -> None:
    monkeypatch.setattr(Delivery, "on_end", lambda *_: None)
    monkeypatch.setattr(Joining, "review", lambda *_: None)  # what one's own copy of the removal does
    two = [await new_instance(bus=bus) for bus in buses]
    found = await _remove_amid_sends(two)
    assert any(line.startswith("delivered after") for line in found), found
    assert not any(line.startswith("stored after") for line in found), found


async def test_membership_judged_before_the_lock_is_caught(two: list[Instance]) -> None:
    # As one plain statement would judge: on a snapshot from before the wait for the room's lock.
    dsn = two[0].dsn
    await execute(dsn, await without(dsn, "append_messages", *_JUDGED_EARLY))
    found: list[str] = []
    for _ in range(10):
        found = await _remove_amid_sends(two)
        if found:
            break
    assert any(line.startswith("stored after") for line in found)


_JUDGED_EARLY = (
    ("    held uuid[];\n", "    held uuid[]; early_rooms uuid[]; early_people uuid[];\n"),
    (
        "    if wait then\n",
        """
    select array_agg(conversation_id), array_agg(user_id) into early_rooms, early_people
      from conversation_participants where conversation_id = any (conversation_ids) and left_at is null;
    perform pg_sleep(0.02);
    if true then
""",
    ),
    (
        "select q.user_id, q.joined_seq from conversation_participants q\n",
        "select q.user_id, 0 as joined_seq from unnest(early_rooms, early_people) as q (conversation_id, user_id)\n",
    ),
    ("and q.user_id = i.sender_id and q.left_at is null\n", "and q.user_id = i.sender_id\n"),
)


async def _heard_within(device: Device, text: str, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await device.hearing("message:created", text=text)
            return True
    except TimeoutError:
        return False


async def test_what_the_bus_loses_is_repaired_within_two_seconds(
    two: list[Instance], buses: tuple[LossyBus, LossyBus]
) -> None:
    amina, bilal = await two[0].person("amina"), await two[1].person("bilal")
    chat = await two[0].chat(amina, bilal)
    phone, other = await amina.connect(), await bilal.connect()
    for bus in buses:
        bus.is_deaf = True
    for n in range(3):
        await phone.send(chat, f"lost {n}")
        assert await _heard_within(other, f"lost {n}", REPAIRED_S), f"message {n} is missing after {REPAIRED_S} s"
    new = await two[0].chat(amina, bilal, await two[0].person("carim"), kind="group")  # and being let in, likewise
    await phone.send(new, "in a new room")
    assert await _heard_within(other, "in a new room", REPAIRED_S)
    for bus in buses:
        bus.is_deaf = False
    await phone.send(chat, "live again")
    await other.hearing("message:created", text="live again")
    assert other.texts(chat) == ["lost 0", "lost 1", "lost 2", "live again"]


async def test_without_the_comparison_the_loss_shows(
    monkeypatch: pytest.MonkeyPatch, new_instance: NewInstance, buses: tuple[LossyBus, LossyBus]
) -> None:
    monkeypatch.setattr(Comparison, "_run", _never)
    two = [await new_instance(bus=bus) for bus in buses]
    amina, bilal = await two[0].person("amina"), await two[1].person("bilal")
    chat = await two[0].chat(amina, bilal)
    phone, other = await amina.connect(), await bilal.connect()
    buses[0].is_deaf = True
    await phone.send(chat, "lost")
    assert not await _heard_within(other, "lost", REPAIRED_S)


async def test_without_repair_a_gap_shows_in_the_view(
    monkeypatch: pytest.MonkeyPatch, two: list[Instance], buses: tuple[LossyBus, LossyBus]
) -> None:
    _deliver_at_once(monkeypatch, two)
    amina, bilal = await two[0].person("amina"), await two[1].person("bilal")
    chat = await two[0].chat(amina, bilal)
    phone, other = await amina.connect(), await bilal.connect()
    await phone.send(chat, "one")
    buses[0].is_deaf = True
    await phone.send(chat, "two")
    buses[0].is_deaf = False
    await phone.send(chat, "three")
    await other.hearing("message:created", text="three")
    view = [push.seq for push in other.of(f"conversation:{chat}")]
    found = violations(await read_log(two[0].dsn, chat), [], {"bilal": view})
    assert any(line.startswith("view:") for line in found)


async def test_redis_killed_for_a_while_loses_nothing(new_instance: NewInstance, valkey: RedisServer) -> None:
    instances = [await new_instance(REDIS_URL=valkey.url) for _ in range(2)]
    amina, bilal = await instances[0].person("amina"), await instances[1].person("bilal")
    chat = await instances[0].chat(amina, bilal)
    phone, other = await amina.connect(), await bilal.connect()
    await phone.send(chat, "before")
    await other.hearing("message:created", text="before")
    valkey.kill()
    try:
        for n in range(4):
            started = time.monotonic()
            await phone.send(chat, f"during {n}")  # an ack waits for no bus
            assert await _heard_within(other, f"during {n}", REPAIRED_S - (time.monotonic() - started))
        assert (await _readiness(instances[0])) == (200, "degraded")
    finally:
        valkey.start()
    async with asyncio.timeout(5):
        while (await _readiness(instances[0]))[1] != "ok":
            await asyncio.sleep(0.02)
    await phone.send(chat, "after")
    await other.hearing("message:created", text="after")
    assert other.texts(chat) == ["before", *(f"during {n}" for n in range(4)), "after"]


async def _readiness(instance: Instance) -> tuple[int, str]:
    async with instance.http.get(f"{instance.url}/readyz") as response:
        return response.status, (await response.json())["bus"]


@pytest.fixture
def dying_server(migrated_database: str, valkey: RedisServer, open_folder: Path) -> Iterator[ServerProcess]:
    """An instance of its own process that crashes between commit and publish at the word "die"."""
    environ = {"DATABASE_URL": migrated_database, "REDIS_URL": valkey.url, "PARLEY_SECRET": SECRET}
    server = ServerProcess(open_folder / "log", environ, ("tests.faults.broken", "die_before_publish"))
    server.start()
    yield server
    server.kill()


async def test_a_publisher_killed_between_commit_and_publish_is_made_good(
    new_instance: NewInstance, valkey: RedisServer, dying_server: ServerProcess
) -> None:
    instance = await new_instance(REDIS_URL=valkey.url)
    amina, bilal = await instance.person("amina"), await instance.person("bilal")
    chat = await instance.chat(amina, bilal)
    phone, other = await amina.connect(to=dying_server.url), await bilal.connect()
    await phone.send(chat, "before")
    await other.hearing("message:created", text="before")
    key = uuid4().hex
    started = time.monotonic()
    answer = asyncio.create_task(phone.answer("message:send", conversation_id=chat, client_id=key, text="die"))
    assert await _heard_within(other, "die", REPAIRED_S)
    assert time.monotonic() - started < REPAIRED_S + 1
    answer.cancel()
    again = await _again(amina, chat, key)
    assert [message["text"] for message in again] == ["before", "die"]


async def _again(person: Person, chat: str, key: str) -> list[dict[str, str]]:
    await person.post("message:send", conversation_id=chat, client_id=key, text="die")
    history = await person.post("message:history", conversation_id=chat)
    messages: list[dict[str, str]] = history["messages"]
    return messages
