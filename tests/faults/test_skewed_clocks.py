"""What ends, ends by the database's time: one server is an hour late, one an hour early, and nobody notices.

Tokens alone end by the clock of whoever reads them, and live through any skew that is shorter than they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import pytest
import socketio

from tests.faults.processes import ServerProcess
from tests.faults.racers import Racer, eur, people
from tests.people import PASSWORD, SECRET, Instance

HOUR_S = 3_600
TICKS_S = 2.5  # the clocks' jobs have looked at least twice
WRITTEN_S = 2.0
SKEWS_S = (1.5, -1.5, 600.0, -600.0)  # less than the 15 minutes of a token

Ask = Callable[..., Awaitable[dict[str, Any]]]
NewInstance = Callable[..., Awaitable[Instance]]


async def agreed(ask: Ask, seller: Racer, buyer: Racer, *, accept: bool) -> dict[str, Any]:
    """An offer for five minutes, by way of both servers; a deal, if so wished."""
    listing = await ask(
        0, seller, "listing/create", kind="for_sale", title="A lamp", description="", price=eur(9), category="other"
    )
    asked = {"listing_id": listing["listing_id"], "listing_version": 1, "price": eur(8), "expires_in_s": 300}
    made = await ask(1, buyer, "offer/make", **asked)
    if accept:
        made = await ask(0, seller, "offer/accept", offer_id=made["offer"]["offer_id"], version=1)
    return made


async def test_offers_and_deals_end_by_the_databases_time(migrated_database: str, tmp_path: Path) -> None:
    environ = {"DATABASE_URL": migrated_database, "PARLEY_SECRET": SECRET, "PARLEY_DRAIN_MS": "0"}
    early, late = (
        ServerProcess(tmp_path / f"{seconds}.log", environ, ("tests.faults.skewed", str(seconds)))
        for seconds in (HOUR_S, -HOUR_S)
    )
    seller, buyer = await people(migrated_database, SECRET, 2)
    db = await asyncpg.connect(migrated_database)
    try:
        early.start()
        late.start()
        async with aiohttp.ClientSession() as http:
            keys = iter(range(100))

            async def ask(at: int, who: Racer, command: str, **payload: Any) -> dict[str, Any]:
                keyed = {"client_id": f"{next(keys)}"} if command.endswith(("make", "create")) else {}
                headers = {"Authorization": f"Bearer {who.token}"}
                url = f"{(early, late)[at].url}/api/{command}"
                async with http.post(url, json={**payload, **keyed}, headers=headers) as response:
                    answer: dict[str, Any] = await response.json()
                assert answer["ok"] or answer["error"]["code"] == "conflict", answer
                return answer["data"] if answer["ok"] else answer["error"]

            standing, waiting = [await agreed(ask, seller, buyer, accept=accept) for accept in (False, True)]
            short = {"transaction_id": waiting["transaction"]["transaction_id"], "minutes": 10}
            await _pay_within(db, **short)
            await asyncio.sleep(TICKS_S)
            offer_id = standing["offer"]["offer_id"]
            assert await _status(db, offer_id, short["transaction_id"]) == ("pending", "pending")
            countered = await ask(0, seller, "offer/decline", offer_id=offer_id, version=1)
            assert countered["offer"]["status"] == "rejected"
            word = await ask(0, buyer, "transaction/confirm", transaction_id=short["transaction_id"], version=1)
            assert word["status"] == "pending"

            standing = await agreed(ask, seller, buyer, accept=False)
            offer_id = standing["offer"]["offer_id"]
            await _pay_within(db, short["transaction_id"], minutes=-1)
            await db.execute("update offers set expires_at = now() where offer_id = $1", UUID(offer_id))
            moved = [await ask(n, seller, "offer/accept", offer_id=offer_id, version=1) for n in range(2)]
            assert [each["reason"] for each in moved] == ["expired", "expired"]
            async with asyncio.timeout(WRITTEN_S):
                while await _status(db, offer_id, short["transaction_id"]) != ("expired", "cancelled"):
                    await asyncio.sleep(0.05)
    finally:
        await db.close()
        early.kill()
        late.kill()


@pytest.mark.parametrize("seconds", SKEWS_S)
async def test_a_token_is_read_by_an_instance_whose_clock_is_wrong_and_by_the_others_if_it_has_signed_it(
    new_instance: NewInstance, tmp_path: Path, seconds: float
) -> None:
    right = await new_instance()
    async with skewed(right.dsn, tmp_path, seconds) as url:
        amina = await signed_in(right.http, right.url)
        bilal = await signed_in(right.http, url)
        for at, token in ((url, amina), (right.url, bilal)):
            assert (await whoever(right.http, at, token))["ok"]
            client = socketio.AsyncClient()
            await client.connect(at, auth={"token": token}, transports=["websocket"], wait_timeout=10)
            await client.disconnect()


@pytest.mark.parametrize("seconds", [HOUR_S, -HOUR_S])
async def test_a_token_that_is_shorter_than_the_skew_is_expired_where_it_is_later(
    new_instance: NewInstance, tmp_path: Path, seconds: float
) -> None:
    right = await new_instance()
    async with skewed(right.dsn, tmp_path, seconds) as url:
        later, earlier = (url, right.url) if seconds > 0 else (right.url, url)
        ahead, behind = await signed_in(right.http, later), await signed_in(right.http, earlier)
        assert (await whoever(right.http, earlier, ahead))["ok"]
        for at, token in ((later, ahead), (earlier, behind)):
            assert (await whoever(right.http, at, token))["ok"]
        refused = (await whoever(right.http, later, behind))["error"]
        assert (refused["code"], "expired" in refused["message"]) == ("unauthenticated", True)


@asynccontextmanager
async def skewed(dsn: str, folder: Path, seconds: float) -> AsyncIterator[str]:
    """The URL of a server on the same database whose clock is so much ahead, while it runs."""
    environ = {"DATABASE_URL": dsn, "PARLEY_SECRET": SECRET, "PARLEY_DRAIN_MS": "0"}
    server = ServerProcess(folder / "skewed.log", environ, ("tests.faults.skewed", str(seconds)))
    try:
        await asyncio.to_thread(server.start)
        yield server.url
    finally:
        server.kill()


async def signed_in(http: aiohttp.ClientSession, url: str) -> str:
    """The token of somebody new, signed there."""
    name = f"somebody.{uuid4().hex[:12]}"
    person = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
    async with http.post(f"{url}/api/account/register", json=person) as response:
        answer = await response.json()
    return str(answer["data"]["access_token"])


async def whoever(http: aiohttp.ClientSession, url: str, token: str) -> dict[str, Any]:
    """What a server says to the one with this token who asks for their account."""
    headers = {"Authorization": f"Bearer {token}"}
    async with http.post(f"{url}/api/account/me", json={}, headers=headers) as response:
        return dict(await response.json())


async def _pay_within(db: asyncpg.Connection, transaction_id: str, minutes: int) -> None:
    await db.execute(
        "update transactions set pay_by = now() + $2 * interval '1 minute' where transaction_id = $1",
        UUID(transaction_id),
        minutes,
    )


async def _status(db: asyncpg.Connection, offer_id: str, transaction_id: str) -> tuple[str, str]:
    """Of an offer and of a deal."""
    return (
        await db.fetchval("select status from offers where offer_id = $1", UUID(offer_id)),
        await db.fetchval("select status from transactions where transaction_id = $1", UUID(transaction_id)),
    )
