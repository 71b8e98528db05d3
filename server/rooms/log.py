"""Events of a room's log: appended in the transaction that changes the state, read back for whoever missed them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from server.rooms.names import Room
from server.wire import Packet, event_packet
from storage import Connection, Time, now
from storage import rooms as table


class Entry(NamedTuple):
    """What shall be pushed: `payload` is JSON text.

    `message_id` where it holds the words of a message, or of anything else that may go: the id of that, by which the
    event is found then.
    """

    room: Room
    name: str
    payload: str
    message_id: UUID | None = None


class Event:
    """A push to a room; `seq` is its place in the log, 0 where it bypasses that.

    Its packet is encoded at its first use, once for all of the room's members.
    """

    __slots__ = ("_packet", "_redacted", "_size", "at", "name", "payload", "room", "seq")

    def __init__(self, room: Room, seq: int, at: Time, name: str, payload: str) -> None:
        self.room = room
        self.seq = seq
        self.at = at
        self.name = name
        self.payload = payload
        self._packet: Packet | None = None
        self._size: int | None = None
        self._redacted: tuple[int, Event] | None = None

    def seen_from(self, floor: int) -> "Event":
        """The event for whom the room begins behind `floor`: where it shows again what lies before, without that."""
        redact = _redactions.get(self.name) if floor else None
        if redact is None:
            return self
        if self._redacted is None:
            about, payload = redact(self.payload)
            self._redacted = about, Event(self.room, self.seq, self.at, self.name, payload)
        about, redacted = self._redacted
        return redacted if about <= floor else self

    @property
    def size(self) -> int:
        """The payload's length in bytes."""
        size = self._size
        if size is None:
            payload = self.payload
            size = self._size = len(payload) if payload.isascii() else len(payload.encode())
        return size

    @property
    def packet(self) -> Packet:
        packet = self._packet
        if packet is None:
            seq = f'"seq":{self.seq},' if self.seq else ""
            meta = f'{{"room":"{self.room}",{seq}"at":"{self.at}"}}'
            packet = self._packet = event_packet(self.name, self.payload, meta)
        return packet

    def forget_packet(self) -> None:
        """Let the packet go; it is encoded again when somebody asks."""
        self._packet = None
        self._redacted = None

    def __repr__(self) -> str:
        return f"<{self.name} {self.room} {self.seq}>"


Redact = Callable[[str], tuple[int, str]]
"""From a payload to the seq of what it shows again, and the payload without that."""

_redactions: dict[str, Redact] = {}


def redact(name: str, how: Redact) -> None:
    """Say that events of a name show again what was in the room before, to newcomers without it."""
    _redactions[name] = how


def ephemeral(room: Room, name: str, payload: str) -> Event:
    """A push that bypasses the log; `payload` is JSON text."""
    return Event(room, 0, now(), name, payload)


async def append(db: Connection, entries: Sequence[Entry]) -> list[Event]:
    """Append to the rooms' logs within the caller's transaction; the rooms' rows stay locked until it ends."""
    placed = await table.append_events(
        db,
        [entry.room.id for entry in entries],
        [entry.name for entry in entries],
        [entry.payload for entry in entries],
        [entry.message_id for entry in entries],
    )
    return [
        Event(entry.room, place.seq, place.at, entry.name, entry.payload)
        for entry, place in zip(entries, placed, strict=True)
    ]


async def read(
    db: Connection, afters: Mapping[Room, int], *, room_rows: int, rows: int, bytes_: int
) -> dict[Room, list[Event]]:
    """What follows each room's `after`, in order and within the bounds; a room's list may end early, or be empty."""
    by_id = {room.id: room for room in afters}
    found: dict[Room, list[Event]] = {room: [] for room in afters}
    logged = await table.list_events(
        db, {room.id: after for room, after in afters.items()}, room_rows=room_rows, rows=rows, bytes_=bytes_
    )
    for row in logged:
        room = by_id[row.room_id]
        found[room].append(Event(room, row.seq, row.at, row.name, row.payload))
    return found


async def measure(db: Connection, spans: Sequence[tuple[Room, int, int]]) -> list[int | None]:
    """The bytes of the payloads behind each room's `after` up to its head; None where some of that has been swept."""
    found = await table.measure_events(db, [(room.id, after, head) for room, after, head in spans])
    return [
        row.bytes if row is not None and row.events == head - after else None
        for row, (_, after, head) in zip(found, spans, strict=True)
    ]


def follow(events: Sequence[Event], after: int) -> bool:
    """Whether the events run on from `after` + 1 without a hole, as what has been swept leaves it."""
    return all(event.seq == after + n for n, event in enumerate(events, 1))
