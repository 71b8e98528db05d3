"""Which threads are hot, as the log says."""

from uuid import UUID

import msgspec

from storage._db import Connection, load


class Turning(msgspec.Struct, frozen=True):
    """A thread that has to turn hot, or cold again; or the one that a page ends with."""

    thread_id: UUID
    turns: bool


sql = load("heat", Turning)


async def list_turning(db: Connection, after: UUID | None, most: int) -> tuple[list[UUID], UUID | None]:
    """Of a page of threads those that have to turn hot or cold; and the last of the page, None behind the last page."""
    rows = [row async for row in sql.list_turning(db, after=after, most=most)]
    return [row.thread_id for row in rows if row.turns], rows[-1].thread_id if rows else None


async def is_hot(db: Connection, thread_id: UUID) -> bool:
    """Whether a thread's room has had a hundred events within a day."""
    found: bool = await sql.is_hot(db, thread_id=thread_id)
    return found


async def set_hot(db: Connection, thread_id: UUID, *, is_hot: bool) -> None:
    """Say whether a thread is hot; the caller holds its row."""
    await sql.set_hot(db, thread_id=thread_id, is_hot=is_hot)
