"""Who has joined a thread, as it is stored."""

from uuid import UUID

from storage._db import Connection, load

sql = load("members")


async def create_owner(db: Connection, thread_id: UUID, user_id: UUID) -> None:
    """Let a thread that has just been made begin with its owner."""
    await sql.create_owner(db, thread_id=thread_id, user_id=user_id)


async def add_member(db: Connection, thread_id: UUID, user_id: UUID, head: int) -> None:
    """Let somebody in who is not in it; what there is up to `head` counts as read. The caller holds thread and room."""
    await sql.add_member(db, thread_id=thread_id, user_id=user_id, head=head)


async def remove_member(db: Connection, thread_id: UUID, user_id: UUID) -> None:
    """Let a member go; the caller holds thread and room."""
    await sql.remove_member(db, thread_id=thread_id, user_id=user_id)


async def is_member(db: Connection, thread_id: UUID, user_id: UUID) -> bool:
    """Whether somebody has joined a thread."""
    found: bool = await sql.is_member(db, thread_id=thread_id, user_id=user_id)
    return found


async def count_joined(db: Connection, user_id: UUID) -> int:
    """How many threads somebody has joined."""
    count: int = await sql.count_joined(db, user_id=user_id)
    return count


async def find_heir(db: Connection, thread_id: UUID) -> UUID | None:
    """The longest-standing member beside the owner; None where there is none."""
    heir: UUID | None = await sql.find_heir(db, thread_id=thread_id)
    return heir


async def set_favorite(db: Connection, thread_id: UUID, user_id: UUID, *, on: bool) -> bool:
    """Mark a thread as a favorite of somebody's, or no more; False where they have not joined it."""
    return await sql.set_favorite(db, thread_id=thread_id, user_id=user_id, is_favorite=on) is not None


async def find_thread(db: Connection, user_id: UUID) -> UUID | None:
    """A thread that somebody has joined, or None."""
    found: UUID | None = await sql.find_thread(db, user_id=user_id)
    return found
