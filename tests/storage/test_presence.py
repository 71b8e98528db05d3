"""What instances say of people, and how it is forgotten: so much in one statement, however many there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import asyncpg
import pytest

from rules.conversations import ConversationKind
from rules.presence import PresenceState
from storage import blocks, conversations, participants, presence, rooms, users
from storage._db import prepare_connection
from storage.participants import ParticipantRole

pytestmark = pytest.mark.both_postgres

CROWD = 3_000
PATIENCE_S = 10.0

Connect = Callable[[], Awaitable[asyncpg.Connection]]
Forget = Callable[[asyncpg.Connection, UUID, list[UUID]], Awaitable[object]]

FANS = """
with fans as (
    insert into users (username, email)
    select 'fan' || i || '.' || $1, 'fan' || i || '@' || $1 from generate_series(1, $2) i returning user_id
), joined as (
    insert into conversation_participants (conversation_id, user_id) select $3, user_id from fans
), blocked as (
    insert into user_blocks (blocker_id, blocked_id) select user_id, $4 from fans
)
select array_agg(user_id) from fans
"""

BLOCKS_READ = """
select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables
 where relname = 'user_blocks'
"""


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
async def db(connect: Connect) -> AsyncIterator[asyncpg.Connection]:
    """A transaction of which nothing stays."""
    connection = await connect()
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()


async def people(db: asyncpg.Connection, count: int) -> list[UUID]:
    names = [f"somebody.{uuid4().hex}" for _ in range(count)]
    return [
        await users.create_user(db, username=name, email=f"{name}@example.org", password_hash=None) for name in names
    ]


async def group(db: asyncpg.Connection, *members: UUID) -> UUID:
    chat = uuid4()
    await rooms.create_room(db, chat, "conversation")
    await conversations.create_conversation(db, chat, ConversationKind.GROUP, created_by=members[0])
    await participants.create_participants(db, chat, [(one, ParticipantRole.MEMBER) for one in members])
    return chat


async def instance_with(db: asyncpg.Connection, who: list[UUID]) -> UUID:
    """An instance that says of these people that they are there."""
    instance_id = uuid4()
    await presence.create_instance(db, instance_id, 60)
    await presence.set_states(db, instance_id, dict.fromkeys(who, PresenceState.ONLINE))
    return instance_id


async def states(db: asyncpg.Connection, who: list[UUID]) -> set[str]:
    return {one.state for one in await presence.list_presences(db, who)}


async def said(db: asyncpg.Connection, instance_id: UUID) -> int:
    count: int = await db.fetchval("select count(*) from presences where instance_id = $1", instance_id)
    return count


async def test_an_instance_is_buried_so_many_people_at_a_time_and_those_were_there_until_now(
    db: asyncpg.Connection,
) -> None:
    who = await people(db, 5)
    instance_id = await instance_with(db, who)
    other_id = await instance_with(db, who[:1])
    await presence.close_instances(db, instance_id)
    left = []
    while await presence.bury(db, instance_id, 2):
        left.append(await said(db, instance_id))
    assert left == [3, 1]
    assert (
        await db.fetchval("select count(*) from users where user_id = any ($1) and last_seen_at is not null", who) == 5
    )
    assert await db.fetch("select from presence_instances where instance_id = $1", instance_id) == []
    assert await said(db, other_id) == 1


async def test_two_who_bury_at_once_take_different_people(connect: Connect) -> None:
    one, other = await connect(), await connect()
    instance_id = await instance_with(one, await people(one, 4))
    await other.execute("set lock_timeout = '5s'")
    async with one.transaction():
        assert await presence.bury(one, instance_id, 2)
        assert await presence.bury(other, instance_id, 2)
    assert await said(one, instance_id) == 0


async def bury(db: asyncpg.Connection, instance_id: UUID, _: list[UUID]) -> object:
    return await presence.bury(db, instance_id, 10)


async def set_offline(db: asyncpg.Connection, instance_id: UUID, who: list[UUID]) -> object:
    return await presence.set_states(db, instance_id, dict.fromkeys(who, PresenceState.OFFLINE))


@pytest.mark.parametrize("forget", [bury, set_offline])
async def test_people_are_locked_in_order_so_that_two_instances_never_wait_for_each_other(
    connect: Connect, forget: Forget
) -> None:
    db, holder, waiter = [await connect() for _ in range(3)]
    who = sorted(await people(db, 3), reverse=True)
    instance_id = await instance_with(db, [])
    for one in who:  # as they lie in the table, the last comes first
        await presence.set_states(db, instance_id, {one: PresenceState.ONLINE})
    async with holder.transaction():
        await holder.execute("update users set last_seen_at = now() where user_id = $1", who[-1])
        waiting = asyncio.create_task(forget(waiter, instance_id, who))
        async with asyncio.timeout(PATIENCE_S):
            while not await holder.fetchval(
                "select count(*) from pg_locks where not granted and transactionid = pg_current_xact_id()::xid"
            ):
                await asyncio.sleep(0)
        free = await db.fetch("select user_id from users where user_id = any ($1) for no key update skip locked", who)
    await waiting
    assert {row["user_id"] for row in free} == {*who[:-1]}
    assert await said(db, instance_id) == 0


async def test_an_instance_of_which_something_is_left_is_not_forgotten(db: asyncpg.Connection) -> None:
    instance_id = await instance_with(db, await people(db, 1))
    await presence.sql.delete_instance(db, instance_id=instance_id)
    assert await said(db, instance_id) == 1


async def test_what_a_closed_instance_says_holds_no_more_and_it_is_never_renewed(db: asyncpg.Connection) -> None:
    who = await people(db, 2)
    instance_id = await instance_with(db, who)
    assert await presence.renew(db, instance_id, 60)
    assert await presence.close_instances(db, instance_id) == [instance_id]
    assert await states(db, who) == {"offline"}
    assert not await presence.renew(db, instance_id, 60)
    assert not await presence.renew(db, uuid4(), 60)


async def test_of_all_instances_those_are_closed_whose_lease_is_over(db: asyncpg.Connection) -> None:
    who = await people(db, 3)
    alive, over, closed = [await instance_with(db, [one]) for one in who]
    await presence.renew(db, over, -1)
    await presence.close_instances(db, closed)
    found = set(await presence.close_instances(db))
    assert found >= {over, closed}
    assert alive not in found
    assert await states(db, who[:1]) == {"online"}


async def test_a_lease_that_is_over_and_that_nobody_has_closed_is_renewed(db: asyncpg.Connection) -> None:
    who = await people(db, 1)
    instance_id = await instance_with(db, who)
    await presence.renew(db, instance_id, -1)
    assert await states(db, who) == {"offline"}
    assert await presence.renew(db, instance_id, 60)
    assert await states(db, who) == {"online"}


async def test_apart_are_those_who_share_nothing_and_those_of_whom_one_has_blocked_the_other(
    db: asyncpg.Connection,
) -> None:
    amina, bilal, carim, dalia, left, stranger = await people(db, 6)
    chat = await group(db, amina, bilal, carim, dalia, left)
    await group(db, stranger)
    await participants.remove_participant(db, chat, left)
    await blocks.create_block(db, amina, carim)
    await blocks.create_block(db, dalia, amina)
    others = (amina, bilal, carim, dalia, left, stranger)
    apart = await presence.list_apart(db, [(amina, other) for other in others])
    assert apart == {(amina, carim), (amina, dalia), (amina, left), (amina, stranger)}
    assert apart == {(one, other) for one in [amina] for other in others} - {(amina, amina), (amina, bilal)}
    assert await presence.list_apart(db, [(other, amina) for other in others]) == {(b, a) for a, b in apart}
    near = await presence.list_near(db, amina, list(others))
    assert {(amina, other) for other in others if near.get(other) is not False} == apart


async def test_a_page_of_pairs_does_not_read_all_blocks_nor_all_of_somebody_whom_many_have_blocked(
    db: asyncpg.Connection,
) -> None:
    [star] = await people(db, 1)
    friends = await people(db, 200)
    chat = await group(db, star, *friends)
    fans = await db.fetchval(FANS, uuid4().hex, CROWD, chat, star)
    await db.execute("analyze user_blocks")
    await db.execute("analyze conversation_participants")
    before = await db.fetchval(BLOCKS_READ)
    pairs = [(friend, star) for friend in friends]
    assert await presence.list_apart(db, [*pairs, (fans[0], star)]) == {(fans[0], star)}
    assert await db.fetchval(BLOCKS_READ) - before <= 10
