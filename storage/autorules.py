"""Auto-rules as they are stored: what a listing's owner lets the server answer."""

from uuid import UUID

import msgspec

from storage._db import Connection, Time, load


class AutoRuleRow(msgspec.Struct, frozen=True, kw_only=True):
    """A rule; prices in minor units of the listing's currency."""

    listing_id: UUID
    currency: str
    accept_at: int | None
    decline_below: int | None
    counter_step: int | None
    max_rounds: int | None
    enabled: bool
    version: int
    at: Time


class PastOffer(msgspec.Struct, frozen=True, kw_only=True):
    """A buyer's offer, and what the seller had asked for by then."""

    offer_id: UUID
    price: int
    asked: int
    rounds_left: int


sql = load("autorules", AutoRuleRow, PastOffer)


async def has_rule(db: Connection, listing_id: UUID) -> bool:
    """Whether a listing has a rule that is on."""
    found: bool = await sql.has_rule(db, listing_id=listing_id)
    return found


async def rules_offer(db: Connection, offer_id: UUID) -> bool:
    """Whether a rule would answer the buyer's answer to this offer."""
    found: bool = await sql.rules_offer(db, offer_id=offer_id)
    return found


async def get_rule(db: Connection, listing_id: UUID) -> AutoRuleRow | None:
    """A listing's rule, whether or not it is on, or None."""
    found: AutoRuleRow | None = await sql.get_rule(db, listing_id=listing_id)
    return found


async def set_rule(
    db: Connection,
    listing_id: UUID,
    *,
    accept_at: int | None,
    decline_below: int | None,
    counter_step: int | None,
    max_rounds: int | None,
    enabled: bool,
) -> None:
    """Write a listing's rule; the caller holds the listing."""
    await sql.set_rule(
        db,
        listing_id=listing_id,
        accept_at=accept_at,
        decline_below=decline_below,
        counter_step=counter_step,
        max_rounds=max_rounds,
        enabled=enabled,
    )


async def list_past(db: Connection, listing_id: UUID, most: int) -> list[PastOffer]:
    """The last offers that buyers made, the latest first."""
    return [row async for row in sql.list_past(db, listing_id=listing_id, most=most)]
