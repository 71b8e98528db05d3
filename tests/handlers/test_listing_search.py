"""Finding listings: what fits and nothing else, in order, page by page without a hole or a repeat."""

from __future__ import annotations

import base64
import json
import math
import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from storage import Connection, listing_search
from storage.listing_search import Place, Sort, Wanted
from tests.market import eur, listed, refused, set_
from tests.people import Instance, Person


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own: what is looked for has a word that nobody else uses."""
    return shared_database


@pytest.fixture
async def parley(migrated_database: str) -> AsyncIterator[Instance]:
    """An instance that counts nobody's calls."""
    instance = await Instance(migrated_database, PARLEY_RATE_READS="off", PARLEY_RATE_WRITES="off").start()
    yield instance
    await instance.stop()


async def pages(person: Person, limit: int = 50, **asked: Any) -> list[dict[str, Any]]:
    """All that is found, page by page."""
    found: list[dict[str, Any]] = []
    before: dict[str, Any] = {}
    while True:
        page = await person.post("listing:search", limit=limit, **asked, **before)
        assert len(page["listings"]) <= limit
        found += page["listings"]
        if page["next"] is None:
            return found
        before = {"before": page["next"]}


async def titles(person: Person, **asked: Any) -> list[str]:
    """The titles of what is found, in order."""
    return [one["title"] for one in await pages(person, **asked)]


def word() -> str:
    """A word of this test's own."""
    return "q" + uuid4().hex[:12].translate(str.maketrans("0123456789", "ghijklmnop"))


# what fits


async def test_a_listing_is_found_by_each_thing_that_it_is(amina: Person, bilal: Person) -> None:
    own = word()
    made = await listed(amina, title=f"{own} bicycles", category="sneakers", feed="discover", price=eur(500))
    await listed(amina, title=f"{own} none", kind="wtb", category="books", price=eur(9_000))
    await listed(bilal, title=f"{own} none", price={"amount": 500, "currency": "USD"})
    for asked in (
        {"query": f"{own} bicycle"},
        {"category": "sneakers"},
        {"feed": "discover"},
        {"price_max": eur(500)},
        {"kind": "for_sale", "user_id": amina.user_id},
        {"price_min": eur(400), "price_max": eur(600)},
    ):
        assert await pages(bilal, **{"query": own, **asked}) == [made], asked
    assert len(await pages(bilal, query=own)) == 3
    assert await titles(bilal, query=own, price_min=eur(501)) == [f"{own} none"]
    assert await pages(bilal, query=own, price_min=eur(9_001)) == []


async def test_words_are_found_in_both_languages_whatever_their_form(amina: Person, bilal: Person) -> None:
    own = word()
    await listed(amina, title=f"{own} two bicycles", description="hardly ridden")
    await listed(amina, title=f"{own} مكتبة", description="كتب كثيرة")
    assert await titles(bilal, query=f"{own} bicycle") == [f"{own} two bicycles"]
    assert await titles(bilal, query=f"{own} riding or ridden") == [f"{own} two bicycles"]
    assert await titles(bilal, query=f"{own} المكتبه") == [f"{own} مكتبة"]
    assert await titles(bilal, query=f"{own} -bicycle") == [f"{own} مكتبة"]
    assert await titles(bilal, query=f'"{own} two"') == [f"{own} two bicycles"]
    assert await titles(bilal, query=". , !") == []


