"""The bus on a cluster of Valkey: on whichever node has its channel's slot, also when that is another one suddenly."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError

from server.embedded_files import Account
from server.rooms import redisnode
from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.redisbus import RedisBus
from server.rooms.sealing import Seal
from storage import Time
from tests.faults.processes import free_port
from tests.servers import valkey_binary

USERS = Path(__file__).parents[2] / "deploy" / "redis-users.acl"
MASTERS = 3
SLOTS = 16_384
KEY = b"a deployment's key"
CHANNEL = Seal(KEY).channel
SLOT = key_slot(CHANNEL.encode())
ROOM = Room("conversation", UUID(int=1))
PATIENCE_S = 20.0


async def until(seen: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait until `seen` answers something true."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await seen():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(what)


class ClusterNode:
    """One server of the cluster, until it is killed."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": folder,
            "save": "",
            "cluster-enabled": "yes",
            "cluster-port": free_port(),
            "cluster-config-file": f"nodes-{self.port}.conf",
            "cluster-node-timeout": 500,
            "repl-diskless-sync-delay": 0,
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(valkey_binary()), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **Account("tests").identity(signal.SIGKILL),
            )
        self.options = options

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._process.wait()

    async def ask(self, *words: object) -> Any:
        """Its answer to a command."""
        return await self.client.execute_command(*words)  # type: ignore[no-untyped-call]

    async def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return bool(await self.client.ping())
        except RedisError:
            return False

    async def known(self) -> int:
        """How many nodes it knows to be there."""
        lines = (await self.ask("CLUSTER", "NODES")).decode().splitlines()
        return len([line for line in lines if " connected" in line and "handshake" not in line and "fail" not in line])

    async def is_whole(self) -> bool:
        """Whether it knows of an owner for every slot."""
        return b"cluster_state:ok" in await self.ask("CLUSTER", "INFO")

    async def is_in_sync(self) -> bool:
        """Whether it has all of its master's, without which it would not stand in for it."""
        return bool((await self.client.info("replication")).get("master_link_status") == "up")


