"""A listing's terms: changed by its owner, under a version."""

from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from handlers.bargaining import Changes
from handlers.closing import check_lasting, end_listing
from handlers.endings import end_about
from handlers.listings import Description, Held, Images, Quantity, Title, Url, as_seen, hold_own, listing_changed
from handlers.matching import match_listing
from handlers.permissions import owner_of_the_listing
from rules.listings import Category, Condition, Feed, ListingStatus, status_of
from rules.offers import Move
from server.commands.context import Context
from server.commands.registry import Limit, Payload, command
from server.errors import Conflict, Invalid
from storage import listings
from storage.listings import Listing, Location
from storage.money import Money


class UpdateListing(Payload, frozen=True):
    listing_id: UUID
    version: int
    title: Title | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    price: Money | UnsetType = UNSET
    category: Category | UnsetType = UNSET
    condition: Condition | UnsetType | None = UNSET
    quantity: Quantity | UnsetType = UNSET
    feed: Feed | UnsetType = UNSET
    images: Images | UnsetType | None = UNSET
    video: Url | UnsetType | None = UNSET
    thumbnail: Url | UnsetType | None = UNSET
    location: Location | UnsetType | None = UNSET


@command("listing:update", allow=owner_of_the_listing, limit=Limit.WRITES)
async def update(ctx: Context, p: UpdateListing) -> Listing:
    """Change what a listing says, from the version that one saw.

    Its terms move the version: title, description, price, category, condition, quantity, images. Its currency stays,
    and there are no fewer pieces than are reserved or sold.
    """
    held = await hold_own(ctx, p.listing_id)
    wanted = _wanted(held.seen, p)
    if wanted == held.seen and p.version in (held.seen.version, held.seen.version - 1):
        return held.seen  # asked again
    if held.seen.version != p.version:
        raise Conflict("version", "It has changed: look again.", held.seen)
    check_lasting(held.seen)
    _check(held.seen, wanted)
    version = p.version + (wanted.terms != held.seen.terms)
    await listings.update_listing(ctx.db, p.listing_id, wanted.terms, wanted.showing, version)
    await _restock(ctx, held, wanted.quantity)
    ctx.then(partial(match_listing, ctx.services, p.listing_id))
    return await as_seen(ctx, p.listing_id)


def _wanted(seen: Listing, p: UpdateListing) -> Listing:
    given: dict[str, Any] = {
        name: getattr(p, name)
        for name in p.__struct_fields__
        if name not in ("listing_id", "version") and getattr(p, name) is not UNSET
    }
    if "images" in given:
        given["images"] = given["images"] or []
    return msgspec.structs.replace(seen, **given)


def _check(seen: Listing, wanted: Listing) -> None:
    """The rules that the types can't say. Raises `Invalid`."""
    if wanted.price.currency != seen.price.currency:
        raise Invalid({"price.currency": f"the listing's is {seen.price.currency}: list anew for another"})
    taken = seen.reserved + seen.sold
    if wanted.quantity < taken:
        raise Invalid({"quantity": f"{taken} pieces are reserved or sold: not fewer than these"})


async def _restock(ctx: Context, held: Held, quantity: int) -> None:
    """Let the status follow the quantity, and with it what is negotiated, and tell; the rooms are locked here."""
    listing = held.locked
    # Whether its time is over is for the clock's own look to write: it tells, and ends what hangs on it.
    status = status_of(listing.status, quantity, listing.reserved, listing.sold, has_expired=False)
    if status is ListingStatus.SOLD:
        await end_listing(ctx, listing, status)
        return
    changes, taken = Changes(ctx), listing.reserved + listing.sold
    if status != listing.status:
        stock = {"reserved": listing.reserved, "sold": listing.sold}
        await listings.set_stock(ctx.db, listing.listing_id, **stock, status=status)
    if quantity == taken and quantity != listing.quantity:  # nothing is left for others, as when a deal takes the last
        await end_about(changes, listing.listing_id, Move.SELL_OUT)
    changes.sold(listing, listing_changed)
    await changes.tell()