async def test_what_is_not_to_be_had_is_found_by_its_owner_alone(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    own = word()
    for status in ("active", "reserved", "sold", "expired", "closed", "over", "deleted"):
        one = await listed(amina, title=f"{own} {status}")
        change = {
            "over": "expires_at = now() - interval '1 ms'",
            "deleted": "deleted_at = now()",
        }.get(status, f"status = '{status}'")
        await set_(parley, f"update listings set {change} where listing_id = $1", one["listing_id"])
    assert await titles(bilal, query=own) == [f"{own} reserved", f"{own} active"]
    assert await titles(bilal, query=own, user_id=amina.user_id) == [f"{own} reserved", f"{own} active"]
    assert await titles(amina, query=own) == [f"{own} reserved", f"{own} active"]
    mine = await pages(amina, query=own, user_id=amina.user_id)
    assert [one["title"].split()[1] for one in mine] == ["over", "closed", "expired", "sold", "reserved", "active"]
    assert mine[0]["status"] == "expired"


async def test_the_viewer_sees_what_they_like_and_how_far_it_is(amina: Person, bilal: Person) -> None:
    own = word()
    made = await listed(amina, title=own, location={"lat": 52.52, "lng": 13.405})
    await bilal.post("listing:like", listing_id=made["listing_id"], on=True)
    near = {"lat": 52.52, "lng": 13.405 + 1 / 111.195 / math.cos(math.radians(52.52)), "radius_m": 1_100}
    [seen] = await pages(bilal, query=own, near=near)
    assert (seen["liked"], seen["distance_m"]) == (True, pytest.approx(1_000, abs=2))
    [unseen] = await pages(amina, query=own)
    assert (unseen["liked"], unseen["distance_m"]) == (False, None)
    assert await pages(bilal, query=own, near={**near, "radius_m": 900}) == []


@pytest.mark.parametrize(
    ("middle", "there"),
    [
        ((0.0, 179.99), (0.0, -179.99)),
        ((-17.0, -179.999), (-17.0, 179.999)),
        ((89.95, 0.0), (89.95, 180.0)),
        ((-89.999, 20.0), (-89.999, -120.0)),
        ((60.0, 10.0), (60.04, 10.0)),
    ],
)
async def test_a_circle_goes_over_the_antimeridian_and_the_poles(
    amina: Person, bilal: Person, middle: tuple[float, float], there: tuple[float, float]
) -> None:
    own = word()
    await listed(amina, title=own, location={"lat": there[0], "lng": there[1]})
    away = round(metres(*middle, *there))
    assert 1 < away < 20_000
    for sort in ("new", "distance"):
        for radius, expected in ((away + 2, [away]), (away - 2, [])):
            near = {"lat": middle[0], "lng": middle[1], "radius_m": radius}
            found = await pages(bilal, query=own, near=near, sort=sort)
            assert [one["distance_m"] for one in found] == expected


def metres(lat1: float, lng1: float, lat2: float, lng2: float) -> float:
    """By the law of cosines, another formula than the server's."""
    a, b, c = (math.radians(x) for x in (lat1, lat2, lng2 - lng1))
    cosine = math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(c)
    return 6_371_008.8 * math.acos(max(-1.0, min(1.0, cosine)))


# in order, page by page


@pytest.mark.both_postgres
async def test_whatever_is_asked_all_of_it_is_found_in_order_and_once(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    own, dice = word(), random.Random(7)
    made = [await listed(dice.choice([amina, bilal]), **some_terms(own, dice)) for _ in range(90)]
    for _ in range(60):
        asked, fits = some_question(dice)
        expected = [one for one in made if fits(one)]
        middle = asked.get("near")
        sort = asked["sort"]
        for limit in (50, dice.choice([1, 3, 7])):
            found = await pages(amina, limit, query=own, **asked)
            assert [one["listing_id"] for one in found] == in_order(expected, sort, middle), asked


async def test_what_is_about_as_relevant_is_paged_without_loss(amina: Person, bilal: Person) -> None:
    own = word()
    for n in range(17):
        await listed(amina, title=f"{own} lamp" if n % 4 else f"a lamp, rather {own}", description=own if n % 3 else "")
    whole = [one["listing_id"] for one in await pages(bilal, query=own, sort="relevance")]
    assert len(whole) == len(set(whole)) == 17
    for limit in (1, 2, 5):
        assert [one["listing_id"] for one in await pages(bilal, limit, query=own, sort="relevance")] == whole


async def test_a_title_is_worth_more_than_a_description(amina: Person, bilal: Person) -> None:
    own = word()
    await listed(amina, title=f"{own} first")
    await listed(amina, title="another", description=f"not {own}")
    assert await titles(bilal, query=own, sort="relevance") == [f"{own} first", "another"]


async def test_what_is_listed_meanwhile_does_not_shift_the_pages(amina: Person, bilal: Person) -> None:
    own = word()
    for n in range(6):
        await listed(amina, title=f"{own} {n}", price=eur(100 + n % 2))
    for sort in ("new", "price", "relevance"):
        whole = [one["listing_id"] for one in await pages(bilal, query=own, sort=sort)]
        first = await bilal.post("listing:search", query=own, sort=sort, limit=3)
        await listed(amina, title=f"{own} late", price=eur(1))
        rest = await pages(bilal, query=own, sort=sort, before=first["next"]) if sort == "new" else []
        page = await bilal.post("listing:search", query=own, sort=sort, limit=50, before=first["next"])
        read = [one["listing_id"] for one in (*first["listings"], *page["listings"])]
        assert read == whole
        assert not rest or rest == page["listings"]


def some_terms(own: str, dice: random.Random) -> dict[str, Any]:
    """A listing: few prices and places, so that many are equal."""
    place = {"lat": 10 + dice.choice([0, 0.001, 0.01, 0.3]), "lng": 20 + dice.choice([0, 0.02, 0.5])}
    return {
        "title": f"{own} {dice.choice(['lamp', 'chair'])}",
        "kind": dice.choice(["for_sale", "wtb"]),
        "category": dice.choice(["books", "other", "beauty"]),
        "feed": dice.choice(["discover", "community"]),
        "price": {"amount": dice.choice([100, 200, 300]), "currency": dice.choice(["EUR", "USD"])},
        "location": dice.choice([place, place, place, None]),
    }


def some_question(dice: random.Random) -> tuple[dict[str, Any], Any]:
    """A search, and whether a listing fits it."""
    asked: dict[str, Any] = {"sort": dice.choice(["new", "price", "distance"])}
    for name, values in {
        "kind": ["for_sale", "wtb"],
        "category": ["books", "other", "beauty"],
        "feed": ["discover", "community"],
        "price_min": [eur(200), eur(300)],
        "price_max": [eur(100), eur(200)],
    }.items():
        if dice.random() < 0.25:
            asked[name] = dice.choice(values)
    if asked["sort"] == "distance" or dice.random() < 0.4:
        asked["near"] = {"lat": 10.0, "lng": 20.011, "radius_m": dice.choice([50, 1_500, 5_000, 60_000, 200_000])}

    def fits(one: dict[str, Any]) -> bool:
        near, place = asked.get("near"), one["location"]
        is_near = near is None or (
            place is not None and metres(near["lat"], near["lng"], place["lat"], place["lng"]) <= near["radius_m"]
        )
        is_paid = all(one["price"]["currency"] == "EUR" for name in ("price_min", "price_max") if name in asked)
        least, most = asked.get("price_min", eur(1)), asked.get("price_max", eur(10**9))
        return (
            is_near
            and is_paid
            and least["amount"] <= one["price"]["amount"] <= most["amount"]
            and all(one[name] == asked[name] for name in ("kind", "category", "feed") if name in asked)
        )

    return asked, fits


def in_order(expected: list[dict[str, Any]], sort: str, middle: dict[str, Any] | None) -> list[str]:
    """The ids, as sorted."""
    if sort == "new":
        return [one["listing_id"] for one in sorted(expected, key=lambda one: one["listing_id"], reverse=True)]
    if sort == "price":
        return [
            one["listing_id"]
            for one in sorted(
                expected, key=lambda one: (one["price"]["currency"], one["price"]["amount"], one["listing_id"])
            )
        ]
    assert middle is not None
    at = (middle["lat"], middle["lng"])
    return [
        one["listing_id"]
        for one in sorted(
            expected,
            key=lambda one: (round(metres(*at, one["location"]["lat"], one["location"]["lng"]), 3), one["listing_id"]),
        )
    ]


# a crowd

CROWD = """
insert into listings (
    listing_id, user_id, kind, title, description, price_amount, price_currency, category, lat, lng, expires_at)
select uuidv7(), $1, 'for_sale', $2 || case when n % 100 = 0 then ' rare' else '' end, '', 1 + n % 50, 'EUR',
       case when n % 7 = 0 then 'books' else 'other' end,
       greatest(-90, least(90, $3::float8 + $5::float8 * sin(n) * (n % 90) / 90)),
       mod(($4::float8 + $5::float8 * cos(n) * (n % 90) / 90 + 540)::numeric, 360)::float8 - 180,
       now() + interval '1 day'
  from generate_series(1, 2600) as n
"""
NEWEST = "select * from (select listing_id from listings where user_id = $1 order by 1 desc limit 500) l order by 1"
ALL = """
select listing_id from listings l
 where user_id = $1 and metres($2, $3, lat, lng) <= $4 and ($5::text is null or category = $5)
   and ($6::text is null or words @@ $6::tsquery)
 order by case $7 when 'distance' then metres($2, $3, lat, lng) end, case $7 when 'price' then price_amount end,
          case $7 when 'new' then null else listing_id end, listing_id desc
"""


@pytest.mark.parametrize("middle", [(52.5, 13.4), (-17.0, 179.99), (89.97, 30.0), (-89.5, -179.0), (0.0, 0.0)])
async def test_of_a_crowd_nobody_is_lost_whatever_the_order(
    parley: Instance, amina: Person, middle: tuple[float, float]
) -> None:
    own, owner = word(), UUID(amina.user_id)
    async with parley.parley.database.connection() as db:
        await db.execute(CROWD, owner, own, *middle, 0.5)
        await db.execute("analyze listings")
        for sort in (Sort.DISTANCE, Sort.NEW, Sort.PRICE):
            for radius, more in (
                (200_000, {}),
                (20_000, {}),
                (200_000, {"category": "books"}),
                (30_000, {"query": "rare"}),
            ):
                seen_from = (middle[0] + (0.3 if middle[0] < 80 else -0.3), middle[1])
                place = {"lat": seen_from[0], "lng": seen_from[1], "radius_m": radius}
                asked = {"sort": sort, "user_id": owner, **place, **more}
                rows = await db.fetch(
                    ALL, owner, *seen_from, radius, more.get("category"), more.get("query"), str(sort)
                )
                read = await read_through(db, msgspec.convert(asked, Wanted), 400)
                assert read == [row["listing_id"] for row in rows], asked


async def test_the_latest_that_are_ranked_stay_the_same_while_others_are_listed(
    parley: Instance, amina: Person
) -> None:
    own, owner = word(), UUID(amina.user_id)
    async with parley.parley.database.connection() as db:
        await db.execute(CROWD, owner, own, 0.0, 0.0, 0.5)
        newest = [row[0] for row in await db.fetch(NEWEST, owner)]
        wanted = Wanted(query=own, sort=Sort.RELEVANCE)
        first = await listing_search.search(db, owner, wanted, None, 100)
        await db.execute(CROWD, owner, own, 0.0, 0.0, 0.5)
        rest = await read_through(db, wanted, 100, first[-1].place(Sort.RELEVANCE))
    assert len(newest) == 500
    assert sorted([*(one.listing_id for one in first), *rest]) == newest


async def read_through(db: Connection, wanted: Wanted, most: int, before: Place | None = None) -> list[UUID]:
    """All that is found, so many at a time."""
    read: list[UUID] = []
    while True:
        found = await listing_search.search(db, uuid4(), wanted, before, most)
        read += [one.listing_id for one in found]
        if len(found) < most:
            return read
        before = found[-1].place(wanted.sort)


async def test_the_bounds_of_a_circle_hold_all_that_is_in_it(migrated_database: str) -> None:
    connection = await asyncpg.connect(migrated_database)
    try:
        # Walked to from the middle in every direction: haversine's inverse.
        out = await connection.fetch("""
            with circle as (
                select -90 + random() * 180 as lat, -180 + random() * 360 as lng, 1 + random() * 199999 as radius
                  from generate_series(1, 400)
                union all
                select lat, lng, radius
                  from (values (90, 0), (-90, 10), (89.5, 179.9), (0, 180), (0, -180), (60, 179)) p (lat, lng)
                 cross join (values (5000), (200000)) r (radius)
            ), edge as (
                select lat, lng, radius, radius * 0.9999999 / 6371008.8 as d, radians(step * 10) as way
                  from circle cross join generate_series(0, 35) as step
            ), spot as (
                select *, asin(sin(radians(lat)) * cos(d) + cos(radians(lat)) * sin(d) * cos(way)) as lat2 from edge
            ), reached as (
                select *, degrees(lat2) as y,
                       lng + degrees(atan2(
                           sin(way) * sin(d) * cos(radians(lat)), cos(d) - sin(radians(lat)) * sin(lat2))) as x
                  from spot
            ), round as (
                select *, case when x > 180 then x - 360 when x < -180 then x + 360 else x end as there from reached
            )
            select * from round
             where not exists (
                   select from bounds_of(lat, lng, radius) b
                    where on_plane(y, there) <@ box(on_plane(south, west), on_plane(north, east))
                      and y between south and north and there between west and east)
            limit 5""")
        assert out == []
    finally:
        await connection.close()


# what is refused


def place(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


AN_ID = "01a1fa9e-65e2-7a55-a42f-9311a8e79b12"


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ({"sort": "distance"}, "near"),
        ({"sort": "relevance"}, "query"),
        ({"sort": "likes"}, "sort"),
        ({"near": {"lat": 91, "lng": 0, "radius_m": 1}}, "near.lat"),
        ({"near": {"lat": 0, "lng": -181, "radius_m": 1}}, "near.lng"),
        ({"near": {"lat": 0, "lng": 0, "radius_m": 0}}, "near.radius_m"),
        ({"near": {"lat": 0, "lng": 0, "radius_m": 200_001}}, "near.radius_m"),
        ({"near": {"lat": 0, "lng": 0}}, "near.radius_m"),
        ({"near": {"lat": True, "lng": 0, "radius_m": 5}}, "near.lat"),
        ({"price_min": 5}, "price_min"),
        ({"price_min": {"amount": 5.0, "currency": "EUR"}}, "price_min.amount"),
        ({"price_min": {"amount": 5, "currency": "XXX"}}, "price_min.currency"),
        ({"price_min": eur(1), "price_max": {"amount": 5, "currency": "USD"}}, "price_max.currency"),
        ({"category": "cars"}, "category"),
        ({"kind": "gift"}, "kind"),
        ({"query": ""}, "query"),
        ({"limit": 0}, "limit"),
        ({"before": "garbage!"}, "before"),
        ({"before": place("new")}, "before"),
        ({"before": place("new", "7")}, "before"),
        ({"before": place("price", AN_ID, None, "EUR", 5)}, "before"),  # of another order
        ({"before": place("price", AN_ID), "sort": "price"}, "before"),
        ({"before": place("price", AN_ID, None, "\u0000UR", 5), "sort": "price"}, "before"),
        ({"before": place("price", AN_ID, None, "EUR", 2**63), "sort": "price"}, "before"),
        ({"before": place("relevance", AN_ID, 0.5), "sort": "relevance", "query": "x"}, "before"),
        ({"before": place("relevance", AN_ID, "0.5", None, None, AN_ID), "sort": "relevance", "query": "x"}, "before"),
    ],
)
async def test_a_search_of_no_valid_form_is_refused(amina: Person, asked: dict[str, Any], path: str) -> None:
    error = await refused(amina, "listing:search", **asked)
    assert (error["code"], list(error["fields"])) == ("invalid", [path])


async def test_a_page_over_its_bound_is_too_large(amina: Person) -> None:
    error = await refused(amina, "listing:search", limit=51)
    assert (error["code"], error["limit"]) == ("too_large", 50)
