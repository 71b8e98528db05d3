"""What hangs on a deleted thread goes in batches: after the answer, and by a job where an instance was stopped."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

import msgspec
import structlog

from handlers.closing import end_listing
from handlers.conversations import tell_updated
from handlers.listings import listing_closed, tell_listing
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
    """Take away what is left of a deleted thread, batch by batch, unless somebody else is at it."""
    while await work(services, partial(_empty_some, thread_id)):
        pass


async def _empty_some(thread_id: UUID, at_work: Work) -> bool:
    """A batch of members, of what hangs on listings, or of these, else an end of it; whether there is more to do."""
    if not await emptying.lock_unemptied(at_work.db, thread_id):
        return False
    if await emptying.empty_members(at_work.db, thread_id, MEMBERS):
        return True
    found = await emptying.list_listings(at_work.db, thread_id, LISTINGS)
    if not found:
        await emptying.note_emptied(at_work.db, thread_id)
        return False
    locked = await emptying.lock_listings(at_work.db, found)
    doomed = [each.listing_id for each in locked if not each.is_dealt]
    if await emptying.thin_listings(at_work.db, doomed, HANGING):
        return True
    # Of those that stay one at a time: what ends with it has rooms of its own to lock.
    out = doomed or [each.listing_id for each in locked[:1]]
    await emptying.detach_listings(at_work.db, out)
    await (_delete if doomed else _close)(at_work, out)
    return True


async def _delete(at_work: Work, listing_ids: Sequence[UUID]) -> None:
    """Delete listings, and tell whoever watches one or talks about one."""
    told = await listings.list_listings(at_work.db, UUID(int=0), listing_ids)
    detached = await emptying.delete_listings(at_work.db, listing_ids)
    there = await at_work.lock_ids(*listing_ids, *(each.conversation_id for each in detached))
    for listing in told:
        if listing.listing_id in there:
            closed = msgspec.structs.replace(listing.shared(), status=ListingStatus.CLOSED)
            at_work.push(listing_closed, closed, to=listing_room(listing.listing_id), message_id=listing.listing_id)
    for each in detached:
        if each.viewer_id is not None:
            await tell_updated(at_work, each.conversation_id, each.viewer_id)


async def _close(at_work: Work, listing_ids: Sequence[UUID]) -> None:
    """Close listings on which deals stand, with what is on the table about them; what was sold stays sold."""
    for listing_id in listing_ids:
        listing = await listings.lock_listing(at_work.db, listing_id)
        if listing is None:
            continue  # deleted with its owner
        if listing.status not in (ListingStatus.SOLD, ListingStatus.CLOSED):
            await end_listing(at_work, listing, ListingStatus.CLOSED)
            continue
        await at_work.lock(listing_room(listing_id))
        await tell_listing(at_work, listing, listing.user_id)
