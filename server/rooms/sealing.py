"""What travels on the bus: events in frames that only the instances of one deployment can make.

A frame is a keyed BLAKE2b digest (RFC 7693), 16 bytes, over what follows it: its origin, 8 bytes; its number, 8 bytes;
and a flat msgpack list, for each event its room's key, seq, time, name, and payload as it was encoded for the log. Of
one origin the numbers rise: a frame that is played again is known by that. Where any of this changes, the channel gets
another name, so that instances of two versions leave each other to the log.
"""

import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

import msgpack

from server.rooms.log import Event
from server.rooms.names import Room
from storage import Time

DIGEST_BYTES = 16
ORIGIN_BYTES = 8
_ORIGIN_AT = DIGEST_BYTES
_NUMBER_AT = _ORIGIN_AT + ORIGIN_BYTES
_EVENTS_AT = _NUMBER_AT + 8
ORIGINS = 1_000  # whose latest numbers are remembered
FRAME_EVENTS, FRAME_BYTES = 256, 256 * 1024  # a frame is closed behind the event that reaches either


def key_of(room: Room) -> bytes:
    """A room as frames name it."""
    return room.kind.encode() + room.id.bytes


class Seal:
    """Makes and opens the frames of one deployment, whose secret is `key` (64 bytes at most)."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.origin = os.urandom(ORIGIN_BYTES)
        self._number = 0
        self._numbers: OrderedDict[bytes, int] = OrderedDict()

    @property
    def channel(self) -> str:
        """Where the instances of the deployment meet; of another deployment it is another."""
        return f"parley:{hashlib.blake2b(b'frames 1', key=self._key, digest_size=8).hexdigest()}"

    def close(self, events: Sequence[Event]) -> Iterator[bytes]:
        """Frames that hold the events, in order; one without any where there is none."""
        parts: list[bytes | int | str] = []
        size = 0
        for event in events:
            parts += (key_of(event.room), event.seq, event.at, event.name, event.payload)
            size += len(event.payload)
            if len(parts) >= 5 * FRAME_EVENTS or size >= FRAME_BYTES:
                yield self._frame(parts)
                parts, size = [], 0
        if parts or not events:
            yield self._frame(parts)

    def is_own(self, frame: bytes) -> bool:
        """Whether a frame says that it was made here."""
        return frame[_ORIGIN_AT:_NUMBER_AT] == self.origin

    def open(self, frame: bytes, rooms: Mapping[bytes, Room]) -> list[Event]:
        """The events of a frame in those of the rooms, by key. Raises ValueError where it is forged or was opened."""
        body = frame[_ORIGIN_AT:]
        if len(frame) < _EVENTS_AT or not hmac.compare_digest(frame[:DIGEST_BYTES], self._digest(body)):
            raise ValueError("not a frame of this deployment")
        origin, number = frame[_ORIGIN_AT:_NUMBER_AT], int.from_bytes(frame[_NUMBER_AT:_EVENTS_AT], "big")
        if number <= self._numbers.get(origin, 0):
            raise ValueError("a frame that is played again")
        self._numbers[origin] = number
        self._numbers.move_to_end(origin)
        if len(self._numbers) > ORIGINS:
            self._numbers.popitem(last=False)
        parts = iter(msgpack.unpackb(frame[_EVENTS_AT:]))
        return [
            Event(room, seq, Time(at), name, payload)
            for key, seq, at, name, payload in zip(parts, parts, parts, parts, parts, strict=True)
            if (room := rooms.get(key)) is not None
        ]

    def _frame(self, parts: Sequence[bytes | int | str]) -> bytes:
        self._number += 1
        packed: bytes = msgpack.packb(parts)
        body = b"".join((self.origin, self._number.to_bytes(8, "big"), packed))
        return self._digest(body) + body

    def _digest(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, key=self._key, digest_size=DIGEST_BYTES).digest()
