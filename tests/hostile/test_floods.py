"""Floods: what a limit says of a person holds whatever number of sockets and instances they come by."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
import structlog

from handlers import effects
from server.commands import gateway, limits
from server.rooms.bus import LocalBus, LocalHub
from tests.buses import LossyBus
from tests.frames import wired
from tests.market import eur, listed
from tests.people import PATIENCE_S, ConnectRefused, Device, Instance, Person

NewInstance = Callable[..., Awaitable[Instance]]
BURST = 6
Call = tuple[str, dict[str, Any]]


async def of_reads(person: Person, other: Person, instance: Instance) -> list[Call]:
    return [("account:me", {}), ("conversation:list", {}), ("presence:set", {"state": "away"})]


async def of_writes(person: Person, other: Person, instance: Instance) -> list[Call]:
    return [("user:block", {"user_id": str(uuid4())}), ("account:update", {"full_name": "Many Names"})]


async def of_messages(person: Person, other: Person, instance: Instance) -> list[Call]:
    chat = await instance.chat(other, person)
    return [("message:send", {"conversation_id": chat, "text": "flood"})]


async def of_offers(person: Person, other: Person, instance: Instance) -> list[Call]:
    listing = await listed(other)
    return [("offer:make", {"listing_id": listing["listing_id"], "listing_version": 99, "price": eur(1)})]


BUCKETS = {"READS": of_reads, "WRITES": of_writes, "MESSAGE_SEND": of_messages, "OFFER_MOVES": of_offers}


async def new_pair(new_instance: NewInstance, bucket: str, bus: type[LocalBus] = LocalBus) -> list[Instance]:
    hub = LocalHub()
    return [await new_instance(bus=bus(hub), **{f"PARLEY_RATE_{bucket}": f"0.0001/{BURST}"}) for _ in range(2)]


async def was_limited(ask: Awaitable[dict[str, Any]]) -> bool:
    answer = await ask
    return not answer["ok"] and answer["error"]["code"] == "rate_limited"


def keyed(call: Call) -> Call:
    command, payload = call
    return command, payload | ({"client_id": uuid4().hex} if command in ("message:send", "offer:make") else {})


@pytest.mark.parametrize("bucket", BUCKETS)
async def test_a_persons_calls_are_counted_over_sockets_http_and_instances(
    new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    monkeypatch.setattr(limits, "SETTLE_S", 0)
    two = await new_pair(new_instance, bucket)
    person, other = await two[0].person("flooder"), await two[1].person("other")
    calls = await BUCKETS[bucket](person, other, two[1])
    phones = [await person.connect(to=instance) for instance in two for _ in range(2)]
    told = []
    for n in range(3 * BURST):
        command, payload = keyed(calls[n % len(calls)])
        over_http = n % 3 == 2 and not command.startswith("presence")
        if over_http:
            told.append(await was_limited(_over_http(two[n % 2], person, command, payload)))
        else:
            told.append(await was_limited(phones[n % len(phones)].answer(command, **payload)))
    assert told == [False] * BURST + [True] * (2 * BURST)
    command, payload = ("account:me", {}) if bucket != "READS" else ("user:block", {"user_id": person.user_id})
    assert not await was_limited(phones[0].answer(command, **payload))  # another bucket is another


async def _over_http(instance: Instance, person: Person, command: str, payload: dict[str, Any]) -> dict[str, Any]:
    _, answer = await instance.post(command, payload, token=person.token)
    return answer


async def test_a_flood_at_once_gets_a_burst_of_each_instance_and_owes_it(new_instance: NewInstance) -> None:
    two = await new_pair(new_instance, "READS")
    person = await two[0].person("flooder")
    phones = [await person.connect(to=instance) for instance in two for _ in range(3)]
    told = await asyncio.gather(*(was_limited(phone.answer("account:me")) for phone in phones for _ in range(BURST)))
    assert told.count(False) <= 2 * BURST
    async with asyncio.timeout(PATIENCE_S):  # until they have settled
        while not all(_left(instance, person) == pytest.approx(-BURST, abs=0.1) for instance in two):
            await asyncio.sleep(0.01)
    answer = await phones[0].answer("account:me")
    assert answer["error"]["retry_after_ms"] > BURST / 0.0001 * 1_000  # what was had too much is paid for


def _left(instance: Instance, person: Person) -> float:
    """How many reads a person has left there."""
    counted = instance.parley.services.limits
    [key] = [key for key in counted._buckets if key[0] == "reads" and str(key[1]) == person.user_id]
    return counted._buckets[key][0]


async def test_without_settling_each_instance_would_give_a_burst_of_its_own(
    new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of it where the bus is away: as many bursts as instances, and no more."""
    monkeypatch.setattr(limits, "SETTLE_S", 0)
    monkeypatch.setattr(LossyBus, "is_deaf", True)
    two = await new_pair(new_instance, "READS", LossyBus)
    person = await two[0].person("flooder")
    told = [
        await was_limited(_over_http(instance, person, "account:me", {})) for _ in range(2 * BURST) for instance in two
    ]
    assert told.count(False) == 2 * BURST


