"""How long searches of listings take: `python -m bench.listings`.

100,000 listings with titles of five words and descriptions of twenty, of which some are common and most are not
(bench.history has the words); a third of them in one great city, the others in two hundred; half of them in threads, of
which one holds a tenth of all; at prices of three currencies, most for sale. One in ten has ended. Each case is asked
over HTTP, one request at a time, of a server process on a core of its own. The aim is a p95 of 20 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg

from bench.cases import LIMIT, Ask, Case, Timing, asking, bench, measure
from bench.history import CROWD, RARE, VOCABULARY
from bench.stage import run

LISTINGS = 100_000
THREADS = 100
DEEP = 20  # pages before the one that is asked for
SLOWEST = 10  # cases that the page shows
SEARCH = "listing/search"
OF = f"{LISTINGS:,} listings"

PLACES = """
create table cities as
select n, -60 + 120 * random() as lat, -170 + 340 * random() as lng from generate_series(0, 199) as n;
insert into cities values (-1, 52.52, 13.405);
insert into threads (thread_id, owner_id, title, category)
select uuidv7(), $1::uuid, 'thread ' || n, 'other' from generate_series(1, $2::int) as n;
"""

# A third live in the one great city, the others in the two hundred; towards the middle of it there are more.
ROWS = f"""
insert into listings (
    listing_id, user_id, thread_id, kind, title, description, price_amount, price_currency, category, condition, feed,
    images, lat, lng, status, expires_at, matched_edition)
select uuidv7(), ($1::uuid[])[1 + seq % cardinality($1::uuid[])],
       case when seq % 2 = 0 then t.ids[case when seq % 5 = 0 then 1 else 1 + seq % $3::int end] end,
       case when random() < 0.1 then 'wtb' else 'for_sale' end,
       drawn.title || case when seq % 5000 = 77 then ' {RARE}' else '' end, drawn.description,
       (100 * exp(6 * random()))::bigint, (array['EUR', 'EUR', 'EUR', 'USD', 'INR'])[1 + floor(5 * random())::int],
       (array['trading_cards', 'mens_fashion', 'sneakers', 'sports_cards', 'collectibles', 'electronics', 'home_decor',
              'beauty', 'kids_baby', 'furniture', 'books', 'other'])[1 + floor(12 * power(random(), 2))::int],
       'good', case when random() < 0.2 then 'discover' else 'community' end, '["https://example.org/one.jpg"]',
       greatest(-90, least(90, c.lat + power(random(), 2) * 0.3 * cos(seq))),
       greatest(-180, least(180, c.lng + power(random(), 2) * 0.3 * sin(seq))),
       case when seq % 10 = 3 then 'closed' else 'active' end, now() + interval '1 day' * (1 + 300 * random()), 1
  from generate_series($2::int, $2::int + 9999) as seq
 cross join (select array_agg(thread_id) as ids from threads) t
 cross join lateral (
       select string_agg(word, ' ') filter (where place <= 5) as title,
              string_agg(word, ' ') filter (where place > 5) as description
         from (select place, floor((select count(*) from vocabulary) * power(random() + 0 * seq, 2))::int as n
                 from generate_series(1, 25) as place) rolled
         join vocabulary using (n)) drawn
 cross join lateral (select case when seq % 3 = 0 then -1 else floor(200 * random() + 0 * seq)::int end as n) picked
  join cities c on c.n = picked.n
"""


async def fill(dsn: str) -> None:
    """The words, the places and the listings."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(VOCABULARY)
        for statement in PLACES.strip().removesuffix(";").split(";\n"):
            arguments = (CROWD.user_ids[0], THREADS) if "$1" in statement else ()
            await connection.execute(statement, *arguments)
        for first in range(0, LISTINGS, 10_000):
            await connection.execute(ROWS, CROWD.user_ids, first, THREADS)
        await connection.execute("insert into rooms (room_id, kind) select listing_id, 'listing' from listings")
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


