"""Which server of Redis carries a channel: the one that is named, or in a cluster whoever has the channel's slot now.

In a cluster a plain PUBLISH goes to every node; SPUBLISH (Redis 7, Valkey) goes to the node that owns the slot of the
channel and its replicas alone. redis-py's client of a cluster mends such subscriptions out of sight, where the bus's
state has to show that it is deaf. So this only finds the node, and opens plain connections to it; whenever something
fails there, the next look finds out who has the slot since.
"""

import contextlib
import math
from collections import deque
from typing import Any, NamedTuple

from redis.asyncio.connection import AbstractConnection, ConnectionPool, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import ResponseError
from redis.maint_notifications import MaintNotificationsConfig

TIMEOUT_S = 1.0  # for finding a server and being connected to it, and for each word to it

Place = tuple[str, int]
"""A host, and a port."""


class Node(NamedTuple):
    """The server that carries the channel, and whether that is one of a cluster.

    Its connections are used without redis-py's client, whose bookkeeping of a command costs 70 us of CPU, where the
    command itself takes 35.
    """

    pool: ConnectionPool
    is_sharded: bool

    async def line(self) -> AbstractConnection:
        """A connection of one's own, until all are closed."""
        line: AbstractConnection = await self.pool.get_connection()  # type: ignore[no-untyped-call]
        return line

    async def close(self) -> None:
        """Close every connection."""
        with contextlib.suppress(Exception):
            await self.pool.aclose()


async def ask(line: AbstractConnection, *words: str | bytes) -> Any:
    """The answer to a command, whose first word is the command alone. Raises `RedisError` and OSError."""
    await line.send_command(*words, check_health=False)
    return await line.read_response()


async def subscribe(line: AbstractConnection, command: str, *channels: str) -> None:
    """Subscribe to channels, and wait until that is so. Raises `RedisError` and OSError."""
    await line.send_command(command, *channels, check_health=False)
    for _ in channels:
        kind, _ = await hear(line)
        if kind != command.lower().encode():
            raise Lost(f"{kind.decode()} in answer to {command}")


async def hear(line: AbstractConnection) -> tuple[bytes, Any]:
    """What comes next to a line that is subscribed: of what kind it is, and what it holds. Waits without end."""
    said = await line.read_response(timeout=math.inf)
    return said[0], said[-1]


class Nodes:
    """Finds the server of a channel. In a cluster it remembers all nodes: the one that is named may be away."""

    def __init__(self, url: str, channel: str) -> None:
        self._url = url
        self._slot = key_slot(channel.encode())
        self._known: deque[Place | None] = deque([None])  # None: as the URL names it

    async def connect(self) -> Node:
        """Connect to the channel's server; the caller bounds the time. Raises `RedisError` and OSError."""
        asked = self._known[0]
        node = Node(self._pool(asked), is_sharded=False)
        try:
            line = await node.line()
            if not await _is_of_cluster(line):
                await node.pool.release(line)
                return node
            owner = self._learn(await ask(line, "CLUSTER", "SLOTS"), asked)
        except BaseException:
            self._known.rotate(-1)  # another may know more
            await node.close()
            raise
        await node.close()
        return Node(self._pool(owner), is_sharded=True)

    def _pool(self, place: Place | None) -> ConnectionPool:
        # No retries within: a failure has to show in the bus's state, and its loop comes back. RESP2, where what is
        # heard is a plain array: of what RESP3 pushes redis-py makes a line for its log, or nothing at all.
        pool = ConnectionPool.from_url(
            self._url,
            socket_connect_timeout=TIMEOUT_S,
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        pool.connection_kwargs["protocol"] = 2  # whatever the URL says
        if place is not None:
            if issubclass(pool.connection_class, UnixDomainSocketConnection):
                raise Lost("REDIS_URL names a unix socket of a cluster, whose nodes are asked by host and port")
            pool.connection_kwargs.update(host=place[0], port=place[1])
        return pool

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
        named = self._pool(None).connection_kwargs
        return named.get("host", "localhost"), port


async def _is_of_cluster(line: AbstractConnection) -> bool:
    """Asked by HELLO, which every user may say: a right to read INFO need not be given."""
    try:
        said = await ask(line, "HELLO")
    except ResponseError:  # older than Redis 6.2, or no Redis; either way none that shards channels
        return False
    return dict(zip(said[::2], said[1::2], strict=True)).get(b"mode") == b"cluster"
