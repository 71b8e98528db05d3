"""Rates: the bucket by a clock of the test's own, and what a caller hears who is too quick."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from server.commands import limits as module
from server.commands.context import Context
from server.commands.limits import Limits, network_of
from server.commands.registry import Limit
from server.config import Rate
from server.errors import RateLimited
from server.rooms.log import Event, ephemeral
from server.rooms.names import Room
from tests.people import Instance

SECRET = b"a deployment's own"


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


class Clock:
    """Time as the test has it, in seconds."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def limits(clock: Clock) -> Limits:
    limits = Limits({"reads": Rate(10, 5), "writes": Rate(0.5, 1), "off": None}, SECRET)
    limits._clock = clock
    return limits


def refused(limits: Limits, name: str, key: object = "amina") -> int:
    """The milliseconds after which the next call fits."""
    with pytest.raises(RateLimited) as raised:
        limits.take(name, key)
    wait: int = raised.value.body()["retry_after_ms"]
    return wait


async def test_a_burst_passes_and_then_one_at_a_time(limits: Limits, clock: Clock) -> None:
    for _ in range(5):
        limits.take("reads", "amina")
    assert 100 <= refused(limits, "reads") <= 101
    clock.now += 0.1001
    limits.take("reads", "amina")
    refused(limits, "reads")


async def test_the_time_that_is_told_is_enough_and_no_more(limits: Limits, clock: Clock) -> None:
    limits.take("writes", "amina")
    for passed in (0.0, 0.3, 1.234_567):
        clock.now = 1_000.0 + passed
        assert refused(limits, "writes") == pytest.approx((2 - passed) * 1_000, abs=1.01)
    wait = refused(limits, "writes")
    clock.now += wait / 1_000
    limits.take("writes", "amina")


async def test_a_command_takes_from_the_buckets_that_it_declares_alone(limits: Limits) -> None:
    def taking(*further: Limit) -> Context:
        call: Any = SimpleNamespace(command=SimpleNamespace(name="test:do", further=further))
        services: Any = SimpleNamespace(limits=limits)
        return Context(services, call, None)

    taking(Limit.READS, Limit.WRITES).take(Limit.WRITES, "amina")
    with pytest.raises(RuntimeError, match="test:do"):
        taking(Limit.READS).take(Limit.WRITES, "amina")


async def test_a_call_that_is_refused_takes_nothing(limits: Limits, clock: Clock) -> None:
    limits.take("writes", "amina")
    clock.now += 1.9
    for _ in range(100):
        refused(limits, "writes")
    clock.now += 0.11
    limits.take("writes", "amina")


async def test_no_more_waits_in_a_bucket_than_its_burst(limits: Limits, clock: Clock) -> None:
    limits.take("reads", "amina")
    clock.now += 3_600
    for _ in range(5):
        limits.take("reads", "amina")
    refused(limits, "reads")


async def test_everybody_has_buckets_of_their_own_by_name(limits: Limits) -> None:
    limits.take("writes", "amina")
    refused(limits, "writes", "amina")
    limits.take("writes", "bilal")
    limits.take("reads", "amina")


async def test_what_is_off_is_never_refused(limits: Limits) -> None:
    for _ in range(10_000):
        limits.take("off", "amina")
    assert not limits._buckets


