"""Who sits down to negotiate: the listing, the negotiation and its offer, locked in that order."""

from typing import NamedTuple
from uuid import UUID

import msgspec

from handlers.bargaining import Changes
from handlers.listings import as_seen
from rules.conversations import ConversationKind
from rules.listings import Feed, ListingKind, ListingStatus
from rules.offers import Mover, OfferStatus, Side, outcome
from rules.participants import ParticipantRole
from server.commands.context import Context
from server.errors import Conflict, Forbidden, Invalid, NotFound, Overtaken
from storage import autorules, blocks, conversations, listings, negotiations, offers, participants, rooms, users
from storage.listings import LockedListing
from storage.negotiations import LockedNegotiation
from storage.offers import LockedOffer


class Table(NamedTuple):
    """What is negotiated, locked, and on which side the caller sits. No listing: it has been deleted."""

    listing: LockedListing | None
    negotiation: LockedNegotiation
    offer: LockedOffer
    side: Side
    is_full: bool = True  # both are there

    @property
    def maker(self) -> Side:
        """Whose offer it is."""
        return self.negotiation.side_of(self.offer.maker_id)


async def sit_down(ctx: Context, offer_id: UUID, *, stock: bool = False, terms: bool = False) -> Table:
    """Lock an offer with what it is about: the listing's stock, or that its terms stand still, only where that matters.

    Where it does, the two people stay as they are meanwhile too. Where the negotiation has ended, the offer is as it is
    going to be written. Raises `NotFound` for who is no party to it.
    """
    seat = await offers.find_seat(ctx.db, offer_id, ctx.user.user_id)
    if seat is None:
        raise NotFound
    listing, is_full = None, True
    if stock or terms:
        is_full = len(await users.lock_active(ctx.db, [seat.buyer_id, seat.seller_id])) == 2
        listing = await listings.lock_listing(ctx.db, seat.listing_id, share=not stock)
    negotiation = await negotiations.lock_negotiation(ctx.db, seat.negotiation_id)
    offer = as_ended(negotiation, await offers.lock_offer(ctx.db, offer_id))
    return Table(listing, negotiation, offer, seat.side, is_full)


def as_ended(negotiation: LockedNegotiation, offer: LockedOffer) -> LockedOffer:
    """An offer as its negotiation's end leaves it, whether or not that is written yet."""
    what = outcome(offer.status, Mover.SYSTEM, negotiation.ending) if negotiation.ending is not None else None
    if what is None or offer.status != OfferStatus.PENDING:
        return offer
    return msgspec.structs.replace(offer, status=what.status, close_reason=what.reason, version=offer.version + 1)


class Opened(NamedTuple):
    """A listing, locked, who buys, and whether a rule of its owner's answers: its stock is locked then."""

    listing: LockedListing
    buyer_id: UUID
    is_ruled: bool


async def open_listing(ctx: Context, listing_id: UUID, buyer_id: UUID | None) -> Opened:
    """Lock a listing that an offer shall be made about, and say who buys. The two people stay as they are meanwhile.

    Its stock is locked where an auto-rule may answer, else its terms alone: turning the one lock into the other later
    would deadlock, so that a rule set meanwhile has all done again. Raises `NotFound`, `Forbidden`, `Invalid`, and
    `Conflict` for a blocked pair.
    """
    me, owner = ctx.user.user_id, await listings.find_owner(ctx.db, listing_id)
    if owner is None:
        raise NotFound
    buyer = await _buyer(ctx, listing_id, owner, buyer_id)
    if len(await users.lock_active(ctx.db, [owner, buyer])) < 2:
        raise NotFound
    is_ruled = me == buyer and await autorules.has_rule(ctx.db, listing_id)
    listing = await listings.lock_listing(ctx.db, listing_id, share=not is_ruled)
    if listing is None:
        raise NotFound
    if me == buyer and not is_ruled and await autorules.has_rule(ctx.db, listing_id):
        raise Overtaken
    if await blocks.between(ctx.db, owner, [buyer]):
        raise Conflict("blocked", "One of you has blocked the other.", await as_seen(ctx, listing_id))
    if listing.kind != ListingKind.FOR_SALE:
        raise Forbidden("Offers are made on what is for sale: what is wanted is reached through its match.")
    if listing.feed == Feed.DISCOVER and listing.thread_id is None:
        raise Forbidden("This is sold at the asked price alone: buy it.")
    return Opened(listing, buyer, is_ruled)


