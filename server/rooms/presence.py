"""Who is there: what each instance knows of its own sockets, put together in PostgreSQL, told to those who watch.

A change is written, and then announced; who hears of it reads what holds now. So instances never disagree for long,
whatever the bus loses: every 15 s each one reads anew what is watched there and who may watch it, and what a crashed
instance has said ends with its lease, 45 s after it was last renewed. Coming and going is told at most every 10 s, and
leaving only once it has lasted that long: phones lose their connection all the time.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar
from uuid import UUID

from rules.presence import PresenceState
from server.errors import Unavailable
from server.outages import Outage
from server.rooms.bus import Bus
from server.rooms.delivery import Delivery
from server.rooms.lease import Lease
from server.rooms.log import Event, ephemeral
from server.rooms.sockets import Socket
from server.rooms.watchers import Pair, Watchers, presence_room
from storage import Database, presence, translate
from storage.presence import Presence

RENEW_S = 15.0
DOUBT_S = 1.0  # after a crash of PostgreSQL, which forgets who is there, not so long
GATHER_S = 0.05  # changes that come together are written together
RETRY_S = 1.0
PAGE = 1_000  # people of one statement: tens of milliseconds, of the second that it has
PAIRS = 500  # judged in one statement, and up to a socket's more: 0.4 s where each has a thousand conversations
JUDGED = 100_000  # pairs of one round, about a second of PostgreSQL's; the others' turn is the next
CHANGED, REVIEWED = "presence:moved", "presence:reviewed"

T = TypeVar("T")


class _Own:
    """Somebody with sockets here: what each says, what has been written, and until when that stays.

    `written` is None while nobody can tell: a statement that fails may have been kept.
    """

    __slots__ = ("settled_at", "sockets", "timer", "written")

    def __init__(self) -> None:
        self.sockets: dict[Socket, PresenceState] = {}
        self.written: PresenceState | None = PresenceState.OFFLINE
        self.settled_at = 0.0
        self.timer: asyncio.TimerHandle | None = None

    @property
    def state(self) -> PresenceState:
        if not self.sockets:
            return PresenceState.OFFLINE
        return PresenceState.ONLINE if PresenceState.ONLINE in self.sockets.values() else PresenceState.AWAY


class Presences:
    """Presence as one instance sees it. `on_changed(socket, presence)` tells one watcher of one person."""

    def __init__(self, database: Database, delivery: Delivery, bus: Bus, lease: Lease, *, debounce_s: float) -> None:
        self._database = database
        self._delivery = delivery
        self._debounce_s = debounce_s
        self._lease = lease
        self._own: dict[UUID, _Own] = {}
        self._watchers = Watchers(bus)
        self._due: set[UUID] = set()
        self._moved: set[UUID] = set()
        self._in_review: set[UUID] = set()
        self._wake = asyncio.Event()
        self._outage = Outage("presence_failed")
        self._reading = asyncio.Lock()  # what was read first is told first
        self._tasks: list[asyncio.Task[None]] = []
        self._clock = asyncio.get_running_loop().time
        self.on_changed: Callable[[Socket, Presence], None] = lambda *_: None
        delivery.on_heard(CHANGED, lambda event: self._heard(event, self._moved))
        delivery.on_heard(REVIEWED, lambda event: self._heard(event, self._in_review))

    async def start(self) -> None:
        """Say that this instance lives. Raises `Unavailable` where PostgreSQL does not answer."""
        await self._renew()
        work = (self._work_for_ever, self._renew_for_ever, self._look_for_ever)
        self._tasks = [asyncio.create_task(part()) for part in work]

    async def stop(self) -> None:
        """Take back what this instance said."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for own in self._own.values():
            if own.timer is not None:
                own.timer.cancel()
        await self._lease.end()

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

    @contextlib.contextmanager
    def asking(self, socket: Socket, user_ids: Sequence[UUID]) -> Iterator[None]:
        """While it is judged whether a socket may watch these people, have reviews look at it too.

        Whom it has not been let watch by the end, and did not before, it does not ask for any more.
        """
        new = self._watchers.ask(socket, user_ids)
        try:
            yield
        finally:
            self._watchers.give_up(new)

    def watch(self, socket: Socket, asked: Sequence[UUID], found: Sequence[Presence]) -> list[Presence]:
        """Of the people asked for tell a socket from now on when those found come and go, and of the others no more.

        What it may know of those found: nothing, where a review has ended its watch meanwhile.
        """
        self.unwatch(socket, [*{*asked}.difference(one.user_id for one in found)])
        told = []
        for one in found:
            is_watched = self._watchers.accept(socket, one)
            if self._watchers.is_in_doubt(one.user_id):  # they are all told what holds
                self._moved.add(one.user_id)
                self._wake.set()
            told.append(one if is_watched else _nobody(one.user_id))
        return told

    def unwatch(self, socket: Socket, user_ids: Sequence[UUID]) -> None:
        """Tell a socket of these people no more."""
        for user_id in user_ids:
            self._watchers.let_go(socket, user_id)

    def watched_by(self, socket: Socket) -> list[UUID]:
        """Whom a socket watches, or asks to."""
        return self._watchers.by(socket)

    def review(self, user_id: UUID) -> None:
        """What others may know of somebody has changed: every instance looks again at who watches them."""
        self._delivery.announce(ephemeral(presence_room(user_id), REVIEWED, "null"))

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
                await self._tell(_taken(self._moved))
                await self._look_again()
                self._outage.over()
            except Exception as error:  # whatever it is: without this task nobody would ever come or go again
                self._log(error)
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def _write(self) -> None:
        """Write what people are here, and have it heard."""
        await _in_pages([*_taken(self._due)], PAGE, self._write_page, self._due.update)

    async def _write_page(self, user_ids: Sequence[UUID]) -> None:
        due = {user_id: own for user_id in user_ids if (own := self._own.get(user_id))}
        states = {user_id: own.state for user_id, own in due.items()}
        if not due:
            return
        for own in due.values():
            own.written = None
        instance_id = self._lease.instance_id
        async with self._database.connection() as db:
            lives = await presence.set_states(db, instance_id, states)
        if not lives:  # in a crash of PostgreSQL it forgets who is there
            await self._renew()
            if instance_id == self._lease.instance_id:
                raise Unavailable  # the two connections lead to different servers, as amid a failover
        if instance_id != self._lease.instance_id:
            return  # it does not hold, and all is said again
        for user_id, own in due.items():
            own.written, own.settled_at = states[user_id], self._clock() + self._debounce_s
            self._consider(user_id, own)
            self._delivery.announce(ephemeral(presence_room(user_id), CHANGED, "null"))

    async def _tell(self, user_ids: set[UUID]) -> None:
        """Read what holds of watched people, and tell their watchers what they do not know."""
        await _in_pages([*user_ids.intersection(self._watchers)], PAGE, self._tell_page, self._moved.update)

    async def _tell_page(self, user_ids: Sequence[UUID]) -> None:
        async with self._reading, self._database.connection() as db:
            found = {one.user_id: one for one in await presence.list_presences(db, user_ids)}
        for user_id in user_ids:
            now = found.get(user_id) or _nobody(user_id)  # who is no active person any more has no row
            for socket in self._watchers.learn(now):
                self.on_changed(socket, now)

    async def _look_again(self) -> None:
        """Of those whose standing with others has changed: let go of the watchers who may not watch any more."""

        def back(left: Sequence[Pair]) -> None:
            self._in_review.update(user_id for _, user_id in left)

        pairs = [pair for user_id in _taken(self._in_review) for pair in self._watchers.of(user_id)]
        await _in_pages(pairs, PAIRS, self._judge, back)

    async def _judge(self, pairs: Sequence[Pair]) -> None:
        async with self._database.connection() as db:
            apart = await presence.list_apart(db, {(socket.user_id, user_id) for socket, user_id in pairs})
        for socket, user_id in pairs:
            if (socket.user_id, user_id) in apart and self._watchers.let_go(socket, user_id):
                self.on_changed(socket, _nobody(user_id))

    # every 15 s, and over a new connection

    async def _renew_for_ever(self) -> None:
        due = self._clock() + RENEW_S
        while True:
            await asyncio.sleep(min(DOUBT_S, RENEW_S))
            if self._clock() < due and not self._lease.is_in_doubt:
                continue
            due = self._clock() + RENEW_S
            try:
                await self._renew()
            except Exception as error:
                self._log(error)

    async def _renew(self) -> None:
        if not await self._lease.renew():  # at the start, and where it was buried alive or PostgreSQL has crashed
            await _in_pages([*self._own], PAGE, self._say_again, lambda _: None)

    async def _say_again(self, user_ids: Sequence[UUID]) -> None:
        for user_id in user_ids:
            own = self._own.get(user_id)
            if own is not None:
                own.written, own.settled_at = None, 0.0
                self._consider(user_id, own)
        await asyncio.sleep(0)  # others have their turn between pages

    async def _look_for_ever(self) -> None:
        """The round, apart from the heartbeat: however long it takes or whatever fails it, this instance lives."""
        while True:
            for part in (self._lease.bury, self._read_anew, self._judge_anew):
                try:
                    await part()
                except Exception as error:
                    self._log(error)
            await asyncio.sleep(RENEW_S)

    async def _read_anew(self) -> None:
        """Make good what was moved and not heard of."""
        await self._tell({*self._watchers})

    async def _judge_anew(self) -> None:
        """Make good the reviews that were not heard of: up to so many pairs, and the next time those behind them."""
        page: list[Pair] = []
        judged = 0
        for _ in range(self._watchers.sockets):
            page += self._watchers.turn()
            if len(page) >= PAIRS:
                await self._judge(page)
                judged += len(page)
                page = []
                if judged >= JUDGED:
                    return
        if page:
            await self._judge(page)

    def _log(self, error: Exception) -> None:
        """Say so now and then; what is no outage is a bug."""
        self._outage.failed(translate(error) or error)


async def _in_pages(
    items: Sequence[T], size: int, work: Callable[[Sequence[T]], Awaitable[None]], back: Callable[[Sequence[T]], None]
) -> None:
    """Do work page by page; where it fails, what is left is given back."""
    for start in range(0, len(items), size):
        try:
            await work(items[start : start + size])
        except BaseException:
            back(items[start:])
            raise


def _taken(noted: set[UUID]) -> set[UUID]:
    """What was noted until now, which is noted no more."""
    taken = set(noted)
    noted.clear()
    return taken


def _nobody(user_id: UUID) -> Presence:
    """Somebody of whom nothing is told."""
    return Presence(user_id, PresenceState.OFFLINE, None)
