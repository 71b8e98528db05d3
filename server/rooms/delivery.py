"""Deliver each room's events to its members of this instance: in order of seq, each once, none missing.

The bus is fast and may lose; the truth is the log. What comes too early waits for its turn, what is missing is read
from PostgreSQL, and once a second the heads are compared with the log, so that a push arrives within two seconds
whatever became of the bus or of its publisher.
"""

from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

import structlog

from server.rooms.bus import Bus
from server.rooms.comparison import Comparison
from server.rooms.local import TAILS_BYTES, Joiner, LocalRoom, Tails
from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.repair import Repair
from server.rooms.sockets import Socket
from server.wire import send_all
from storage import Database

EARLY_EVENTS = 1_000  # of one room, out of order; what is beyond is read again

logger = structlog.get_logger("parley.rooms")

Effect = Callable[[Event], None]
Ends = Callable[[Event], UUID | None]
"""Whose standing in its room an event ends; None where it ends nobody's."""


class Delivery:
    """The rooms watched on this instance, and all that keeps them in step with the log.

    `tail_bytes` bounds what is kept of their latest events.
    """

    def __init__(self, database: Database, bus: Bus, *, tail_bytes: int = TAILS_BYTES) -> None:
        self._bus = bus
        self._rooms: dict[Room, LocalRoom] = {}
        self._people: dict[UUID, set[Socket]] = {}
        self._effects: dict[str, Effect] = {}
        self._ends: dict[str, Ends] = {}
        self._closing: set[str] = set()
        self._heard: dict[str, Effect] = {}
        self._on_evicted: Callable[[Socket, Room, int], None] | None = None
        self.tails = Tails(tail_bytes)
        self.repair = Repair(database, self._rooms, self._mend, self._start_anew)
        self.comparison = Comparison(
            database, self._rooms, self.repair.expect, self.forget_tail, self._forget_everything
        )
        self.delivered = 0
        self.repaired = 0

    # wiring

    def on(self, name: str, effect: Effect) -> None:
        """Let `effect` happen on this instance when an event of that name has been delivered in a watched room."""
        self._effects[name] = effect

    def on_heard(self, name: str, effect: Effect) -> None:
        """Let `effect` stand in for the delivery of ephemeral events of that name, in whatever room."""
        self._heard[name] = effect

    def on_end(self, name: str, ends: Ends) -> None:
        """Take those people's sockets out of the room whose standing events of that name end."""
        self._ends[name] = ends

    def on_close(self, name: str) -> None:
        """Take everybody's sockets out of the room that an event of that name closes."""
        self._closing.add(name)

    def on_evicted(self, call: Callable[[Socket, Room, int], None]) -> None:
        """Call this for each socket that was taken out, with the room and the removal's seq."""
        self._on_evicted = call

    def ends(self, event: Event, user_id: UUID) -> bool:
        """Whether an event ends this person's standing in its room."""
        ends = self._ends.get(event.name)
        return event.name in self._closing or (ends is not None and ends(event) == user_id)

    async def start(self) -> None:
        """Start the bus and the comparison. Raises `Unavailable` where PostgreSQL does not answer."""
        await self.comparison.start()
        await self._bus.start(self.deliver)

    async def stop(self) -> None:
        """Stop comparing, listening and repairing, which the other two ask for."""
        await self.comparison.stop()
        await self._bus.stop()
        await self.repair.stop()

    @property
    def epoch(self) -> UUID | None:
        """The database's epoch, as last seen."""
        return self.comparison.epoch

    def note_epoch(self, epoch: UUID) -> None:
        """Say what epoch the database has now; another one than before sends everybody back."""
        self.comparison.note_epoch(epoch)

    @property
    def watched(self) -> int:
        """How many rooms this instance watches."""
        return len(self._rooms)

    def is_watched(self, room: Room) -> bool:
        """Whether somebody on this instance stands in the room, or is joining it."""
        return room in self._rooms

    def forget_tail(self, room: Room, blanked: int = 0) -> None:
        """Keep nothing of what a room's log said: some is blank now, up to the seq `blanked` if known."""
        local = self._rooms.get(room)
        if local is not None:
            self.tails.forget(local)
            self.repair.expect(local, local.distrust(blanked))

    def sockets_of(self, user_id: UUID) -> list[Socket]:
        """The person's sockets on this instance, those still connecting included."""
        return list(self._people.get(user_id, ()))

    def sockets(self) -> list[Socket]:
        """All sockets of this instance, those still connecting included."""
        return [socket for sockets in self._people.values() for socket in sockets]

    def enter(self, socket: Socket) -> None:
        """Register a socket with its person."""
        self._people.setdefault(socket.user_id, set()).add(socket)

    def exit(self, socket: Socket) -> None:
        """Forget a socket that is gone."""
        socket.is_gone = True
        for room in list(socket.rooms):
            self.release(socket, room)
        sockets = self._people.get(socket.user_id)
        if sockets is not None:
            sockets.discard(socket)
            if not sockets:
                del self._people[socket.user_id]
        if not socket.greeted.done():
            socket.greeted.cancel()

    def hold(self, socket: Socket, room: Room) -> LocalRoom:
        """Register a socket, which is not gone, in a room it is not in, closed."""
        local = self._rooms.get(room)
        if local is None:
            local = self._rooms[room] = LocalRoom(room)
            self._bus.subscribe(room)
        local.joining[socket] = Joiner()
        socket.rooms[room] = local
        return local

    def release(self, socket: Socket, room: Room) -> bool:
        """Take a socket out of a room; False where it was not in it."""
        local = socket.rooms.pop(room, None)
        if local is None:
            return False
        local.members.pop(socket, None)
        local.joining.pop(socket, None)
        local.floors.pop(socket, None)
        if not local.members and not local.joining:
            del self._rooms[room]
            self.tails.forget(local)
            self._bus.unsubscribe(room)
        return True

    def send_back(self, sockets: Iterable[Socket]) -> None:
        """Take sockets out of all rooms at once, and let their clients come back and see what holds then."""
        sockets = list(sockets)
        for socket in sockets:
            socket.is_gone = True
            for room in list(socket.rooms):
                self.release(socket, room)
        for socket in sockets:
            socket.connection.drop()

    def _start_anew(self, local: LocalRoom) -> None:
        """Forget a room as it is known here, with everybody in it."""
        self.send_back([*local.members, *local.joining])

    def _forget_everything(self) -> None:
        """Forget every room: the database is another one than before, as after a restore."""
        self.repair.forget()
        self.send_back(self.sockets())

    def _evict(self, user_id: UUID, room: Room, seq: int) -> None:
        """Take a person's sockets out of a room, those not that were let in behind this removal.

        Of those that are still being judged a snapshot behind it decides.
        """
        for socket in self.sockets_of(user_id):
            socket.evicted[room] = seq
            local = socket.rooms.get(room)
            if local is None:
                continue
            joiner = local.joining.get(socket)
            if joiner is not None and joiner.ask():
                continue
            if joiner is None or joiner.position < seq:
                self.release(socket, room)
                if self._on_evicted is not None:
                    self._on_evicted(socket, room, seq)

    def tail_after(self, room: Room, after: int) -> list[Event] | None:
        """The events of a watched room behind `after` up to the head, where memory still has them all."""
        local = self._rooms.get(room)
        return None if local is None else local.tail_after(after)

    def publish(self, events: Iterable[Event]) -> None:
        """Deliver what this instance has committed, here and through the bus elsewhere."""
        for event in events:
            self._bus.publish(event)
            self.deliver(event)

    def announce(self, event: Event) -> None:
        """Deliver an ephemeral event, here and through the bus elsewhere."""
        self._bus.publish(event)
        self.deliver(event)

    def show(self, event: Event) -> None:
        """Send an ephemeral event to those who stand in its room on this instance, but not to who is far behind."""
        local = self._rooms.get(event.room)
        if local is not None:
            send_all(local.members.values(), event.packet, droppable=True)

    def deliver(self, event: Event) -> None:
        """Take an event from wherever it comes: deliver it, keep it for its turn, or drop what has been delivered."""
        if event.seq == 0:
            self._attempt(self._heard.get(event.name, self.show), event)
            return
        local = self._rooms.get(event.room)
        if local is None:
            return
        head = local.head
        if event.seq <= local.blanked:
            self.repair.expect(local, event.seq)
        elif head is None or event.seq > head + 1:
            if len(local.early) < EARLY_EVENTS:
                local.early[event.seq] = event
            if head is not None:
                self.repair.expect(local, event.seq)
        elif event.seq == head + 1:
            self._pass_on(local, event)
            if local.early:
                self._pass_on_early(local)

    def begin(self, local: LocalRoom, head: int) -> None:
        """Say up to which seq a room that has just been watched counts as delivered; no effect where that is known."""
        if local.head is None:
            local.head = head
            self.comparison.watch(local.room)
            local.drop_early()
            self._pass_on_early(local)
            if local.early:
                self.repair.expect(local, max(local.early))

    def _pass_on(self, local: LocalRoom, event: Event) -> None:
        local.pass_on(event)
        self.tails.remember(local, event)
        self.delivered += 1
        if event.name in self._ends:
            self._attempt(self._end, event)
        if event.name in self._closing:
            self._close(local)
        if event.name in self._effects:
            self._attempt(self._effects[event.name], event)

    def _end(self, event: Event) -> None:
        user_id = self._ends[event.name](event)
        if user_id is not None:
            self._evict(user_id, event.room, event.seq)

    def _close(self, local: LocalRoom) -> None:
        """Let all go who have heard that the room is closed; who is still joining is served that as the last."""
        for socket in list(local.members):
            self.release(socket, local.room)

    def _attempt(self, effect: Effect, event: Event) -> None:
        """Let an effect happen; one that fails keeps nobody from hearing what follows."""
        try:
            effect(event)
        except Exception:
            logger.exception("effect_failed", push=event.name, room=str(event.room), seq=event.seq)

    def _is_next(self, local: LocalRoom, seq: int) -> bool:
        """Whether that event comes next in a room; in none that a removal has emptied meanwhile."""
        return local.head is not None and seq == local.head + 1 and self._rooms.get(local.room) is local

    def _pass_on_early(self, local: LocalRoom) -> None:
        while (seq := (local.head or 0) + 1) in local.early and self._is_next(local, seq):
            self._pass_on(local, local.early.pop(seq))

    def _mend(self, local: LocalRoom, events: Sequence[Event]) -> None:
        """Deliver what was read from the log and what waited for it."""
        for event in events:
            if self._is_next(local, event.seq):
                self.repaired += 1
                self._pass_on(local, event)
        local.drop_early()
        self._pass_on_early(local)
