"""The people's sockets of this instance, and the rooms each stands in."""

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

from server.rooms.names import Room
from server.wire import Connection

if TYPE_CHECKING:
    from server.rooms.local import LocalRoom


class Socket:
    """A connection with the person and the session behind it.

    `rooms` are those it stands in or is joining. `greeted` is done when `hello` is on its way: nothing precedes it.
    `evicted` are the removals of its person that have been delivered: room and seq. Once it `is_gone` it enters no room
    again.
    """

    __slots__ = ("connection", "evicted", "greeted", "is_gone", "rooms", "session_id", "user_id")

    def __init__(self, connection: Connection, user_id: UUID, session_id: UUID) -> None:
        self.connection = connection
        self.user_id = user_id
        self.session_id = session_id
        self.rooms: dict[Room, LocalRoom] = {}
        self.evicted: dict[Room, int] = {}
        self.is_gone = False
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
