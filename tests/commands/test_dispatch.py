"""From a command to its answer: a client's order, keys for good, and what becomes of it when the database is busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from rules.users import Scope
from server.commands.context import Call
from server.commands.lane import Lane
from server.errors import Conflict, Unavailable
from storage import Connection, Database, rooms, users
from storage import _db as db_module
from tests.market import listed
from tests.people import PATIENCE_S, ConnectRefused, Device, Instance, Person, Refusal
from tests.relay import Relay

NewInstance = Callable[..., Awaitable[Instance]]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


# one client's order


IN_FLIGHT = 64


class Calls:
    """What a lane has started, by name. `b…` are calls of one batched command, others of commands of their own."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self._batched = SimpleNamespace(batch=True)
        self.held: list[str] = []
        self.lane = Lane(self._start, IN_FLIGHT, lambda: self.held.append("hold"), lambda: self.held.append("go on"))

    def _start(self, call: Call[Any]) -> None:
        self.started.append(cast("str", call.payload))

    def add(self, *names: str) -> None:
        for name in names:
            command = self._batched if name.startswith("b") else SimpleNamespace(batch=False)
            self.lane.add(cast("Call[Any]", SimpleNamespace(command=command, payload=name)))


async def test_commands_of_one_client_start_one_after_the_other() -> None:
    calls = Calls()
    calls.add("x", "y", "z")
    assert calls.started == ["x"]
    calls.lane.finished()
    assert calls.started == ["x", "y"]
    calls.lane.finished()
    assert calls.started == ["x", "y", "z"]


async def test_consecutive_calls_of_a_batched_command_start_together_and_others_wait_for_all_of_them() -> None:
    calls = Calls()
    calls.add("b1", "b2", "x", "b3", "b4", "y")
    assert calls.started == ["b1", "b2"]
    calls.lane.finished()
    assert calls.started == ["b1", "b2"]
    calls.lane.finished()
    assert calls.started == ["b1", "b2", "x"]
    calls.lane.finished()
    assert calls.started == ["b1", "b2", "x", "b3", "b4"]
    calls.lane.finished()
    calls.lane.finished()
    assert calls.started == ["b1", "b2", "x", "b3", "b4", "y"]


async def test_a_full_lane_is_not_read_until_some_are_answered() -> None:
    calls = Calls()
    calls.add(*("x" for _ in range(IN_FLIGHT - 1)))
    assert calls.held == []
    calls.add("x")
    assert calls.held == ["hold"]
    calls.lane.finished()
    assert calls.held == ["hold", "go on"]
    calls.lane.finished()
    assert calls.held == ["hold", "go on"]


async def test_what_a_client_that_has_left_was_waiting_for_is_not_started() -> None:
    calls = Calls()
    calls.add("b1", "b2", *("x" for _ in range(IN_FLIGHT)))
    calls.lane.leave()
    calls.lane.finished()
    calls.lane.finished()
    assert calls.started == ["b1", "b2"]


async def test_a_client_reads_its_own_writes_without_waiting_for_their_answers(amina: Person, their_chat: str) -> None:
    phone = await amina.connect()
    asked: list[Any] = []
    for n in range(10):
        asked.append(phone.send(their_chat, str(n)))
        asked.append(phone.call("message:history", conversation_id=their_chat))
    answers = await asyncio.gather(*asked)
    for n, history in enumerate(answers[1::2]):
        assert [message["text"] for message in history["messages"]] == [str(m) for m in range(n + 1)]


async def test_the_sender_hears_a_message_after_its_answer(amina: Person, their_chat: str) -> None:
    phone = await amina.connect()
    payload = {"conversation_id": their_chat, "client_id": "a", "text": "hello"}

    async def answered(answer: dict[str, Any]) -> None:
        await phone.hears("the answer", answer)

    await phone.client.emit("message:send", payload, callback=answered)
    await phone.hearing("message:created", text="hello")
    assert [push.name for push in phone.heard][-2:] == ["the answer", "message:created"]


