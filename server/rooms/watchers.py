"""Who watches whom on one instance, and what the watchers know: in memory alone, asking nobody."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from uuid import UUID

from server.rooms.bus import Bus
from server.rooms.names import Room
from server.rooms.sockets import Socket
from storage.presence import Presence

Pair = tuple[Socket, UUID]
"""A socket, and somebody whom it watches."""


class Watchers:
    """Sockets and the people they watch.

    Whoever asks to watch stands among the watchers before that is judged, so that a review in between finds it; until
    it is accepted it is told nothing.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._of: dict[UUID, set[Socket]] = {}
        self._by: OrderedDict[Socket, set[UUID]] = OrderedDict()  # whose turn is longest ago comes first
        self._asking: set[Pair] = set()
        self._known: dict[UUID, Presence | None] = {}  # None where they may know different things

    def __contains__(self, user_id: UUID) -> bool:
        return user_id in self._of

    def __iter__(self) -> Iterator[UUID]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    @property
    def sockets(self) -> int:
        """How many sockets watch somebody."""
        return len(self._by)

    def of(self, user_id: UUID) -> list[Pair]:
        """The watchers of somebody, those that ask included."""
        return [(socket, user_id) for socket in self._of.get(user_id, ())]

    def by(self, socket: Socket) -> list[UUID]:
        """Whom a socket watches or asks to watch."""
        return list(self._by.get(socket, ()))

    def turn(self) -> list[Pair]:
        """What the socket watches whose last turn is longest ago."""
        if not self._by:
            return []
        socket = next(iter(self._by))
        self._by.move_to_end(socket)
        return [(socket, user_id) for user_id in self._by[socket]]

    def ask(self, socket: Socket, user_ids: Sequence[UUID]) -> list[Pair]:
        """Let a socket, if it is not gone, stand among the watchers of these people; the pairs that are new."""
        new = [] if socket.is_gone else [(socket, user_id) for user_id in {*user_ids}.difference(self.by(socket))]
        for _, user_id in new:
            watchers = self._of.setdefault(user_id, set())
            if not watchers:
                self._bus.subscribe(presence_room(user_id))
            watchers.add(socket)
            self._by.setdefault(socket, set()).add(user_id)
        self._asking.update(new)
        return new

    def accept(self, socket: Socket, found: Presence) -> bool:
        """Let a socket that was told this hear what follows; False where it has been let go of since it asked."""
        if found.user_id not in self._by.get(socket, ()):
            return False
        self._asking.discard((socket, found.user_id))
        known = self._known.setdefault(found.user_id, found)
        if known is not None and known.state != found.state:
            self._known[found.user_id] = None
        return True

    def is_in_doubt(self, user_id: UUID) -> bool:
        """Whether somebody's watchers may know different things of them."""
        return user_id in self._known and self._known[user_id] is None

    def learn(self, now: Presence) -> list[Socket]:
        """Note what holds of somebody; the sockets that are to be told."""
        known = self._known.get(now.user_id)
        if now.user_id not in self._of or (known is not None and known.state == now.state):
            return []
        self._known[now.user_id] = now
        return [pair[0] for pair in self.of(now.user_id) if pair not in self._asking]

    def give_up(self, pairs: Sequence[Pair]) -> None:
        """Let go of those that still ask."""
        for pair in self._asking.intersection(pairs):
            self.let_go(*pair)

    def let_go(self, socket: Socket, user_id: UUID) -> bool:
        """Tell a socket of somebody no more; whether it was told until now."""
        watched = self._by.get(socket, set())
        if user_id not in watched:
            return False
        watched.discard(user_id)
        if not watched:
            del self._by[socket]
        watchers = self._of[user_id]
        watchers.discard(socket)
        if not watchers:
            del self._of[user_id]
            self._known.pop(user_id, None)
            self._bus.unsubscribe(presence_room(user_id))
        was_told = (socket, user_id) not in self._asking
        self._asking.discard((socket, user_id))
        return was_told


def presence_room(user_id: UUID) -> Room:
    """Where instances tell each other of somebody; nobody stands in it."""
    return Room("presence", user_id)