# sockets


async def _connects(person: Person, instance: Instance, times: int) -> Counter[str]:
    codes: Counter[str] = Counter()
    for _ in range(times):
        try:
            await person.connect(to=instance)
            codes["ok"] += 1
        except ConnectRefused as refused:
            data = refused.said["data"]
            codes[data["code"]] += 1
            assert data["code"] != "rate_limited" or data["retry_after_ms"] > 0
    return codes


async def test_connects_are_counted_over_instances(new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SETTLE_S", 0)
    two = await new_pair(new_instance, "CONNECTS")
    person, other = await two[0].person("flooder"), await two[0].person("other")
    assert await _connects(person, two[0], 4) == {"ok": 4}
    assert await _connects(person, two[1], 4) == {"ok": 2, "rate_limited": 2}
    assert await _connects(person, two[0], 1) == {"rate_limited": 1}
    assert await _connects(other, two[1], 1) == {"ok": 1}


async def test_a_person_has_so_many_sockets_and_an_address_so_many_sessions(new_instance: NewInstance) -> None:
    parley = await new_instance(PARLEY_SOCKETS_PER_USER="3", PARLEY_SOCKETS_PER_ADDRESS="6")
    person, other = await parley.person("flooder"), await parley.person("other")
    assert await _connects(person, parley, 5) == {"ok": 3, "too_large": 2}
    assert await _connects(other, parley, 2) == {"ok": 2}
    async with parley.http.get(f"{parley.url}/socket.io/?EIO=4&transport=polling") as response:
        assert response.status == 200
    with pytest.raises(ConnectRefused):
        await other.connect()
    await person.devices[0].leave()
    async with asyncio.timeout(PATIENCE_S):
        while parley.parley.wire.sessions > 5:
            await asyncio.sleep(0.005)
    assert await _connects(person, parley, 1) == {"ok": 1}


async def test_handshakes_come_at_a_rate(new_instance: NewInstance) -> None:
    parley = await new_instance(PARLEY_RATE_HANDSHAKES="0.001/5")
    url = f"{parley.url}/socket.io/?EIO=4&transport=polling"

    async def shake() -> int:
        async with parley.http.get(url) as response:
            assert response.status == 200 or response.headers["Retry-After"]
            return response.status

    assert Counter(await asyncio.gather(*(shake() for _ in range(30)))) == {200: 5, 503: 25}
    async with parley.http.get(f"{parley.url}/healthz") as response:
        assert response.status == 200


# what others hear of a flood


async def test_a_flood_of_typing_and_presence_is_a_trickle_to_others(new_instance: NewInstance) -> None:
    parley = await new_instance(PARLEY_RATE_READS="off")
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    chat = await parley.chat(amina, bilal)
    phone, other = await amina.connect(), await bilal.connect()
    await other.call("presence:watch", user_ids=[amina.user_id])
    began = time.monotonic()
    for n in range(150):
        state = "stopped" if n % 2 else "typing"
        await phone.client.emit("typing:set", {"conversation_id": chat, "state": state})
        await phone.client.emit("presence:set", {"state": "away" if n % 2 else "online"})
    await phone.send(chat, "done")
    await other.hearing("message:created", text="done")
    lists = 2 + (time.monotonic() - began) / effects.TYPING_S
    heard = Counter(push.name for push in other.heard)
    assert heard["presence:changed"] <= 2  # one in ten seconds, and what had been when it began
    assert 1 <= heard["typing:changed"] <= lists, heard
    await other.until(lambda heard: [p for p in heard if p.name == "typing:changed"][-1].payload["typing"] == [])


async def test_errors_that_nobody_waits_for_do_not_fill_the_log(parley: Instance) -> None:
    amina = await parley.person("amina")
    with structlog.testing.capture_logs() as logged:
        async with wired(parley, amina.token) as wire:
            for n in range(2_000):
                await wire._ws.send_str("42" + json.dumps([f"no:command{n}", {}]))
            await wire.ask("account:me", {})
    lines = [line for line in logged if line["event"] == "unheard_error"]
    assert 1 <= len(lines) <= 2 + PATIENCE_S / gateway.UNHEARD_S
    assert lines[0]["command"] == "no:command0"


async def test_a_flood_in_a_room_is_the_flooders_alone(new_instance: NewInstance) -> None:
    parley = await new_instance(PARLEY_RATE_MESSAGE_SEND=f"0.001/{BURST}")
    flooder, bilal = await parley.person("flooder"), await parley.person("bilal")
    chat = await parley.chat(flooder, bilal)
    phone, other = await flooder.connect(), await bilal.connect()

    async def flood(device: Device) -> None:
        sends = (
            device.answer("message:send", conversation_id=chat, client_id=uuid4().hex, text="flood") for _ in range(50)
        )
        told = await asyncio.gather(*(was_limited(send) for send in sends))
        assert told.count(False) == BURST

    await asyncio.gather(flood(phone), other.send(chat, "heard all the same"))
    assert sorted(other.texts(chat))[:BURST] == ["flood"] * BURST
