"""Offers: made, countered, accepted, declined, taken back."""

from functools import partial
from typing import Annotated
from uuid import UUID

import msgspec

from handlers.autorules import answer_by_rule
from handlers.bargaining import Changes, judge, refuse
from handlers.deals import strike
from handlers.listings import as_seen
from handlers.seats import Table, begin, open_listing, sit_down, why_closed
from rules.money import MOST
from rules.offers import Move, Mover, NegotiationStatus, Side
from rules.users import Scope
from server.commands.context import Context
from server.commands.registry import ClientId, Limit, Payload, Permission, command
from server.errors import Conflict, Forbidden, Invalid, NotFound, Overtaken
from storage import autorules, listings, negotiations, offers, transactions
from storage.listings import LockedListing
from storage.money import Money
from storage.negotiations import LockedNegotiation, Negotiation
from storage.offers import Offer, Terms
from storage.transactions import Transaction

Lasts = Annotated[int, msgspec.Meta(ge=300, le=604_800, description="seconds that it stands")]
Pieces = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]
TWO_DAYS_S = 172_800
DECLINED_AT_ONCE = 50  # offers of one transaction
DECLINED_MOST = 1_000  # of one call

party_at_the_lock = Permission("party_at_the_lock")
"""The two who negotiate, judged by the handler."""

owner_of_the_listing = Permission("owner_of_the_listing")
"""The listing's owner, judged by the handler behind its lock."""


class MakeOffer(Payload, frozen=True):
    listing_id: UUID
    price: Money
    listing_version: int
    client_id: ClientId
    buyer_id: UUID | None = None
    quantity: Pieces = 1
    message: Words | None = None
    expires_in_s: Lasts = TWO_DAYS_S


class OfferMade(msgspec.Struct, frozen=True):
    """An offer, and the negotiation in which it is on the table."""

    offer: Offer
    negotiation: Negotiation


class OfferMoved(msgspec.Struct, frozen=True, omit_defaults=True):
    """An offer that was moved, its negotiation, and the deal where there is one."""

    offer: Offer
    negotiation: Negotiation
    transaction: Transaction | None = None


async def as_made(ctx: Context, offer_id: UUID) -> OfferMade:
    """An offer as it is now, for one of the two. Raises `NotFound`."""
    moved = await as_moved(ctx, offer_id)
    return OfferMade(moved.offer, moved.negotiation)


async def as_moved(ctx: Context, offer_id: UUID) -> OfferMoved:
    """An offer as it is now with its deal, for one of the two. Raises `NotFound`."""
    me, seat = ctx.user.user_id, await offers.find_seat(ctx.db, offer_id, ctx.user.user_id)
    if seat is None:
        raise NotFound
    [negotiation] = await negotiations.list_negotiations(ctx.db, [seat.negotiation_id])
    [offer] = await offers.list_offers(ctx.db, [offer_id])
    deal = await transactions.find_of_offer(ctx.db, offer_id)
    return OfferMoved(offer, negotiation, deal.seen_by(me) if deal else None)


async def tell_made(ctx: Context, changes: Changes) -> OfferMade:
    """Tell of everything that an offer just made has moved, and answer with it."""
    await changes.tell()
    offer, negotiation, _ = changes.told(ctx.new_id)
    return OfferMade(offer, negotiation)


async def tell_moved(ctx: Context, changes: Changes, offer_id: UUID) -> OfferMoved:
    """Tell of everything that a move has moved, and answer with it."""
    await changes.tell()
    offer, negotiation, deal = changes.told(offer_id)
    return OfferMoved(offer, negotiation, deal.seen_by(ctx.user.user_id) if deal else None)


@command("offer:make", allow=party_at_the_lock, limit=Limit.OFFER_MOVES, scope=Scope.FULL, again=as_made)
async def make(ctx: Context, p: MakeOffer) -> OfferMade:
    """Offer a price for what is for sale; its seller may offer one to who liked it, matched it or wrote to them."""
    listing, buyer_id, is_ruled = await open_listing(ctx, p.listing_id, p.buyer_id)
    terms = _terms(p, listing, p.quantity)
    if closed := why_closed(listing, p.listing_version, p.quantity):
        raise closed.showing(await as_seen(ctx, p.listing_id))
    changes = Changes(ctx)
    negotiation = await begin(changes, listing, buyer_id, ctx.services.market.rounds)
    negotiation = await _clear(changes, negotiation, listing, ctx.user.user_id)
    negotiation = await changes.put(
        negotiation, ctx.new_id, terms, maker_id=ctx.user.user_id, listing_version=listing.version
    )
    if is_ruled:
        await answer_by_rule(changes, listing, negotiation, ctx.new_id)
    return await tell_made(ctx, changes)


