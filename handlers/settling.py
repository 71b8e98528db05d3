"""Deals end: paid, cancelled, lapsed, refunded; and what that makes of their stock, offer, negotiation and match."""

from functools import partial
from typing import NamedTuple
from uuid import UUID

import structlog

from handlers.bargaining import Changes
from handlers.deals import restock
from handlers.matches import deal_made
from rules.listings import ListingStatus
from rules.offers import Move, Mover, NegotiationStatus, Side
from rules.transactions import Errand, Party, Provider, TransactionMove, TransactionStatus, outcome
from server.commands.context import Services, Work, work
from server.errors import ParleyError
from storage import blocks, listings, negotiations, offers, payments, transactions, users
from storage.listings import LockedListing
from storage.negotiations import LockedNegotiation
from storage.offers import LockedOffer
from storage.transactions import LockedTransaction

BATCH = 100  # deals of one look at the clock

logger = structlog.get_logger("parley.deals")


class Deal(NamedTuple):
    """A deal with all that it stands on, locked. What was bought at the asked price has no offer and no negotiation."""

    listing: LockedListing
    negotiation: LockedNegotiation | None
    offer: LockedOffer | None
    transaction: LockedTransaction


async def lock_deal(at_work: Work, transaction_id: UUID) -> Deal | None:
    """Lock a deal, behind all that it stands on, its seller first of all, whose sales may be counted; None: no such."""
    db = at_work.db
    parties = await transactions.find_parties(db, transaction_id)
    if parties is None:
        return None
    await users.lock_users(db, [parties.seller_id])
    listing = await listings.lock_stock(db, parties.listing_id)
    await transactions.lock_matches(db, parties.listing_id, parties.buyer_id)
    negotiation = offer = None
    if parties.negotiation_id is not None and parties.offer_id is not None:
        negotiation = await negotiations.lock_negotiation(db, parties.negotiation_id)
        offer = await offers.lock_offer(db, parties.offer_id)
    return Deal(listing, negotiation, offer, await transactions.lock_transaction(db, transaction_id))


async def settle(
    changes: Changes, deal: Deal, party: Party, move: TransactionMove, *, moved_by: UUID | None = None
) -> TransactionStatus:
    """Make a move that was judged and that the table of rules/transactions.py has, with all that follows from it."""
    db, row = changes.work.db, deal.transaction
    what = outcome(row.status, party, move)
    if what is None:
        raise LookupError(f"{party} does not {move} what is {row.status}")
    is_seconded = False
    if move == TransactionMove.CONFIRM:
        side = Side(party)
        await transactions.note_word(db, row.transaction_id, side)
        is_seconded = row.confirmed_version(side.other()) is not None
    status = what.standing(is_seconded=is_seconded)
    await transactions.move_transaction(db, row.transaction_id, status, move, moved_by)
    changes.dealt(row.transaction_id)
    if move == TransactionMove.BOUNCE:  # what it stands on has stayed as the payment made it
        await _count(changes, deal, 1)
    elif status == TransactionStatus.COMPLETED:
        await _complete(changes, deal)
    elif status == TransactionStatus.REFUNDED:
        await _count(changes, deal, -1)
    elif status != row.status:
        await _release(changes, deal, Move.CANCEL if move == TransactionMove.CANCEL else Move.LAPSE)
    return status


async def _complete(changes: Changes, deal: Deal) -> None:
    """What was held is sold; the negotiation, and the match that it came of, have come to their end."""
    db, listing, quantity = changes.work.db, deal.listing, deal.transaction.quantity
    await transactions.end_reservation(db, deal.transaction.transaction_id, is_sold=True)
    await restock(changes, listing, reserved=listing.reserved - quantity, sold=listing.sold + quantity)
    if deal.negotiation is not None and deal.offer is not None:
        await changes.apply(deal.negotiation, deal.offer, Mover.EITHER, Move.COMPLETE)
    await deal_made(changes, listing.listing_id, deal.transaction.buyer_id)
    await _count(changes, deal, 1)


async def _release(changes: Changes, deal: Deal, move: Move) -> None:
    """What was held is to be had again, and nobody can pay any more.

    The negotiation goes on where its move says so, between people who have not blocked each other meanwhile, and where
    there is something left to negotiate about.
    """
    db, listing, row = changes.work.db, deal.listing, deal.transaction
    await transactions.end_reservation(db, row.transaction_id, is_sold=False)
    status = await restock(changes, listing, reserved=listing.reserved - row.quantity, sold=listing.sold)
    if deal.negotiation is not None and deal.offer is not None:
        mover = Mover.EITHER if move == Move.CANCEL else Mover.CLOCK
        after = await changes.apply(deal.negotiation, deal.offer, mover, move)
        if after.status == NegotiationStatus.OPEN and await blocks.between(db, row.buyer_id, [row.seller_id]):
            await changes.end_all([after], Move.BLOCK)
        elif after.status == NegotiationStatus.OPEN and status in (ListingStatus.CLOSED, ListingStatus.EXPIRED):
            await changes.end_all([after], Move.CLOSE_LISTING)
    if row.provider == Provider.STRIPE and row.intent_id is not None and row.charge_id is None:
        await payments.ask(db, row.transaction_id, Errand.CANCEL)


async def _count(changes: Changes, deal: Deal, by: int) -> None:
    """The seller's deals; their row is held."""
    await users.count_sales(changes.work.db, deal.transaction.seller_id, by)
    changes.counted(deal.transaction.seller_id)


async def lapse_deals(services: Services) -> int:
    """Write the end of deals that nobody has paid in time by the database's clock; how many they were."""
    done, found = 0, [UUID(int=0)] * BATCH
    while len(found) == BATCH:
        before = done
        async with services.database.connection() as db:
            found = await transactions.list_lapsed(db, BATCH)
        for transaction_id in found:
            try:
                done += await work(services, partial(_lapse, transaction_id))
            except ParleyError as error:  # the others are not made to wait for it; it comes again
                logger.warning("lapse_failed", transaction_id=str(transaction_id), error=error.message)
        if done == before:  # another instance is at them
            break
    return done


async def _lapse(transaction_id: UUID, at_work: Work) -> bool:
    deal = await lock_deal(at_work, transaction_id)
    if deal is None or deal.transaction.status != TransactionStatus.PENDING or not deal.transaction.has_lapsed:
        return False
    changes = Changes(at_work)
    await settle(changes, deal, Party.CLOCK, TransactionMove.LAPSE)
    await changes.tell()
    return True


async def leave_deals(services: Services, user_id: UUID) -> None:
    """Cancel what somebody who is gone has agreed to and was not paid; what was negotiated ends with it."""
    found = [UUID(int=0)]
    while found:
        async with services.database.connection() as db:
            found = await transactions.list_pending_of(db, user_id, BATCH)
        for transaction_id in found:
            await work(services, partial(_leave, transaction_id, user_id))


async def _leave(transaction_id: UUID, user_id: UUID, at_work: Work) -> None:
    deal = await lock_deal(at_work, transaction_id)
    if deal is None or deal.transaction.status != TransactionStatus.PENDING:
        return
    changes, row = Changes(at_work), deal.transaction
    if row.has_lapsed:
        await settle(changes, deal, Party.CLOCK, TransactionMove.LAPSE)
    else:
        party = Party.BUYER if user_id == row.buyer_id else Party.SELLER
        await settle(changes, deal, party, TransactionMove.CANCEL, moved_by=user_id)
    if deal.negotiation is not None:
        after = await negotiations.lock_negotiation(at_work.db, deal.negotiation.negotiation_id)
        await changes.end_all([after], Move.LEAVE)
    await changes.tell()
