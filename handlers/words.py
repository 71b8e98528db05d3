"""What goes is not kept by the log either: its words are taken out of what was pushed, in batches, before its row goes.

What an event says is found by the id that it was pushed with (`message_id`): of the thread, listing, question or match
whose words it holds. An event that is blank is found no more, so that a batch is always of what is left, whoever was
stopped before it. Whoever blanks holds the row of what goes: nobody tells of it any more, and where nothing was found
nothing is left.
"""

from collections.abc import Iterable, Sequence
from uuid import UUID

from server.commands.context import Told, Work
from server.rooms.log import ephemeral
from server.rooms.names import Room
from storage import matches, words

LOG_BLANKED = "log:blanked"
"""Among instances alone: what is remembered of a room's log is not what it says any more."""

EVENTS = 500  # of one transaction, each with a room to hold
MATCHES = 500  # of one transaction


def tell_blanked(at_work: Work, blanked: Iterable[Room]) -> None:
    """Have every instance forget, once that is committed, what it remembers of these rooms' logs."""
    at_work.told.extend(Told(ephemeral(room, LOG_BLANKED, "{}"), None) for room in blanked)


async def blank(at_work: Work, object_ids: Sequence[UUID], gone: Sequence[UUID] = ()) -> bool:
    """Blank some of what the log says of these objects; False where it says nothing of them any more.

    `gone` is what goes with them, where that is not themselves: of matches, the listings. The caller holds no room:
    those of the events are locked here, last.
    """
    found = await words.list_worded(at_work.db, object_ids, EVENTS)
    if not found:
        return False
    rooms = await at_work.lock_ids(*{each.room_id for each in found})
    await words.blank_worded(at_work.db, found, object_ids, gone or object_ids)
    tell_blanked(at_work, rooms.values())
    return True


async def blank_listings(at_work: Work, listing_ids: Sequence[UUID]) -> bool:
    """Blank some of what the log says of listings, whose rows are held; False where nothing is left.

    Their matches go along, but for those that became deals or may become some. These are held meanwhile: a deal that is
    paid tells of them.
    """
    found = await matches.lock_matches(at_work.db, listing_ids, MATCHES)
    if found:
        if not await blank(at_work, found, listing_ids):
            await matches.delete_matches(at_work.db, found)
        return True
    after = UUID(int=0)
    while mutual := await matches.lock_mutual(at_work.db, listing_ids, after, MATCHES):
        if await blank(at_work, mutual, listing_ids):
            return True
        after = mutual[-1]
    return await blank(at_work, listing_ids)
