"""Delivery with everything around it in reach: a bus that is silent, phones that only listen, a database that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from server.errors import Unavailable
from server.rooms import log
from server.rooms.bus import Receive
from server.rooms.delivery import Delivery
from server.rooms.log import Entry, Event
from server.rooms.names import Room
from server.rooms.sockets import Socket
from server.wire import Packet
from storage import Connection, Database, Time
from storage import rooms as table

AT = Time("2026-11-20T17:00:00.000Z")


class SilentBus:
    """A bus that carries nothing, and remembers what it was asked to."""

    state = "ok"

    def __init__(self) -> None:
        self.rooms: list[Room] = []
        self.published: list[Event] = []

    async def start(self, receive: Receive) -> None:
        pass

    async def stop(self) -> None:
        pass

    def publish(self, event: Event) -> None:
        self.published.append(event)

    def subscribe(self, room: Room) -> None:
        self.rooms.append(room)

    def unsubscribe(self, room: Room) -> None:
        self.rooms.remove(room)


class Phone:
    """A connection as delivery sees it, with its session in one; `heard` is what was sent to it."""

    is_flowing = False

    def __init__(self) -> None:
        self.session = self
        self.heard: list[str] = []
        self.news = asyncio.Event()
        self.is_dropped = False

    def drop(self) -> None:
        self.is_dropped = True

    def send(self, message: Packet, *, droppable: bool = False) -> bool:
        self.heard.append(message.text)
        self.news.set()
        return True

    push = send


class Watched(Database):
    """The database, counting how often a connection is taken; down as long as `down` is not 0."""

    def __init__(self, database: Database) -> None:
        super().__init__(database._pool)
        self.taken = 0
        self.down = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.taken += 1
        if self.down:
            self.down -= 1
            raise Unavailable
        async with super().connection() as db:
            yield db


async def new_room(database: Database) -> Room:
    room = Room("conversation", uuid4())
    async with database.connection() as db:
        await table.create_room(db, room.id, room.kind)
    return room


def enter(delivery: Delivery, user_id: UUID | None = None) -> Socket:
    socket = Socket(Phone(), user_id or uuid4(), uuid4())  # type: ignore[arg-type]
    socket.greeted.set_result(None)
    delivery.enter(socket)
    return socket


def stand(delivery: Delivery, socket: Socket, room: Room, head: int = 0) -> None:
    """Let a socket stand in a room, as a join without a replay does."""
    local = delivery.hold(socket, room)
    delivery.begin(local, head)
    joiner = local.joining[socket]
    joiner.position, joiner.served = local.head or 0, True
    local.open(socket)


async def commit(database: Database, *where: Room, payload: str = "{}") -> list[Event]:
    """Append one event to each of the rooms, in one transaction that nobody publishes."""

    async def work(db: Connection) -> list[Event]:
        return await log.append(db, [Entry(room, "test:done", payload) for room in where])

    return await database.transaction(work)


def seqs(socket: Socket, room: Room) -> list[int]:
    """What a phone has heard of a room."""
    marker = f'"room":"{room}","seq":'
    phone: Any = socket.connection
    return [int(text.partition(marker)[2].partition(",")[0]) for text in phone.heard if marker in text]


async def hearing(socket: Socket, room: Room, expected: list[int]) -> None:
    """Wait until a phone has heard as much of a room as is expected, and compare."""
    phone: Any = socket.connection
    async with asyncio.timeout(10):
        while len(seqs(socket, room)) < len(expected):
            phone.news.clear()
            await phone.news.wait()
    assert seqs(socket, room) == expected


async def until(seen: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not seen():
            await asyncio.sleep(0.002)


def removal(delivery: Delivery, person: Socket, room: Room, seq: int) -> Event:
    """An event that ends a person's standing in a room."""
    delivery.on_end("test:gone", lambda event: UUID(json.loads(event.payload)))
    return Event(room, seq, AT, "test:gone", f'"{person.user_id}"')
