"""Deals as they are stored and shown: what is paid, and the stock that is held for it."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from rules.offers import Side
from rules.transactions import Provider, TransactionMove, TransactionStatus
from storage._db import Connection, Time, load
from storage.money import Money, Sum


class SharedTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """A deal as its seller sees it. `subtotal` = `platform_fee` + `seller_payout`."""

    transaction_id: UUID
    negotiation_id: UUID | None
    offer_id: UUID | None
    listing_id: UUID
    buyer_id: UUID
    seller_id: UUID
    subtotal: Money
    platform_fee: Sum
    seller_payout: Sum
    status: TransactionStatus
    provider: Provider
    pay_by: Time
    paid_at: Time | None
    paid_out_at: Time | None
    version: int
    at: Time


class Transaction(SharedTransaction, frozen=True, kw_only=True, omit_defaults=True):
    """A deal; `client_secret` is for its buyer, who pays with it while it is pending."""

    client_secret: str | None = None


class TransactionRow(msgspec.Struct, frozen=True, kw_only=True):
    transaction_id: UUID
    negotiation_id: UUID | None
    offer_id: UUID | None
    listing_id: UUID
    buyer_id: UUID
    seller_id: UUID
    currency: str
    subtotal: int
    platform_fee: int
    seller_payout: int
    status: TransactionStatus
    provider: Provider
    client_secret: str | None
    pay_by: Time
    paid_at: Time | None
    paid_out_at: Time | None
    version: int
    at: Time

    def seen_by(self, user_id: UUID) -> Transaction:
        """As one of the two sees it."""
        may_pay = user_id == self.buyer_id and self.status == TransactionStatus.PENDING
        return Transaction(
            transaction_id=self.transaction_id,
            negotiation_id=self.negotiation_id,
            offer_id=self.offer_id,
            listing_id=self.listing_id,
            buyer_id=self.buyer_id,
            seller_id=self.seller_id,
            subtotal=Money(self.subtotal, self.currency),
            platform_fee=Sum(self.platform_fee, self.currency),
            seller_payout=Sum(self.seller_payout, self.currency),
            status=self.status,
            provider=self.provider,
            pay_by=self.pay_by,
            paid_at=self.paid_at,
            paid_out_at=self.paid_out_at,
            version=self.version,
            at=self.at,
            client_secret=self.client_secret if may_pay else None,
        )


class Parties(msgspec.Struct, frozen=True):
    """What a deal is about and between whom; it never changes."""

    listing_id: UUID
    negotiation_id: UUID | None
    offer_id: UUID | None
    buyer_id: UUID
    seller_id: UUID


class LockedTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """What moves are judged by; `has_lapsed` by the database's clock behind the lock.

    `moved_by`, `move` and `moved_version` are a person's last move, whatever else has moved it since.
    """

    transaction_id: UUID
    negotiation_id: UUID | None
    offer_id: UUID | None
    listing_id: UUID
    buyer_id: UUID
    seller_id: UUID
    quantity: int
    currency: str
    subtotal: int
    status: TransactionStatus
    provider: Provider
    intent_id: str | None
    charge_id: str | None
    buyer_confirmed_version: int | None
    seller_confirmed_version: int | None
    moved_by: UUID | None
    move: TransactionMove | None
    moved_version: int | None
    version: int
    has_lapsed: bool

    @property
    def is_late(self) -> bool:
        """Whether the time to pay has ended it, written or not."""
        if self.status == TransactionStatus.PENDING:
            return self.has_lapsed
        return self.status == TransactionStatus.CANCELLED and self.move != TransactionMove.CANCEL

    def confirmed_version(self, side: Side) -> int | None:
        """The version at which a side gave its word, None where it has not."""
        return self.buyer_confirmed_version if side == Side.BUYER else self.seller_confirmed_version


class Paper(msgspec.Struct, frozen=True):
    """What a receipt says beside the deal itself."""

    quantity: int
    listing_version: int
    buyer_confirmed_at: Time | None
    seller_confirmed_at: Time | None
    ended_at: Time | None
    refund_failed_at: Time | None


sql = load("transactions", TransactionRow, Parties, LockedTransaction, Paper)


async def create_transaction(
    db: Connection,
    transaction_id: UUID,
    listing_id: UUID,
    buyer_id: UUID,
    *,
    negotiation_id: UUID | None,
    offer_id: UUID | None,
    quantity: int,
    currency: str,
    subtotal: int,
    platform_fee: int,
    provider: Provider,
    pay_within_s: int,
) -> None:
    """Begin a deal with the listing's owner and hold stock for it; the caller counts it in the listing's row."""
    deal = {
        "transaction_id": transaction_id,
        "listing_id": listing_id,
        "buyer_id": buyer_id,
        "negotiation_id": negotiation_id,
        "offer_id": offer_id,
        "quantity": quantity,
        "currency": currency,
        "subtotal": subtotal,
        "platform_fee": platform_fee,
        "provider": provider,
    }
    await sql.create_transaction(db, deal=msgspec.json.encode(deal).decode(), pay_within_s=pay_within_s)
    await sql.create_reservation(db, transaction_id=transaction_id, listing_id=listing_id, quantity=quantity)


async def list_transactions(db: Connection, transaction_ids: Sequence[UUID]) -> list[TransactionRow]:
    """The deals as they are now."""
    if not transaction_ids:
        return []
    return [row async for row in sql.list_transactions(db, transaction_ids=transaction_ids)]


async def find_of_offer(db: Connection, offer_id: UUID) -> TransactionRow | None:
    """The deal that came of an offer, or None."""
    found: TransactionRow | None = await sql.find_of_offer(db, offer_id=offer_id)
    return found


async def find_parties(db: Connection, transaction_id: UUID) -> Parties | None:
    """What a deal is about and between whom, or None."""
    found: Parties | None = await sql.find_parties(db, transaction_id=transaction_id)
    return found


async def lock_transaction(db: Connection, transaction_id: UUID) -> LockedTransaction:
    """Lock a deal until the transaction ends; the caller holds its listing, negotiation and offer."""
    found: LockedTransaction = await sql.lock_transaction(db, transaction_id=transaction_id)
    return found


async def note_word(db: Connection, transaction_id: UUID, side: Side) -> None:
    """Note a side's word at the version as it is; the caller holds the row, and moves it."""
    await sql.note_word(db, transaction_id=transaction_id, side=side)


