"""Three ways to divide a deployment's events among Redis' channels, each with its publisher and subscribers.

Each is a process of its own, which is told what to do by a pipe. All three use the product's frames and connections,
with commands of a turn pipelined, so that they differ in their channels alone.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from uuid import UUID

import uvloop
from redis.asyncio.connection import AbstractConnection

from bench.stage import resident_kb
from server.rooms import redisnode
from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.redisnode import Nodes, ask, hear
from server.rooms.sealing import Seal, key_of
from storage import Time

KEY = b"the bench's"
SLOTS = 16
PAYLOAD = '{"text": "%s"}' % ("as long as a message with its fields is " * 8)
AT = Time("2026-11-20T17:00:00.000Z")
CHUNK = 1_000  # channels of one SUBSCRIBE
DEAF_S = 60.0


@cache
def rooms_of(count: int) -> list[Room]:
    """The same rooms in every process; their ids say nothing of who watches them."""
    drawn = random.Random(7)
    return [Room("conversation", UUID(int=drawn.getrandbits(128))) for _ in range(count)]


def events_of(rooms: Sequence[Room], count: int) -> list[Event]:
    """As many events, each of a room drawn at random."""
    drawn = random.Random(11)
    return [Event(drawn.choice(rooms), seq, AT, "message:created", PAYLOAD) for seq in range(1, count + 1)]


@dataclass(frozen=True, slots=True)
class Way:
    """A name, and the channel that carries a room's events."""

    name: str
    channel_of: Callable[[Room], str]


def _slot(room: Room) -> str:
    return f"parley:{room.id.int % SLOTS}"


WAYS = (
    Way("one channel", lambda room: "parley:all"),
    Way(f"{SLOTS} channels", _slot),
    Way("a channel a room", lambda room: f"parley:{room.kind}:{room.id}"),
)


@dataclass(frozen=True, slots=True)
class Subscribed:
    """What it took an instance to subscribe to all of its rooms: seconds, its own CPU seconds, its own memory."""

    seconds: float
    cpu_s: float
    kb: int


def subscribe(pipe: Connection, url: str, way: int, count: int, share: tuple[int, int]) -> None:
    """One of several instances, `share` of how many. Says `Subscribed`; then, told a number, when it has heard that."""
    at, of = share
    uvloop.run(_hear(pipe, url, WAYS[way], rooms_of(count)[at::of]))


async def _hear(pipe: Connection, url: str, way: Way, rooms: list[Room]) -> None:
    wanted = {key_of(room): room for room in rooms}
    channels = list({way.channel_of(room) for room in rooms})
    seal, heard, expected = Seal(KEY), 0, asyncio.Queue[int]()
    gc.collect()
    async with _line(url) as line:
        pipe.send(None)
        await asyncio.to_thread(pipe.recv)  # all at once, as after a crash of Redis
        before_kb, begun, cpu = resident_kb_of_own(), time.perf_counter(), time.process_time()
        for start in range(0, len(channels), CHUNK):
            async with asyncio.timeout(DEAF_S):
                await redisnode.subscribe(line, "SUBSCRIBE", *channels[start : start + CHUNK])
        taken = time.perf_counter() - begun, time.process_time() - cpu
        gc.collect()
        pipe.send(Subscribed(*taken, resident_kb_of_own() - before_kb))
        asyncio.get_running_loop().add_reader(pipe.fileno(), lambda: expected.put_nowait(pipe.recv()))
        due = await expected.get()
        while True:
            _, frame = await hear(line)
            heard += len(seal.open(frame).events(wanted))
            while heard >= due:
                pipe.send(heard)
                heard, due = heard - due, await expected.get()


def resident_kb_of_own() -> int:
    """This process's memory."""
    return resident_kb(os.getpid())


def publish(pipe: Connection, url: str, way: int, count: int) -> None:
    """The instance on which everything happens. Told a turn's events and how many in all, it says when they are out."""
    uvloop.run(_say(pipe, url, WAYS[way], rooms_of(count)))


async def _say(pipe: Connection, url: str, way: Way, rooms: list[Room]) -> None:
    seal = Seal(KEY)
    async with _line(url) as line:
        pipe.send(None)
        while True:
            told = await asyncio.to_thread(pipe.recv)
            if told is None:
                return
            turn, count = told
            events = events_of(rooms, count)
            gc.collect()
            pipe.send(None)
            await asyncio.to_thread(pipe.recv)
            for start in range(0, count, turn):
                await _say_in_a_turn(line, seal, way, events[start : start + turn])
            pipe.send(None)


async def _say_in_a_turn(line: AbstractConnection, seal: Seal, way: Way, events: Sequence[Event]) -> None:
    """What a turn of the loop has brought: a frame a channel, and all frames in one write."""
    by_channel: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_channel[way.channel_of(event.room)].append(event)
    said = [("PUBLISH", channel, frame) for channel, told in by_channel.items() for frame in seal.close(told)]
    if len(said) == 1:
        await ask(line, *said[0])
        return
    await line.send_packed_command(line.pack_commands(said), check_health=False)
    for _ in said:
        await line.read_response()


@asynccontextmanager
async def _line(url: str) -> AsyncIterator[AbstractConnection]:
    node = await Nodes(url, "").connect()
    try:
        yield await node.line()
    finally:
        await node.close()