async def _buyer(ctx: Context, listing_id: UUID, owner: UUID, buyer_id: UUID | None) -> UUID:
    """Who buys. Raises `Invalid` or `Forbidden`."""
    me = ctx.user.user_id
    if me != owner:
        if buyer_id not in (None, me):
            raise Forbidden("The listing's owner alone makes offers to others.")
        return me
    if buyer_id is None:
        raise Invalid({"buyer_id": "required of the listing's owner: to whom the offer is made"})
    if buyer_id == me:
        raise Forbidden("Nobody buys from themselves.")
    if not await offers.may_be_offered(ctx.db, listing_id, owner, buyer_id):
        raise Forbidden("Offers are made to those who liked the listing, matched it or wrote to you.")
    return buyer_id


def why_closed(listing: LockedListing, version: int, quantity: int) -> Conflict | None:
    """Why a locked listing is not open to an offer of so many pieces on these terms, None where it is."""
    if listing.status == ListingStatus.CLOSED:
        return Conflict("listing_changed", "The listing has been closed.")
    if listing.status == ListingStatus.EXPIRED or listing.has_expired:
        return Conflict("expired", "The listing's time is over.")
    if listing.available < quantity:
        left = f"Only {listing.available} are left" if listing.available else "Nothing is left"
        return Conflict("sold", f"{left}: look at the listing again.")
    if listing.version != version:
        return Conflict("listing_changed", "The listing has changed: look again, and make the offer anew.")
    return None


def check_open(listing: LockedListing, version: int, quantity: int, current: object) -> None:
    """Raises `Conflict`, with the object as it is, where a locked listing is not open to that."""
    if closed := why_closed(listing, version, quantity):
        raise closed.showing(current)


async def begin(changes: Changes, listing: LockedListing, buyer_id: UUID, rounds: int) -> LockedNegotiation:
    """Lock the buyer's negotiation about a locked listing; where there is none, begin one in their conversation.

    Raises `Conflict` where the last one has used up its rounds.
    """
    db = changes.work.db
    live = await negotiations.lock_live(db, listing.listing_id, buyer_id)
    if live is not None and live.ending is not None:  # its listing is to be had again before its end was written
        await changes.end_all([live], live.ending)
        live = None
    if live is None:
        spent = await negotiations.find_spent(db, listing.listing_id, buyer_id)
        if spent is not None:
            [current] = await negotiations.list_negotiations(db, [spent])
            raise Conflict("rounds_spent", "All rounds of this negotiation are spent.", current)
        rule = await autorules.get_rule(db, listing.listing_id)
        if rule is not None and rule.enabled and rule.max_rounds is not None:
            rounds = rule.max_rounds
        conversation_id = await _conversation(changes, listing, buyer_id)
        await negotiations.create_negotiation(db, listing.listing_id, buyer_id, conversation_id, rounds)
        live = await negotiations.lock_live(db, listing.listing_id, buyer_id)
    if live is None:  # another began it just now, and it has ended since
        raise Overtaken
    return live


async def _conversation(changes: Changes, listing: LockedListing, buyer_id: UUID) -> UUID:
    """The private conversation of the two about the listing, opened where there is none."""
    db, pair = changes.work.db, (buyer_id, listing.user_id)
    known = await conversations.find_private(db, pair, listing.listing_id)
    if known is not None:
        return known
    made = await rooms.new_id(db)
    if not await conversations.create_conversation(
        db, made, ConversationKind.PRIVATE, created_by=buyer_id, listing_id=listing.listing_id, pair=pair
    ):  # the other opened it just now
        known = await conversations.find_private(db, pair, listing.listing_id)
        if known is None:  # and it has lost its listing since
            raise Overtaken
        return known
    await rooms.create_room(db, made, "conversation")
    await participants.create_participants(db, made, [(user_id, ParticipantRole.MEMBER) for user_id in pair])
    changes.opened(made, pair)
    return made
