"""Everybody at once: on each offer five moves start at the same instant through two servers, and one of them wins.

A round is a listing with a few buyers, each with an offer on the table, theirs or the seller's. Beside the five there
may be the clock, and those who are at the listing itself: closed, edited, bought, all of it declined, one of the two
blocked. What was answered is held against what the database says afterwards.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg

from server.commands.registry import commands
from server.commands.tokens import Tokens
from tests.faults.verdicts import deals_of, is_same, is_told, misjudged

TTL_S = 24 * 3600
ACTORS = 5
BUYERS = 4
TRIES = 20  # of what is `unavailable`: held by others for too long
SETTLED_S = 10.0

Answer = dict[str, Any]

# How often each move comes, in shares, in one round or another: all of it, and rivals who are all accepted.
MOVES = ("accept", "decline", "counter", "withdraw")
SHARES = ((4, 2, 2, 2), (1, 0, 0, 0), (3, 0, 1, 1), (2, 1, 1, 0))


@dataclass(frozen=True)
class Racer:
    """Somebody with a token."""

    user_id: str
    token: str


@dataclass(frozen=True)
class Asked:
    """A move that somebody makes."""

    who: Racer
    command: str
    payload: Answer

    @property
    def key(self) -> tuple[str, str, str]:
        """What a repeat has in common with it."""
        return self.who.user_id, self.command, str(self.payload.get("client_id"))


@dataclass
class Tally:
    """What has happened; `wrong` is what must not."""

    offers: int = 0
    moves: int = 0
    rounds: int = 0
    unavailable: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    beside: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


async def people(dsn: str, secret: str, count: int) -> list[Racer]:
    """So many people with sessions, written straight into the tables."""
    users = [(uuid4(), uuid4()) for _ in range(count)]
    connection = await asyncpg.connect(dsn)
    try:
        ends_at = datetime.now(UTC) + timedelta(seconds=TTL_S)
        names = [(user, f"racer-{user.hex}", f"{user.hex}@example.invalid") for user, _ in users]
        for table, columns, rows in (
            ("users", ["user_id", "username", "email"], names),
            (
                "user_sessions",
                ["session_id", "user_id", "ends_at"],
                [(session, user, ends_at) for user, session in users],
            ),
            ("rooms", ["room_id", "kind"], [(user, "user") for user, _ in users]),
        ):
            await connection.copy_records_to_table(table, records=rows, columns=columns)
    finally:
        await connection.close()
    tokens = Tokens((secret,), access_ttl_s=TTL_S, refresh_ttl_s=TTL_S)
    return [Racer(str(user), tokens.access(user, session)[0]) for user, session in users]


class Race:
    """Rounds between a seller and their buyers, through several servers."""

    settled_s = SETTLED_S
    """Until the clock has been at the offers whose time is over."""

    def __init__(
        self,
        urls: Sequence[str],
        http: aiohttp.ClientSession,
        db: asyncpg.Connection,
        tally: Tally,
        cast: Sequence[Racer],
        *,
        tries: int = TRIES,
    ) -> None:
        self._urls = urls
        self._http = http
        self._db = db
        self._tally = tally
        self._tries = tries
        self._seller, self._guest, *self._buyers = cast
        self._turn = 0

    async def round(self) -> None:
        """One listing, its offers, and everybody at them."""
        listing = await self._list()
        offers = [await self._offer(listing, buyer) for buyer in random.sample(self._buyers, BUYERS)]
        await self._set_clocks(offers)
        shares = random.choice(SHARES)
        everybody = [move for made in offers for move in self._five(made, shares)]
        beside = list(self._beside(listing, offers))
        random.shuffle(everybody)
        for one in beside:
            everybody.insert(random.randrange(len(everybody)), one)
        answers = await asyncio.gather(*(self._ask(asked) for asked in everybody))
        rows = await self._settle(offers)
        self._tally.rounds += 1
        self._tally.offers += len(offers)
        self._tally.moves += len(everybody)
        heard = list(zip(everybody, answers, strict=True))
        for made in offers:
            offer_id = made["offer"]["offer_id"]
            mine = [(a, b) for a, b in heard if a.payload.get("offer_id") == offer_id]
            await self._judge(made["offer"], rows[offer_id], mine, heard)
        await self._judge_beside([(a, b) for a, b in heard if a in beside], listing["listing_id"])
        for other in {asked.payload["user_id"] for asked in beside if asked.command == "user:block"}:
            await self._sure(Asked(self._seller, "user:unblock", {"user_id": other}))

    # the scene

    async def _list(self) -> Answer:
        asked = {
            "kind": "for_sale",
            "title": "A moon lamp",
            "description": "Glows.",
            "price": eur(10_000),
            "category": "home_decor",
            "quantity": random.randint(1, 3),
            "client_id": uuid4().hex,
        }
        listing: Answer = await self._sure(Asked(self._seller, "listing:create", asked))
        return listing

    async def _offer(self, listing: Answer, buyer: Racer) -> Answer:
        """A buyer's offer; of some, the seller's answer to it is on the table."""
        quantity = random.randint(1, min(2, listing["quantity"]))
        asked = {
            "listing_id": listing["listing_id"],
            "listing_version": 1,
            "quantity": quantity,
            "client_id": uuid4().hex,
        }
        made = await self._sure(Asked(buyer, "offer:make", {**asked, "price": eur(9_000)}))
        maker, other = buyer, self._seller
        if random.random() < 0.4:
            asked = {"offer_id": made["offer"]["offer_id"], "version": 1, "client_id": uuid4().hex}
            made = await self._sure(Asked(self._seller, "offer:counter", {**asked, "price": eur(9_500)}))
            maker, other = other, maker
        return {**made, "maker": maker, "other": other}

    async def _set_clocks(self, offers: Sequence[Answer]) -> None:
        """Let the time of some be over in the middle of it."""
        for made in offers:
            if random.random() < 0.25:
                await self._db.execute(
                    "update offers set expires_at = clock_timestamp() + $2 * interval '1 ms' where offer_id = $1",
                    UUID(made["offer"]["offer_id"]),
                    random.randint(-5, 120),
                )

    def _five(self, made: Answer, shares: Sequence[int]) -> Iterator[Asked]:
        for move in random.choices(MOVES, shares, k=ACTORS):
            payload = {"offer_id": made["offer"]["offer_id"], "version": 1}
            if move == "counter":
                payload |= {"price": eur(9_200), "client_id": uuid4().hex}
            yield Asked(made["maker" if move == "withdraw" else "other"], f"offer:{move}", payload)

    def _beside(self, listing: Answer, offers: Sequence[Answer]) -> Iterator[Asked]:
        here = {"listing_id": listing["listing_id"]}
        if random.random() < 0.12:
            yield Asked(self._seller, "listing:close", here)
        if random.random() < 0.12:
            yield Asked(self._seller, "listing:update", {**here, "version": 1, "price": eur(12_000)})
        if random.random() < 0.12:
            yield Asked(self._seller, "offer:decline_all", here)
        if random.random() < 0.06:
            yield Asked(self._seller, "user:block", {"user_id": random.choice(offers)["offer"]["buyer_id"]})
        if random.random() < 0.2 and "listing:buy" in commands:
            for _ in range(2):
                yield Asked(self._guest, "listing:buy", {**here, "version": 1, "client_id": uuid4().hex})

    async def _settle(self, offers: Sequence[Answer]) -> dict[str, Any]:
        """The offers' rows, when the clock has been at those whose time is over."""
        ids = [UUID(made["offer"]["offer_id"]) for made in offers]
        async with asyncio.timeout(self.settled_s):
            while True:
                rows = await self._db.fetch(
                    """select offer_id, status, close_reason, version,
                              status = 'pending' and expires_at <= clock_timestamp() + interval '0.2 s' as is_late
                         from offers where offer_id = any ($1)""",
                    ids,
                )
                if not any(row["is_late"] for row in rows):
                    return {str(row["offer_id"]): row for row in rows}
                await asyncio.sleep(0.02)

    # the judgement

    async def _judge(
        self, offer: Answer, row: Any, mine: Sequence[tuple[Asked, Answer]], heard: Sequence[tuple[Asked, Answer]]
    ) -> None:
        """Hold what was answered about an offer against its row, and ask the winner's move once more."""
        self._tally.ends[" ".join(filter(None, (row["status"], row["close_reason"])))] += 1
        for _, answer in mine:
            if not answer["ok"]:
                self._tally.refused[_reason(answer)] += 1
        wrong = [f"{asked.command}: {answer}" for asked, answer in mine if not is_told(asked, answer, row)]
        wrong += misjudged(row, mine, heard)
        for asked in {asked.key: asked for asked, answer in mine if answer["ok"]}.values():
            again = await self._ask(asked)
            if not (again["ok"] and is_same(again["data"], offer, row, deals_of(mine))):
                wrong.append(f"{asked.command} again: {again}")
        self._tally.wrong += [f"{offer['offer_id']}: {what}" for what in wrong]

    async def _judge_beside(self, beside: Sequence[tuple[Asked, Answer]], listing_id: str) -> None:
        for asked, answer in beside:
            said = "ok" if answer["ok"] else _reason(answer)
            self._tally.beside[f"{asked.command} {said}"] += 1
            if not answer["ok"] and answer["error"]["code"] != "conflict":
                self._tally.wrong.append(f"{asked.command}: {answer}")
            if asked.command == "offer:decline_all" and answer["ok"]:
                # Of all offers on the listing: an answer given meanwhile may be among them.
                counting = "select count(*) from offers where listing_id = $1 and close_reason = 'declined'"
                ended = await self._db.fetchval(counting, UUID(listing_id))
                if answer["data"]["declined"] > ended:
                    self._tally.wrong.append(f"{answer['data']} of {ended} that are declined")

    # the wire

    async def _sure(self, asked: Asked) -> Any:
        answer = await self._ask(asked)
        if not answer["ok"]:
            raise AssertionError(f"{asked.command} {asked.payload}: {answer}")
        return answer["data"]

    async def _ask(self, asked: Asked) -> Answer:
        """Ask one of the servers, each try the next; what is `unavailable` is sent again, as a client does."""
        for _ in range(self._tries):
            answer = await self._post(asked)
            if answer["ok"] or answer["error"]["code"] != "unavailable":
                break
            self._tally.unavailable += 1
        return answer

    async def _post(self, asked: Asked) -> Answer:
        """Ask the next server, once."""
        self._turn += 1
        url = self._urls[self._turn % len(self._urls)] + "/api/" + asked.command.replace(":", "/")
        headers = {"Authorization": f"Bearer {asked.who.token}"}
        async with self._http.post(url, json=asked.payload, headers=headers) as response:
            answer: Answer = await response.json()
        return answer


def _reason(answer: Answer) -> str:
    """Why a move was refused, in a word."""
    error = answer["error"]
    return str(error.get("reason", error["code"]))


def eur(amount: int) -> Answer:
    """A price in euro cents."""
    return {"amount": amount, "currency": "EUR"}


async def race(
    dsn: str,
    secret: str,
    urls: Sequence[str],
    *,
    offers: int,
    seconds: float,
    at_once: int = 3,
    tries: int = TRIES,
) -> Tally:
    """Race until so many offers have been fought for, or the time is over, in some rounds side by side."""
    tally, loop = Tally(), asyncio.get_running_loop()
    ends = loop.time() + seconds
    cast = await people(dsn, secret, at_once * (BUYERS + 4))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def side(cast: Sequence[Racer]) -> None:
            db = await asyncpg.connect(dsn)
            try:
                one = Race(urls, http, db, tally, cast, tries=tries)
                while tally.offers < offers and loop.time() < ends and len(tally.wrong) < 20:
                    await one.round()
            finally:
                await db.close()

        each = len(cast) // at_once
        await asyncio.gather(*(side(cast[n * each : (n + 1) * each]) for n in range(at_once)))
    return tally
