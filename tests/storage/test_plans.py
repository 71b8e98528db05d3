"""What PostgreSQL keeps of a plan must not hang on how little the tables held when it was made."""

from __future__ import annotations

from uuid import UUID, uuid4

import asyncpg
import pytest

from rules.conversations import ConversationKind
from storage import conversations, matches, messages, negotiations, participants, rooms, sessions, users, words
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


ROWS_OF_ADMISSIONS = """
select relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) as rows from pg_stat_xact_user_tables
 where relname in ('users', 'user_sessions', 'rooms', 'conversation_participants')
"""


async def test_connects_are_admitted_by_their_own_rows_under_a_plan_made_for_empty_tables(
    migrated_database: str,
) -> None:
    db = await asyncpg.connect(migrated_database)
    try:
        await prepare_connection(db)
        await db.execute("set plan_cache_mode = force_generic_plan")
        await db.execute("vacuum analyze users, user_sessions, rooms, conversation_participants")
        assert await sessions.find_admissions(db, [(uuid4(), uuid4())], 10) == [None]
        crowd = await users.create_user(db, username="crowd", email="crowd@example.org", password_hash=None)
        await db.fetchval(FILL, crowd, MANY, (await _group(db, crowd)))
        people = []
        for n in range(BATCH):
            person = await users.create_user(db, username=f"one{n}", email=f"{n}@example.org", password_hash=None)
            await rooms.create_room(db, person, "user")
            session = await sessions.create_session(db, person, device=None, address=None, ttl_s=60)
            people.append((person, session, await _group(db, person)))
        asked = [(person, session) for person, session, _ in people]
        async with db.transaction():
            before = dict(await db.fetch(ROWS_OF_ADMISSIONS))
            found = await sessions.find_admissions(db, [*asked, (people[0][0], people[1][1]), asked[0]], 10)
            read = {table: rows - before[table] for table, rows in await db.fetch(ROWS_OF_ADMISSIONS)}
        shown = [None if one is None else [*zip(one.kinds, one.room_ids, strict=True)] for one in found]
        own = [[("user", person), ("conversation", chat)] for person, _, chat in people]
        assert shown == [*own, None, own[0]]  # nobody by another's session, and twice who comes twice
        assert all(rows <= 10 * BATCH for rows in read.values()), read
    finally:
        await db.close()


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


OWNERS = """
with people as (
    insert into users (user_id, username, email) select id, id::text, id::text from unnest(array[$1, $2]::uuid[]) as id
), one as (
    insert into listings (
        listing_id, user_id, kind, title, description, price_amount, price_currency, category, expires_at)
    select listing_id, user_id, kind, 'x', '', 1, 'EUR', 'other', now() + interval '1 day'
      from (select $3::uuid as listing_id, $1::uuid as user_id, 'for_sale' as kind
             union all select gen_random_uuid(), case n % 100 when 0 then $2 else $4::uuid end, 'wtb'
                         from generate_series(1, $5::int) n) l
    returning listing_id, user_id
)
insert into listing_matches (
    match_id, source_listing_id, matched_listing_id, source_user_id, matched_user_id, score)
select uuidv7(), case when n % 2 = 0 then $3 else l.listing_id end, case when n % 2 = 0 then l.listing_id else $3 end,
       case when n % 2 = 0 then $1 else l.user_id end, case when n % 2 = 0 then l.user_id else $1 end, 60
  from (select listing_id, user_id, row_number() over () as n from one where listing_id <> $3) l
"""
ROWS_OF_MATCHES = """
select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) as rows from pg_stat_xact_user_tables
 where relname = 'listing_matches'
"""


# One of ten is on the table, and its time is over.
OFFERS = """
with person as (
    insert into users (user_id, username, email) values (gen_random_uuid(), 'amina', 'amina') returning user_id
), other as (
    insert into users (user_id, username, email) values (gen_random_uuid(), 'bilal', 'bilal') returning user_id
), talk as (
    insert into conversations (conversation_id, kind, created_by) select gen_random_uuid(), 'group', user_id from person
    returning conversation_id
), listing as (
    insert into listings (
        listing_id, user_id, kind, title, description, price_amount, price_currency, category, expires_at)
    select gen_random_uuid(), user_id, 'for_sale', 'x', '', 100, 'EUR', 'other', now() + interval '1 day' from person
    returning listing_id
), negotiating as (
    insert into negotiations (negotiation_id, listing_id, buyer_id, seller_id, conversation_id, status, max_rounds)
    select gen_random_uuid(), l.listing_id, o.user_id, p.user_id, t.conversation_id, 'closed', 10
      from listing l, other o, person p, talk t, generate_series(1, $1::int)
    returning negotiation_id, listing_id, buyer_id
)
insert into offers (
    offer_id, negotiation_id, listing_id, listing_version, maker_id, price_amount, price_currency, quantity, round,
    status, close_reason, expires_at, at, closed_at)
select gen_random_uuid(), negotiation_id, listing_id, 1, buyer_id, 100, 'EUR', 1, 1,
       case when is_over then 'pending' else 'expired' end, case when not is_over then 'timeout' end,
       now() - interval '1 second', now(), case when not is_over then now() end
  from (select *, row_number() over () % 10 = 0 as is_over from negotiating) n
"""


