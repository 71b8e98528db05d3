"""A room as one instance has it: who stands in it, up to where it has been delivered, and its latest events.

The latest events are kept for those who come right back: each room's are bounded, and all rooms' together.
"""

from collections import OrderedDict, deque

from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.sockets import Socket
from server.wire import Connection, send_all

TAIL_EVENTS = 256  # of one room
TAIL_BYTES = 64 * 1024
TAILS_BYTES = 6 * 1024 * 1024  # of all rooms
EVENT_BYTES = 300  # what an event takes beside its payload (its objects, and its place in the tail)


class Joiner:
    """Where a socket stands that is not yet a member.

    `position` is the seq up to which it knows the room, -1 while it is being judged; `judged` the room's head in the
    snapshot that let it in. `served` says that it has been sent all up to its position, so that it may be opened as
    soon as the room's head comes there. `asked` counts what may have changed its standing while it is being judged;
    whoever judges it does so again until nothing more has come.
    """

    __slots__ = ("asked", "judged", "position", "served")

    def __init__(self) -> None:
        self.asked = 0
        self.position = -1
        self.judged = -1
        self.served = False

    def judge(self, position: int, head: int) -> None:
        """It may stand here: what it knows of the room, and the head of the snapshot that says so."""
        self.position = position
        self.judged = head

    def ask(self) -> bool:
        """Have it judged once more; False where it has been judged."""
        if self.position >= 0:
            return False
        self.asked += 1
        return True


class LocalRoom:
    """A room that somebody on this instance watches.

    `head` is the last seq delivered here, None until it is known. `members` get what is delivered, `joining` do not
    yet. `early` holds what has come before its turn, by seq. `floors` has the seq behind which the room begins for each
    newcomer. `blankings` counts how often some of the log was blanked, so that who has read it meanwhile reads again;
    what the bus brings up to the seq `blanked` may be what it said before.
    """

    __slots__ = (
        "blanked", "blankings", "early", "floors", "head", "joining", "members", "room", "tail", "tail_bytes",
    )  # fmt: skip

    def __init__(self, room: Room) -> None:
        self.room = room
        self.head: int | None = None
        self.members: dict[Socket, Connection] = {}
        self.joining: dict[Socket, Joiner] = {}
        self.early: dict[int, Event] = {}
        self.floors: dict[Socket, int] = {}
        self.tail: deque[Event] = deque()
        self.tail_bytes = 0
        self.blanked = 0
        self.blankings = 0

    def tail_after(self, after: int) -> list[Event] | None:
        """The events behind `after` up to the head, where the tail still has them all."""
        if self.head is None or after > self.head:
            return None
        if after == self.head:
            return []
        if not self.tail or self.tail[0].seq > after + 1:
            return None
        return [event for event in self.tail if event.seq > after]

    def pass_on(self, event: Event) -> None:
        """Deliver the event that comes right behind the head."""
        packet = event.packet
        if not self.floors:
            send_all(self.members.values(), packet)
        else:
            for socket, connection in self.members.items():
                floor = self.floors.get(socket)
                connection.send(packet if floor is None else event.seen_from(floor).packet)
        self.head = event.seq
        if self.joining:
            for socket in [s for s, at in self.joining.items() if at.served and at.position == event.seq]:
                self.open(socket)

    def distrust(self, seq: int) -> int:
        """Believe nothing that came or was read so far; the highest seq of what waited for its turn, 0 without any."""
        self.blankings += 1
        self.blanked = max(self.blanked, seq)
        waited = max(self.early, default=0)
        self.early.clear()
        return waited

    def drop_early(self) -> None:
        """Keep nothing that waits for its turn and has been delivered meanwhile."""
        for seq in [seq for seq in self.early if seq <= (self.head or 0)]:
            del self.early[seq]

    def admit(self, socket: Socket, joiner: Joiner, position: int, head: int, floor: int) -> None:
        """A socket may stand here: what it knows of the room, the head of the snapshot that says so, and its floor."""
        joiner.judge(position, head)
        if floor:
            self.floors[socket] = floor
        else:
            self.floors.pop(socket, None)

    def close(self, socket: Socket) -> Joiner:
        """Take a socket back among the joining, to be served anew."""
        self.members.pop(socket, None)
        joiner = self.joining[socket] = Joiner()
        return joiner

    def open(self, socket: Socket) -> None:
        """Let a socket that has been served up to the head be a member from here on."""
        del self.joining[socket]
        self.members[socket] = socket.connection


class Tails:
    """The latest events of all rooms, within one bound: the room that has been quiet the longest forgets first."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._order: OrderedDict[LocalRoom, None] = OrderedDict()
        self.bytes = 0

    def remember(self, local: LocalRoom, event: Event) -> None:
        """Keep an event that has been delivered, without its packet: few come back for it, and it is encoded again."""
        event.forget_packet()
        event.room = local.room  # one object for all of them
        tail, before = local.tail, local.tail_bytes
        tail.append(event)
        local.tail_bytes += event.size + EVENT_BYTES
        while len(tail) > TAIL_EVENTS or local.tail_bytes > TAIL_BYTES + EVENT_BYTES * len(tail):
            local.tail_bytes -= tail.popleft().size + EVENT_BYTES
        self.bytes += local.tail_bytes - before
        self._order[local] = None
        self._order.move_to_end(local)
        while self.bytes > self._most:
            self.forget(next(iter(self._order)))

    def forget(self, local: LocalRoom) -> None:
        """Drop a room's events."""
        if local in self._order:
            del self._order[local]
            self.bytes -= local.tail_bytes
            local.tail.clear()
            local.tail_bytes = 0
