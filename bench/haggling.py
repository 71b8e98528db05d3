"""People who haggle over listings, for `bench.offers`: each pair from the first offer to the deal."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import aiohttp
import asyncpg

from bench.crowds import Crowd
from bench.seeding import TOKEN_TTL_S
from server.commands.tokens import Tokens

LISTINGS = 10_000
SELLERS = 100
BUYERS = 8_000
CROWD = Crowd("offers", people=SELLERS + BUYERS, size=2, rooms_each=0, senders=0)
MOVES = ("offer/make", "offer/counter", "offer/accept")

# The first is the hot one, with stock for everybody.
ROWS = """
insert into listings (
    listing_id, user_id, kind, title, description, price_amount, price_currency, category, quantity, expires_at)
select uuidv7(), ($1::uuid[])[1 + n % cardinality($1::uuid[])], 'for_sale', 'A lamp', 'Glows.', 10000, 'EUR', 'other',
       case n when 0 then 1000000 else 1 end, now() + interval '1 day'
  from generate_series(0, $2::int) as n
"""


class Pair(NamedTuple):
    """A listing, its seller and somebody who wants it."""

    listing_id: str
    seller: int
    buyer: int


@dataclass
class Taken:
    """How long moves took, in milliseconds, by command; and what was refused."""

    of: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    unavailable: int = 0

    @property
    def all(self) -> list[float]:
        """Of all commands."""
        return [each for taken in self.of.values() for each in taken]


async def fill(dsn: str) -> list[str]:
    """The listings; their ids, the hot one first."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(ROWS, CROWD.user_ids[:SELLERS], LISTINGS)
        await connection.execute("insert into rooms (room_id, kind) select listing_id, 'listing' from listings")
        await connection.execute("vacuum analyze")
        return [str(row[0]) for row in await connection.fetch("select listing_id from listings order by listing_id")]
    finally:
        await connection.close()


def hot(listings: Sequence[str]) -> Iterator[Pair]:
    """Everybody on the first listing."""
    return (Pair(listings[0], 0, SELLERS + n) for n in range(BUYERS // 2))


def spread(listings: Sequence[str]) -> Iterator[Pair]:
    """Each on a listing of its own; the buyers come round again."""
    buyers = itertools.cycle(range(SELLERS + BUYERS // 2, SELLERS + BUYERS))
    return (Pair(listings[n], n % SELLERS, next(buyers)) for n in range(1, len(listings)))


class Haggling:
    """Pairs that haggle at a server."""

    def __init__(self, http: aiohttp.ClientSession, url: str, secret: str) -> None:
        self._http = http
        self._url = url
        self._tokens = Tokens((secret,), access_ttl_s=TOKEN_TTL_S, refresh_ttl_s=TOKEN_TTL_S)
        self.taken = Taken()

    async def run(self, pairs: Iterator[Pair], ends: float) -> None:
        """Pair after pair, until the time is over or nobody is left."""
        for pair in pairs:
            if time.perf_counter() >= ends:
                return
            await self.haggle(pair)

    async def haggle(self, pair: Pair) -> None:
        """From the first offer to the deal."""
        terms = {"listing_id": pair.listing_id, "listing_version": 1}
        made = await self._move(pair.buyer, "offer/make", **terms, **_price(8_000))
        for person, amount in ((pair.seller, 9_500), (pair.buyer, 9_000)):
            made = await self._move(person, "offer/counter", **_offer(made), **_price(amount))
        await self._move(pair.seller, "offer/accept", **_offer(made))

    async def _move(self, person: int, command: str, **payload: Any) -> Any:
        token, _ = self._tokens.access(CROWD.user_ids[person], CROWD.session_ids[person])
        begun = time.perf_counter()
        while True:
            headers = {"Authorization": f"Bearer {token}"}
            async with self._http.post(f"{self._url}/api/{command}", json=payload, headers=headers) as response:
                answer = await response.json()
            if answer["ok"]:
                self.taken.of[command].append((time.perf_counter() - begun) * 1000)
                return answer["data"]
            if answer["error"]["code"] != "unavailable":
                raise RuntimeError(f"{command} {payload}: {answer['error']}")
            self.taken.unavailable += 1


def _price(amount: int) -> dict[str, Any]:
    return {"price": {"amount": amount, "currency": "EUR"}, "client_id": uuid4().hex}


def _offer(made: Any) -> dict[str, Any]:
    return {"offer_id": made["offer"]["offer_id"], "version": made["offer"]["version"]}