# what is refused on the way


async def test_a_command_is_known_only_where_it_may_be_called(amina: Person) -> None:
    phone = await amina.connect()
    for command in ("account:login", "account:fly", "no"):
        assert (await phone.answer(command))["error"]["code"] == "unknown_command"
    for command in ("room:join", "account:fly"):
        status, answer = await amina.instance.post(command, {"room": "x"}, token=amina.token)
        assert (status, answer["error"]["code"]) == (404, "unknown_command")


async def test_a_token_of_scope_read_may_read_and_no_more(parley: Instance, amina: Person) -> None:
    reader = await parley.person("reader", scope=Scope.READ)
    chat = await parley.chat(amina, reader)
    phone = await reader.connect()
    await phone.call("message:history", conversation_id=chat)
    await phone.call("room:leave", room=f"conversation:{chat}")
    for command in ("message:send", "conversation:create"):
        assert (await phone.answer(command))["error"]["code"] == "forbidden"
        assert (await parley.post(command, {}, token=reader.token))[0] == 403


async def test_a_command_takes_one_object(amina: Person) -> None:
    phone = await amina.connect()
    answer = await phone.client.call("account:me", ({}, {}), timeout=PATIENCE_S)
    assert (answer["error"]["code"], list(answer["error"]["fields"])) == ("invalid", ["payload"])
    for payload in (None, {}):
        assert (await phone.client.call("account:me", payload, timeout=PATIENCE_S))["ok"]
    assert (await phone.client.call("account:me", 7, timeout=PATIENCE_S))["error"]["code"] == "invalid"


