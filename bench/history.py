"""How long pages of history and searches take in a long conversation: `python -m bench.history`.

100,000 messages of ten words in one conversation, drawn from a vocabulary of English and Arabic words of which some are
common and most are not; beside it fifty shorter conversations of the reader's, and fifty-one of strangers, who have
written nine times as much. All was written in the same weeks, so that the messages lie among each other. Each case is
asked over HTTP, one request at a time, of a server process on a core of its own. The aim is a p95 of 20 ms.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from uuid import UUID

import asyncpg

from bench.cases import LIMIT, Ask, Case, Timing, asking, bench, measure
from bench.crowds import Crowd
from bench.stage import run

LONG = 100_000  # messages in the conversation that is read
SHORT = 200  # in each of the reader's others
STRANGE = 20_000  # in each that the reader is not in
FILL_S = 600.0
CROWD = Crowd("history", people=6, size=3, rooms_each=51, senders=0)
RARE = "zanzibar"
OLD = "oldfangled"  # in every third of the first 30,000 messages of the long conversation, and nowhere else
ELSEWHERE = "elsewhere"  # in every fourth message of strangers
OF = f"{LONG:,} messages in the conversation, and about a million of other people's beside them"

# 30 stems with 24 endings and 28 with 10 beginnings are 1,000 words. One is drawn by the square of a random number, so
# that the first is in a quarter of the messages and the last in one of two hundred. The rare word is in twenty.
VOCABULARY = """
create table vocabulary as
select row_number() over (order by md5(word)) - 1 as n, word from (
    select stem || ending as word
      from unnest(string_to_array('bicycl chair garden window market silver yellow carpet mirror kitchen camera guitar'
           || ' jacket basket pocket bottle castle button letter number summer winter river bridge butter candle dollar'
           || ' engine forest hammer', ' ')) as stem
     cross join unnest(string_to_array(' ,s,ed,ing,er,ly,y,al,ish,ist,less,ful,ness,ment,able,ward,wise,hood,like,ship'
           || ',dom,let,ette,ism', ',')) as ending
    union all
    select prefix || stem
      from unnest(string_to_array('سعر كتاب بيت سيارة دراجة كرسي حديقة سوق باب نافذة مدينة شارع قلم هاتف صورة'
           || ' ساعة طاولة مفتاح قميص حذاء خاتم مرآة مطبخ حقيبة جسر نهر غابة شمعة', ' ')) as stem
     cross join unnest(string_to_array(' ,ال,و,ب,ل,ف,ك,وال,بال,فال', ',')) as prefix) words(word);
update vocabulary set word = trim(word);
create unique index on vocabulary (n);
"""

TEXTS = f"""
create table texts as
select seq as n, (select string_agg(word, ' ' order by place)
          from (select place, floor((select count(*) from vocabulary) * power(random() + 0 * seq, 2))::int as n
                  from generate_series(1, 10) as place) drawn
          join vocabulary using (n)) as text
  from generate_series(1, {LONG}) as seq;
create unique index on texts (n);
"""

# uuidv7's argument shifts its time: the ids are as old as their messages. One that is in no long conversation takes its
# texts from elsewhere among them.
MESSAGES = f"""
with talks (conversation_id, people, count, number) as (
    select * from unnest($1::uuid[], $2::text[], $3::int[]) with ordinality
), said as (
    select conversation_id, people::uuid[], number, seq, (seq - count) * (interval '{LONG} minutes' / count) as age
      from talks cross join generate_series(1, count) as seq
)
insert into messages (message_id, conversation_id, seq, sender_id, client_id, body_hmac, type, text, at)
select uuidv7(age), conversation_id, seq, people[1 + seq % 3], 'history-' || number || '-' || seq, '\\x00', 'text',
       text || case when number = 1 and seq % 5000 = 77 then ' {RARE}' else '' end
           || case when number = 1 and seq % 3 = 0 and seq <= 30000 then ' {OLD}' else '' end
           || case when number > $4 and seq % 4 = 0 then ' {ELSEWHERE}' else '' end,
       now() + age
  from said
  join texts on n = 1 + (seq + (number - 1) * 7919) % {LONG}
 order by age
