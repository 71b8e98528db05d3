"""What is left of a thread that has been deleted, as it is stored."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from storage._db import Connection, load


class Doomed(msgspec.Struct, frozen=True):
    """A listing of such a thread; `is_dealt` says that deals stand on it."""

    listing_id: UUID
    is_dealt: bool


class Detached(msgspec.Struct, frozen=True):
    """A conversation whose listing is gone, and somebody who takes part in it, where anybody does."""

    conversation_id: UUID
    viewer_id: UUID | None


sql = load("emptying", Doomed, Detached)


async def list_unemptied(db: Connection, most: int) -> list[UUID]:
    """Threads that have been deleted and of which something is left."""
    return [row["thread_id"] async for row in sql.list_unemptied(db, most=most)]


async def lock_unemptied(db: Connection, thread_id: UUID) -> bool:
    """Lock such a thread until the transaction ends; False where nothing is left of it, or somebody else is at it."""
    return await sql.lock_unemptied(db, thread_id=thread_id) is not None


async def empty_members(db: Connection, thread_id: UUID, most: int) -> list[UUID]:
    """Let members go, out of the thread and its conversation; who they were."""
    return [row["user_id"] async for row in sql.empty_members(db, thread_id=thread_id, most=most)]


async def list_listings(db: Connection, thread_id: UUID, most: int) -> list[UUID]:
    """Some of the thread's listings."""
    return [row["listing_id"] async for row in sql.list_listings(db, thread_id=thread_id, most=most)]


async def lock_listings(db: Connection, listing_ids: Sequence[UUID]) -> list[Doomed]:
    """Lock the conversations about listings, then these, until the transaction ends: those that there are."""
    await sql.lock_conversations(db, listing_ids=listing_ids)
    return [row async for row in sql.lock_listings(db, listing_ids=listing_ids)]


async def detach_listings(db: Connection, listing_ids: Sequence[UUID]) -> None:
    """Take listings, which the caller holds, out of their thread."""
    await sql.detach_listings(db, listing_ids=listing_ids)


async def delete_likes(db: Connection, listing_ids: Sequence[UUID], most: int) -> bool:
    """Delete some likes of listings that the caller holds; whether there were any."""
    return bool(await sql.delete_likes(db, listing_ids=listing_ids, most=most))


async def list_faqs(db: Connection, listing_ids: Sequence[UUID], most: int) -> list[UUID]:
    """Some questions, answers and replies of listings, the latest of each first."""
    return [row["faq_id"] async for row in sql.list_faqs(db, listing_ids=listing_ids, most=most)]


async def delete_faqs(db: Connection, faq_ids: Sequence[UUID]) -> None:
    """Delete questions, answers and replies of listings that the caller holds."""
    await sql.delete_faqs(db, faq_ids=faq_ids)


async def delete_listings(db: Connection, listing_ids: Sequence[UUID]) -> list[Detached]:
    """Delete listings, which the caller holds and nothing hangs on.

    Returns the conversations that were about them, and stay.
    """
    detached = [row async for row in sql.detach_conversations(db, listing_ids=listing_ids)]
    await sql.delete_listings(db, listing_ids=listing_ids)
    return detached


async def note_emptied(db: Connection, thread_id: UUID) -> None:
    """Remember that nothing is left, and forget what the thread said of itself; the caller holds it."""
    await sql.note_emptied(db, thread_id=thread_id)
