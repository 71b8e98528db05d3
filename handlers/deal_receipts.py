"""Deals on paper: what was agreed, between whom, when, and all that was offered on the way there."""

from uuid import UUID

import msgspec

from handlers.transactions import GetTransaction, as_shown, party_or_administrator
from rules.history import history_sha256
from rules.transactions import Provider
from server.commands.context import Context
from server.commands.registry import Limit, command
from storage import Time, offers, transactions
from storage.money import Money, Sum
from storage.offers import Offer


class Terms(msgspec.Struct, frozen=True):
    """What was agreed: the price is of one piece, `listing_version` that of the terms it was agreed about."""

    listing_id: UUID
    listing_version: int
    price: Money
    quantity: int
    subtotal: Money
    platform_fee: Sum
    seller_payout: Sum
    provider: Provider


class Parties(msgspec.Struct, frozen=True):
    """Between whom."""

    buyer_id: UUID
    seller_id: UUID


class Times(msgspec.Struct, frozen=True):
    """When; `ended_at` is when it was cancelled, had failed or was refunded.

    `refund_failed_at` is when its provider last came to know that it could not give back what was paid.
    """

    agreed_at: Time
    pay_by: Time
    buyer_confirmed_at: Time | None
    seller_confirmed_at: Time | None
    paid_at: Time | None
    paid_out_at: Time | None
    ended_at: Time | None
    refund_failed_at: Time | None


class DealReceipt(msgspec.Struct, frozen=True):
    """A deal on paper. `offers` are all of its negotiation, none where it was bought at the asked price."""

    transaction_id: UUID
    terms: Terms
    parties: Parties
    times: Times
    offers: list[Offer]
    history_sha256: str


@command("transaction:receipt", allow=party_or_administrator, limit=Limit.READS, reads=True)
async def receipt(ctx: Context, p: GetTransaction) -> DealReceipt:
    """Have a deal on paper: its terms and times, and all that was offered on the way there, with its SHA-256."""
    deal = await as_shown(ctx, p.transaction_id)
    paper = await transactions.get_paper(ctx.db, p.transaction_id)
    price = Money(deal.subtotal.amount // paper.quantity, deal.subtotal.currency)
    found = [] if deal.negotiation_id is None else await offers.list_history(ctx.db, deal.negotiation_id)
    return DealReceipt(
        deal.transaction_id,
        Terms(
            deal.listing_id,
            paper.listing_version,
            price,
            paper.quantity,
            deal.subtotal,
            deal.platform_fee,
            deal.seller_payout,
            deal.provider,
        ),
        Parties(deal.buyer_id, deal.seller_id),
        Times(
            deal.at,
            deal.pay_by,
            paper.buyer_confirmed_at,
            paper.seller_confirmed_at,
            deal.paid_at,
            deal.paid_out_at,
            paper.ended_at,
            paper.refund_failed_at,
        ),
        found,
        history_sha256([offers.hashed(offer) for offer in found]),
    )
