"""Who is there, as it is stored."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import msgspec

from rules.presence import PresenceState
from storage._db import Connection, Time, load


class Presence(msgspec.Struct, frozen=True):
    """Whether somebody is there on any device; if not, since when, where that is known."""

    user_id: UUID
    state: PresenceState
    last_seen_at: Time | None


class Near(msgspec.Struct, frozen=True):
    user_id: UUID
    hidden: bool


sql = load("presence", Presence, Near)


async def renew(db: Connection, instance_id: UUID, seconds: float) -> bool:
    """Let what an instance says of people hold for so long from now on; True where nothing it said is there."""
    is_new: bool = await sql.renew(db, instance_id=instance_id, seconds=seconds)
    return is_new


async def bury(db: Connection, instance_id: UUID | None = None) -> None:
    """Forget what an instance has said of people; without one, what all have said that live no more."""
    await sql.bury(db, instance_id=instance_id)


async def set_states(db: Connection, instance_id: UUID, states: Mapping[UUID, PresenceState]) -> None:
    """Say of people what they are on an instance; the instance has to be known."""
    there = {user_id: state for user_id, state in states.items() if state != PresenceState.OFFLINE}
    if there:
        await sql.set_states(db, instance_id=instance_id, user_ids=list(there), states=list(there.values()))
    if len(there) < len(states):
        await sql.set_offline(db, instance_id=instance_id, user_ids=[who for who in states if who not in there])


async def list_presences(db: Connection, user_ids: Collection[UUID]) -> list[Presence]:
    """What people are on all instances together; those who are no active people are left out."""
    return [row async for row in sql.list_presences(db, user_ids=list(user_ids))]


async def list_near(db: Connection, watcher_id: UUID, user_ids: Sequence[UUID]) -> dict[UUID, bool]:
    """Those with whom somebody shares a conversation; True where one of the two has blocked the other."""
    rows = sql.list_near(db, watcher_id=watcher_id, user_ids=user_ids)
    return {row.user_id: row.hidden async for row in rows}
