"""How rooms are named on the wire."""

from typing import NamedTuple
from uuid import UUID

KINDS = frozenset({"user", "conversation", "thread", "listing", "live"})


class Room(NamedTuple):
    """A room; `str(room)` is its name on the wire, `kind:id`."""

    kind: str
    id: UUID

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


def parse(name: str) -> Room | None:
    """Read a room's name; None where it is not one."""
    kind, colon, rest = name.partition(":")
    if not colon or kind not in KINDS:
        return None
    try:
        room = Room(kind, UUID(rest))
    except ValueError:
        return None
    return room if str(room.id) == rest.lower() else None  # UUID() takes braces, other scripts' digits and more


def user_room(user_id: UUID) -> Room:
    """A person's own inbox."""
    return Room("user", user_id)


def conversation_room(conversation_id: UUID) -> Room:
    """A conversation's room; it shares the conversation's id."""
    return Room("conversation", conversation_id)


def thread_room(thread_id: UUID) -> Room:
    """A thread's room, which is its conversation's too; it shares the thread's id."""
    return Room("thread", thread_id)


def listing_room(listing_id: UUID) -> Room:
    """A listing's room; it shares the listing's id."""
    return Room("listing", listing_id)
