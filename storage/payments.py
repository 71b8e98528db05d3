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


async def ask(db: Connection, transaction_id: UUID, errand: Errand) -> None:
    """Have a provider asked, once this transaction is committed and until it has been done."""
    await sql.ask(db, transaction_id=transaction_id, errand=errand)


async def claim_errands(db: Connection, most: int) -> list[DueErrand]:
    """Take what is due, for half a minute at first; nobody else does it meanwhile."""
    return [row async for row in sql.claim_errands(db, most=most)]


async def finish_errand(db: Connection, transaction_id: UUID, errand: Errand) -> None:
    """Note that an errand is done."""
    await sql.finish_errand(db, transaction_id=transaction_id, errand=errand)
