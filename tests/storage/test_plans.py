"""What PostgreSQL keeps of a plan must not hang on how little the tables held when it was made."""

from __future__ import annotations

from uuid import UUID, uuid4

import asyncpg
import pytest

from rules.conversations import ConversationKind
from storage import conversations, messages, participants, rooms, users
from storage._db import prepare_connection
from storage.messages import NewMessage

pytestmark = pytest.mark.both_postgres

MANY = 3_000
BATCH = 20

FILL = """
with made as (
    insert into rooms (room_id, kind, last_seq) select gen_random_uuid(), 'conversation', 1 from generate_series(1, $2)
    returning room_id
), talk as (
    insert into conversations (conversation_id, kind, created_by) select room_id, 'group', $1 from made
    returning conversation_id
), joined as (
    insert into conversation_participants (conversation_id, user_id) select conversation_id, $1 from talk
), said as (
    insert into messages (message_id, conversation_id, seq, sender_id, client_id, body_hmac, type, text, at)
    select gen_random_uuid(), c.conversation_id, s, $1, gen_random_uuid()::text, '', 'text', 'hello', now()
      from (select conversation_id, 1 as s from talk
             union all select $3, s from generate_series(2, $2 + 1) s) c
)
select count(*) from made
"""

ROWS_READ = """
select relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) as rows from pg_stat_xact_user_tables
 where relname in ('rooms', 'messages', 'conversation_participants')
"""

PEOPLE = 60
ROWS_OF_BLOCKS = """
select relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) as rows from pg_stat_xact_user_tables
 where relname in ('conversations', 'user_blocks')
"""
EVERYBODY_BLOCKS = """
insert into user_blocks (blocker_id, blocked_id) select b.user_id, o.user_id from users b, users o where b <> o
"""


async def test_a_batch_reads_no_more_rows_when_the_tables_have_grown_under_its_plan(migrated_database: str) -> None:
    db = await asyncpg.connect(migrated_database)
    try:
        await prepare_connection(db)
        person = await users.create_user(db, username="amina", email="amina@example.org", password_hash=None)
        chat = await _group(db, person)
        # Told that they are empty, the planner believes it, until somebody analyses again.
        await db.execute("vacuum analyze rooms, messages, conversation_participants")
        [first] = await _send(db, chat, person, None, count=1)
        await db.fetchval(FILL, person, MANY, chat)
        await db.execute("update rooms set last_seq = $2 where room_id = $1", chat, MANY + 1)
        async with db.transaction():
            assert len(await _send(db, chat, person, first)) == BATCH
            read = dict(await db.fetch(ROWS_READ))
        assert read.keys() == {"rooms", "messages", "conversation_participants"}
        assert all(rows <= 10 * BATCH for rows in read.values()), read
    finally:
        await db.close()


async def _group(db: asyncpg.Connection, person: UUID) -> UUID:
    chat = uuid4()
    await rooms.create_room(db, chat, "conversation")
    await conversations.create_conversation(db, chat, ConversationKind.GROUP, created_by=person)
    await participants.create_participants(db, chat, [(person, participants.ParticipantRole.MEMBER)])
    return chat


async def _send(
    db: asyncpg.Connection, chat: UUID, person: UUID, reply_to: UUID | None, *, count: int = BATCH
) -> list[UUID]:
    new = [NewMessage(chat, person, str(uuid4()), b"", "hello", reply_to) for _ in range(count)]
    sent = await messages.append_messages(db, new, wait=True)
    assert {row.outcome for row in sent} == {"sent"}
    return [row.message_id for row in sent if row.message_id is not None]


async def test_a_page_of_conversations_asks_once_for_each_whether_a_block_stands(migrated_database: str) -> None:
    db = await asyncpg.connect(migrated_database)
    try:
        await prepare_connection(db)
        amina, bilal, *others = [
            await users.create_user(db, username=f"p{n}", email=f"p{n}@example.org", password_hash=None)
            for n in range(PEOPLE)
        ]
        group, private = await _group(db, amina), uuid4()
        member = participants.ParticipantRole.MEMBER
        await participants.create_participants(db, group, [(one, member) for one in (bilal, *others)])
        await conversations.create_conversation(
            db, private, ConversationKind.PRIVATE, created_by=amina, pair=(amina, bilal)
        )
        await participants.create_participants(db, private, [(amina, member), (bilal, member)])
        await db.fetchval(FILL, amina, MANY, group)
        await db.execute(EVERYBODY_BLOCKS)
        await db.execute("vacuum analyze conversations, user_blocks, conversation_participants")
        async with db.transaction():
            before = dict(await db.fetch(ROWS_OF_BLOCKS))
            listed = await participants.list_participants(db, amina, [group, private], PEOPLE)
            after = dict(await db.fetch(ROWS_OF_BLOCKS))
        assert [len(people) for people in listed.values()] == [PEOPLE, 2]
        assert {table: rows - before[table] for table, rows in after.items()} == {"conversations": 2, "user_blocks": 2}
    finally:
        await db.close()
