"""Likes, which are people's wishlists, and the counts of likes and views."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from storage._db import Connection, load


class Counted(msgspec.Struct, frozen=True):
    """A listing that there is, and whether it is locked now: somebody may hold it."""

    listing_id: UUID
    is_locked: bool


sql = load("likes", Counted)


async def set_like(db: Connection, user_id: UUID, listing_id: UUID, *, on: bool) -> bool:
    """Like a listing, or no more; whether that changed anything."""
    change = sql.create_like if on else sql.delete_like
    return await change(db, user_id=user_id, listing_id=listing_id) is not None


async def count_likes(db: Connection, listing_id: UUID) -> int:
    """How many people like a listing, exactly."""
    count: int = await sql.count_likes(db, listing_id=listing_id)
    return count


async def lock_counted(db: Connection, listing_ids: Sequence[UUID]) -> list[Counted]:
    """Lock those of the listings that nobody holds, until the transaction ends; all that there are."""
    return [row async for row in sql.lock_counted(db, listing_ids=listing_ids)]


async def add_views(db: Connection, views: Mapping[UUID, int]) -> None:
    """Count views of listings whose rows are held."""
    await sql.add_views(db, listing_ids=list(views), views=list(views.values()))


async def recount_likes(db: Connection, listing_ids: Sequence[UUID]) -> None:
    """Write how many people like each of the listings, whose rows are held."""
    await sql.recount_likes(db, listing_ids=listing_ids)