def _terms(p: "MakeOffer | CounterOffer", listing: LockedListing, quantity: int) -> Terms:
    """What is offered. Raises `Invalid` for another currency than the listing's, and a sum that nobody can count."""
    if p.price.currency != listing.price_currency:
        raise Invalid({"price.currency": f"the listing is priced in {listing.price_currency}"})
    if p.price.amount * quantity > MOST:
        raise Invalid({"price.amount": f"more than {MOST} minor units in all"})
    return Terms(p.price, quantity, p.message, p.expires_in_s)


async def _clear(
    changes: Changes, negotiation: LockedNegotiation, listing: LockedListing, maker_id: UUID
) -> LockedNegotiation:
    """Make room on the table for an offer of this maker's. Raises `Conflict` where it is not theirs to make one now.

    All is judged before anything is written: what a conflict shows is what stays.
    """
    db = changes.work.db
    offer = (await offers.lock_pending(db, [negotiation.negotiation_id])).get(negotiation.negotiation_id)
    if offer is not None and not offer.has_expired:
        if offer.maker_id != maker_id:
            why = "Their offer is on the table: counter, accept or decline it."
            await refuse(changes.work, offer, Conflict("not_your_turn", why))
        if offer.listing_version == listing.version:
            why = "Your offer is on the table: they answer it, or withdraw it."
            await refuse(changes.work, offer, Conflict("not_your_turn", why))
    conflict = None
    if negotiation.status == NegotiationStatus.AGREED:
        conflict = Conflict("version", "You have agreed already: pay, or cancel the deal.")
    elif negotiation.rounds_left == 0:
        conflict = Conflict("rounds_spent", "All rounds of this negotiation are spent.")
    elif offer is None and negotiation.turn == negotiation.side_of(maker_id).other():
        conflict = Conflict("not_your_turn", "It is the other side's turn.")
    if conflict is not None:
        [current] = await negotiations.list_negotiations(db, [negotiation.negotiation_id])
        raise conflict.showing(current)
    if offer is None:
        return negotiation
    mover, move = (Mover.CLOCK, Move.EXPIRE) if offer.has_expired else (Mover.MAKER, Move.SUPERSEDE)
    return await changes.apply(negotiation, offer, mover, move)


class CounterOffer(Payload, frozen=True):
    offer_id: UUID
    version: int
    price: Money
    client_id: ClientId
    quantity: Pieces | None = None
    message: Words | None = None
    expires_in_s: Lasts = TWO_DAYS_S


@command("offer:counter", allow=party_at_the_lock, limit=Limit.OFFER_MOVES, scope=Scope.FULL, again=as_made)
async def counter(ctx: Context, p: CounterOffer) -> OfferMade:
    """Answer an offer with another; without `quantity` it is about as many pieces."""
    is_ruled = await autorules.rules_offer(ctx.db, p.offer_id)
    table = await sit_down(ctx, p.offer_id, stock=is_ruled, terms=True)
    if not is_ruled and await autorules.rules_offer(ctx.db, p.offer_id):  # set while its terms were waited for
        raise Overtaken
    await judge(ctx, table.offer, table.side, table.maker, Move.COUNTER, p.version)
    listing, changes = await _standing(ctx, table), Changes(ctx)
    if table.negotiation.rounds_left == 0:
        await refuse(ctx, table.offer, Conflict("rounds_spent", "All rounds are spent: accept or decline it."))
    quantity = table.offer.quantity if p.quantity is None else p.quantity
    terms = _terms(p, listing, quantity)
    if closed := why_closed(listing, listing.version, quantity):
        await refuse(ctx, table.offer, closed)
    me = ctx.user.user_id
    negotiation = await changes.apply(table.negotiation, table.offer, Mover.OTHER, Move.COUNTER, moved_by=me)
    negotiation = await changes.put(
        negotiation, ctx.new_id, terms, maker_id=me, listing_version=listing.version, parent_id=p.offer_id
    )
    if is_ruled:
        await answer_by_rule(changes, listing, negotiation, ctx.new_id)
    return await tell_made(ctx, changes)


class MoveOffer(Payload, frozen=True):
    offer_id: UUID
    version: int


