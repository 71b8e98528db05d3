"""Ends of more negotiations than one transaction writes, noted until a job has written them all."""

from uuid import UUID

from rules.offers import Move
from storage._db import Connection, load

sql = load("endings")


async def create_ending(
    db: Connection, move: Move, *, listing_id: UUID | None = None, pair: tuple[UUID, UUID] | None = None
) -> int:
    """Note that all open negotiations about a listing, or between two people, have ended; the moment since which.

    The caller holds the listing's row, or those of the two.
    """
    one_id, other_id = pair or (None, None)
    moment: int = await sql.create_ending(db, move=move, listing_id=listing_id, one_id=one_id, other_id=other_id)
    return moment


async def list_endings(db: Connection, after: int, most: int) -> list[int]:
    """The moments of the ends that are not written to their end, in order, behind one."""
    return [row["moment"] async for row in sql.list_endings(db, after=after, most=most)]


async def lock_ending(db: Connection, moment: int) -> Move | None:
    """Hold an end, before its negotiations; the move that it was, or None where another is at it, or it is done."""
    move: Move | None = await sql.lock_ending(db, moment=moment)
    return move


async def list_rest(db: Connection, moment: int, after: UUID, most: int) -> list[UUID]:
    """Negotiations that have ended at a moment and are open still, in order of id, behind one."""
    return [row["negotiation_id"] async for row in sql.list_rest(db, moment=moment, after=after, most=most)]


async def delete_ending(db: Connection, moment: int) -> None:
    """Forget an end, which the caller holds: all is written."""
    await sql.delete_ending(db, moment=moment)