class Cluster:
    """Three masters, of which one has the channel's slot, and a replica of that one."""

    def __init__(self, nodes: list[ClusterNode]) -> None:
        self.nodes = nodes
        self.owner = nodes[SLOT * MASTERS // SLOTS]
        self.others = [node for node in nodes[:MASTERS] if node is not self.owner]
        self.replica = nodes[MASTERS]

    async def form(self) -> None:
        """Share the slots, and let all meet."""
        for n, node in enumerate(self.nodes):
            await until(node.is_up, "a node answers")
            await node.ask("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for n, node in enumerate(self.nodes[:MASTERS]):
            first, last = -(-n * SLOTS // MASTERS), -(-(n + 1) * SLOTS // MASTERS) - 1
            await node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in self.nodes[1:]:
            first_node = self.nodes[0].options
            await node.ask("CLUSTER", "MEET", "127.0.0.1", first_node["port"], first_node["cluster-port"])
        for node in self.nodes:
            await until(lambda: self._is_met(node), "all have met")  # noqa: B023 (awaited at once)
        await self.replica.ask("CLUSTER", "REPLICATE", await self.owner.ask("CLUSTER", "MYID"))
        for node in self.nodes:
            await until(node.is_whole, "the cluster is whole")
        await until(self.replica.is_in_sync, "the replica is one")

    async def _is_met(self, node: ClusterNode) -> bool:
        return await node.known() == len(self.nodes)

    async def move_slot(self, to: ClusterNode) -> None:
        """Give the channel's slot to another node, as a reshard does."""
        new, old = await to.ask("CLUSTER", "MYID"), await self.owner.ask("CLUSTER", "MYID")
        await to.ask("CLUSTER", "SETSLOT", SLOT, "IMPORTING", old)
        await self.owner.ask("CLUSTER", "SETSLOT", SLOT, "MIGRATING", new)
        for node in (to, self.owner):
            await node.ask("CLUSTER", "SETSLOT", SLOT, "NODE", new)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    nodes = [ClusterNode(tmp_path) for _ in range(MASTERS + 1)]
    try:
        async with AsyncExitStack() as stack:
            for node in nodes:
                node.client = await stack.enter_async_context(Redis.from_url(node.url))
            cluster = Cluster(nodes)
            await cluster.form()
            yield cluster
    finally:
        for node in nodes:
            node.kill()


class Pair:
    """Two instances whose bus is the cluster; the one hears what the other says in the room."""

    def __init__(self, here: RedisBus, there: RedisBus) -> None:
        self.here, self.there = here, there
        self.heard: list[int] = []
        self._said = 0

    async def meet(self) -> None:
        """Say something until it is heard."""
        began = self._said

        async def is_heard() -> bool:
            self._said += 1
            self.here.publish(Event(ROOM, self._said, Time("2026-11-20T17:00:00.000Z"), "message:created", "{}"))
            return any(seq > began for seq in self.heard)

        await until(is_heard, "nothing is heard")

    async def is_ok(self) -> bool:
        return self.here.state == self.there.state == "ok"

    async def is_degraded(self) -> bool:
        return "degraded" in (self.here.state, self.there.state)


NewPair = Callable[[str, str], Awaitable[Pair]]


@pytest.fixture
async def new_pair() -> AsyncIterator[NewPair]:
    """`await new_pair(url, url)`: two instances that are told of these servers, and have met."""
    buses: list[RedisBus] = []

    async def start(one: str, other: str) -> Pair:
        buses.extend([RedisBus(one, KEY), RedisBus(other, KEY)])
        pair = Pair(*buses)
        await pair.here.start(lambda _: None)
        await pair.there.start(lambda event: pair.heard.append(event.seq))
        pair.there.subscribe(ROOM)
        await pair.meet()
        return pair

    yield start
    for bus in buses:
        await bus.stop()


async def test_frames_travel_by_the_node_of_their_slot_alone(cluster: Cluster, new_pair: NewPair) -> None:
    pair = await new_pair(*(node.url for node in cluster.others))
    for seq in range(10_000, 10_100):
        pair.here.publish(Event(ROOM, seq, Time("2026-11-20T17:00:00.000Z"), "message:created", "{}"))
    await until(lambda: asyncio.sleep(0, pair.heard[-1:] == [10_099]), "the last event")
    assert pair.heard[-100:] == list(range(10_000, 10_100))
    assert await cluster.owner.ask("PUBSUB", "SHARDNUMSUB", CHANNEL) == [CHANNEL.encode(), 2]
    for node in cluster.nodes:
        assert await node.ask("PUBSUB", "CHANNELS") == []
        if node is not cluster.owner:
            assert await node.ask("PUBSUB", "SHARDCHANNELS") == []


async def test_the_user_of_the_compose_file_may_do_all_that_it_takes_and_is_refused_nothing(
    cluster: Cluster, new_pair: NewPair
) -> None:
    (user,) = re.findall(r"^user (parley on .*)$", USERS.read_text(), re.MULTILINE)
    for node in cluster.nodes:
        await node.ask("ACL", "SETUSER", *user.split())
    await new_pair(*(node.url.replace("//", "//parley:REDIS_PASSWORD@") for node in cluster.others))
    for node in cluster.nodes:
        assert await node.ask("ACL", "LOG") == []


async def test_nodes_that_do_not_say_their_names_are_found_where_the_one_is_that_was_asked(
    cluster: Cluster, new_pair: NewPair
) -> None:
    for node in cluster.nodes:
        await node.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint")
    pair = await new_pair(*(f"{node.url}?protocol={n + 2}" for n, node in enumerate(cluster.others)))  # neither
    await cluster.move_slot(cluster.others[0])
    await until(pair.is_degraded, "degraded")
    await until(pair.is_ok, "ok again")
    await pair.meet()


async def test_a_server_too_old_to_say_what_it_is_is_none_of_a_cluster() -> None:
    class Old:
        async def send_command(self, *words: str, check_health: bool) -> None:
            self.asked = words

        async def read_response(self) -> None:
            raise ResponseError(f"unknown command '{self.asked[0]}'")

    assert not await redisnode._is_of_cluster(Old())  # type: ignore[arg-type]


async def test_a_slot_that_moves_is_followed(cluster: Cluster, new_pair: NewPair) -> None:
    pair = await new_pair(cluster.owner.url, cluster.others[0].url)
    for to in cluster.others:
        await cluster.move_slot(to)
        await until(pair.is_degraded, "degraded")
        await until(pair.is_ok, "ok again")
        await pair.meet()
        assert await to.ask("PUBSUB", "SHARDNUMSUB", CHANNEL) == [CHANNEL.encode(), 2]
        cluster.owner = to


async def test_the_replica_of_a_node_that_dies_is_found_although_that_one_was_named(
    cluster: Cluster, new_pair: NewPair
) -> None:
    pair = await new_pair(cluster.owner.url, cluster.owner.url)
    cluster.owner.kill()
    await until(pair.is_degraded, "degraded")
    await until(pair.is_ok, "ok again")
    await pair.meet()
    assert await cluster.replica.ask("PUBSUB", "SHARDNUMSUB", CHANNEL) == [CHANNEL.encode(), 2]


async def test_a_cluster_that_nobody_owns_the_slot_of_is_waited_for(cluster: Cluster, new_pair: NewPair) -> None:
    pair = await new_pair(*(node.url for node in cluster.others))
    for node in cluster.nodes:
        if node is not cluster.replica:
            await node.ask("CLUSTER", "DELSLOTS", SLOT)
    await until(pair.is_degraded, "degraded")
    await asyncio.sleep(0.6)
    assert pair.here.state == "degraded"
    await cluster.others[0].ask("CLUSTER", "ADDSLOTS", SLOT)
    await until(pair.is_ok, "ok again")
    await pair.meet()


async def test_an_owner_cut_off_from_the_others_refuses_where_it_is_told_to(
    cluster: Cluster, new_pair: NewPair
) -> None:
    pair = await new_pair(cluster.owner.url, cluster.owner.url)
    await cluster.owner.ask("CONFIG", "SET", "cluster-allow-pubsubshard-when-down", "no")
    cluster.replica.kill()
    for node in cluster.others:
        node.kill()
    await until(lambda: asyncio.sleep(0, pair.here._outage._failures > 2 < pair.there._outage._failures), "refusals")
    assert pair.here.state == pair.there.state == "degraded"
