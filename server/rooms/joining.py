"""How a socket comes to stand in a room: registered closed, judged on a fresh snapshot, served what it missed, opened.

A removal that is delivered in between takes the registration away, and wins. What is served begins behind the client's
`after` and goes on until nothing is missing; then the socket is a member, and the first live event is the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import structlog

from server.errors import NotFound, ParleyError
from server.rooms import log
from server.rooms.delivery import Delivery
from server.rooms.local import Joiner, LocalRoom
from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.sockets import Socket
from storage import Connection, Database
from storage import rooms as table

REPLAY_ROOM_EVENTS = 1_000  # a room further behind is loaded afresh
REPLAY_EVENTS = 2_000  # of one connect
REPLAY_BYTES = 1024 * 1024  # of one connect
PAGE_ROWS, PAGE_BYTES = 500, 256 * 1024  # read at once for one socket
READERS = 4  # replays that read from PostgreSQL at the same time; the others wait without a connection

logger = structlog.get_logger("parley.rooms")


class Standing(NamedTuple):
    """A room as one snapshot shows it to a person: its head, and the seq behind which it begins for them."""

    head: int
    floor: int


Admit = Callable[[Connection, UUID, Sequence[UUID]], Awaitable[Mapping[UUID, Standing]]]
"""Which of the rooms (by id) a person may stand in, and how they stand there, in one statement."""


class Joined(NamedTuple):
    """Where a join leaves the client: live from `head_seq` + 1, after the replay, or with everything to load afresh."""

    room: Room
    head_seq: int
    reset: bool


class Joining:
    """Lets sockets into rooms. Each kind of room has a predicate, registered by the handlers: who may stand in it."""

    def __init__(self, database: Database, delivery: Delivery) -> None:
        self._database = database
        self._delivery = delivery
        self._predicates: dict[str, Admit] = {}
        self._readers = asyncio.Semaphore(READERS)
        self._tasks: set[asyncio.Task[None]] = set()
        delivery.on_evicted(self._review)

    async def stop(self) -> None:
        """Stop serving replays."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def admit_to(self, kind: str, predicate: Admit) -> None:
        """Register who may stand in rooms of a kind. A kind without a predicate admits nobody."""
        self._predicates[kind] = predicate

    def has_kind(self, room: Room) -> bool:
        """Whether rooms of this kind can be joined at all."""
        return room.kind in self._predicates

    async def judge(self, db: Connection, user_id: UUID, rooms: Sequence[Room]) -> dict[Room, Standing]:
        """Which of the rooms the person may stand in, and how, each on a snapshot of now."""
        standings: dict[Room, Standing] = {}
        for kind in sorted({room.kind for room in rooms} & self._predicates.keys()):
            ids = [room.id for room in rooms if room.kind == kind]
            found = await self._predicates[kind](db, user_id, ids)
            standings.update((Room(kind, room_id), standing) for room_id, standing in found.items())
        return standings

    async def join(
        self, socket: Socket, room: Room, after: int | None
    ) -> tuple[Joined, Callable[[], Coroutine[Any, Any, None]]]:
        """Let a socket into a room; what it returns beside the answer serves the replay, and is called after the ack.

        A socket that stands there already is served again from `after` on, live events included.
        Raises `NotFound` where the person may not stand in the room, or is removed from it meanwhile.
        """
        local, joiner = self._register(socket, room)
        try:
            async with self._database.connection() as db:
                standing = (await self.judge(db, socket.user_id, [room])).get(room)
                whole = standing is not None and after is not None and await _is_whole(db, room, standing, after)
            if standing is None or not _still(socket, local, joiner, standing):
                raise NotFound
        except BaseException:
            if joiner is not None:
                self._withdraw(socket, local, joiner)
            raise
        reset = after is not None and not whole
        position = standing.head if after is None or reset else max(after, standing.floor)
        if joiner is None:
            if after is None or reset:
                return Joined(room, standing.head, reset), _nothing
            joiner = local.close(socket)
        joiner.judge(position, standing.head)
        self._delivery.begin(local, standing.head)
        ready = joiner
        return Joined(room, standing.head, reset), lambda: self._serve(socket, local, ready)

    def join_later(self, socket: Socket, room: Room, after: int) -> None:
        """Let a socket into a room because the server says so; it stays out where it may not be in any more."""

        async def run() -> None:
            try:
                await socket.greeted
                if room not in socket.rooms:
                    _, serve = await self.join(socket, room, after)
                    await serve()
            except (asyncio.CancelledError, NotFound):
                pass  # gone, or removed again meanwhile
            except ParleyError as error:
                _send_back(socket, room, error)

        self._spawn(run())

    def resume(self, socket: Socket, places: Sequence[tuple[Room, Standing, int]]) -> None:
        """Open a socket that has been greeted in its rooms, in this order, each behind what follows its position.

        A room that a removal has taken it out of since the snapshot stays closed.
        """
        waiting: list[tuple[LocalRoom, Joiner]] = []
        for room, standing, position in places:
            if socket.is_gone:
                return
            local = socket.rooms.get(room) or self._delivery.hold(socket, room)
            joiner = local.joining.get(socket)
            if joiner is None or not _still(socket, local, joiner, standing):
                self._delivery.release(socket, room)
                continue
            joiner.judge(position, standing.head)
            self._delivery.begin(local, standing.head)
            if position == local.head:
                local.open(socket)
            else:
                waiting.append((local, joiner))

        async def serve() -> None:
            for local, joiner in waiting:
                await self._serve(socket, local, joiner)

        if waiting:
            self._spawn(serve())

    async def resumable(self, standings: Mapping[Room, Standing], afters: Mapping[Room, int]) -> dict[Room, int]:
        """The rooms that a connect can fill, each with the seq to begin behind; the others are to be loaded afresh.

        Those are the rooms where `after` is beyond the head or over 1,000 events behind, where what follows has been
        swept, and where the connect's budget (2,000 events, 1 MiB) is spent, in the client's order.
        """
        behind = {
            room: max(after, standing.floor)
            for room, after in afters.items()
            if (standing := standings.get(room)) is not None and after <= standing.head
        }
        far = {room for room, after in behind.items() if standings[room].head - after > REPLAY_ROOM_EVENTS}
        sizes = await self._measure({room: after for room, after in behind.items() if room not in far}, standings)
        found: dict[Room, int] = {}
        events, bytes_ = REPLAY_EVENTS, REPLAY_BYTES
        for room, after in behind.items():
            size, count = sizes.get(room), standings[room].head - after
            if size is not None and count <= events and size <= bytes_:
                events, bytes_ = events - count, bytes_ - size
                found[room] = after
        return found

    async def _measure(self, afters: Mapping[Room, int], standings: Mapping[Room, Standing]) -> dict[Room, int]:
        """The bytes of what each room's client has missed; rooms of which some has been swept are left out."""
        sizes: dict[Room, int] = {}
        unknown: dict[Room, int] = {}
        for room, after in afters.items():
            head = standings[room].head
            tail = [] if after == head else self._delivery.tail_after(room, after)
            if tail is not None and log.is_whole(tail, after, head):
                sizes[room] = sum(len(event.payload) for event in tail)
            else:
                unknown[room] = after
        if unknown:
            async with self._readers, self._database.connection() as db:
                heads = {room: standings[room].head for room in unknown}
                sizes.update(await log.measure(db, unknown, heads))
        return sizes

    def _register(self, socket: Socket, room: Room) -> tuple[LocalRoom, Joiner | None]:
        """Register a socket in a room, closed; no joiner of ours where it stands or is joining there already."""
        if not self.has_kind(room) or socket.is_gone:
            raise NotFound
        standing = socket.rooms.get(room)
        if standing is not None:
            return standing, None
        local = self._delivery.hold(socket, room)
        return local, local.joining[socket]

    def _withdraw(self, socket: Socket, local: LocalRoom, joiner: Joiner) -> None:
        if local.joining.get(socket) is joiner:
            self._delivery.release(socket, local.room)

    def _review(self, socket: Socket, room: Room, seq: int) -> None:
        """After a removal: who has been let in again behind it is let in here too, whatever came in which order."""
        self.join_later(socket, room, seq)

    async def _serve(self, socket: Socket, local: LocalRoom, joiner: Joiner) -> None:
        """Send what follows the joiner's position, until nothing is missing; then open it."""
        try:
            while local.joining.get(socket) is joiner and joiner.position < (local.head or 0):
                for event in await self._page(local, joiner.position):
                    await socket.connection.paced()
                    if local.joining.get(socket) is not joiner:
                        return None  # taken out, or served anew
                    socket.connection.send(event.packet)
                    joiner.position = event.seq
                    if event.seq > joiner.judged and self._delivery.ends(event, socket.user_id):
                        self._delivery.release(socket, local.room)
                        return self._review(socket, local.room, event.seq)
        except Exception as error:
            return _send_back(socket, local.room, error)
        if local.joining.get(socket) is joiner:
            joiner.served = True
            if joiner.position == local.head:
                local.open(socket)
        return None

    async def _page(self, local: LocalRoom, position: int) -> list[Event]:
        """What follows a position: from memory where that has all of it, else a page of the log."""
        events = local.tail_after(position)
        if not events:
            async with self._readers, self._database.connection() as db:
                found = await log.read(
                    db, {local.room: position}, room_rows=PAGE_ROWS, rows=PAGE_ROWS, bytes_=PAGE_BYTES
                )
            events = found[local.room]
        if not events or events[0].seq != position + 1:
            raise LookupError(f"what follows {position} in {local.room} is not there")
        return events

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _is_whole(db: Connection, room: Room, standing: Standing, after: int) -> bool:
    """Whether a replay from `after` has a bounded length and no hole at its beginning."""
    behind = max(after, standing.floor)
    if after > standing.head or standing.head - behind > REPLAY_ROOM_EVENTS:
        return False
    return behind == standing.head or await table.has_event(db, room.id, behind + 1)


def _still(socket: Socket, local: LocalRoom, joiner: Joiner | None, standing: Standing) -> bool:
    """Whether the registration stands: no removal behind the snapshot has been delivered meanwhile."""
    if socket.is_gone or socket.rooms.get(local.room) is not local:
        return False
    if joiner is None:
        return True
    ended = max(joiner.ended, socket.evicted.get(local.room, 0))
    return local.joining.get(socket) is joiner and standing.head >= ended


def _send_back(socket: Socket, room: Room, error: Exception) -> None:
    """Let the client come back and resume: it would miss what everybody else hears."""
    logger.warning("replay_failed", room=str(room), error=getattr(error, "message", repr(error)))
    socket.connection.drop()


async def _nothing() -> None:
    """What is to be served to a socket that has it all."""
