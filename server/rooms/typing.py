"""Who types in which room, as each instance that watches the room knows it.

What travels between instances is one person's change; the list is put together on each of them, and an entry ends six
seconds after it was last heard of, wherever its instance has gone.
"""

import asyncio
from collections.abc import Callable
from uuid import UUID

import msgspec

from rules.typing import TypingState
from server.rooms.delivery import Delivery
from server.rooms.log import Event, ephemeral
from server.rooms.names import Room

EXPIRY_S = 6.0
CHANGE = "typing:set"
MOST = 200  # of one room: a list that nobody could read is not kept whole


class Typist(msgspec.Struct, frozen=True):
    """Somebody who types, or records."""

    user_id: UUID
    state: TypingState


class _Entry:
    __slots__ = ("state", "timer")

    def __init__(self, state: TypingState, timer: asyncio.TimerHandle) -> None:
        self.state = state
        self.timer = timer


class Typing:
    """The lists of one instance; `on_changed(room, typists)` is called whenever the list of a watched room changes."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._rooms: dict[Room, dict[UUID, _Entry]] = {}
        self.on_changed: Callable[[Room, list[Typist]], None] = lambda *_: None
        delivery.on_heard(CHANGE, self._heard)

    def set(self, room: Room, user_id: UUID, state: TypingState) -> None:
        """Say what somebody does now, here and on the other instances."""
        self._delivery.announce(ephemeral(room, CHANGE, _encode(Typist(user_id, state)).decode()))

    def said(self, room: Room, user_id: UUID) -> None:
        """Somebody has sent what they were typing."""
        if room in self._rooms:
            self._change(room, user_id, TypingState.STOPPED)

    @property
    def is_quiet(self) -> bool:
        """Whether nobody types anywhere."""
        return not self._rooms

    def _heard(self, event: Event) -> None:
        if self._delivery.is_watched(event.room):
            change = _decode(event.payload)
            self._change(event.room, change.user_id, change.state)

    def _change(self, room: Room, user_id: UUID, state: TypingState) -> None:
        typists = self._rooms.get(room, {})
        known = typists.pop(user_id, None)
        if known is not None:
            known.timer.cancel()
        if state is not TypingState.STOPPED and len(typists) < MOST:
            timer = asyncio.get_running_loop().call_later(EXPIRY_S, self._change, room, user_id, TypingState.STOPPED)
            typists[user_id] = _Entry(state, timer)
        if typists:
            self._rooms[room] = typists
        else:
            self._rooms.pop(room, None)
        if (known and known.state) != (state if user_id in typists else None):
            self.on_changed(room, [Typist(who, entry.state) for who, entry in typists.items()])


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Typist).decode