async def test_the_bucket_untouched_the_longest_is_forgotten_first(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUCKETS", 3)
    for key in ("a", "b", "c"):
        limits.take("reads", key)
    limits.take("reads", "a")
    limits.take("reads", "d")
    assert list(limits._buckets) == [("reads", limits._unnamed(key)) for key in "cad"]


# between instances


class Heard:
    """A bus and a delivery in one: what was published, and what receives what others publish."""

    def __init__(self) -> None:
        self.published: list[Event] = []
        self.subscribed: list[Room] = []
        self.receive: Callable[[Event], None] = lambda _: None

    def publish(self, event: Event) -> None:
        self.published.append(event)

    def subscribe(self, room: Room) -> None:
        self.subscribed.append(room)

    def on_heard(self, name: str, effect: Callable[[Event], None]) -> None:
        assert name == module.TAKEN
        self.receive = effect


def settling(limits: Limits) -> Heard:
    heard: Any = Heard()
    limits.settle(heard, heard)
    assert heard.subscribed == [module.EVERYWHERE]
    settled: Heard = heard
    return settled


async def test_what_was_taken_elsewhere_is_missing_here(clock: Clock) -> None:
    here, there = [Limits({"reads": Rate(10, 5), "writes": Rate(0.5, 1)}, SECRET) for _ in range(2)]
    here._clock = there._clock = clock
    told, heard = settling(here), settling(there)
    for _ in range(3):
        here.take("reads", "amina")
    here._tell()
    [event] = told.published
    heard.receive(event)
    assert heard.published == []  # what one hears is not told again
    for _ in range(2):
        there.take("reads", "amina")
    refused(there, "reads")
    there.take("reads", "bilal")


def telling(limits: Limits, *taken: tuple[str, int]) -> Event:
    """What an instance says that has let so many calls of Amina's pass, by bucket."""
    told = msgspec.json.encode([(name, limits._unnamed("amina"), count) for name, count in taken])
    return ephemeral(module.EVERYWHERE, module.TAKEN, told.decode())


@pytest.mark.parametrize("count", [10**12, 16])
async def test_one_message_takes_no_more_than_an_instance_can_have_let_pass(
    limits: Limits, clock: Clock, count: int
) -> None:
    heard = settling(limits)
    heard.receive(telling(limits, ("reads", count), ("off", 1)))
    assert 1_100 <= refused(limits, "reads") <= 1_101  # ten, which are a second's, back to nothing, and one more
    clock.now += 1.101
    limits.take("reads", "amina")


async def test_a_count_below_nothing_gives_nothing_back(limits: Limits) -> None:
    heard = settling(limits)
    limits.take("writes", "amina")
    heard.receive(telling(limits, ("writes", -5)))
    refused(limits, "writes")


async def test_what_is_owed_is_paid_within_an_hour(limits: Limits, clock: Clock) -> None:
    heard = settling(limits)
    for _ in range(10_000):
        heard.receive(telling(limits, ("reads", 1_000), ("writes", 1_000)))
    for name, more in (("reads", 0.1), ("writes", 2)):
        assert refused(limits, name) == pytest.approx((module.DEBT_S + more) * 1_000, abs=1.01)
    clock.now += module.DEBT_S + 2.001
    limits.take("reads", "amina")
    limits.take("writes", "amina")


@pytest.mark.parametrize("instances", [2, 6, 8, 20, 64])
async def test_who_tries_on_all_instances_has_one_rate_and_a_burst_of_each(clock: Clock, instances: int) -> None:
    per_minute, burst, hours, step_s = 5, 5, 3, 10.0
    crowd = [Limits({"login_account": Rate(per_minute / 60, burst)}, SECRET) for _ in range(instances)]
    buses = []
    for one in crowd:
        one._clock = clock
        buses.append(settling(one))
    tries = 0
    for _ in range(int(hours * 3_600 / step_s)):
        clock.now += step_s
        for one in crowd:
            with suppress(RateLimited):
                while True:
                    one.take("login_account", "amina")
                    tries += 1
            one._tell()
        for teller in buses:
            for event in teller.published:
                for bus in buses:
                    if bus is not teller:
                        bus.receive(event)
            teller.published.clear()
    assert tries <= per_minute * 60 * hours + instances * (burst + 1)
    assert tries >= per_minute * 60 * hours * 0.9


async def test_what_stands_for_an_address_is_the_deployments_own_and_no_bare_digest(limits: Limits) -> None:
    other = Limits({"reads": None}, b"another's")
    same = Limits({"reads": None}, SECRET)
    address = "192.0.2.7"
    stands = limits._unnamed(address)
    assert stands == same._unnamed(address)
    bare = {hashlib.new(name, repr(address).encode()).digest()[:16] for name in ("sha256", "md5", "blake2b")}
    bare.add(hashlib.blake2b(repr(address).encode(), digest_size=16).digest())
    assert stands.bytes not in bare
    assert stands != other._unnamed(address)


async def test_what_is_taken_is_told_together_in_pages_and_refusals_are_not(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 0.0)
    monkeypatch.setattr(module, "TOLD", 2)
    heard = settling(limits)
    for _ in range(8):
        with suppress(RateLimited):
            limits.take("reads", "amina")
    for name in ("bilal", "carim"):
        limits.take("writes", name)
    limits.take("off", "amina")
    async with asyncio.timeout(5):
        while len(heard.published) < 2:
            await asyncio.sleep(0)
    told = [tuple(row) for event in heard.published for row in msgspec.json.decode(event.payload)]
    expected = [("reads", "amina", 5), ("writes", "bilal", 1), ("writes", "carim", 1)]
    assert told == [(name, str(limits._unnamed(key)), count) for name, key, count in expected]


# whole


async def test_a_client_that_is_too_quick_hears_when_to_try_again(new_instance: Callable[..., Any]) -> None:
    parley: Instance = await new_instance(PARLEY_RATE_READS="0.01/3", PARLEY_RATE_WRITES="0.01/1")
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    phone = await amina.connect()
    for _ in range(3):
        await phone.call("account:me")
    answer = await phone.answer("account:me")
    assert (answer["error"]["code"], answer["error"].keys()) == (
        "rate_limited",
        {"code", "message", "retry_after_ms"},
    )
    assert 90_000 < answer["error"]["retry_after_ms"] <= 100_001
    # the same bucket over HTTP, by another command; another's and another bucket are full
    async with parley.http.post(
        f"{parley.url}/api/conversation/list", json={}, headers={"Authorization": f"Bearer {amina.token}"}
    ) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (429, "rate_limited")
        assert int(response.headers["Retry-After"]) == -(-error["retry_after_ms"] // 1_000)
    await bilal.post("account:me")
    chat = await parley.chat(amina, bilal)
    assert (await phone.answer("conversation:create", kind="x"))["error"]["code"] == "rate_limited"
    await phone.send(chat, "one may still talk")


async def test_a_refused_send_is_not_done_and_the_next_one_is(new_instance: Callable[..., Any]) -> None:
    parley: Instance = await new_instance(PARLEY_RATE_MESSAGE_SEND="20/2")
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    chat = await parley.chat(amina, bilal)
    phone = await amina.connect()
    sent = []
    while len(sent) < 5:
        text = str(len(sent))
        answer = await phone.answer("message:send", conversation_id=chat, client_id=text, text=text)
        if answer["ok"]:
            sent.append(answer["data"]["seq"])
        else:
            assert answer["error"]["code"] == "rate_limited"
            assert 1 <= answer["error"]["retry_after_ms"] <= 51
    assert sent == [1, 2, 3, 4, 5]
    await phone.hearing("message:created", text="4")
    assert phone.texts(chat) == list("01234")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1:4711", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:4711", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("[::ffff:10.0.0.1]:4711", "10.0.0.1"),
        ("unknown", "unknown"),
        ("unknown:4711", "unknown"),
        ("", ""),
    ],
)
def test_an_address_counts_as_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


