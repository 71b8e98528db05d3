"""How a socket comes to stand in a room: registered closed, judged on a fresh snapshot, served what it missed, opened.

What is delivered in between, a removal or being let in, has it judged once more: the last snapshot decides. What is
served begins behind the client's `after` and goes on until nothing is missing; then the socket is a member, and the
first live event is the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from server.errors import NotFound
from server.rooms.delivery import Delivery
from server.rooms.local import Joiner, LocalRoom
from server.rooms.names import Room
from server.rooms.replays import Replays, send_back
from server.rooms.sockets import Socket
from storage import Connection, Database, Gathering
from storage import rooms as table

REPLAY_ROOM_EVENTS = 1_000  # a room further behind is loaded afresh
JUDGED_AT_ONCE = 16  # joins that one statement a kind of room judges; each may ask for 1,000 rooms
JUDGES = 2  # such statements under way


class Standing(NamedTuple):
    """A room as one snapshot shows it to a person: its head, and the seq behind which it begins for them."""

    head: int
    floor: int


Serve = Callable[[], Coroutine[Any, Any, None]]
"""Sends a socket what it has missed, and opens it."""

Asker = tuple[UUID, UUID]
"""A person, and a room by its id."""

Admit = Callable[[Connection, Sequence[Asker]], Awaitable[Mapping[Asker, Standing]]]
"""Which people may stand in which rooms, and how they stand there, in one statement."""

Asked = tuple[UUID, Sequence[Room]]
"""A person, and the rooms that they may want to stand in."""


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
        self._judging = Gathering(database, self.judge_on, most=JUDGED_AT_ONCE, flights=JUDGES)
        self._replays = Replays(database, delivery, self._let_back)
        self._tasks: set[asyncio.Task[None]] = set()
        delivery.on_evicted(self._let_back)

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

    async def judge(self, user_id: UUID, rooms: Sequence[Room]) -> dict[Room, Standing]:
        """Which of the rooms the person may stand in, and how, on a snapshot that begins behind this call.

        Raises `Unavailable`.
        """
        return await self._judging.ask((user_id, rooms))

    async def judge_on(self, db: Connection, asked: Sequence[Asked]) -> list[dict[Room, Standing]]:
        """What `judge` answers, for each of many, on a connection that is there."""
        found: list[dict[Room, Standing]] = [{} for _ in asked]
        for kind in sorted({room.kind for _, rooms in asked for room in rooms} & self._predicates.keys()):
            askers = [(user_id, room.id) for user_id, rooms in asked for room in rooms if room.kind == kind]
            standings = await self._predicates[kind](db, askers)
            for (user_id, rooms), answer in zip(asked, found, strict=True):
                own = [(room, standings.get((user_id, room.id))) for room in rooms if room.kind == kind]
                answer.update((room, standing) for room, standing in own if standing is not None)
        return found

    async def join(self, socket: Socket, room: Room, after: int | None) -> tuple[Joined, Serve]:
        """Let a socket into a room; what it returns beside the answer serves the replay, and is called after the ack.

        A socket that stands there already is served again from `after` on, live events included.
        Raises `NotFound` where the person may not stand in the room, or is removed from it meanwhile.
        """
        if not self.has_kind(room) or socket.is_gone:
            raise NotFound
        local = socket.rooms.get(room)
        if local is None:
            local = self._delivery.hold(socket, room)
            return await self._let_in(socket, local, local.joining[socket], after)
        joiner = local.joining.get(socket)
        if joiner is not None:
            joiner.ask()  # whoever judges it already shall see what we are going to see
        return await self._let_in(socket, local, joiner, after, is_ours=False)

    def join_later(self, socket: Socket, room: Room, after: int) -> None:
        """Let a socket into a room because the server says so; it stays out where it may not be in any more."""

        async def join() -> None:
            await socket.greeted
            there = socket.rooms.get(room)
            if there is None:
                await _serve(await self.join(socket, room, after))
            elif (joiner := there.joining.get(socket)) is not None:
                joiner.ask()

        self._spawn(_unattended(socket, room, join))

    def review(self, socket: Socket, room: Room) -> None:
        """Judge anew a socket that stands in a room; until that is done it hears nothing of it, and misses nothing."""
        local = socket.rooms.get(room)
        if local is None:
            return
        if not socket.greeted.done():
            socket.greeted.add_done_callback(lambda _: self.review(socket, room))
            return
        joiner = local.joining.get(socket)
        if joiner is not None and joiner.ask():
            return
        position = (local.head or 0) if joiner is None else joiner.position
        anew = local.close(socket)

        async def judge() -> None:
            await _serve(await self._let_in(socket, local, anew, position))

        self._spawn(_unattended(socket, room, judge))

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
            if joiner is None or not _still(socket, local, standing):
                self._delivery.release(socket, room)
                continue
            local.admit(socket, joiner, position, standing.head, standing.floor)
            self._delivery.begin(local, standing.head)
            if position == local.head:
                local.open(socket)
            else:
                waiting.append((local, joiner))

        async def serve() -> None:
            for local, joiner in waiting:
                await self._replays.serve(socket, local, joiner)

        if waiting:
            self._spawn(serve())

    async def resumable(self, standings: Mapping[Room, Standing], afters: Mapping[Room, int]) -> dict[Room, int]:
        """The rooms that a connect can fill, each with the seq to begin behind; the others are to be loaded afresh.

        Those are the rooms where `after` is beyond the head or over 1,000 events behind, where what follows has been
        swept, and where the connect's budget (2,000 events, 1 MiB) is spent, in the client's order.
        """
        behind: dict[Room, int] = {}
        for room, after in afters.items():
            standing = standings.get(room)
            if standing is not None and _is_near(standing, after):
                behind[room] = max(after, standing.floor)
        heads = {room: standings[room].head for room in behind}
        return {room: behind[room] for room in await self._replays.affordable(behind, heads)}

    async def _let_in(
        self, socket: Socket, local: LocalRoom, joiner: Joiner | None, after: int | None, *, is_ours: bool = True
    ) -> tuple[Joined, Serve]:
        """Judge a registered socket, and have it served what follows `after`.

        It stands there, or another join is judging it, where the registration is not ours.
        """
        room = local.room
        try:
            standing, whole = await self._judge_last(socket, local, joiner, after)
            if standing is None:
                raise NotFound
            now = local.joining.get(socket) or joiner
            if not is_ours and (socket.rooms.get(room) is not local or now is not joiner):
                return await self.join(socket, room, after)  # taken out meanwhile, or judged anew
            if now is not joiner or not _still(socket, local, standing):
                raise NotFound
        except BaseException as error:
            if joiner is not None and is_ours:
                self._withdraw(socket, local, joiner, error)
            raise
        reset = after is not None and not whole
        if not is_ours and (after is None or reset):
            return Joined(room, standing.head, reset), _nothing
        ready = local.close(socket) if joiner is None or not is_ours else joiner
        position = standing.head if after is None or reset else max(after, standing.floor)
        local.admit(socket, ready, position, standing.head, standing.floor)
        self._delivery.begin(local, standing.head)
        return Joined(room, standing.head, reset), lambda: self._replays.serve(socket, local, ready)

    async def _judge_last(
        self, socket: Socket, local: LocalRoom, joiner: Joiner | None, after: int | None
    ) -> tuple[Standing | None, bool]:
        """How a socket may stand in a room, and whether a replay from `after` is whole.

        Both on a snapshot that nothing which was delivered meanwhile has made old.
        """
        room = local.room
        while True:
            asked = joiner.asked if joiner is not None else 0
            standing = (await self.judge(socket.user_id, [room])).get(room)
            whole = standing is not None and after is not None and await self._is_whole(room, standing, after)
            if joiner is None or joiner.asked == asked or local.joining.get(socket) is not joiner:
                return standing, whole

    async def _is_whole(self, room: Room, standing: Standing, after: int) -> bool:
        """Whether a replay from `after` has a bounded length and no hole."""
        if not _is_near(standing, after):
            return False
        behind = max(after, standing.floor)
        missed = standing.head - behind
        if missed == 0:
            return True
        async with self._database.connection() as db:
            return await table.count_events(db, room.id, behind, standing.head) == missed

    def _withdraw(self, socket: Socket, local: LocalRoom, joiner: Joiner, error: BaseException) -> None:
        if local.joining.get(socket) is joiner:
            self._delivery.release(socket, local.room)
            if joiner.asked and not isinstance(error, NotFound):
                send_back(socket, local.room, error)  # who asked counts on us, and knows nothing of this

    def _let_back(self, socket: Socket, room: Room, seq: int) -> None:
        """After a removal: who has been let in again behind it is let in here too, whatever came in which order."""
        self.join_later(socket, room, seq)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_near(standing: Standing, after: int) -> bool:
    """Whether `after` is not beyond the head, and a replay from it would have a bounded length."""
    return after <= standing.head and standing.head - max(after, standing.floor) <= REPLAY_ROOM_EVENTS


def _still(socket: Socket, local: LocalRoom, standing: Standing) -> bool:
    """Whether a socket may be let in by this snapshot: no removal behind it has been delivered meanwhile."""
    if socket.is_gone or socket.rooms.get(local.room) is not local:
        return False
    return standing.head >= socket.evicted.get(local.room, 0)


async def _serve(let_in: tuple[Joined, Serve]) -> None:
    """Serve a socket that waits for no answer. Raises LookupError where that would leave a hole which nobody names."""
    joined, serve = let_in
    if joined.reset:
        raise LookupError(f"{joined.room} has moved too far on")
    await serve()


async def _unattended(socket: Socket, room: Room, work: Serve) -> None:
    """Do what the server has begun of itself: where it fails, nobody would hear of it."""
    try:
        await work()
    except (asyncio.CancelledError, NotFound):
        pass  # gone, or removed again meanwhile
    except Exception as error:
        send_back(socket, room, error)


async def _nothing() -> None:
    """What is to be served to a socket that has it all."""
