"""Buying at the asked price, without an offer."""

from uuid import UUID

import msgspec

from handlers.bargaining import Changes
from handlers.deals import reserve
from handlers.listings import as_seen as listing_as_seen
from handlers.offers import Pieces
from handlers.seats import check_open
from handlers.transactions import as_seen
from rules.listings import ListingKind
from rules.money import MOST
from rules.users import Scope
from server.commands.context import Context
from server.commands.registry import ClientId, Limit, Payload, Permission, command
from server.errors import Conflict, Forbidden, Invalid, NotFound
from storage import blocks, listings, users
from storage.listings import LockedListing
from storage.transactions import Transaction

anyone_but_its_owner = Permission("anyone_but_its_owner")
"""Everybody who sees the listing but its owner, judged by the handler behind its lock."""


class BuyListing(Payload, frozen=True):
    listing_id: UUID
    version: int
    client_id: ClientId
    quantity: Pieces = 1


class Bought(msgspec.Struct, frozen=True):
    """A deal at the asked price."""

    transaction: Transaction


async def as_bought(ctx: Context, transaction_id: UUID) -> Bought:
    """A deal as it is now. Raises `NotFound`."""
    return Bought(await as_seen(ctx, transaction_id))


@command("listing:buy", allow=anyone_but_its_owner, limit=Limit.OFFER_MOVES, scope=Scope.FULL, again=as_bought)
async def buy(ctx: Context, p: BuyListing) -> Bought:
    """Buy what is for sale, at the price that one saw: the stock is reserved, and the deal waits to be paid."""
    listing = await _lock(ctx, p.listing_id)
    check_open(listing, p.version, p.quantity, await listing_as_seen(ctx, p.listing_id))
    if listing.price_amount * p.quantity > MOST:
        raise Invalid({"quantity": f"more than {MOST} minor units in all"})
    changes = Changes(ctx)
    await reserve(changes, listing, ctx.new_id, ctx.user.user_id, p.quantity, listing.price_amount)
    await changes.tell()
    return await as_bought(ctx, ctx.new_id)


async def _lock(ctx: Context, listing_id: UUID) -> LockedListing:
    """Lock a listing and its stock, behind the two people. Raises `NotFound`, `Forbidden`, and `Conflict` (blocked)."""
    me, owner = ctx.user.user_id, await listings.find_owner(ctx.db, listing_id)
    if owner is None:
        raise NotFound
    if owner == me:
        raise Forbidden("Nobody buys from themselves.")
    if len(await users.lock_active(ctx.db, [owner, me])) < 2:
        raise NotFound
    listing = await listings.lock_listing(ctx.db, listing_id)
    if listing is None:
        raise NotFound
    if await blocks.between(ctx.db, owner, [me]):
        raise Conflict("blocked", "One of you has blocked the other.", await listing_as_seen(ctx, listing_id))
    if listing.kind != ListingKind.FOR_SALE:
        raise Forbidden("This is wanted, not for sale.")
    return listing