async def questions(dsn: str) -> list[tuple[str, dict[str, Any]]]:
    """What is asked: a title, and the payload."""
    connection = await asyncpg.connect(dsn)
    try:
        words = [row[0] for row in await connection.fetch("select word from vocabulary order by n")]
        threads = [
            str(row[0]) for row in await connection.fetch("select thread_id from threads order by thread_id limit 2")
        ]
    finally:
        await connection.close()
    common = [word for word in words if word.isascii()]
    arabic = next(word for word in words if not word.isascii())
    great, beside, nowhere = ({"lat": 52.52, "lng": 13.405}, {"lat": 52.9, "lng": 13.9}, {"lat": 12.3, "lng": -45.6})

    def near(km: int, middle: dict[str, float] | None = None) -> dict[str, Any]:
        return {"near": {**(middle or great), "radius_m": km * 1_000}}

    def eur(amount: int) -> dict[str, Any]:
        return {"amount": amount, "currency": "EUR"}

    texts = [
        ("rare word", RARE),
        ("uncommon word", words[500]),
        ("common word", common[0]),
        ("two common words", f"{common[0]} {common[1]}"),
        ("phrase", f'"{common[0]} {common[1]}"'),
        ("Arabic word", arabic),
        ("all without a word", f"-{common[0]}"),
    ]
    cases: list[tuple[str, dict[str, Any]]] = [
        ("all", {}),
        ("kind", {"kind": "wtb"}),
        ("category", {"category": "other"}),
        ("feed", {"feed": "discover"}),
        ("kind, category, feed", {"kind": "wtb", "category": "other", "feed": "discover"}),
        ("the great thread", {"thread_id": threads[0]}),
        ("a thread, category", {"thread_id": threads[1], "category": "books"}),
        ("somebody's", {"user_id": str(CROWD.user_ids[1])}),
        ("one's own, all of it", {"user_id": str(CROWD.user_ids[0])}),
        ("price, narrow", {"price_min": eur(5_000), "price_max": eur(5_100)}),
        ("price, wide, kind, feed", {"price_max": eur(5_000), "kind": "wtb", "feed": "discover"}),
    ]
    cases += [(title, {"query": query}) for title, query in texts]
    cases += [(f"{title}, relevance", {"query": query, "sort": "relevance"}) for title, query in texts]
    cases += [
        (
            "common word, wtb, category, relevance",
            {"query": common[0], "kind": "wtb", "category": "books", "sort": "relevance"},
        ),
        ("common word, price order", {"query": common[0], "sort": "price"}),
        ("price order", {"sort": "price"}),
        ("price order, category", {"sort": "price", "category": "books"}),
        ("price order, wtb, discover", {"sort": "price", "kind": "wtb", "feed": "discover"}),
        ("price order, range", {"sort": "price", "price_min": eur(5_000), "price_max": eur(9_000)}),
    ]
    for km in (5, 25, 100):
        cases += [(f"within {km} km, {sort}", {**near(km), "sort": sort}) for sort in ("distance", "new", "price")]
    cases += [
        ("within 200 km, from beside the city, distance", {**near(200, beside), "sort": "distance"}),
        ("within 200 km, in a small city's land, distance", {**near(200, nowhere), "sort": "distance"}),
        ("within 100 km, wtb, distance", {**near(100), "sort": "distance", "kind": "wtb"}),
        ("within 100 km, wtb, category, discover, distance",
            {**near(100), "sort": "distance", "kind": "wtb", "category": "other", "feed": "discover"}),
        ("within 100 km, rare word, distance", {**near(100), "sort": "distance", "query": RARE}),
        ("within 100 km, common word, distance", {**near(100), "sort": "distance", "query": common[0]}),
        ("within 100 km, common word, relevance", {**near(100), "sort": "relevance", "query": common[0]}),
        ("within 25 km, wtb, category, new", {**near(25), "kind": "wtb", "category": "books"}),
    ]  # fmt: skip
    return cases


async def deep(ask: Ask, payload: dict[str, Any]) -> dict[str, Any] | None:
    """The same question some pages on; None where there are not so many."""
    for _ in range(DEEP):
        page = await ask(SEARCH, payload)
        if page is None or page["next"] is None:
            return None
        payload = {**payload, "before": page["next"]}
    return payload


async def measure_all(url: str, secret: str, dsn: str, times: int, words: str) -> list[Timing]:
    """Every case whose title has the words in it, its first page and, where there is one, a deep one."""
    timings = []
    async with asking(url, secret, CROWD) as ask:
        for title, payload in await questions(dsn):
            if words not in title:
                continue
            first = {**payload, "limit": LIMIT}
            timings.append(await measure(ask, Case(title, SEARCH, _always(first)), times))
            following = await deep(ask, first)
            if following:
                timings.append(await measure(ask, Case(f"{title}: page {DEEP + 1}", SEARCH, _always(following)), times))
        one = {"listing_id": (await ask(SEARCH, {"limit": 1}))["listings"][0]["listing_id"]}
        timings.append(await measure(ask, Case("listing:get", "listing/get", _always(one)), times))
    return timings


def _always(payload: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    return lambda: payload


def main() -> int:
    """Fill, ask, and show it; 0 where every case has the aim."""
    return bench("listings", __doc__, CROWD, fill, measure_all, of=OF, times=200, most=SLOWEST)


if __name__ == "__main__":
    run(main)
