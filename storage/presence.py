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


class Pair(msgspec.Struct, frozen=True):
    watcher_id: UUID
    user_id: UUID


sql = load("presence", Presence, Near, Pair)


async def create_instance(db: Connection, instance_id: UUID, seconds: float) -> None:
    """Let a new instance say something of people, which holds for so long."""
    await sql.create_instance(db, instance_id=instance_id, seconds=seconds)


async def renew(db: Connection, instance_id: UUID, seconds: float) -> bool:
    """Let what an instance says hold for so long from now on; False where it is closed or gone, and needs a new id."""
    return bool(await sql.renew(db, instance_id=instance_id, seconds=seconds))


async def close_instances(db: Connection, instance_id: UUID | None = None) -> list[UUID]:
    """End for good what an instance says, or without one what all say whose lease is over; whom to bury."""
    return [row["instance_id"] async for row in sql.close_instances(db, instance_id=instance_id)]


async def bury(db: Connection, instance_id: UUID, most: int) -> bool:
    """Forget what a closed instance has said of so many people, and at last the instance; True while some are left."""
    gone: int = await sql.bury(db, instance_id=instance_id, most=most)
    if gone < most:
        await sql.delete_instance(db, instance_id=instance_id)
    return gone == most


async def set_states(db: Connection, instance_id: UUID, states: Mapping[UUID, PresenceState]) -> bool:
    """Say of people what they are on an instance; False, and nothing is said, where that one is unknown or closed."""
    there = {user_id: state for user_id, state in states.items() if state != PresenceState.OFFLINE}
    lives = await sql.set_states(db, instance_id=instance_id, user_ids=list(there), states=list(there.values()))
    if lives and len(there) < len(states):
        await sql.set_offline(db, instance_id=instance_id, user_ids=[who for who in states if who not in there])
    return bool(lives)


async def list_presences(db: Connection, user_ids: Collection[UUID]) -> list[Presence]:
    """What people are on all instances together; those who are no active people are left out."""
    return [row async for row in sql.list_presences(db, user_ids=list(user_ids))]


async def list_near(db: Connection, watcher_id: UUID, user_ids: Sequence[UUID]) -> dict[UUID, bool]:
    """Those with whom somebody shares a conversation; True where one of the two has blocked the other."""
    rows = sql.list_near(db, watcher_id=watcher_id, user_ids=user_ids)
    return {row.user_id: row.hidden async for row in rows}


async def list_apart(db: Connection, pairs: Collection[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
    """Of pairs of a watcher and somebody watched those that may not be: nothing is shared, or one blocked the other."""
    watcher_ids, user_ids = [watcher_id for watcher_id, _ in pairs], [user_id for _, user_id in pairs]
    rows = sql.list_apart(db, watcher_ids=watcher_ids, user_ids=user_ids)
    return {(row.watcher_id, row.user_id) async for row in rows}
