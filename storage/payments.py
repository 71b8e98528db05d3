"""What passes between a payment provider and us, kept so that nothing of it is done twice or forgotten."""

from uuid import UUID

import msgspec

from rules.transactions import Errand, Provider
from storage._db import Connection, load


class DueErrand(msgspec.Struct, frozen=True):
    """What a provider is to be asked now, and how often it has been, this time included."""

    transaction_id: UUID
    errand: Errand
    attempts: int
    intent_id: str


sql = load("payments", DueErrand)


async def note_event(db: Connection, provider: Provider, event_id: str, told: str) -> bool:
    """Note what a provider has told us; False where that is known already."""
    return await sql.note_event(db, provider=provider, event_id=event_id, told=told) is not None


async def note_refund(db: Connection, transaction_id: UUID, told_at: int) -> bool:
    """Note that a provider has given all back; False where it has said since that a refund has failed.

    `told_at` is the second of its clock at which it said so. The caller holds the deal.
    """
    return await sql.note_refund(db, transaction_id=transaction_id, told_at=told_at) is not None


async def note_failed_refund(
    db: Connection, provider: Provider, refund_id: str, transaction_id: UUID, reason: str | None, told_at: int
) -> bool:
    """Note that a refund has failed; False where that is known, or all was given back since.

    `told_at` is the second of the provider's clock at which it said so. The caller holds the deal.
    """
    is_last: bool | None = await sql.note_failed_refund(
        db, provider=provider, refund_id=refund_id, transaction_id=transaction_id, reason=reason, told_at=told_at
    )
    return bool(is_last)


async def has_failed(db: Connection, provider: Provider, refund_id: str) -> bool:
    """Whether a provider has told that this refund has failed."""
    failed: bool = await sql.has_failed(db, provider=provider, refund_id=refund_id)
    return failed


async def ask(db: Connection, transaction_id: UUID, errand: Errand) -> None:
    """Have a provider asked, once this transaction is committed and until it has been done."""
    await sql.ask(db, transaction_id=transaction_id, errand=errand)


async def claim_errands(db: Connection, most: int) -> list[DueErrand]:
    """Take what is due, for half a minute at first; nobody else does it meanwhile."""
    return [row async for row in sql.claim_errands(db, most=most)]


async def finish_errand(db: Connection, transaction_id: UUID, errand: Errand) -> None:
    """Note that an errand is done."""
    await sql.finish_errand(db, transaction_id=transaction_id, errand=errand)