async def test_a_bug_is_answered_as_internal_under_an_id_that_is_logged(
    amina: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    phone = await amina.connect()
    monkeypatch.setattr(users, "get_user", broken)
    with capture_logs() as logs:
        answer = await phone.answer("account:me")
    assert answer["error"]["code"] == "internal"
    assert "ZeroDivisionError" not in str(answer)
    assert [log["error_id"] for log in logs if log["event"] == "command_failed"] == [answer["error"]["error_id"]]
    monkeypatch.undo()
    assert (await phone.call("account:me"))["user_id"] == amina.user_id


async def test_what_is_refused_before_it_begins_is_counted_like_the_rest(parley: Instance, amina: Person) -> None:
    phone = await amina.connect()
    await phone.client.call("account:me", ({}, {}), timeout=PATIENCE_S)
    await parley.post("account:me", {})
    await parley.post("account:fly", {})
    async with parley.http.post(f"{parley.url}/api/account/me", data=b"{") as response:
        assert response.status == 400
    async with parley.http.get(f"{parley.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    counted = {line for line in lines if line.startswith("parley_commands_total") and not line.endswith(" 0.0")}
    assert counted == {
        'parley_commands_total{command="account:me",outcome="invalid"} 2.0',
        'parley_commands_total{command="account:me",outcome="unauthenticated"} 1.0',
        'parley_commands_total{command="unknown",outcome="unknown_command"} 1.0',
    }
    assert not [line for line in lines if line.startswith("parley_command_seconds_count")]


# keys, for good


async def test_the_same_key_answers_with_the_same_object_as_it_is_now(amina: Person, bilal: Person) -> None:
    group = {"kind": "group", "user_ids": [bilal.user_id], "client_id": "trip", "title": "Trip"}
    made = await amina.post("conversation:create", **group)
    assert await amina.post("conversation:create", **group) == made
    await bilal.post("message:send", conversation_id=made["conversation_id"], client_id="a", text="hello")
    again = await amina.post("conversation:create", **group)
    assert again["conversation_id"] == made["conversation_id"]
    assert (again["unread_count"], again["last_message"]["text"]) == (1, "hello")


async def test_the_same_key_with_another_body_is_a_conflict(amina: Person, bilal: Person) -> None:
    group = {"kind": "group", "user_ids": [bilal.user_id], "client_id": "trip", "title": "Trip"}
    await amina.post("conversation:create", **group)
    for other in ({"title": "Walk"}, {"user_ids": []}, {"listing_id": str(uuid4())}):
        status, answer = await amina.instance.post("conversation:create", {**group, **other}, token=amina.token)
        assert (status, answer["error"]["code"], answer["error"]["reason"]) == (409, "conflict", "key_reuse")


async def test_a_key_is_one_persons_and_one_commands(amina: Person, bilal: Person) -> None:
    group = {"kind": "group", "user_ids": [], "client_id": "one"}
    first, second = [await person.post("conversation:create", **group) for person in (amina, bilal)]
    assert first["conversation_id"] != second["conversation_id"]
    sent = await amina.post(
        "message:send", conversation_id=first["conversation_id"], client_id="one", text="the same key"
    )
    assert sent["seq"] == 1


async def test_a_body_is_the_same_on_the_socket_and_over_http_and_with_its_defaults_written_out(
    amina: Person, bilal: Person
) -> None:
    phone = await amina.connect()
    made = await phone.call("conversation:create", kind="group", user_ids=[bilal.user_id], client_id="same")
    for spelling in (
        {"client_id": "same", "user_ids": [bilal.user_id], "kind": "group"},
        {"kind": "group", "user_ids": [bilal.user_id], "client_id": "same", "title": None, "listing_id": None},
        {"kind": "group", "user_ids": [bilal.user_id.upper()], "client_id": "same"},
    ):
        assert await phone.call("conversation:create", **spelling) == made
        assert await amina.post("conversation:create", **spelling) == made


async def test_repeats_from_everywhere_at_once_make_one(amina: Person, bilal: Person) -> None:
    phone, tablet, other = await amina.connect(), await amina.connect(), await bilal.connect()
    group: dict[str, Any] = {"kind": "group", "user_ids": [bilal.user_id], "client_id": "once", "title": "Once"}
    answers = await asyncio.gather(
        *(device.call("conversation:create", **group) for device in (phone, tablet) for _ in range(5)),
        *(amina.post("conversation:create", **group) for _ in range(5)),
    )
    assert all(answer == answers[0] for answer in answers)
    listed = await amina.post("conversation:list")
    assert [one["title"] for one in listed["conversations"]] == ["Once"]
    await bilal.post("conversation:create", kind="group", user_ids=[], client_id="last", title="Last")
    await other.hearing("conversation:created", title="Last")
    assert [p.payload["title"] for p in other.heard if p.name == "conversation:created"] == ["Once", "Last"]


async def test_a_key_that_found_what_was_there_answers_with_that(amina: Person, bilal: Person, their_chat: str) -> None:
    private = {"kind": "private", "user_ids": [amina.user_id], "client_id": "with amina"}
    for _ in range(2):
        assert (await bilal.post("conversation:create", **private))["conversation_id"] == their_chat
    listing = await listed(amina)
    with pytest.raises(Refusal) as refused:
        await bilal.post("conversation:create", **{**private, "listing_id": listing["listing_id"]})
    assert refused.value.error["reason"] == "key_reuse"
    assert refused.value.error["current"]["conversation_id"] == their_chat


async def test_a_key_of_a_command_that_was_refused_is_free(amina: Person, bilal: Person) -> None:
    with pytest.raises(Refusal, match="not_found"):
        await amina.post("conversation:create", kind="group", user_ids=[str(uuid4())], client_id="typo")
    made = await amina.post("conversation:create", kind="group", user_ids=[bilal.user_id], client_id="typo")
    assert made["participant_count"] == 2


async def test_a_repeat_by_somebody_who_has_been_shown_out_finds_nothing(amina: Person, bilal: Person) -> None:
    group = {"kind": "group", "user_ids": [bilal.user_id], "client_id": "trip"}
    made = await amina.post("conversation:create", **group)
    await amina.instance.parley.database.statement(
        lambda db: db.execute(
            "update conversation_participants set left_at = now() where user_id = $1 and conversation_id = $2",
            amina.user_id,
            made["conversation_id"],
        )
    )
    with pytest.raises(Refusal, match="not_found"):
        await amina.post("conversation:create", **group)


# the unit of work


@pytest.fixture
async def database(shared_database: str) -> AsyncIterator[Database]:
    database = await Database.open(shared_database, min_size=2, max_size=2)
    yield database
    await database.close()


@pytest.fixture
async def outsider(shared_database: str) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else's connection."""
    connection = await asyncpg.connect(shared_database)
    yield connection
    await connection.close()


@pytest.fixture
async def two_rooms(database: Database) -> list[UUID]:
    """Two rows to meet at."""
    ids = [uuid4(), uuid4()]
    async with database.connection() as db:
        for room_id in ids:
            await rooms.create_room(db, room_id, "user")
    return ids


BUMP = "update rooms set last_seq = last_seq + 1 where room_id = $1"


async def seqs(database: Database, room_ids: list[UUID]) -> list[int]:
    async with database.connection() as db:
        heads = {head.room_id: head.last_seq for head in await rooms.list_heads(db, room_ids)}
    return [heads[room_id] for room_id in room_ids]


@pytest.mark.parametrize("deadlock_timeout", ["10ms", "1s"], ids=["detected", "ended by the lock's time-out"])
async def test_of_two_transactions_in_a_deadlock_both_succeed_and_each_once(
    database: Database, two_rooms: list[UUID], deadlock_timeout: str
) -> None:
    met = asyncio.Barrier(2)
    again = asyncio.Lock()  # that they don't meet a second time is a matter of luck, which is not what is tested
    tries: list[list[UUID]] = []

    async def bump(db: Connection, order: list[UUID]) -> None:
        await db.execute(f"set local deadlock_timeout = '{deadlock_timeout}'")
        tries.append(order)
        if tries.count(order) == 1:
            await db.execute(BUMP, order[0])
            await met.wait()
            await db.execute(BUMP, order[1])
        else:
            async with again:
                await db.execute(BUMP, order[0])
                await db.execute(BUMP, order[1])

    orders = [two_rooms, two_rooms[::-1]]
    await asyncio.gather(*(database.transaction(lambda db, order=order: bump(db, order)) for order in orders))
    assert len(tries) > 2
    assert await seqs(database, two_rooms) == [2, 2]


async def test_a_transaction_whose_lock_was_held_too_long_is_run_again(
    database: Database, outsider: asyncpg.Connection, two_rooms: list[UUID]
) -> None:
    tries = asyncio.Queue[int]()

    async def work(db: Connection) -> int:
        await db.execute(BUMP, two_rooms[1])
        tries.put_nowait(1)
        await db.execute(BUMP, two_rooms[0])
        return 7

    holding = outsider.transaction()
    await holding.start()
    await outsider.execute(BUMP, two_rooms[0])
    running = asyncio.create_task(database.transaction(work))
    for _ in range(2):
        await tries.get()
    await holding.rollback()
    assert await running == 7
    assert await seqs(database, two_rooms) == [1, 1]  # what the first try wrote is gone


async def test_a_lock_that_is_never_free_is_unavailable_within_the_budget(
    database: Database, outsider: asyncpg.Connection, two_rooms: list[UUID]
) -> None:
    clock = asyncio.get_running_loop().time
    async with outsider.transaction():
        await outsider.execute(BUMP, two_rooms[0])
        started = clock()
        with pytest.raises(Unavailable):
            await database.transaction(lambda db: db.execute(BUMP, two_rooms[0]))
        # The last try begins within the budget, and may then wait for its lock.
        assert clock() - started < db_module.RETRY_BUDGET_S + db_module.LOCK_TIMEOUT_MS / 1000 + 1


async def test_a_transaction_that_conflicts_every_time_is_given_up_after_its_tries(
    database: Database, outsider: asyncpg.Connection, two_rooms: list[UUID]
) -> None:
    tries = 0

    async def work(db: Connection) -> None:
        nonlocal tries
        tries += 1
        await db.execute("set transaction isolation level repeatable read")
        await db.fetchval("select last_seq from rooms where room_id = $1", two_rooms[0])
        await outsider.execute(BUMP, two_rooms[0])
        await db.execute(BUMP, two_rooms[0])

    with pytest.raises(Unavailable) as raised:
        await database.transaction(work)
    assert isinstance(raised.value.__cause__, asyncpg.SerializationError)
    assert tries == 1 + db_module.RETRIES
    assert (await seqs(database, two_rooms))[0] == tries


@pytest.mark.parametrize("error", [Conflict("version", "it moved"), ZeroDivisionError()], ids=["refusal", "bug"])
async def test_what_a_transaction_raises_itself_is_raised_as_it_is_and_nothing_is_kept(
    database: Database, two_rooms: list[UUID], error: Exception
) -> None:
    tries = 0

    async def work(db: Connection) -> None:
        nonlocal tries
        tries += 1
        await db.execute(BUMP, two_rooms[0])
        raise error

    with pytest.raises(type(error)) as raised:
        await database.transaction(work)
    assert raised.value is error
    assert tries == 1
    assert await seqs(database, two_rooms) == [0, 0]


async def test_a_statement_that_takes_too_long_is_unavailable(database: Database) -> None:
    with pytest.raises(Unavailable):
        await database.transaction(lambda db: db.execute("select pg_sleep(10)"))
    assert await database.statement(lambda db: db.fetchval("select 1")) == 1


# a database that is away


@pytest.fixture
async def relay(shared_database: str, open_folder: Path) -> AsyncIterator[Relay]:
    """A way to the database that can be taken away."""
    relay = Relay(shared_database, open_folder)
    await relay.open()
    yield relay
    await relay.close()


async def test_where_nothing_listens_everything_is_unavailable_until_it_is_back(relay: Relay) -> None:
    database = await Database.open(relay.dsn, min_size=1, max_size=2)

    async def one(db: Connection) -> int:
        number: int = await db.fetchval("select 1")
        return number

    async def connect() -> None:
        async with database.connection() as db:
            await one(db)

    assert await database.transaction(one) == 1
    await relay.close()
    for ask in (lambda: database.transaction(one), lambda: database.statement(one), connect):
        with pytest.raises(Unavailable):
            await cast("Callable[[], Any]", ask)()
    await relay.open()
    assert await database.transaction(one) == 1
    await database.close()


async def test_a_database_that_goes_away_in_the_middle_is_unavailable_and_not_asked_again(relay: Relay) -> None:
    database = await Database.open(relay.dsn, min_size=1, max_size=2)
    begun = asyncio.Queue[int]()

    async def work(db: Connection) -> None:
        begun.put_nowait(1)
        await db.execute("select pg_sleep(10)")

    running = asyncio.create_task(database.transaction(work))
    await begun.get()
    await relay.close()
    with pytest.raises(Unavailable):
        await running
    assert begun.empty()  # it may have been committed: only the client knows how to ask again
    await relay.open()
    await database.close()


async def test_commands_are_unavailable_while_the_database_is_away_and_sockets_live_on(relay: Relay) -> None:
    parley = await Instance(relay.dsn).start()
    try:
        amina, bilal = await parley.person("amina"), await parley.person("bilal")
        chat = await parley.chat(amina, bilal)
        phone = await amina.connect()
        await phone.send(chat, "before")
        await relay.close()
        assert await _codes(phone, chat) == ["unavailable"] * 3
        assert (await parley.post("account:me", {}, token=amina.token))[0] == 503
        await relay.open()
        await phone.send(chat, "during", "during")
        await phone.send(chat, "after")
        await phone.hearing("message:created", text="after")
        assert phone.texts(chat) == ["before", "during", "after"]
    finally:
        await relay.open()
        await parley.stop()


async def _codes(phone: Device, chat: str) -> list[str]:
    """What three commands of every kind are answered: batched, reading, and in a transaction."""
    answers = await asyncio.gather(
        phone.answer("message:send", conversation_id=chat, client_id="during", text="during"),
        phone.answer("message:history", conversation_id=chat),
        phone.answer("conversation:create", kind="group", user_ids=[], client_id="during"),
    )
    return [answer["error"]["code"] for answer in answers]


# a server that goes


async def test_what_has_not_begun_when_the_server_goes_is_refused_at_once(new_instance: NewInstance) -> None:
    parley = await new_instance(PARLEY_POOL_MAX="1")
    amina = await parley.person("amina")
    phone = await amina.connect()
    async with parley.parley.database.connection():
        first, *others = [asyncio.create_task(phone.answer("account:me")) for _ in range(4)]
        async with asyncio.timeout(PATIENCE_S):
            while len(lane_of(parley)._queue) < len(others):
                await asyncio.sleep(0.001)
        parley.parley.dispatcher.is_closing = True
        parley.parley.gateway.drain(parley.parley.wire.connections, lambda: 0)
        async with asyncio.timeout(PATIENCE_S):
            answers = await asyncio.gather(*others)
        assert [answer["error"]["code"] for answer in answers] == ["unavailable"] * 3
        assert not first.done()
    assert (await first)["ok"]
    await parley.parley.dispatcher.drained()
    assert lane_of(parley)._running == 0


async def test_a_server_that_goes_lets_nobody_in(new_instance: NewInstance) -> None:
    parley = await new_instance()
    amina = await parley.person("amina")
    admit, asked, go_on = parley.parley.gateway._admit, asyncio.Event(), asyncio.Event()

    async def held(*arguments: Any) -> Any:
        welcome = await admit(*arguments)
        asked.set()
        await go_on.wait()
        return welcome

    parley.parley.gateway._admit = held
    late = asyncio.create_task(amina.connect())
    await asyncio.wait_for(asked.wait(), PATIENCE_S)
    parley.parley.dispatcher.is_closing = True
    go_on.set()
    for connecting in (late, amina.connect()):
        with pytest.raises(ConnectRefused) as refused:
            await connecting
        assert refused.value.said["data"]["code"] == "unavailable"
    assert parley.parley.delivery.sockets() == []


def lane_of(parley: Instance) -> Lane:
    [connection] = parley.parley.wire.connections
    lane: Lane = connection.state.lane
    return lane


async def test_a_server_goes_in_time_though_its_database_hangs(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("server.app", "server.commands.dispatch"):
        monkeypatch.setattr(f"{module}.DRAIN_S", 2.0)
    parley = await Instance(relay.dsn).start()
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    chat = await parley.chat(amina, bilal)
    phone = await amina.connect()
    relay.flows.clear()
    began = asyncio.get_running_loop().time()
    hanging = asyncio.create_task(phone.answer("account:update", full_name="x"))
    sending = asyncio.create_task(phone.answer("message:send", conversation_id=chat, client_id="1", text="x"))
    async with asyncio.timeout(PATIENCE_S):
        while not (lane_of(parley)._running and lane_of(parley)._queue):
            await asyncio.sleep(0.001)
    await parley.parley.stop()
    seconds = asyncio.get_running_loop().time() - began
    answers = await asyncio.gather(hanging, sending)
    await phone.leave()
    await parley.http.close()
    relay.flows.set()
    assert [answer["error"]["code"] for answer in answers] == ["unavailable"] * 2
    assert seconds < 2.0 + 4.0


async def test_what_hangs_elsewhere_than_in_the_database_is_broken_off(
    parley: Instance, amina: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.commands.dispatch.DRAIN_S", 0.05)
    dispatcher = parley.parley.dispatcher

    async def never(call: Call[Any]) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(dispatcher, "_attempt", never)
    phone = await amina.connect()
    asking = asyncio.create_task(phone.answer("account:me"))
    async with asyncio.timeout(PATIENCE_S):
        while not dispatcher._tasks:
            await asyncio.sleep(0.001)
        tasks = [*dispatcher._tasks]
        await dispatcher.drained()
        await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [True]
    asking.cancel()
