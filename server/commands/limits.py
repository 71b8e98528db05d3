"""Rates: token buckets, decided on this instance at once, without a question to anybody.

Instances settle behind that: each tells the others by the bus what was taken here, and they take as much from their own
buckets, below nothing if need be. So a flood that is spread over several has one rate in all of them, and at most one
more burst on each, which it owes. While the bus is away every instance counts for itself.

What is owed is paid within `DEBT_S`, or as long as a burst takes where that is longer: nobody is shut out for longer by
what others have tried in their name. So the rate is one over as many instances as tokens flow in within `DEBT_S`, or
over one more than a burst: for five logins a minute, 300. One message takes no more than an instance may have given.
"""

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from uuid import UUID

import msgspec

from server.config import Rate
from server.errors import RateLimited
from server.rooms.bus import Bus
from server.rooms.delivery import Delivery
from server.rooms.log import Event, ephemeral
from server.rooms.names import Room

BUCKETS = 100_000  # remembered; the one untouched the longest goes first, and a full one is no loss
SETTLE_S = 0.25  # from the first call that is counted until the others are told
TOLD = 1_000  # buckets of one event: some 60 kB
TOLD_S = 1.0  # in which what one message counts was taken, by a loop that is held up too
DEBT_S = 3_600.0
TAKEN, EVERYWHERE = "limits:taken", Room("limits", UUID(int=0))

HOME_BITS = 64  # of an IPv6 address, the network of one customer (RFC 6177): the rest of it they choose as they like

Bucket = tuple[str, UUID]

_decoder = msgspec.json.Decoder(list[tuple[str, UUID, int]])


@lru_cache(10_000)  # asked at every handshake, and again at its end
def network_of(address: str) -> str:
    """What an address counts as: without its port, an IPv6 address as its network; what is no address, as it is."""
    text = address
    if address.startswith("["):
        text = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        text = address.partition(":")[0]
    try:
        ip = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or IPv6Network((ip, HOME_BITS), strict=False))
    return str(ip)


class Limits:
    """Buckets of calls by name and key (a user, an address, an account).

    `rates` maps a bucket's name to its rate, None where it is off. `secret` (64 bytes at most) is what keys that are no
    ids are told under: who reads the bus could try all addresses against a digest that takes none.
    """

    def __init__(self, rates: Mapping[str, Rate | None], secret: bytes) -> None:
        self._rates = dict(rates)
        self._secret = secret
        self._buckets: OrderedDict[Bucket, tuple[float, float]] = OrderedDict()
        self._clock = asyncio.get_running_loop().time
        self._bus: Bus | None = None
        self._taken: Counter[Bucket] = Counter()

    def settle(self, delivery: Delivery, bus: Bus) -> None:
        """Count from now on what is taken on other instances too, and have them count what is taken here."""
        self._bus = bus
        bus.subscribe(EVERYWHERE)
        delivery.on_heard(TAKEN, self._heard)

    def take(self, name: str, key: object) -> None:
        """Take one token. Raises `RateLimited` with the time until there is one; then nothing is taken."""
        rate = self._rates[name]
        if rate is None:
            return
        bucket = (name, key if isinstance(key, UUID) else self._unnamed(key))
        tokens, now = self._left(bucket, rate)
        if tokens < 1:
            raise RateLimited(int((1 - tokens) / rate.per_second * 1000) + 1)
        self._keep(bucket, tokens - 1, now)
        if self._bus is not None:
            if not self._taken:
                asyncio.get_running_loop().call_later(SETTLE_S, self._tell)
            self._taken[bucket] += 1

    def _left(self, bucket: Bucket, rate: Rate) -> tuple[float, float]:
        """What a bucket holds, and when that is: now."""
        now = self._clock()
        tokens, at = self._buckets.get(bucket, (float(rate.burst), now))
        return min(float(rate.burst), tokens + (now - at) * rate.per_second), now

    def _keep(self, bucket: Bucket, tokens: float, now: float) -> None:
        self._buckets[bucket] = (tokens, now)
        self._buckets.move_to_end(bucket)
        if len(self._buckets) > BUCKETS:
            self._buckets.popitem(last=False)

    def _tell(self) -> None:
        """Tell the other instances what was taken since they were last told."""
        assert self._bus is not None
        taken = [(name, key, count) for (name, key), count in self._taken.items()]
        self._taken.clear()
        for start in range(0, len(taken), TOLD):
            page = msgspec.json.encode(taken[start : start + TOLD]).decode()
            self._bus.publish(ephemeral(EVERYWHERE, TAKEN, page))

    def _heard(self, event: Event) -> None:
        """Take what others have taken, as far as one of them can have, and down to the deepest debt."""
        for name, key, count in _decoder.decode(event.payload):
            rate = self._rates.get(name)
            if rate is not None:
                tokens, now = self._left((name, key), rate)
                taken = min(count, rate.burst + rate.per_second * TOLD_S)
                self._keep((name, key), max(tokens - max(taken, 0), -_deepest(rate)), now)

    def _unnamed(self, key: object) -> UUID:
        """What stands for a key that is no id: neither an address nor what somebody has typed travels on the bus."""
        return UUID(bytes=hashlib.blake2b(repr(key).encode(), key=self._secret, digest_size=16).digest())


def _deepest(rate: Rate) -> float:
    """How many tokens may be owed."""
    return max(float(rate.burst), rate.per_second * DEBT_S)
