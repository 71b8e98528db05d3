"""What hangs on a deleted thread goes in batches: after the answer, and by a job where an instance was stopped."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

import msgspec
import structlog

from handlers.closing import end_listing
from handlers.conversations import tell_updated
from handlers.listings import listing_closed, tell_listing
from handlers.words import blank, blank_listings
from rules.listings import ListingStatus
from server.commands.context import Services, Work, work
from server.errors import ParleyError
from server.rooms.names import listing_room
from storage import emptying, listings

MEMBERS = 1_000  # of one transaction
LISTINGS = 50  # of one transaction, with the conversations about them
HANGING = 1_000  # likes, or questions and answers, of one transaction
UNEMPTIED = 100  # threads of one run of the job

logger = structlog.get_logger("parley.threads")


async def empty_all(services: Services) -> int:
    """Go on where an instance was stopped amid it; how many threads were left."""
    async with services.database.connection() as db:
        left = await emptying.list_unemptied(db, UNEMPTIED)
    for thread_id in left:
        try:
            await empty_thread(services, thread_id)
        except ParleyError as error:  # the others are not made to wait for it; it comes again
            logger.warning("emptying_failed", thread_id=str(thread_id), error=error.message)
    return len(left)


async def empty_thread(services: Services, thread_id: UUID) -> None:
    """Take away what is left of a deleted thread, batch by batch, unless somebody else is at it.

    Who was in it may know no more of who was there too, unless they share something else.
    """
    while (gone := await work(services, partial(_empty_some, thread_id))) is not None:
        for user_id in gone:
            services.presences.review(user_id)


async def _empty_some(thread_id: UUID, at_work: Work) -> Sequence[UUID] | None:
    """A batch of members, who they were; of what hangs on listings, or of these; or of what the log says of it.

    None at the end of it.
    """
    if not await emptying.lock_unemptied(at_work.db, thread_id):
        return None
    if members := await emptying.empty_members(at_work.db, thread_id, MEMBERS):
        return members
    found = await emptying.list_listings(at_work.db, thread_id, LISTINGS)
    if found:
        await _empty_listings(at_work, found)
        return ()
    if await blank(at_work, [thread_id]):
        return ()
    await emptying.note_emptied(at_work.db, thread_id)
    return None


async def _empty_listings(at_work: Work, found: Sequence[UUID]) -> None:
    """Take away a batch of what hangs on listings, or these; or one out of its thread, where deals stand on it."""
    locked = await emptying.lock_listings(at_work.db, found)
    doomed = [each.listing_id for each in locked if not each.is_dealt]
    if doomed and await _thin(at_work, doomed):
        return
    # Of those that stay one at a time: what ends with it has rooms of its own to lock.
    out = doomed or [each.listing_id for each in locked[:1]]
    await emptying.detach_listings(at_work.db, out)
    await (_delete if doomed else _close)(at_work, out)


async def _thin(at_work: Work, listing_ids: Sequence[UUID]) -> bool:
    """Take away some of what hangs on listings, or of what the log says of it or of them; False where all is gone."""
    if await emptying.delete_likes(at_work.db, listing_ids, HANGING):
        return True
    if faqs := await emptying.list_faqs(at_work.db, listing_ids, HANGING):
        if not await blank(at_work, faqs):
            await emptying.delete_faqs(at_work.db, faqs)
        return True
    return await blank_listings(at_work, listing_ids)


async def _delete(at_work: Work, listing_ids: Sequence[UUID]) -> None:
    """Delete listings, and tell whoever watches one or talks about one."""
    told = await listings.list_listings(at_work.db, UUID(int=0), listing_ids)
    detached = await emptying.delete_listings(at_work.db, listing_ids)
    there = await at_work.lock_ids(*listing_ids, *(each.conversation_id for each in detached))
    for listing in told:
        if listing.listing_id in there:
            closed = msgspec.structs.replace(listing.shared().without_words(), status=ListingStatus.CLOSED)
            at_work.push(listing_closed, closed, to=listing_room(listing.listing_id))
    for each in detached:
        if each.viewer_id is not None:
            await tell_updated(at_work, each.conversation_id, each.viewer_id)


async def _close(at_work: Work, listing_ids: Sequence[UUID]) -> None:
    """Close listings on which deals stand, with what is on the table about them; what was sold stays sold."""
    for listing_id in listing_ids:
        listing = await listings.read_held(at_work.db, listing_id)
        if listing is None:
            continue  # deleted with its owner
        if listing.status not in (ListingStatus.SOLD, ListingStatus.CLOSED):
            await end_listing(at_work, listing, ListingStatus.CLOSED)
            continue
        await at_work.lock(listing_room(listing_id))
        await tell_listing(at_work, listing, listing.user_id)
