"""Who has blocked whom."""

from collections.abc import Sequence
from uuid import UUID

from storage._db import Connection, load

sql = load("blocks")


async def create_block(db: Connection, blocker_id: UUID, blocked_id: UUID) -> bool:
    """Block somebody; False where they are blocked already."""
    return await sql.create_block(db, blocker_id=blocker_id, blocked_id=blocked_id) is not None


async def delete_block(db: Connection, blocker_id: UUID, blocked_id: UUID) -> bool:
    """Block somebody no more; False where they are not blocked."""
    return await sql.delete_block(db, blocker_id=blocker_id, blocked_id=blocked_id) is not None


async def count_blocks(db: Connection, blocker_id: UUID) -> int:
    """How many people somebody has blocked."""
    count: int = await sql.count_blocks(db, blocker_id=blocker_id)
    return count


async def list_blocked(db: Connection, blocker_id: UUID) -> list[UUID]:
    """Those whom somebody has blocked, the latest first."""
    return [row["blocked_id"] async for row in sql.list_blocked(db, blocker_id=blocker_id)]


async def between(db: Connection, user_id: UUID, others: Sequence[UUID]) -> set[UUID]:
    """Those of the others who have blocked this person, or whom this person has blocked."""
    return {row["other_id"] async for row in sql.list_between(db, user_id=user_id, others=others)}
