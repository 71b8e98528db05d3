"""Listings end: taken back by their owner, by the clock, or because nothing is left; and get more time."""

from functools import partial
from uuid import UUID

import structlog

from handlers.bargaining import Changes
from handlers.endings import end_about
from handlers.listings import End, as_seen, hold, hold_own, judge_end, push_for, rooms_of, tell_listing
from handlers.permissions import owner_of_the_listing
from rules.listings import ListingStatus, status_of
from rules.offers import Move
from rules.users import Role
from server.commands.context import Context, Services, Work, work
from server.commands.registry import Limit, Payload, Permission, command
from server.errors import Conflict, Forbidden, ParleyError
from storage import listings, users
from storage.listings import Listing, LockedListing

BATCH = 100  # listings of one look at the clock

owner_or_administrator = Permission("owner_or_administrator")
"""The listing's owner, and administrators, judged by the handler behind its row's lock."""

logger = structlog.get_logger("parley.listings")


async def end_listing(at_work: Work, listing: LockedListing, status: ListingStatus) -> None:
    """Let a listing end: its negotiations end with it, and everybody hears of it, of the first of them at once.

    The caller holds the listing's row and no room: all rooms are locked here, last. Whatever ends a listing but a deal
    comes by here: its owner, the clock, an edit that leaves nothing, the end of its thread or of its owner.
    """
    stock = {"reserved": listing.reserved, "sold": listing.sold}
    await listings.set_stock(at_work.db, listing.listing_id, **stock, status=status)
    changes = Changes(at_work)
    changes.sold(listing, push_for(status))
    move = Move.SELL_OUT if status is ListingStatus.SOLD else Move.CLOSE_LISTING
    await end_about(changes, listing.listing_id, move)
    await changes.tell()


def check_lasting(listing: Listing) -> None:
    """Raises `Conflict` where a listing has ended for good."""
    if listing.status == ListingStatus.SOLD:
        raise Conflict("sold", "Nothing is left of the listing.", listing)
    if listing.status == ListingStatus.CLOSED:
        raise Conflict("listing_changed", "The listing has been closed.", listing)


class CloseListing(Payload, frozen=True):
    listing_id: UUID


@command("listing:close", allow=owner_or_administrator, limit=Limit.WRITES)
async def close(ctx: Context, p: CloseListing) -> Listing:
    """Take a listing back, for good: what is negotiated about it ends; what has been agreed stays."""
    held = await hold(ctx, p.listing_id)
    me = ctx.user.user_id
    if held.locked.user_id != me and not await users.has_role(ctx.db, me, Role.ADMIN):
        raise Forbidden("The listing's owner and administrators alone may close it.")
    if held.locked.status == ListingStatus.CLOSED:
        return held.seen
    check_lasting(held.seen)
    await end_listing(ctx, held.locked, ListingStatus.CLOSED)
    return await as_seen(ctx, p.listing_id)


class ExtendListing(Payload, frozen=True):
    listing_id: UUID
    expires_at: End | None = None


@command("listing:extend", allow=owner_of_the_listing, limit=Limit.WRITES)
async def extend(ctx: Context, p: ExtendListing) -> Listing:
    """Put a listing's end off: to 30 days from now, or as said, up to 365 days ahead.

    What had expired is active again.
    """
    held = await hold_own(ctx, p.listing_id)
    check_lasting(held.seen)
    listing, ends_at = held.locked, await judge_end(ctx, p.expires_at, held.seen.expires_at)
    if ends_at == held.seen.expires_at:
        return held.seen
    status = status_of(ListingStatus.ACTIVE, listing.quantity, listing.reserved, listing.sold, has_expired=False)
    await listings.set_end(ctx.db, p.listing_id, ends_at, status)
    await ctx.lock(*rooms_of(p.listing_id, listing.thread_id))
    await tell_listing(ctx, listing, ctx.user.user_id)
    return await as_seen(ctx, p.listing_id)


async def expire_listings(services: Services) -> int:
    """Write the end of listings whose time is over by the database's clock; how many they were."""
    done, found = 0, [UUID(int=0)] * BATCH
    while len(found) == BATCH:
        before = done
        async with services.database.connection() as db:
            found = await listings.list_expired(db, BATCH)
        for listing_id in found:
            try:
                done += await work(services, partial(_expire, listing_id))
            except ParleyError as error:  # the others are not made to wait for it; it comes again
                logger.warning("expiry_failed", listing_id=str(listing_id), error=error.message)
        if done == before:  # another instance is at them
            break
    return done


async def _expire(listing_id: UUID, at_work: Work) -> bool:
    listing = await listings.lock_expired(at_work.db, listing_id)
    if listing is not None:
        await end_listing(at_work, listing, ListingStatus.EXPIRED)
    return listing is not None
