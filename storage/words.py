"""What the log says of threads, listings, questions and matches, found by what it is about."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from storage._db import Connection, load


class Worded(msgspec.Struct, frozen=True):
    """An event whose payload holds the words of something."""

    room_id: UUID
    seq: int


sql = load("words", Worded)


async def list_worded(db: Connection, object_ids: Sequence[UUID], most: int) -> list[Worded]:
    """Some of the events that hold the words of one of these."""
    return [row async for row in sql.list_worded(db, object_ids=object_ids, most=most)]


async def blank_worded(
    db: Connection, found: Sequence[Worded], object_ids: Sequence[UUID], gone: Sequence[UUID]
) -> None:
    """Take the words of what goes out of events that were found by these objects; the caller holds their rooms.

    They are found by them no more. A match's keep what the other listing says, under that.
    """
    await sql.blank_worded(
        db,
        room_ids=[each.room_id for each in found],
        seqs=[each.seq for each in found],
        object_ids=object_ids,
        gone=gone,
    )
