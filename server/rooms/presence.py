"""Who is there: what each instance knows of its own sockets, put together in PostgreSQL, told to those who watch.

A change is written, and then announced; who hears of it reads what holds now. So instances never disagree for long,
whatever the bus loses: every 15 s each one reads anew what is watched there, and what a crashed instance has said ends
with its lease, 45 s after it was last renewed. Coming and going is told at most every 10 s, and leaving only once it
has lasted that long: phones lose their connection all the time.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID, uuid4

import structlog

from rules.presence import PresenceState
from server.errors import ParleyError
from server.rooms.bus import Bus
from server.rooms.delivery import Delivery
from server.rooms.log import Event, ephemeral
from server.rooms.names import Room
from server.rooms.sockets import Socket
from storage import Database, presence
from storage.presence import Presence

LEASE_S = 45.0
RENEW_S = 15.0
GATHER_S = 0.05  # changes that come together are written together
RETRY_S = 1.0
CHANGED, REVIEWED = "presence:moved", "presence:reviewed"

logger = structlog.get_logger("parley.presence")


class _Own:
    """Somebody with sockets here: what each says, what has been written, and until when that stays."""

    __slots__ = ("settled_at", "sockets", "timer", "written")

    def __init__(self) -> None:
        self.sockets: dict[Socket, PresenceState] = {}
        self.written = PresenceState.OFFLINE
        self.settled_at = 0.0
        self.timer: asyncio.TimerHandle | None = None

    @property
    def state(self) -> PresenceState:
        if not self.sockets:
            return PresenceState.OFFLINE
        return PresenceState.ONLINE if PresenceState.ONLINE in self.sockets.values() else PresenceState.AWAY


class Presences:
    """Presence as one instance sees it. `on_changed(socket, presence)` tells one watcher of one person."""

    def __init__(self, database: Database, delivery: Delivery, bus: Bus, *, debounce_s: float) -> None:
        self._database = database
        self._delivery = delivery
        self._bus = bus
        self._debounce_s = debounce_s
        self._instance_id = uuid4()
        self._own: dict[UUID, _Own] = {}
        self._watchers: dict[UUID, set[Socket]] = {}
        self._watched: dict[Socket, set[UUID]] = {}
        self._known: dict[UUID, Presence] = {}
        self._due: set[UUID] = set()
        self._moved: set[UUID] = set()
        self._in_review: set[UUID] = set()
        self._wake = asyncio.Event()
        self._reading = asyncio.Lock()  # what was read first is told first
        self._tasks: list[asyncio.Task[None]] = []
        self._clock = asyncio.get_running_loop().time
        self.on_changed: Callable[[Socket, Presence], None] = lambda *_: None
        delivery.on_heard(CHANGED, lambda event: self._heard(event, self._moved))
        delivery.on_heard(REVIEWED, lambda event: self._heard(event, self._in_review))

    async def start(self) -> None:
        """Say that this instance lives. Raises `Unavailable` where PostgreSQL does not answer."""
        await self._renew()
        self._tasks = [asyncio.create_task(self._work_for_ever()), asyncio.create_task(self._renew_for_ever())]

    async def stop(self) -> None:
        """Take back what this instance said."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for own in self._own.values():
            if own.timer is not None:
                own.timer.cancel()
        with contextlib.suppress(ParleyError):
            async with self._database.connection() as db:
                await presence.bury(db, self._instance_id)

    # this instance's own people

    def say(self, socket: Socket, state: PresenceState) -> None:
        """A socket is there, or its person looks away from it."""
        if not socket.is_gone:
            own = self._own.setdefault(socket.user_id, _Own())
            own.sockets[socket] = state
            self._consider(socket.user_id, own)

    def leave(self, socket: Socket) -> None:
        """A socket has gone, and watches nobody any more."""
        self.unwatch(socket, self.watched_by(socket))
        own = self._own.get(socket.user_id)
        if own is not None and own.sockets.pop(socket, None) is not None:
            self._consider(socket.user_id, own)

    def _consider(self, user_id: UUID, own: _Own) -> None:
        """Have what has changed written: at once, or when what was written may change, or when leaving has lasted."""
        if own.timer is not None:
            own.timer.cancel()
            own.timer = None
        if own.state is own.written:
            if not own.sockets:
                del self._own[user_id]
            return
        now = self._clock()
        at = own.settled_at if own.sockets else now + self._debounce_s
        if at > now:
            own.timer = asyncio.get_running_loop().call_at(at, self._write_soon, user_id)
        else:
            self._write_soon(user_id)

    def _write_soon(self, user_id: UUID) -> None:
        self._due.add(user_id)
        self._wake.set()

    # those who watch

    def watch(self, socket: Socket, presences: Iterable[Presence]) -> None:
        """Tell a socket from now on when these people come and go."""
        for found in presences if not socket.is_gone else ():
            watchers = self._watchers.setdefault(found.user_id, set())
            if not watchers:
                self._bus.subscribe(_room(found.user_id))
                self._known[found.user_id] = found
            elif self._known[found.user_id].state != found.state:
                # One of the two is old: everybody is told what holds.
                self._known[found.user_id] = found
                self._moved.add(found.user_id)
                self._wake.set()
            watchers.add(socket)
            self._watched.setdefault(socket, set()).add(found.user_id)

    def unwatch(self, socket: Socket, user_ids: Sequence[UUID]) -> None:
        """Tell a socket of these people no more."""
        watched = self._watched.get(socket, set())
        for user_id in watched.intersection(user_ids):
            watched.discard(user_id)
            watchers = self._watchers[user_id]
            watchers.discard(socket)
            if not watchers:
                del self._watchers[user_id], self._known[user_id]
                self._bus.unsubscribe(_room(user_id))
        if not watched:
            self._watched.pop(socket, None)

    def watched_by(self, socket: Socket) -> list[UUID]:
        """Whom a socket watches."""
        return list(self._watched.get(socket, ()))

    def review(self, user_id: UUID) -> None:
        """What others may know of somebody has changed: every instance looks again at who watches them."""
        self._delivery.announce(ephemeral(_room(user_id), REVIEWED, "null"))

    def _heard(self, event: Event, noted: set[UUID]) -> None:
        if event.room.id in self._watchers:
            noted.add(event.room.id)
            self._wake.set()

    # the work behind it

    async def _work_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            try:
                await self._write()
                moved, self._moved = self._moved, set()
                await self._tell(moved)
                await self._look_again()
            except Exception as error:  # whatever it is: without this task nobody would ever come or go again
                _log(error)
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def _write(self) -> None:
        taken = set(self._due)
        due = {who: self._own[who].state for who in taken if who in self._own}
        if due:
            async with self._database.connection() as db:
                await presence.set_states(db, self._instance_id, due)
        self._due -= taken
        for user_id, state in due.items():
            own = self._own.setdefault(user_id, _Own())  # they may have gone meanwhile
            own.written, own.settled_at = state, self._clock() + self._debounce_s
            self._consider(user_id, own)
            self._delivery.announce(ephemeral(_room(user_id), CHANGED, "null"))

    async def _tell(self, user_ids: set[UUID]) -> None:
        """Read what holds of watched people, and tell their watchers what they do not know."""
        wanted = user_ids & self._watchers.keys()
        if not wanted:
            return
        try:
            async with self._reading, self._database.connection() as db:
                found = {one.user_id: one for one in await presence.list_presences(db, wanted)}
        except BaseException:
            self._moved |= wanted
            raise
        for user_id in wanted & self._known.keys():
            # Who is no active person any more has no row.
            now = found.get(user_id) or Presence(user_id, PresenceState.OFFLINE, None)
            if self._known[user_id].state != now.state:
                self._known[user_id] = now
                for socket in list(self._watchers[user_id]):
                    self.on_changed(socket, now)

    async def _look_again(self) -> None:
        """Of those whose standing with others has changed: let go of the watchers who may not watch any more."""
        while self._in_review:
            user_id = next(iter(self._in_review))
            watchers = {socket.user_id for socket in self._watchers.get(user_id, ())}
            async with self._database.connection() as db:
                near = await presence.list_near(db, user_id, list(watchers))
            self._in_review.discard(user_id)
            for socket in list(self._watchers.get(user_id, ())):
                if socket.user_id in watchers and near.get(socket.user_id) is not False:
                    self.unwatch(socket, [user_id])
                    self.on_changed(socket, Presence(user_id, PresenceState.OFFLINE, None))

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self._renew()
                await self._tell(set(self._watchers))
            except Exception as error:
                _log(error)

    async def _renew(self) -> None:
        async with self._database.connection() as db:
            is_new = await presence.renew(db, self._instance_id, LEASE_S)
            await presence.bury(db)
        if is_new:  # at the start, and where it was buried alive or PostgreSQL has crashed: nothing it wrote is left
            for user_id, own in list(self._own.items()):
                own.written = PresenceState.OFFLINE
                self._consider(user_id, own)


def _log(error: Exception) -> None:
    if isinstance(error, ParleyError):
        logger.warning("presence_waits", error=error.message)
    else:
        logger.error("presence_failed", exc_info=error)


def _room(user_id: UUID) -> Room:
    """Where instances tell each other of somebody; nobody stands in it."""
    return Room("presence", user_id)
