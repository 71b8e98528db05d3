"""What travels on the bus: events in frames that only the instances of one deployment can make.

A frame is a keyed BLAKE2b digest (RFC 7693), 16 bytes, over what follows it: its origin, 8 bytes; its number, 8 bytes,
which rises with each of an origin's frames; and msgpack. That is a flat list, for each event its room's key, seq, time,
name, and payload as it was encoded for the log; or, in a greeting, a map of the origins that were heard lately to the
numbers up to which they were. Whether a frame is of now is for `server.rooms.origins` to say. Where any of this
changes, the channel gets another name, so that instances of two versions leave each other to the log.
"""

import hashlib
import hmac
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from server.rooms.log import Event
from server.rooms.names import Room
from storage import Time

DIGEST_BYTES = 16
ORIGIN_BYTES = 8
_ORIGIN_AT = DIGEST_BYTES
_NUMBER_AT = _ORIGIN_AT + ORIGIN_BYTES
_EVENTS_AT = _NUMBER_AT + 8
FRAME_EVENTS, FRAME_BYTES = 256, 256 * 1024  # a frame is closed behind the event that reaches either
REFUSED_BYTES = 4 * 2**20  # no frame is as long as that; what is, nobody need hash to know it


def key_of(room: Room) -> bytes:
    """A room as frames name it."""
    return room.kind.encode() + room.id.bytes


class Frame(NamedTuple):
    """A frame of the deployment: who made it, as their how manyeth, and what it holds.

    `told` is of events and flat, five parts each; `greeting` is None but in a greeting.
    """

    origin: bytes
    number: int
    told: Sequence[Any]
    greeting: Mapping[bytes, int] | None

    def events(self, rooms: Mapping[bytes, Room]) -> list[Event]:
        """The events in those of the rooms, by key."""
        parts = iter(self.told)
        return [
            Event(room, seq, Time(at), name, payload)
            for key, seq, at, name, payload in zip(parts, parts, parts, parts, parts, strict=True)
            if (room := rooms.get(key)) is not None
        ]


class Seal:
    """Makes and opens the frames of one deployment, whose secret is `key` (64 bytes at most)."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.origin = os.urandom(ORIGIN_BYTES)
        self.number = 0  # of the latest frame that was made here

    @property
    def channel(self) -> str:
        """Where the instances of the deployment meet; of another deployment it is another."""
        return f"parley:{hashlib.blake2b(b'frames 2', key=self._key, digest_size=8).hexdigest()}"

    def close(self, events: Sequence[Event]) -> Iterator[bytes]:
        """Frames that hold the events, in order."""
        parts: list[bytes | int | str] = []
        size = 0
        for event in events:
            parts += (key_of(event.room), event.seq, event.at, event.name, event.payload)
            size += event.size
            if len(parts) >= 5 * FRAME_EVENTS or size >= FRAME_BYTES:
                yield self._frame(parts)
                parts, size = [], 0
        if parts:
            yield self._frame(parts)

    def greet(self, heard: Mapping[bytes, int]) -> bytes:
        """A greeting, which says of each of these origins up to which number it was heard."""
        return self._frame(heard)

    def is_own(self, frame: bytes) -> bool:
        """Whether a frame says that it was made here."""
        return frame[_ORIGIN_AT:_NUMBER_AT] == self.origin

    def number_of(self, frame: bytes) -> int:
        """The number that a frame says it has."""
        return int.from_bytes(frame[_NUMBER_AT:_EVENTS_AT], "big")

    def open(self, frame: bytes) -> Frame:
        """What a frame says. Raises ValueError where it is forged."""
        if not _EVENTS_AT <= len(frame) < REFUSED_BYTES:
            raise ValueError("not a frame of this deployment")
        if not hmac.compare_digest(frame[:DIGEST_BYTES], self._digest(frame[_ORIGIN_AT:])):
            raise ValueError("not a frame of this deployment")
        origin, number = frame[_ORIGIN_AT:_NUMBER_AT], self.number_of(frame)
        content = msgpack.unpackb(frame[_EVENTS_AT:])
        return Frame(origin, number, (), content) if isinstance(content, dict) else Frame(origin, number, content, None)

    def _frame(self, content: Sequence[bytes | int | str] | Mapping[bytes, int]) -> bytes:
        self.number += 1
        packed: bytes = msgpack.packb(content)
        body = b"".join((self.origin, self.number.to_bytes(8, "big"), packed))
        return self._digest(body) + body

    def _digest(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, key=self._key, digest_size=DIGEST_BYTES).digest()
