"""Negotiations as they are stored and shown."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from rules.offers import Move, NegotiationStatus, Side
from storage._db import Connection, Time, load
from storage.offers import Offer


class Negotiation(msgspec.Struct, frozen=True, kw_only=True):
    """A negotiation. `rivals`, the other buyers with an offer on the table, are counted for its seller, on asking.

    Read from the database, `current_offer` is JSON as PostgreSQL made it.
    """

    negotiation_id: UUID
    listing_id: UUID
    buyer_id: UUID
    seller_id: UUID
    conversation_id: UUID
    status: NegotiationStatus
    turn: Side
    round: int
    rounds_left: int
    rivals: int | None = None
    current_offer: Offer | None
    version: int
    at: Time


class LockedNegotiation(msgspec.Struct, frozen=True, kw_only=True):
    """What moves are judged by. `ending` is the move by which it has ended, where that is still to be written."""

    negotiation_id: UUID
    listing_id: UUID
    buyer_id: UUID
    seller_id: UUID
    conversation_id: UUID
    status: NegotiationStatus
    turn: Side
    round: int
    max_rounds: int
    current_offer_id: UUID | None
    ending: Move | None

    @property
    def rounds_left(self) -> int:
        """How many offers may still be made."""
        return self.max_rounds - self.round

    def side_of(self, user_id: UUID) -> Side:
        """On which side one of the two sits."""
        return Side.BUYER if user_id == self.buyer_id else Side.SELLER


sql = load("negotiations", Negotiation, LockedNegotiation)


async def create_negotiation(
    db: Connection, listing_id: UUID, buyer_id: UUID, conversation_id: UUID, max_rounds: int
) -> None:
    """Begin a negotiation with the listing's owner, unless the buyer has one there that is open or agreed."""
    await sql.create_negotiation(
        db, listing_id=listing_id, buyer_id=buyer_id, conversation_id=conversation_id, max_rounds=max_rounds
    )


async def lock_negotiation(db: Connection, negotiation_id: UUID) -> LockedNegotiation:
    """Lock a negotiation until the transaction ends; its listing is locked before it."""
    found: LockedNegotiation = await sql.lock_negotiation(db, negotiation_id=negotiation_id)
    return found


async def lock_live(db: Connection, listing_id: UUID, buyer_id: UUID) -> LockedNegotiation | None:
    """Lock the buyer's open or agreed negotiation about a listing, or None."""
    found: LockedNegotiation | None = await sql.lock_live(db, listing_id=listing_id, buyer_id=buyer_id)
    return found


async def lock_open(db: Connection, listing_id: UUID, most: int) -> list[LockedNegotiation]:
    """Lock open negotiations about a listing, in order of id."""
    return [row async for row in sql.lock_open(db, listing_id=listing_id, most=most)]


async def lock_offered(db: Connection, listing_id: UUID, below: int | None, most: int) -> list[LockedNegotiation]:
    """Lock the negotiations about a listing in which a buyer's offer is on the table, below a price if one is given."""
    return [row async for row in sql.lock_offered(db, listing_id=listing_id, below=below, most=most)]


async def list_ended(db: Connection, after: UUID, most: int) -> list[UUID]:
    """Negotiations in which an offer has run out of time, in order of id, behind one."""
    return [row["negotiation_id"] async for row in sql.list_ended(db, after=after, most=most)]


async def lock_ended(db: Connection, negotiation_ids: Sequence[UUID]) -> list[LockedNegotiation]:
    """Lock those in which an offer has run out of time, in order of id, but for what others are at or had ended."""
    return [row async for row in sql.lock_ended(db, negotiation_ids=negotiation_ids)]


async def list_between(db: Connection, one_id: UUID, other_id: UUID, most: int) -> list[UUID]:
    """Open negotiations between two people, in order of id; where they are not locked, some may end meanwhile."""
    rows = sql.list_between(db, one_id=one_id, other_id=other_id, most=most)
    return [row["negotiation_id"] async for row in rows]


async def lock_rest(db: Connection, negotiation_ids: Sequence[UUID]) -> list[LockedNegotiation]:
    """Lock those that are open still, in order of id."""
    return [row async for row in sql.lock_rest(db, negotiation_ids=negotiation_ids)]


async def list_open_of(db: Connection, user_id: UUID, most: int) -> list[UUID]:
    """Open negotiations in which somebody buys."""
    return [row["negotiation_id"] async for row in sql.list_open_of(db, user_id=user_id, most=most)]


async def find_spent(db: Connection, listing_id: UUID, buyer_id: UUID) -> UUID | None:
    """The buyer's last negotiation about a listing, where it was closed with no round left; else None."""
    found: UUID | None = await sql.find_spent(db, listing_id=listing_id, buyer_id=buyer_id)
    return found


async def advance(
    db: Connection,
    negotiation_id: UUID,
    status: NegotiationStatus,
    turn: Side,
    *,
    offer_id: UUID | None = None,
) -> None:
    """Let a negotiation, which the caller holds, stand otherwise; with an offer, that is on the table, a round on."""
    await sql.advance(db, negotiation_id=negotiation_id, status=status, turn=turn, offer_id=offer_id)


async def list_negotiations(db: Connection, negotiation_ids: Sequence[UUID]) -> list[Negotiation]:
    """The negotiations as both sides are told of them, in the order given."""
    rows = sql.list_negotiations(db, negotiation_ids=negotiation_ids)
    found = {row.negotiation_id: row async for row in rows}
    return [found[id_] for id_ in negotiation_ids]


async def get_seen(db: Connection, user_id: UUID, negotiation_id: UUID) -> Negotiation | None:
    """A negotiation as a party sees it, its rivals counted for the seller; None for everybody else."""
    found = [row async for row in sql.list_seen(db, user_id=user_id, negotiation_ids=[negotiation_id])]
    return found[0] if found else None


async def page_negotiations(
    db: Connection,
    user_id: UUID,
    *,
    side: Side | None,
    status: NegotiationStatus | None,
    listing_id: UUID | None,
    before: UUID | None,
    most: int,
) -> list[Negotiation]:
    """A page of the person's negotiations, the newest first, as they see them."""
    rows = sql.page_negotiations(
        db, user_id=user_id, side=side, status=status, listing_id=listing_id, before=before, most=most
    )
    ids = [row["negotiation_id"] async for row in rows]
    found = {row.negotiation_id: row async for row in sql.list_seen(db, user_id=user_id, negotiation_ids=ids)}
    return [found[id_] for id_ in ids if id_ in found]
