"""Search against a reading of everything, and how little of everything it reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

pytestmark = pytest.mark.both_postgres

LONG = 6_000  # messages in the conversation that is more than its newest 2,000
SHORT = 12
SHORTS = 310  # conversations: more than are opened to find what is newest
STRANGE = 9_000  # messages that the reader may not see
BOUND = 2_000  # rows that a search may read whose page is full, or whose words nobody has said here

PEOPLE = """
insert into users (user_id, username, email)
select user_id, name, name || '@example.org'
  from (values ('00000000-0000-4000-8000-00000000000a'::uuid, 'amina'),
               ('00000000-0000-4000-8000-00000000000b'::uuid, 'bilal')) as people (user_id, name)
"""

# The long conversation is number 0, a stranger's is -1. Amina joined number 1 behind seq 4, and has left number 2.
# Each conversation ends a little before the one above. Every tenth message's id is older than its seq would have it, as
# ids are of clocks and seqs of locks.
TALK = """
with talks as (
    select number, ('11111111-0000-4000-8000-' || lpad(to_hex(number + 1), 12, '0'))::uuid as talk_id,
           case number when 0 then $1::int when -1 then $4::int else $2::int end as count
      from generate_series(-1, $3::int) as number
), roomed as (
    insert into rooms (room_id, kind, last_seq) select talk_id, 'conversation', count from talks
), talked as (
    insert into conversations (conversation_id, kind, created_by)
    select talk_id, 'group', '00000000-0000-4000-8000-00000000000b' from talks
), joined as (
    insert into conversation_participants (conversation_id, user_id, joined_seq, left_at)
    select talk_id, '00000000-0000-4000-8000-00000000000a', case number when 1 then 4 else 0 end,
           case number when 2 then now() end
      from talks where number >= 0
), said as (
    select talk_id, number, seq, count,
           ((seq - case when seq % 10 = 3 then 2.5 else 0 end) * (1e9 - abs(number) * 1e6) / count)::bigint as moment
      from talks cross join generate_series(1, count) as seq
)
insert into messages (message_id, conversation_id, seq, sender_id, client_id, body_hmac, type, text, at, deleted_at)
select (lpad(to_hex(1700000000000 + moment), 12, '0') || '7000' || '8000' || left(md5(number || '/' || seq), 12))::uuid,
       talk_id, seq, '00000000-0000-4000-8000-00000000000b', number || '/' || seq, '', 'text',
       case when seq % 11 <> 5 then
           concat_ws(' ', 'hello', case when seq % 3 = 0 then 'apples' end, case when seq % 2 = 0 then 'pears' end,
               case when number = 0 and seq % 700 = 1 then 'quinces' end,
               case when number = 0 and seq < 2000 then 'figs' end,
               case when number = -1 then 'dates' end)
       end,
       now(), case when seq % 11 = 5 then now() end
  from said
"""

EVERYTHING = """
select m.message_id
  from messages m
  join conversation_participants p using (conversation_id)
 where p.user_id = $1 and p.left_at is null and m.seq > p.joined_seq and ($3::uuid is null or m.conversation_id = $3)
   and m.words @@ websearch_to_tsquery('parley', searchable($2))
 order by case when $3 is null then m.message_id end desc, m.seq desc
"""

ROWS_READ = """
select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int from pg_stat_xact_user_tables
 where relname = 'messages'
"""

AMINA = UUID("00000000-0000-4000-8000-00000000000a")
THE_LONG, THE_JOINED, THE_LEFT = (UUID(f"11111111-0000-4000-8000-{number:012x}") for number in (1, 2, 3))
QUERIES = [
    "hello",
    "apples pears",
    '"apples pears"',
    "quinces",
    "figs",
    "figs or dates",
    "dates",
    "-apples",
    "quinces -pears",
    "plums",
]


@pytest.fixture
async def db(migrated_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(migrated_database)
    await connection.execute(PEOPLE)
    yield connection
    await connection.close()


async def search(
    db: asyncpg.Connection, query: str, conversation: UUID | None, before: UUID | None = None, most: int = 51
) -> list[UUID]:
    rows = await db.fetch("select * from search_messages($1, $2, $3, $4, $5)", AMINA, query, conversation, before, most)
    return [row[0] for row in rows]


async def pages(db: asyncpg.Connection, query: str, conversation: UUID | None, size: int) -> list[UUID]:
    """All that a search finds, page by page."""
    ids: list[UUID] = []
    while len(ids) % size == 0:
        page = await search(db, query, conversation, ids[-1] if ids else None, size)
        if not page:
            break
        ids += page
    return ids


async def test_pages_are_what_reading_everything_finds(db: asyncpg.Connection) -> None:
    await db.execute(TALK, LONG - 1_900, SHORT, SHORTS, STRANGE // 9)  # fewer: the figs are behind the newest still
    for query in QUERIES:
        for conversation in (THE_LONG, THE_JOINED, THE_LEFT, None):
            everything = [row[0] for row in await db.fetch(EVERYTHING, AMINA, query, conversation)]
            assert (query, conversation, await pages(db, query, conversation, 997)) == (query, conversation, everything)
            for place in {0, min(50, len(everything)), len(everything) // 2, max(len(everything) - 40, 0)}:
                before = everything[place - 1] if place else None
                page = await search(db, query, conversation, before)
                assert (query, conversation, page) == (query, conversation, everything[place : place + 51])


@pytest.mark.parametrize("analysed", ["with the messages", "before there were any"])
async def test_a_search_reads_neither_all_that_fits_nor_what_is_not_ones_own(
    db: asyncpg.Connection, analysed: str
) -> None:
    if analysed == "before there were any":
        await db.execute("vacuum analyze messages")
    await db.execute(TALK, LONG, SHORT, SHORTS, STRANGE)
    if analysed == "with the messages":
        await db.execute("vacuum analyze messages")
    for query in ("hello", "apples pears", "-apples"):
        for conversation in (THE_LONG, None):
            assert await _rows(db, query, conversation, found=51) <= BOUND, (query, conversation)
    # The newest 2,000 or so, and of the others those alone that fit.
    assert await _rows(db, "dates", THE_LONG, found=0) <= 2_000 + BOUND
    assert await _rows(db, "dates", None, found=0) <= 2_000 + BOUND
    assert await _rows(db, "plums", None, found=0) <= 2_000 + BOUND


async def _rows(db: asyncpg.Connection, query: str, conversation: UUID | None, *, found: int) -> int:
    """How many rows of messages a search reads that finds so many, its plans kept or not."""
    for _ in range(7):
        assert len(await search(db, query, conversation)) == found
    async with db.transaction():
        # What has not been reported of the transactions before is counted, too.
        before: int = await db.fetchval(ROWS_READ)
        assert len(await search(db, query, conversation)) == found
        rows: int = await db.fetchval(ROWS_READ)
    return rows - before
