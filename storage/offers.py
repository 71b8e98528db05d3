"""Offers as they are stored and shown."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from rules.offers import By, CloseReason, Move, OfferStatus, Side
from storage._db import Connection, Time, load
from storage.money import Money


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """An offer. `price` is of one piece; `changes` names what differs from the parent; `by` is rule where
    an auto-rule made or answered it.

    Read from the database, `price` is JSON as PostgreSQL made it.
    """

    offer_id: UUID
    negotiation_id: UUID
    listing_id: UUID
    listing_version: int
    maker_id: UUID
    buyer_id: UUID
    seller_id: UUID
    price: Money
    quantity: int
    message: str | None
    status: OfferStatus
    close_reason: CloseReason | None
    by: By
    parent_offer_id: UUID | None
    changes: list[str]
    round: int
    version: int
    expires_at: Time
    at: Time


class LockedOffer(msgspec.Struct, frozen=True, kw_only=True):
    """What moves are judged by; `has_expired` by the database's clock behind the lock."""

    offer_id: UUID
    negotiation_id: UUID
    listing_version: int
    maker_id: UUID
    price_amount: int
    price_currency: str
    quantity: int
    status: OfferStatus
    close_reason: CloseReason | None
    round: int
    version: int
    moved_by: UUID | None
    move: Move | None
    moved_version: int | None
    has_expired: bool


class Seat(msgspec.Struct, frozen=True):
    """Where a party's offer is negotiated."""

    listing_id: UUID
    negotiation_id: UUID
    side: Side
    buyer_id: UUID
    seller_id: UUID


class Expiring(msgspec.Struct, frozen=True):
    """An offer that ends soon, and whom that concerns."""

    offer_id: UUID
    negotiation_id: UUID
    expires_at: Time
    buyer_id: UUID
    seller_id: UUID


class Terms(NamedTuple):
    """What an offer says. The price in minor units, of one piece; `lasts_s` is how long it stands."""

    price: Money
    quantity: int
    message: str | None
    lasts_s: int


sql = load("offers", Offer, LockedOffer, Seat, Expiring)


async def find_seat(db: Connection, offer_id: UUID, user_id: UUID) -> Seat | None:
    """Where an offer is negotiated, and on which side the person sits; None where they are no party to it."""
    found: Seat | None = await sql.find_seat(db, offer_id=offer_id, user_id=user_id)
    return found


async def lock_offer(db: Connection, offer_id: UUID) -> LockedOffer:
    """Lock an offer until the transaction ends; the caller holds its negotiation."""
    found: LockedOffer = await sql.lock_offer(db, offer_id=offer_id)
    return found


async def lock_pending(db: Connection, negotiation_ids: Sequence[UUID]) -> dict[UUID, LockedOffer]:
    """Lock the offers on the table of these negotiations, which the caller holds, in order of id; by negotiation."""
    rows = sql.lock_pending(db, negotiation_ids=negotiation_ids)
    return {row.negotiation_id: row async for row in rows}


async def create_offer(
    db: Connection,
    offer_id: UUID,
    negotiation_id: UUID,
    terms: Terms,
    *,
    listing_version: int,
    maker_id: UUID,
    by: By,
    parent_id: UUID | None,
    round_: int,
) -> None:
    """Put an offer on the table."""
    offer = {
        "offer_id": offer_id,
        "negotiation_id": negotiation_id,
        "listing_version": listing_version,
        "maker_id": maker_id,
        "price_amount": terms.price.amount,
        "price_currency": terms.price.currency,
        "quantity": terms.quantity,
        "message": terms.message,
        "by": by,
        "parent_offer_id": parent_id,
        "round": round_,
        "lasts_s": terms.lasts_s,
    }
    await sql.create_offer(db, offer=msgspec.json.encode(offer).decode())


async def move_offer(
    db: Connection,
    offer_id: UUID,
    status: OfferStatus,
    reason: CloseReason | None,
    *,
    by: By = By.PERSON,
    moved_by: UUID | None = None,
    move: Move | None = None,
) -> None:
    """Let an offer, whose row is held, be in another state; a person's move is remembered with the version they saw."""
    await sql.move_offer(db, offer_id=offer_id, status=status, close_reason=reason, by=by, moved_by=moved_by, move=move)


async def list_offers(db: Connection, offer_ids: Sequence[UUID]) -> list[Offer]:
    """The offers as they are now, in the order given."""
    found = {row.offer_id: row async for row in sql.list_offers(db, offer_ids=offer_ids)}
    return [found[id_] for id_ in offer_ids]


async def list_history(db: Connection, negotiation_id: UUID) -> list[Offer]:
    """All offers of a negotiation, in their order."""
    return [row async for row in sql.list_history(db, negotiation_id=negotiation_id)]


async def list_unwarned(db: Connection, stage: int, within_s: int, after: UUID, most: int) -> list[UUID]:
    """Negotiations whose offer ends within so many seconds and lacks a stage's warning; in order, from behind one."""
    rows = sql.list_unwarned(db, stage=stage, within_s=within_s, after=after, most=most)
    return [row["negotiation_id"] async for row in rows]


async def warn(db: Connection, stage: int, within_s: int, negotiation_ids: Sequence[UUID]) -> list[Expiring]:
    """Note the warning of a stage, counted from 1, for those of their offers that are to have it."""
    return [row async for row in sql.warn(db, stage=stage, within_s=within_s, negotiation_ids=negotiation_ids)]


async def may_be_offered(db: Connection, listing_id: UUID, seller_id: UUID, buyer_id: UUID) -> bool:
    """Whether a seller may make this buyer an offer: who liked the listing, matched it, or wrote to the seller."""
    found: bool = await sql.may_be_offered(db, listing_id=listing_id, seller_id=seller_id, buyer_id=buyer_id)
    return found


async def last_asked(db: Connection, negotiation_id: UUID) -> int | None:
    """What the seller has last asked for in a negotiation, in minor units, or None."""
    asked: int | None = await sql.last_asked(db, negotiation_id=negotiation_id)
    return asked


def hashed(offer: Offer) -> dict[str, object]:
    """The terms of an offer as the history's hash takes them."""
    plain: dict[str, object] = msgspec.json.decode(msgspec.json.encode(offer))
    price = plain.pop("price")
    return {**plain, **price} if isinstance(price, dict) else plain
