"""Which server of Redis carries a channel: the one that is named, or in a cluster whoever has the channel's slot now.

In a cluster a plain PUBLISH goes to every node; SPUBLISH (Redis 7, Valkey) goes to the node that owns the slot of the
channel and its replicas alone. redis-py's client of a cluster mends such subscriptions out of sight, where the bus's
state has to show that it is deaf. So this only finds the node, to which a plain client is opened; whenever something
fails there, the next look finds out who has the slot since.
"""

import contextlib
from collections import deque
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import ResponseError

TIMEOUT_S = 1.0  # for finding a server and being connected to it, and for each word to it

Place = tuple[str, int]
"""A host, and a port."""


class Node(NamedTuple):
    """A client of the server that carries the channel, and whether that is one of a cluster."""

    client: Redis
    is_sharded: bool


class Nodes:
    """Finds the server of a channel. In a cluster it remembers all nodes: the one that is named may be away."""

    def __init__(self, url: str, channel: str) -> None:
        self._url = url
        self._slot = key_slot(channel.encode())
        self._known: deque[Place | None] = deque([None])  # None: as the URL names it

    async def connect(self) -> Node:
        """Connect to the channel's server; the caller bounds the time. Raises `RedisError` and OSError."""
        asked = self._known[0]
        client = self._client(asked)
        try:
            if not await _is_of_cluster(client):
                return Node(client, is_sharded=False)
            owner = self._learn(await _ask(client, "CLUSTER", "SLOTS"), asked)
        except BaseException:
            self._known.rotate(-1)  # another may know more
            await _close(client)
            raise
        await _close(client)
        return Node(self._client(owner), is_sharded=True)

    def _client(self, place: Place | None) -> Redis:
        # No retries within the client: a failure has to show in the bus's state, and its loop comes back.
        client = Redis.from_url(
            self._url, socket_connect_timeout=TIMEOUT_S, socket_timeout=None, retry=Retry(NoBackoff(), 0)
        )
        if place is not None:
            client.connection_pool.connection_kwargs.update(host=place[0], port=place[1])
        return client

    def _learn(self, slots: list[Any], asked: Place | None) -> Place | None:
        """Remember the nodes, whoever was asked first; the place of the slot's owner."""
        places = [(first, last, [self._place(one, asked) for one in nodes]) for first, last, *nodes in slots]
        self._known = deque(dict.fromkeys([asked, None, *(place for _, _, nodes in places for place in nodes)]))
        for first, last, nodes in places:
            if first <= self._slot <= last:
                return nodes[0]
        raise Lost(f"nobody in the cluster has slot {self._slot}")

    def _place(self, node: list[Any], asked: Place | None) -> Place | None:
        """Where a node answers; a name that is missing is that of the node which was asked (cluster-endpoints)."""
        host, port = node[0], int(node[1])
        if host:
            return host.decode() if isinstance(host, bytes) else host, port
        if asked is not None:
            return asked[0], port
        named = self._client(None).connection_pool.connection_kwargs
        return named.get("host", "localhost"), port


async def _is_of_cluster(client: Redis) -> bool:
    """Asked by HELLO, which every user may say: a right to read INFO need not be given."""
    try:
        said = await _ask(client, "HELLO")
    except ResponseError:  # older than Redis 6.2, or no Redis; either way none that shards channels
        return False
    fields = said if isinstance(said, dict) else dict(zip(said[::2], said[1::2], strict=True))
    return b"cluster" in (fields.get(b"mode"), str(fields.get("mode")).encode())


async def _ask(client: Redis, *words: str) -> Any:
    return await client.execute_command(*words)  # type: ignore[no-untyped-call]


async def _close(client: Redis) -> None:
    with contextlib.suppress(Exception):
        await client.aclose()