async def test_a_page_of_matches_reads_no_more_rows_than_it_has_however_many_there_are(migrated_database: str) -> None:
    db = await asyncpg.connect(migrated_database)
    try:
        await prepare_connection(db)
        owner, other, crowd, listing = (uuid4() for _ in range(4))
        await db.execute("insert into users (user_id, username, email) values ($1, 'crowd', 'crowd')", crowd)
        await db.execute("vacuum analyze listing_matches, listings")  # told that they are empty
        asked = [(owner, None), (owner, listing), (other, None), (other, listing)]
        for viewer, about in asked * 6:  # until the plans are kept
            assert await matches.page_matches(db, viewer, about, None, BATCH) == []
        await db.execute(OWNERS, owner, other, listing, crowd, MANY)
        ids = [row[0] for row in await db.fetch("select match_id from listing_matches order by match_id desc")]
        few = "select match_id from listing_matches where $1 in (source_user_id, matched_user_id) order by 1 desc"
        rare = [row[0] for row in await db.fetch(few, other)]
        assert (len(ids), len(rare)) == (MANY, MANY // 100)
        for viewer, about in asked:
            for before in (None, ids[MANY // 2], ids[-5]):
                async with db.transaction():
                    already = await db.fetchval(ROWS_OF_MATCHES)
                    page = await matches.page_matches(db, viewer, about, before, BATCH)
                    read = await db.fetchval(ROWS_OF_MATCHES) - already
                theirs = ids if viewer == owner else rare
                assert page == [id_ for id_ in theirs if before is None or id_ < before][:BATCH]
                assert read <= 2 * BATCH, (viewer == owner, about, before)
    finally:
        await db.close()


async def test_offers_are_looked_for_by_their_end_however_many_had_ended_when_that_was_planned(
    migrated_database: str,
) -> None:
    db = await asyncpg.connect(migrated_database)
    try:
        await prepare_connection(db)
        await db.execute(OFFERS, MANY)
        await db.execute("vacuum analyze offers")
        for _ in range(6):
            assert len(await negotiations.list_ended(db, UUID(int=0), BATCH)) == BATCH
        await db.execute("update offers set expires_at = now() + interval '1 day' where status = 'pending'")
        rows = "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables"
        async with db.transaction():
            already = await db.fetchval(f"{rows} where relname = 'offers'")
            assert await negotiations.list_ended(db, UUID(int=0), BATCH) == []
            assert await db.fetchval(f"{rows} where relname = 'offers'") - already <= BATCH
    finally:
        await db.close()


async def test_what_says_something_of_an_object_is_found_by_a_look_into_the_index(migrated_database: str) -> None:
    db = await asyncpg.connect(migrated_database)
    try:
        await prepare_connection(db)
        common, rare = uuid4(), uuid4()
        await db.execute("vacuum analyze room_events")  # told that it is empty
        for _ in range(6):
            assert await words.list_worded(db, [common, rare], BATCH) == []
        await db.execute(
            "insert into room_events (room_id, seq, at, name, payload, message_id)"
            " select $1::uuid, n, now(), 'x', '{}', case n when $3 then $2::uuid else $1::uuid end"
            " from generate_series(1, $3::int) n",
            common,
            rare,
            MANY,
        )
        rows = "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables"
        for wanted, count in (([rare], 1), ([common, rare], BATCH)):
            async with db.transaction():
                already = await db.fetchval(f"{rows} where relname = 'room_events'")
                assert len(await words.list_worded(db, wanted, BATCH)) == count
                assert await db.fetchval(f"{rows} where relname = 'room_events'") - already <= 2 * BATCH
    finally:
        await db.close()
