"""Negotiation as a table: what each move makes of an offer and of its negotiation, by whom it is made."""

from enum import StrEnum
from typing import NamedTuple


class OfferStatus(StrEnum):
    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class CloseReason(StrEnum):
    COUNTERED = "countered"
    DECLINED = "declined"
    AUTO_DECLINED = "auto_declined"
    WITHDRAWN = "withdrawn"
    SUPERSEDED = "superseded"
    LISTING_SOLD = "listing_sold"
    LISTING_CLOSED = "listing_closed"
    TIMEOUT = "timeout"
    PAYMENT_LAPSED = "payment_lapsed"
    BLOCKED = "blocked"


class NegotiationStatus(StrEnum):
    OPEN = "open"
    AGREED = "agreed"
    COMPLETED = "completed"
    CLOSED = "closed"


class Side(StrEnum):
    """A side of a negotiation, or neither."""

    BUYER = "buyer"
    SELLER = "seller"
    NONE = "none"

    def other(self) -> "Side":
        """Across the table."""
        return {Side.BUYER: Side.SELLER, Side.SELLER: Side.BUYER, Side.NONE: Side.NONE}[self]


class By(StrEnum):
    """Whether people alone made and answered an offer, or an auto-rule in the seller's name."""

    PERSON = "person"
    RULE = "rule"


class Mover(StrEnum):
    """Who moves, as seen from the offer on the table."""

    MAKER = "maker"
    OTHER = "other"
    EITHER = "either"
    CLOCK = "clock"
    SYSTEM = "system"


class Move(StrEnum):
    COUNTER = "counter"
    WITHDRAW = "withdraw"
    DECLINE = "decline"
    AUTO_DECLINE = "auto_decline"
    ACCEPT = "accept"
    EXPIRE = "expire"
    SUPERSEDE = "supersede"
    SELL_OUT = "sell_out"
    CLOSE_LISTING = "close_listing"
    BLOCK = "block"
    LEAVE = "leave"
    LAPSE = "lapse"
    CANCEL = "cancel"
    COMPLETE = "complete"


class Turn(StrEnum):
    """Whose turn it is afterwards, as seen from the offer that was moved."""

    MAKER = "maker"
    BUYER = "buyer"
    NONE = "none"


class Outcome(NamedTuple):
    """What a move makes of the offer and of its negotiation.

    `spent` is the negotiation's status where no rounds are left.
    """

    status: OfferStatus
    reason: CloseReason | None
    negotiation: NegotiationStatus
    turn: Turn = Turn.NONE
    spent: NegotiationStatus | None = None

    def standing(self, rounds_left: int, maker: Side) -> tuple[NegotiationStatus, Side]:
        """The negotiation's status, and whose turn it is, where the offer was this side's."""
        if rounds_left == 0 and self.spent is not None:
            return self.spent, Side.NONE
        return self.negotiation, {Turn.MAKER: maker, Turn.BUYER: Side.BUYER, Turn.NONE: Side.NONE}[self.turn]


_P, _A = OfferStatus.PENDING, OfferStatus.ACCEPTED
_OPEN, _CLOSED = NegotiationStatus.OPEN, NegotiationStatus.CLOSED

TABLE: dict[tuple[OfferStatus, Mover, Move], Outcome] = {
    (_P, Mover.OTHER, Move.COUNTER): Outcome(OfferStatus.REJECTED, CloseReason.COUNTERED, _OPEN, Turn.MAKER),
    (_P, Mover.MAKER, Move.WITHDRAW): Outcome(OfferStatus.CANCELLED, CloseReason.WITHDRAWN, _OPEN, spent=_CLOSED),
    (_P, Mover.OTHER, Move.DECLINE): Outcome(
        OfferStatus.REJECTED, CloseReason.DECLINED, _OPEN, Turn.BUYER, spent=_CLOSED
    ),
    (_P, Mover.OTHER, Move.AUTO_DECLINE): Outcome(
        OfferStatus.REJECTED, CloseReason.AUTO_DECLINED, _OPEN, Turn.BUYER, spent=_CLOSED
    ),
    (_P, Mover.OTHER, Move.ACCEPT): Outcome(OfferStatus.ACCEPTED, None, NegotiationStatus.AGREED),
    (_P, Mover.CLOCK, Move.EXPIRE): Outcome(OfferStatus.EXPIRED, CloseReason.TIMEOUT, _OPEN, spent=_CLOSED),
    (_P, Mover.MAKER, Move.SUPERSEDE): Outcome(OfferStatus.CANCELLED, CloseReason.SUPERSEDED, _OPEN),
    (_P, Mover.SYSTEM, Move.SELL_OUT): Outcome(OfferStatus.CANCELLED, CloseReason.LISTING_SOLD, _CLOSED),
    (_P, Mover.SYSTEM, Move.CLOSE_LISTING): Outcome(OfferStatus.CANCELLED, CloseReason.LISTING_CLOSED, _CLOSED),
    (_P, Mover.SYSTEM, Move.BLOCK): Outcome(OfferStatus.CANCELLED, CloseReason.BLOCKED, _CLOSED),
    (_P, Mover.SYSTEM, Move.LEAVE): Outcome(OfferStatus.CANCELLED, CloseReason.WITHDRAWN, _CLOSED),
    (_A, Mover.CLOCK, Move.LAPSE): Outcome(OfferStatus.CANCELLED, CloseReason.PAYMENT_LAPSED, _CLOSED),
    (_A, Mover.EITHER, Move.CANCEL): Outcome(OfferStatus.CANCELLED, CloseReason.WITHDRAWN, _OPEN, spent=_CLOSED),
    (_A, Mover.EITHER, Move.COMPLETE): Outcome(OfferStatus.ACCEPTED, None, NegotiationStatus.COMPLETED),
}
"""Everything that may happen to an offer; what is not here does not happen."""


def outcome(status: OfferStatus, mover: Mover, move: Move) -> Outcome | None:
    """What a move makes of an offer in that state, None where that mover may not make it."""
    return TABLE.get((status, mover, move))