async def test_neither_a_port_nor_the_rest_of_an_ipv6_address_is_another_bucket(
    new_instance: Callable[..., Any],
) -> None:
    rates = {"PARLEY_RATE_LOGIN": "0.001/1", "PARLEY_RATE_LOGIN_ACCOUNT": "off"}
    parley: Instance = await new_instance(PARLEY_TRUSTED_PROXY="1", **rates)
    statuses = []
    for forwarded in ("10.0.0.9:1", "10.0.0.9:2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"):
        async with parley.http.post(
            f"{parley.url}/api/account/login",
            json={"login": "nobody", "password": "x"},
            headers={"X-Forwarded-For": forwarded},
        ) as response:
            statuses.append(response.status)
    assert statuses == [401, 429, 401, 429, 401]


@pytest.mark.parametrize(("trusted", "expected"), [("1", [401, 429, 401]), ("0", [401, 429, 429])])
async def test_an_address_is_the_proxys_word_where_that_is_trusted(
    new_instance: Callable[..., Any], trusted: str, expected: list[int]
) -> None:
    parley: Instance = await new_instance(
        PARLEY_TRUSTED_PROXY=trusted, PARLEY_RATE_LOGIN="0.01/1", PARLEY_RATE_LOGIN_ACCOUNT="off"
    )
    statuses = []
    for n, forwarded in enumerate(("10.0.0.1", "6.6.6.6, 10.0.0.1", "10.0.0.1, 10.0.0.2")):
        async with parley.http.post(
            f"{parley.url}/api/account/login",
            json={"login": f"nobody{n}", "password": "x"},
            headers={"X-Forwarded-For": forwarded},
        ) as response:
            statuses.append(response.status)
    assert statuses == expected
