"""Listings: what is for sale and what is wanted, offered and looked at."""

from datetime import datetime
from functools import partial
from typing import Annotated, NamedTuple
from uuid import UUID

import msgspec

from handlers.matching import match_listing
from handlers.permissions import viewer_of_the_listing
from rules.listings import Category, Condition, Feed, ListingKind, ListingStatus
from rules.money import CURRENCIES
from server.commands.context import Context, Work
from server.commands.registry import ClientId, Limit, Payload, Permission, Push, command, push
from server.errors import Forbidden, Invalid, NotFound
from server.rooms.names import Room, listing_room, thread_room
from storage import Time, as_time, listings, members, rooms, threads, users
from storage.listings import MOST_DAYS, Listing, Location, LockedListing, SharedListing, Showing, Terms
from storage.money import Money

IMAGES = 20

Title = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Description = Annotated[str, msgspec.Meta(max_length=10_000)]
Quantity = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Url = Annotated[str, msgspec.Meta(max_length=2_000, pattern=r"\Ahttps://[^\s/?#]+[^\s]*\Z")]
Images = Annotated[list[Url], msgspec.Meta(max_length=IMAGES)]
End = Annotated[datetime, msgspec.Meta(tz=True)]

listing_created = push(
    "listing:created", SharedListing, "Something is offered or wanted in the thread.", rooms=("thread",)
)
listing_changed = push(
    "listing:changed", SharedListing, "A listing's terms, stock or status have changed.", rooms=("thread", "listing")
)
listing_expired = push("listing:expired", SharedListing, "A listing's time is over.", rooms=("thread", "listing"))
listing_sold = push("listing:sold", SharedListing, "Nothing is left of a listing.", rooms=("thread", "listing"))
listing_closed = push("listing:closed", SharedListing, "A listing was taken back.", rooms=("thread", "listing"))

member_to_list_in_a_thread = Permission("member_to_list_in_a_thread")
"""Everybody; in a thread its members, judged by the handler behind the thread's lock."""


def rooms_of(listing_id: UUID, thread_id: UUID | None) -> list[Room]:
    """Where a listing is watched: its own room, and its thread's."""
    return [listing_room(listing_id), *([thread_room(thread_id)] if thread_id else [])]


async def tell_listing(
    ctx: Work, listing: LockedListing, viewer_id: UUID, how: Push[SharedListing] = listing_changed
) -> None:
    """Push a listing as it is now to its rooms, which are locked; one that nobody sees any more is not pushed."""
    for found in await listings.list_listings(ctx.db, viewer_id, [listing.listing_id]):
        for room in rooms_of(listing.listing_id, listing.thread_id):
            ctx.push(how, found.shared(), to=room, message_id=listing.listing_id)


def push_for(status: ListingStatus) -> Push[SharedListing]:
    """Which push announces that a listing has come to this status."""
    special = {
        ListingStatus.SOLD: listing_sold,
        ListingStatus.EXPIRED: listing_expired,
        ListingStatus.CLOSED: listing_closed,
    }
    return special.get(status, listing_changed)


async def as_seen(ctx: Context, listing_id: UUID) -> Listing:
    """A listing as the caller sees it. Raises `NotFound`."""
    found = await listings.list_listings(ctx.db, ctx.user.user_id, [listing_id])
    if not found:
        raise NotFound
    return found[0]


class Held(NamedTuple):
    """A listing whose row is locked, and what its owner sees of it."""

    locked: LockedListing
    seen: Listing


async def hold(ctx: Context, listing_id: UUID) -> Held:
    """Lock a listing's row, for a change. Raises `NotFound`."""
    locked = await listings.lock_listing(ctx.db, listing_id)
    if locked is None:
        raise NotFound
    return Held(locked, await as_seen(ctx, listing_id))


async def hold_own(ctx: Context, listing_id: UUID) -> Held:
    """Lock a listing of the caller's own. Raises `NotFound` or `Forbidden`."""
    held = await hold(ctx, listing_id)
    if held.locked.user_id != ctx.user.user_id:
        raise Forbidden("The listing's owner alone may do this.")
    return held


def check_currency(price: Money, path: str) -> None:
    """Raises `Invalid` where people do not pay with it."""
    if price.currency not in CURRENCIES:
        raise Invalid({f"{path}.currency": "not a currency of ISO 4217 that people pay with"})


async def judge_end(ctx: Context, asked: datetime | None, ends_at: Time | None = None) -> Time:
    """When a listing is to end, by the database's clock; `ends_at` as it was. Raises `Invalid`."""
    try:
        at = None if asked is None else as_time(asked)
        found = await listings.find_end(ctx.db, at, ctx.services.market.listing_days, ends_at)
    except OverflowError:  # at either end of time
        found = None
    if found is None:
        raise Invalid({"expires_at": f"not ahead, sooner than it ends as it is, or more than {MOST_DAYS} days ahead"})
    return found


class CreateListing(Payload, frozen=True):
    kind: ListingKind
    title: Title
    description: Description
    price: Money
    category: Category
    client_id: ClientId
    thread_id: UUID | None = None
    condition: Condition | None = None
    quantity: Quantity = 1
    feed: Feed = Feed.COMMUNITY
    images: Images = msgspec.field(default_factory=list)
    video: Url | None = None
    thumbnail: Url | None = None
    location: Location | None = None
    expires_at: End | None = None


@command("listing:create", allow=member_to_list_in_a_thread, limit=Limit.WRITES, again=as_seen)
async def create(ctx: Context, p: CreateListing) -> Listing:
    """Offer or want something, at a price of one piece; in a thread as one of its members.

    It ends after 30 days, or when said, up to 365 days ahead.
    """
    me = ctx.user.user_id
    check_currency(p.price, "price")
    if not await users.lock_active(ctx.db, [me]):
        raise NotFound
    if p.thread_id is not None:
        await _enter(ctx, p.thread_id)
    ends_at = await judge_end(ctx, p.expires_at)
    terms = Terms(**{name: getattr(p, name) for name in Terms.__struct_fields__})
    showing = Showing(**{name: getattr(p, name) for name in Showing.__struct_fields__})
    await listings.create_listing(ctx.db, ctx.new_id, me, p.thread_id, p.kind, terms, showing, ends_at)
    await rooms.create_room(ctx.db, ctx.new_id, "listing")
    listing = await as_seen(ctx, ctx.new_id)
    if p.thread_id is not None:
        await ctx.lock(thread_room(p.thread_id))
        ctx.push(listing_created, listing.shared(), to=thread_room(p.thread_id), message_id=ctx.new_id)
    ctx.then(partial(match_listing, ctx.services, ctx.new_id))
    return listing


async def _enter(ctx: Context, thread_id: UUID) -> None:
    """Hold a thread, and the caller's being in it. Raises `NotFound` or `Forbidden`."""
    if not await threads.share_thread(ctx.db, thread_id):
        raise NotFound
    if not await members.is_member(ctx.db, thread_id, ctx.user.user_id):
        raise Forbidden("A thread's members alone list in it: join it first.")


class GetListing(Payload, frozen=True):
    listing_id: UUID


@command("listing:get", allow=viewer_of_the_listing, limit=Limit.READS, reads=True)
async def get(ctx: Context, p: GetListing) -> Listing:
    """Look at a listing. Others than its owner are counted as views, written within two seconds."""
    listing = await as_seen(ctx, p.listing_id)
    if listing.user_id != ctx.user.user_id:
        ctx.services.tallies.views[p.listing_id] += 1
    return listing
