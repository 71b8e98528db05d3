"""`server/wire` alone, as `bench/node/bare.js` is socket.io alone: join, send, broadcast, ack.

Nothing is judged or stored.

A token is the names of one's conversations, with commas between them. A room's messages are counted by the instance on
which they are sent, from 1 on, and anew when all of its people there have left.

Environment: PORT, and REDIS_URL where there is more than one instance. The benchmark starts it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
import uvloop
from aiohttp import web

from server.app import BACKLOG
from server.collector import settle
from server.rooms.bus import Bus, LocalBus
from server.rooms.log import Event
from server.rooms.names import Room, conversation_room
from server.rooms.redisbus import RedisBus
from server.wire import Connection, Server, ack_packet, event_packet, send_all
from storage import Time

READY_S = 10.0
NO_TIME = Time("")  # the bus carries a time with each event; nobody here asks for it


class Circle:
    """A room: its number of messages, and those who hear them."""

    __slots__ = ("members", "name", "room", "seq")

    def __init__(self, room: Room) -> None:
        self.room = room
        self.name = str(room)
        self.seq = 0
        self.members: set[Connection] = set()

    def tell(self, payload: str) -> None:
        """Send the members the message that `seq` counts."""
        send_all(self.members, event_packet("message:created", payload, f'{{"room":"{self.name}","seq":{self.seq}}}'))


class Hall:
    """The listener: all rooms."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._circles: dict[str, Circle] = {}

    async def connecting(self, connection: Connection, auth: Any) -> None:
        """Join the rooms that the token names."""
        connection.state = [self._circle(name) for name in auth["token"].split(",")]
        for circle in connection.state:
            circle.members.add(connection)

    def connected(self, connection: Connection) -> None:
        rooms = {circle.name: circle.seq for circle in connection.state}
        connection.send(event_packet("hello", orjson.dumps({"rooms": rooms}).decode()))

    def received(self, connection: Connection, name: str, arguments: Sequence[Any], ack_id: int | None) -> None:
        """A message, the only event there is."""
        message = arguments[0]
        circle = self._circles[message["conversation_id"]]
        circle.seq += 1
        payload = orjson.dumps({"client_id": message["client_id"], "text": message["text"]}).decode()
        if ack_id is not None:
            connection.answer(ack_packet(ack_id, f'{{"ok":true,"data":{{"seq":{circle.seq}}}}}'))
        circle.tell(payload)
        self._bus.publish(Event(circle.room, circle.seq, NO_TIME, name, payload))

    def disconnected(self, connection: Connection) -> None:
        for circle in connection.state:
            circle.members.discard(connection)
            if not circle.members:
                del self._circles[str(circle.room.id)]
                self._bus.unsubscribe(circle.room)

    def heard(self, event: Event) -> None:
        """A message was sent on another instance."""
        circle = self._circles.get(str(event.room.id))
        if circle is not None:
            circle.seq = event.seq
            circle.tell(event.payload)

    def _circle(self, name: str) -> Circle:
        circle = self._circles.get(name)
        if circle is None:
            circle = self._circles[name] = Circle(conversation_room(UUID(name)))
            self._bus.subscribe(circle.room)
        return circle


async def serve(port: int, redis_url: str | None) -> None:
    """Serve until SIGTERM or SIGINT."""
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    bus: Bus = RedisBus(redis_url) if redis_url else LocalBus()
    hall = Hall(bus)
    await bus.start(hall.heard)
    async with asyncio.timeout(READY_S):
        while bus.state != "ok":
            await asyncio.sleep(0.01)
    server = Server(hall)
    app = web.Application()
    server.attach(app)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1, tcp_keepalive=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=BACKLOG).start()
    settle()
    await ending.wait()
    await server.shutdown()
    await runner.cleanup()
    await bus.stop()


if __name__ == "__main__":
    uvloop.run(serve(int(os.environ["PORT"]), os.environ.get("REDIS_URL")))