"""


async def fill(dsn: str) -> None:
    """The words and the messages."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("set synchronous_commit = off")
        await connection.execute(VOCABULARY)
        await connection.execute(TEXTS)
        talks = CROWD.conversation_ids
        people = [f"{{{','.join(str(CROWD.user_ids[n]) for n in CROWD.members(k))}}}" for k in range(len(talks))]
        counts = [LONG if k == 0 else SHORT if k < CROWD.rooms_each else STRANGE for k in range(len(talks))]
        await connection.execute(MESSAGES, talks, people, counts, CROWD.rooms_each, timeout=FILL_S)
        await connection.execute(
            "update rooms set last_seq = count from unnest($1::uuid[], $2::int[]) as t (room_id, count)"
            " where rooms.room_id = t.room_id",
            talks,
            counts,
        )
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


async def searches(dsn: str) -> list[tuple[str, str, int]]:
    """What is searched for: a title, the query, and how many messages have it."""
    connection = await asyncpg.connect(dsn)
    try:
        words = [row[0] for row in await connection.fetch("select word from vocabulary order by n")]
        latin = [word for word in words if word.isascii()]
        arabic = next(word for word in words if not word.isascii())
        queries = [
            ("rare word", RARE),
            ("common word", latin[0]),
            ("two words", f"{latin[0]} {latin[1]}"),
            ("Arabic word", arabic),
            ("phrase", f'"{latin[0]} {latin[1]}"'),
            ("common word, long ago", OLD),
            ("common word of others", ELSEWHERE),
            ("all but a word", f"-{latin[0]}"),
        ]
        counting = """
            select count(*) from messages
             where words @@ websearch_to_tsquery('parley', searchable($1))
               and conversation_id in (select conversation_id from conversation_participants where user_id = $2)"""
        reader = CROWD.user_ids[0]
        return [(title, query, await connection.fetchval(counting, query, reader)) for title, query in queries]
    finally:
        await connection.close()


def history_cases(conversation_id: UUID) -> list[Case]:
    """Pages at the end, in the middle and from a place on."""
    here = {"conversation_id": str(conversation_id), "limit": LIMIT}

    def middle() -> int:
        return random.randint(LONG // 4, 3 * LONG // 4)

    return [
        Case("history: the latest", "message/history", lambda: here),
        Case("history: before_seq, in the middle", "message/history", lambda: {**here, "before_seq": middle()}),
        Case("history: after_seq, in the middle", "message/history", lambda: {**here, "after_seq": middle()}),
    ]


async def search_cases(ask: Ask, conversation_id: UUID, sought: Sequence[tuple[str, str, int]]) -> list[Case]:
    """Each query in the conversation and in all of one's own, its first page and, where there is one, its second."""
    cases = []
    for scope, where in (("here", {"conversation_id": str(conversation_id)}), ("in all of mine", {})):
        for title, query, found in sought:
            payload = {"query": query, "limit": LIMIT, **where}
            first = await ask("message/search", payload)
            following = first and first["next"]
            name = f"search {scope}: {title}"
            cases.append(Case(name, "message/search", lambda payload=payload: payload, found))  # type: ignore[misc]
            if following:
                second = {**payload, "before": following}
                cases.append(Case(f"{name}, page 2", "message/search", lambda second=second: second, found))  # type: ignore[misc]
    return cases


async def measure_all(url: str, secret: str, dsn: str, times: int, words: str) -> list[Timing]:
    """Every case whose title has the words in it."""
    async with asking(url, secret, CROWD) as ask:
        long = CROWD.conversation_ids[0]
        cases = [*history_cases(long), *await search_cases(ask, long, await searches(dsn))]
        return [await measure(ask, case, times) for case in cases if words in case.title]


def main() -> int:
    """Fill, ask, and show it; 0 where every case has the aim."""
    return bench("history", __doc__, CROWD, fill, measure_all, of=OF, times=300)


if __name__ == "__main__":
    run(main)
