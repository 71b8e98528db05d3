"""Rates: token buckets, decided on this instance at once, without a question to anybody."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address

from server.config import Rate
from server.errors import RateLimited

BUCKETS = 100_000  # remembered; the one untouched the longest goes first, and a full one is no loss

HOME_BITS = 64  # of an IPv6 address, the network of one customer (RFC 6177): the rest of it they choose as they like


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

    `rates` maps a bucket's name to its rate, None where it is off.
    """

    def __init__(self, rates: Mapping[str, Rate | None]) -> None:
        self._rates = dict(rates)
        self._buckets: OrderedDict[tuple[str, object], tuple[float, float]] = OrderedDict()
        self._clock = asyncio.get_running_loop().time

    def take(self, name: str, key: object) -> None:
        """Take one token. Raises `RateLimited` with the time until there is one; then nothing is taken."""
        rate = self._rates[name]
        if rate is None:
            return
        now = self._clock()
        bucket = (name, key)
        tokens, at = self._buckets.get(bucket, (float(rate.burst), now))
        tokens = min(float(rate.burst), tokens + (now - at) * rate.per_second)
        if tokens < 1:
            raise RateLimited(int((1 - tokens) / rate.per_second * 1000) + 1)
        self._buckets[bucket] = (tokens - 1, now)
        self._buckets.move_to_end(bucket)
        if len(self._buckets) > BUCKETS:
            self._buckets.popitem(last=False)
