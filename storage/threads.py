"""Threads as they are stored, and as their viewer sees them."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from rules.listings import Category
from storage._db import Connection, Time, load


class SharedThread(msgspec.Struct, frozen=True, kw_only=True):
    """What everybody sees alike of a thread: all that its room is told. No level before anybody has boosted it."""

    thread_id: UUID
    title: str
    description: str | None
    category: Category
    owner_id: UUID
    member_count: int
    boost_level: str | None
    boost_points: int
    is_hot: bool
    is_pinned: bool
    version: int
    at: Time


class Thread(SharedThread, frozen=True, kw_only=True):
    """All that its viewer sees of a thread."""

    joined: bool
    favorite: bool


class LockedThread(SharedThread, frozen=True, kw_only=True):
    """What changes to a thread are judged by; `changed_by` is whose the last one was."""

    changed_by: UUID | None
    is_deleted: bool

    def shared(self) -> SharedThread:
        """What its room is told."""
        return SharedThread(**{name: getattr(self, name) for name in SharedThread.__struct_fields__})

    def seen_by_nobody(self) -> Thread:
        """As whoever has deleted it is answered."""
        return Thread(**msgspec.structs.asdict(self.shared()), joined=False, favorite=False)


class Place(msgspec.Struct, frozen=True):
    """Where a thread stands in the list: pinned ones first, then the newest."""

    thread_id: UUID
    is_pinned: bool


sql = load("threads", Thread, LockedThread, Place)


async def create_thread(
    db: Connection, thread_id: UUID, owner_id: UUID, *, title: str, description: str | None, category: Category
) -> None:
    """Add a thread, without its conversation, its room and its first member."""
    await sql.create_thread(
        db, thread_id=thread_id, owner_id=owner_id, title=title, description=description, category=category
    )


async def lock_thread(db: Connection, thread_id: UUID) -> LockedThread | None:
    """Lock a thread, one that has been deleted too, until the transaction ends; None where there is none."""
    found: LockedThread | None = await sql.lock_thread(db, thread_id=thread_id)
    return found


async def share_thread(db: Connection, thread_id: UUID) -> bool:
    """Let a thread's members and itself stand still until the transaction ends; False where there is none any more."""
    return await sql.share_thread(db, thread_id=thread_id) is not None


async def list_threads(db: Connection, viewer_id: UUID, thread_ids: Sequence[UUID]) -> list[Thread]:
    """The threads as the person sees them, in the order given; deleted ones are left out."""
    rows = sql.list_threads(db, viewer_id=viewer_id, thread_ids=thread_ids)
    found = {row.thread_id: row async for row in rows}
    return [found[id_] for id_ in thread_ids if id_ in found]


async def page_threads(
    db: Connection,
    viewer_id: UUID,
    *,
    category: Category | None,
    joined: bool | None,
    before: Place | None,
    most: int,
) -> list[Place]:
    """A page of the threads, from behind a place on: all, or those that the person has joined, or has not."""
    place = {"before_pinned": before and before.is_pinned, "before_id": before and before.thread_id, "most": most}
    if joined:
        rows = sql.page_joined(db, viewer_id=viewer_id, category=category, **place)
    elif category is not None:
        rows = sql.page_category(db, category=category, viewer_id=viewer_id, joined=joined, **place)
    else:
        rows = sql.page_threads(db, viewer_id=viewer_id, joined=joined, **place)
    return [row async for row in rows]


async def update_thread(
    db: Connection,
    thread_id: UUID,
    *,
    title: str,
    description: str | None,
    category: Category,
    is_pinned: bool,
    by: UUID,
) -> None:
    """Write what people say of a thread, and count the change; the caller holds its row."""
    await sql.update_thread(
        db,
        thread_id=thread_id,
        title=title,
        description=description,
        category=category,
        is_pinned=is_pinned,
        changed_by=by,
    )


async def hand_over(db: Connection, thread_id: UUID, owner_id: UUID) -> None:
    """Give a thread another owner, and count the change; the caller holds its row."""
    await sql.hand_over(db, thread_id=thread_id, owner_id=owner_id)


async def delete_thread(db: Connection, thread_id: UUID, by: UUID) -> None:
    """Mark a thread as deleted and close its conversation; the caller holds its row and its room."""
    await sql.delete_thread(db, thread_id=thread_id, deleted_by=by)