@command("offer:accept", allow=party_at_the_lock, limit=Limit.OFFER_MOVES, scope=Scope.FULL)
async def accept(ctx: Context, p: MoveOffer) -> OfferMoved:
    """Accept the offer on the table: the stock is reserved and the deal begun in the same transaction."""
    table = await sit_down(ctx, p.offer_id, stock=True)
    if _is_repeat(ctx, table, Move.ACCEPT, p.version):
        return await as_moved(ctx, p.offer_id)
    await judge(ctx, table.offer, table.side, table.maker, Move.ACCEPT, p.version)
    listing, changes = await _standing(ctx, table), Changes(ctx)
    if listing.available < table.offer.quantity:
        await refuse(ctx, table.offer, Conflict("sold", f"Only {listing.available} are left."))
    if table.side == Side.BUYER and table.offer.listing_version != listing.version:
        await refuse(
            ctx, table.offer, Conflict("listing_changed", "The listing has changed: let the offer be made again.")
        )
    await strike(changes, listing, table.negotiation, table.offer, moved_by=ctx.user.user_id)
    return await tell_moved(ctx, changes, p.offer_id)


@command("offer:decline", allow=party_at_the_lock, limit=Limit.OFFER_MOVES, scope=Scope.FULL)
async def decline(ctx: Context, p: MoveOffer) -> OfferMoved:
    """Decline the offer on the table; the buyer may make another while rounds are left."""
    return await _move(ctx, p, Move.DECLINE)


@command("offer:withdraw", allow=party_at_the_lock, limit=Limit.OFFER_MOVES, scope=Scope.FULL)
async def withdraw(ctx: Context, p: MoveOffer) -> OfferMoved:
    """Take one's own offer back from the table."""
    return await _move(ctx, p, Move.WITHDRAW)


async def _move(ctx: Context, p: MoveOffer, move: Move) -> OfferMoved:
    table = await sit_down(ctx, p.offer_id)
    if _is_repeat(ctx, table, move, p.version):
        return await as_moved(ctx, p.offer_id)
    mover = await judge(ctx, table.offer, table.side, table.maker, move, p.version)
    changes = Changes(ctx)
    await changes.apply(table.negotiation, table.offer, mover, move, moved_by=ctx.user.user_id)
    return await tell_moved(ctx, changes, p.offer_id)


def _is_repeat(ctx: Context, table: Table, move: Move, version: int) -> bool:
    """Whether this very move is what the caller did last with the offer."""
    offer = table.offer
    return (offer.moved_by, offer.move, offer.moved_version) == (ctx.user.user_id, move, version)


async def _standing(ctx: Context, table: Table) -> LockedListing:
    """The listing, which is locked. Raises `Conflict` where its time is over, or one of the two is gone."""
    listing = table.listing
    if not table.is_full:
        await refuse(ctx, table.offer, Conflict("not_pending", "The other side is not there any more."))
    if listing is None:
        await refuse(ctx, table.offer, Conflict("not_pending", "The listing is gone."))
    if listing.has_expired:
        await refuse(ctx, table.offer, Conflict("expired", "The listing's time is over."))
    return listing


class DeclineAll(Payload, frozen=True):
    listing_id: UUID
    below: Money | None = None


class DeclinedAll(msgspec.Struct, frozen=True):
    """How many offers were declined; ask again where it is a thousand."""

    declined: int


@command("offer:decline_all", allow=owner_of_the_listing, limit=Limit.OFFER_MOVES, scope=Scope.FULL, transaction=False)
async def decline_all(ctx: Context, p: DeclineAll) -> DeclinedAll:
    """Decline all buyers' offers on a listing of one's own, or those under a price; at most 1,000 a call."""
    declined = 0
    while declined < DECLINED_MOST:
        found, done = await ctx.retried(partial(_decline_some, ctx, p))
        declined += done
        if found < DECLINED_AT_ONCE:
            break
    return DeclinedAll(declined)


async def _decline_some(ctx: Context, p: DeclineAll) -> tuple[int, int]:
    """Decline a batch in the transaction that is open: how many were found, and how many of them were declined."""
    db = ctx.db
    listing = await listings.lock_listing(db, p.listing_id, share=True)
    if listing is None:
        raise NotFound
    if listing.user_id != ctx.user.user_id:
        raise Forbidden("The listing's owner alone declines its offers.")
    if p.below is not None and p.below.currency != listing.price_currency:
        raise Invalid({"below.currency": f"the listing is priced in {listing.price_currency}"})
    changes, below, declined = Changes(ctx), p.below.amount if p.below else None, 0
    found = await negotiations.lock_offered(db, p.listing_id, below, DECLINED_AT_ONCE)
    pending = await offers.lock_pending(db, [each.negotiation_id for each in found])
    for each in found:
        offer = pending.get(each.negotiation_id)
        if offer is not None and not offer.has_expired and each.side_of(offer.maker_id) == Side.BUYER:
            await changes.apply(each, offer, Mover.OTHER, Move.DECLINE, moved_by=ctx.user.user_id)
            declined += 1
    await changes.tell()
    return len(found), declined
