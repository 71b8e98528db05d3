"""Deals begin: stock is reserved, a payment is waited for, and who comes too late is told."""

from uuid import UUID

from handlers.bargaining import Changes
from handlers.endings import end_about
from handlers.listings import push_for
from rules.listings import ListingStatus, status_of
from rules.money import split
from rules.offers import By, Move, Mover
from storage import listings, rooms, transactions
from storage.listings import LockedListing
from storage.negotiations import LockedNegotiation
from storage.offers import LockedOffer


async def strike(
    changes: Changes,
    listing: LockedListing,
    negotiation: LockedNegotiation,
    offer: LockedOffer,
    *,
    by: By = By.PERSON,
    moved_by: UUID | None = None,
) -> UUID:
    """Accept an offer, which was judged: its deal. The listing's row is held, and has the stock."""
    negotiation = await changes.apply(negotiation, offer, Mover.OTHER, Move.ACCEPT, by=by, moved_by=moved_by)
    deal = await rooms.new_id(changes.work.db)
    await reserve(changes, listing, deal, negotiation.buyer_id, offer.quantity, offer.price_amount, negotiation, offer)
    return deal


async def reserve(
    changes: Changes,
    listing: LockedListing,
    transaction_id: UUID,
    buyer_id: UUID,
    quantity: int,
    price: int,
    negotiation: LockedNegotiation | None = None,
    offer: LockedOffer | None = None,
) -> None:
    """Hold stock of a listing, whose row is held, for a deal at a price a piece; where none is left, rivals are ended.

    Their negotiations are locked behind the listing, as everywhere.
    """
    db, market, subtotal = changes.work.db, changes.work.services.market, price * quantity
    fee, _ = split(subtotal, market.fee_bps)
    await transactions.create_transaction(
        db,
        transaction_id,
        listing.listing_id,
        buyer_id,
        negotiation_id=negotiation.negotiation_id if negotiation else None,
        offer_id=offer.offer_id if offer else None,
        quantity=quantity,
        currency=listing.price_currency,
        subtotal=subtotal,
        platform_fee=fee,
        provider=market.provider,
        pay_within_s=market.pay_within_s,
    )
    reserved = listing.reserved + quantity
    await restock(changes, listing, reserved=reserved, sold=listing.sold)
    if reserved + listing.sold == listing.quantity:
        await end_about(changes, listing.listing_id, Move.SELL_OUT)
    changes.dealt(transaction_id)


async def restock(changes: Changes, listing: LockedListing, *, reserved: int, sold: int) -> ListingStatus:
    """Write a listing's stock, whose row is held, and the status that it makes."""
    # Whether its time is over is for the clock's own look to write, which ends what hangs on it.
    status = status_of(listing.status, listing.quantity, reserved, sold, has_expired=False)
    await listings.set_stock(changes.work.db, listing.listing_id, reserved=reserved, sold=sold, status=status)
    changes.sold(listing, push_for(status))
    return status