async def move_transaction(
    db: Connection, transaction_id: UUID, status: TransactionStatus, move: TransactionMove, moved_by: UUID | None
) -> None:
    """Let a deal, whose row is held, be in another state; a person's move is remembered with the version they saw."""
    await sql.move_transaction(db, transaction_id=transaction_id, status=status, move=move, moved_by=moved_by)


async def set_intent(db: Connection, transaction_id: UUID, intent_id: str, client_secret: str) -> None:
    """Remember the payment that a provider has prepared; the caller holds the row."""
    await sql.set_intent(db, transaction_id=transaction_id, intent_id=intent_id, client_secret=client_secret)


async def set_charge(db: Connection, transaction_id: UUID, charge_id: str) -> None:
    """Remember the charge by which a deal was paid; the caller holds the row."""
    await sql.set_charge(db, transaction_id=transaction_id, charge_id=charge_id)


async def find_by_intent(db: Connection, provider: Provider, intent_id: str) -> UUID | None:
    """The deal that a provider's payment is for, or None."""
    found: UUID | None = await sql.find_by_intent(db, provider=provider, intent_id=intent_id)
    return found


async def end_reservation(db: Connection, transaction_id: UUID, *, is_sold: bool) -> None:
    """Sell what was held for a deal, or let it go; the caller counts it in the listing's row."""
    await sql.end_reservation(db, transaction_id=transaction_id, status="sold" if is_sold else "released")


async def page_transactions(
    db: Connection,
    user_id: UUID,
    *,
    side: Side | None,
    status: TransactionStatus | None,
    before: UUID | None,
    most: int,
) -> list[TransactionRow]:
    """A page of the person's deals, the newest first."""
    rows = sql.page_transactions(db, user_id=user_id, side=side, status=status, before=before, most=most)
    ids = [row["transaction_id"] async for row in rows]
    return list(reversed(await list_transactions(db, ids)))


async def get_paper(db: Connection, transaction_id: UUID) -> Paper:
    """What a deal's receipt says beside the deal itself."""
    found: Paper = await sql.get_paper(db, transaction_id=transaction_id)
    return found


async def list_lapsed(db: Connection, most: int) -> list[UUID]:
    """Deals that nobody has paid in time by the database's clock."""
    return [row["transaction_id"] async for row in sql.list_lapsed(db, most=most)]


async def list_pending_of(db: Connection, user_id: UUID, most: int) -> list[UUID]:
    """Deals of somebody's, on either side, that wait to be paid."""
    return [row["transaction_id"] async for row in sql.list_pending_of(db, user_id=user_id, most=most)]


async def lock_matches(db: Connection, listing_id: UUID, buyer_id: UUID) -> None:
    """Lock the mutual matches of a buyer and a listing, which the caller holds, before any negotiation."""
    await sql.lock_matches(db, listing_id=listing_id, buyer_id=buyer_id)
