"""What a deleted account leaves of its dealings: nothing that waits for it, and none of its own words.

Each is done in batches, a transaction each, and done twice it is done once: a restart goes on with it.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from math import inf
from uuid import UUID

from handlers.bargaining import Changes
from handlers.blocks import BlockChanged, block_changed
from handlers.closing import end_listing
from handlers.endings import leave_negotiations
from handlers.settling import leave_deals
from handlers.words import LOG_BLANKED, blank_listings
from rules.listings import ListingStatus
from server.commands.context import Services, Work, work
from server.rooms.log import ephemeral
from server.rooms.names import Room, listing_room, user_room
from storage import erasure, listings, negotiations, rooms
from storage.erasure import Posted, Reviewed
from storage.rooms import Head

BATCH = 100  # reviews, questions or blocks of one transaction


async def forget_dealings(services: Services, user_id: UUID) -> None:
    """Step back from deals that are not paid, end what they wanted to buy, and blank what they wrote about either.

    What was offered, paid and rated stays. Done twice it is done once.
    """
    await leave_deals(services, user_id)
    await leave_negotiations(services, user_id)
    while True:
        async with services.database.connection() as db:
            negotiation_id = await erasure.find_worded(db, user_id)
            found = [] if negotiation_id else await erasure.list_reviews(db, user_id, BATCH)
        if negotiation_id is not None:
            await _blank(services, partial(_blank_offers, negotiation_id, user_id))
        elif found:
            await _blank(services, partial(_blank_reviews, found))
        else:
            return


async def _blank(services: Services, unit: Callable[[Work], Awaitable[set[UUID]]]) -> None:
    """Blank something in a transaction; then every instance forgets what it remembers of the logs that it was in."""

    async def blank(at_work: Work) -> list[Head]:
        return await rooms.list_heads(at_work.db, list(await unit(at_work)))

    for head in await work(services, blank):
        services.delivery.announce(ephemeral(Room(head.kind, head.room_id), LOG_BLANKED, "{}"))


async def _blank_offers(negotiation_id: UUID, user_id: UUID, at_work: Work) -> set[UUID]:
    """Blank what somebody wrote with their offers of one negotiation, and tell both sides of these."""
    changes = Changes(at_work)
    negotiation = await negotiations.lock_negotiation(at_work.db, negotiation_id)
    blanked = await erasure.blank_offers(at_work.db, negotiation_id, user_id)
    await changes.reworded(negotiation, blanked)
    await changes.tell()
    # The rooms are held: what was pushed before is in the log, and what comes behind has nothing of it.
    return await erasure.blank_offer_events(at_work.db, blanked)


async def _blank_reviews(found: Sequence[Reviewed], at_work: Work) -> set[UUID]:
    await at_work.lock(*{user_room(user_id) for each in found for user_id in (each.author_id, each.subject_id)})
    return await erasure.blank_reviews(at_work.db, [each.review_id for each in found])


async def forget_wares(services: Services, user_id: UUID, batches: float = inf) -> bool:
    """End what they have listed, and blank it, what they asked and answered, and what they liked; whether that was all.

    The rows that deals stand on stay, under a title that says nothing. At most so many batches are done.
    """
    while True:
        batches -= 1
        if batches < 0:
            return False
        async with services.database.connection() as db:
            listing_id = await erasure.find_listing(db, user_id)
            found = [] if listing_id else await erasure.list_posted(db, user_id, BATCH)
        if listing_id is not None:
            await work(services, partial(_blank_listing, listing_id))
        elif found:
            await _blank(services, partial(_blank_posted, found))
        else:
            break
    async with services.database.connection() as db:
        await erasure.blank_acts(db, user_id)
        while disliked := await erasure.delete_likes(db, user_id):
            services.tallies.liked.update(disliked)
    return True


async def _blank_listing(listing_id: UUID, at_work: Work) -> None:
    """Blank some of what the log says of a listing; where that is nothing any more, blank and end the listing."""
    listing = await listings.lock_listing(at_work.db, listing_id)
    if listing is None or await blank_listings(at_work, [listing_id]):
        return
    await erasure.blank_listing(at_work.db, listing_id)
    if listing.status != ListingStatus.SOLD:
        await end_listing(at_work, listing, ListingStatus.CLOSED)
    await erasure.delete_listing(at_work.db, listing_id)


async def _blank_posted(found: Sequence[Posted], at_work: Work) -> set[UUID]:
    told = {listing_room(each.listing_id) for each in found} | {user_room(each.owner_id) for each in found}
    await at_work.lock(*told)
    return await erasure.blank_posted(at_work.db, [each.faq_id for each in found])


async def forget_blocks(services: Services, user_id: UUID) -> None:
    """Take them off the lists of those who have blocked them, whose devices hear it."""
    while True:
        async with services.database.connection() as db:
            blockers = await erasure.list_blockers(db, user_id, BATCH)
        if not blockers:
            return
        await work(services, partial(_forget_blocks, user_id, blockers))


async def _forget_blocks(user_id: UUID, blocker_ids: Sequence[UUID], at_work: Work) -> None:
    await at_work.lock(*map(user_room, blocker_ids))
    for blocker_id in await erasure.delete_blocks_of(at_work.db, user_id, blocker_ids):
        at_work.push(block_changed, BlockChanged(user_id, blocked=False), to=user_room(blocker_id))
