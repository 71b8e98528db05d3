"""Passwords and tokens tried out: so many a minute, by address and by account, however many instances are asked."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from server.commands import limits
from server.rooms.bus import LocalBus, LocalHub
from tests.people import PASSWORD, PATIENCE_S, Instance
from tests.servers import RedisServer

NewInstance = Callable[..., Awaitable[Instance]]
SLOW = {"PARLEY_RATE_LOGIN": "0.001/10", "PARLEY_RATE_LOGIN_ACCOUNT": "0.001/5", "PARLEY_TRUSTED_PROXY": "1"}


@pytest.fixture
async def three(new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch) -> list[Instance]:
    """Three instances whose limits settle at once, and hardly fill again."""
    monkeypatch.setattr(limits, "SETTLE_S", 0)
    hub = LocalHub()
    return [await new_instance(bus=LocalBus(hub), **SLOW) for _ in range(3)]


async def tried(instance: Instance, command: str, address: str, **payload: str) -> int:
    url = f"{instance.url}/api/{command.replace(':', '/')}"
    async with instance.http.post(url, json=payload, headers={"X-Forwarded-For": address}) as response:
        answer = await response.json()
        if response.status == 429:
            assert answer["error"]["code"] == "rate_limited"
            assert int(response.headers["Retry-After"]) > 1
        return response.status


def addresses() -> Callable[[], str]:
    """One address after another, as a botnet has them."""
    numbers = iter(range(1, 60_000))
    return lambda: f"10.{(n := next(numbers)) >> 8}.{n & 255}.1"


async def test_an_account_is_tried_five_times_by_however_many_on_however_many_instances(three: list[Instance]) -> None:
    victim, address = await three[0].register("victim"), addresses()
    told = [
        await tried(three[n % 3], "account:login", address(), login=name, password=f"guess {n}")
        for n, name in enumerate([victim.username, victim.username.upper()] * 15)
    ]
    assert told == [401] * 5 + [429] * 25
    # and by its other name: the tries are spent, which nobody is told
    assert (
        await tried(three[1], "account:login", address(), login=f"{victim.username}@example.org", password=PASSWORD)
        == 401
    )
    assert (await victim.post("account:me"))["user_id"] == victim.user_id  # who is in stays in
    assert await tried(three[0], "account:login", address(), login=uuid4().hex, password="x") == 401  # others go on


async def test_tries_settle_over_redis_as_shipped(new_instance: NewInstance, valkey: RedisServer) -> None:
    two = [await new_instance(REDIS_URL=valkey.url, **SLOW) for _ in range(2)]
    victim, address = await two[0].register("victim"), addresses()
    await _until(lambda: all(_believes_another(instance) for instance in two), "they have met")
    for n in range(5):
        assert await tried(two[0], "account:login", address(), login=victim.username, password=f"guess {n}") == 401
    began = time.monotonic()
    await _until(lambda: _tries_left(two[1]) < 1, "the other has heard of it")
    assert time.monotonic() - began < limits.SETTLE_S + 1
    assert await tried(two[1], "account:login", address(), login=victim.username, password=PASSWORD) == 429
    assert await tried(two[1], "account:login", address(), login=uuid4().hex, password="x") == 401


async def _until(seen: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not seen():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not so: {what}")


def _believes_another(instance: Instance) -> bool:
    """Whether it has heard another instance, and believes it."""
    heard: Any = instance.parley.bus
    return any(heard._origins.is_believed(origin) for origin in [*heard._origins._origins])


def _tries_left(instance: Instance) -> float:
    """How many tries the one account has left there that was tried."""
    buckets = instance.parley.services.limits._buckets
    return min((tokens for (name, _), (tokens, _) in buckets.items() if name == "login_account"), default=5.0)


async def test_an_address_tries_ten_accounts_on_however_many_instances(three: list[Instance]) -> None:
    told = [
        await tried(three[n % 3], "account:login", "192.0.2.7", login=uuid4().hex, password="password1")
        for n in range(30)
    ]
    assert told == [401] * 10 + [429] * 20
    assert await tried(three[0], "account:login", "192.0.2.8", login=uuid4().hex, password="x") == 401


async def test_tries_at_once_are_no_more_than_a_burst_of_each_instance(three: list[Instance]) -> None:
    victim, address = await three[0].register("victim"), addresses()
    told = Counter(
        await asyncio.gather(
            *(
                tried(instance, "account:login", address(), login=victim.username, password="guess")
                for instance in three
                for _ in range(10)
            )
        )
    )
    assert told[401] <= 5 * len(three)
    assert told[401] + told[429] == 30
    for instance in three:
        assert await tried(instance, "account:login", address(), login=victim.username, password=PASSWORD) == 429


async def test_reset_tokens_are_tried_as_passwords_are(three: list[Instance]) -> None:
    told = [
        await tried(three[n % 3], "account:reset", "192.0.2.9", reset_token=uuid4().hex, password="another good one")
        for n in range(20)
    ]
    assert told == [401] * 10 + [429] * 10
    address, email = addresses(), f"{uuid4().hex}@example.org"
    told = [await tried(three[n % 3], "account:forgot", address(), email=email) for n in range(10)]
    assert told == [200] * 5 + [429] * 5  # nobody's mailbox is filled either


async def test_refresh_tokens_are_tried_as_often_as_an_address_writes(
    new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SETTLE_S", 0)
    hub = LocalHub()
    two = [await new_instance(bus=LocalBus(hub), PARLEY_RATE_WRITES="0.001/8") for _ in range(2)]
    told = [(await two[n % 2].post("account:refresh", {"refresh_token": uuid4().hex}))[0] for n in range(12)]
    assert told == [401] * 8 + [429] * 4


async def test_ones_own_password_is_tried_five_times_with_a_stolen_token(three: list[Instance]) -> None:
    victim = await three[0].register("victim")
    phone = await victim.connect(to=three[1])
    codes = []
    for n in range(9):
        if n % 2:
            answer = await phone.answer("account:delete", password=f"guess {n}")
        else:
            _, answer = await three[n % 3].post("account:delete", {"password": f"guess {n}"}, token=victim.token)
        codes.append(answer["error"]["code"])
    assert codes == ["unauthenticated"] * 5 + ["rate_limited"] * 4
