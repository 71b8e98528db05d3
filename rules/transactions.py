"""A deal as a table: what each move makes of it, by whom it is made."""

from enum import StrEnum
from typing import NamedTuple


class TransactionStatus(StrEnum):
    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    REFUNDED = "refunded"
    CANCELLED = "cancelled"


class Provider(StrEnum):
    """Who moves the money: the two among themselves, or Stripe."""

    MANUAL = "manual"
    STRIPE = "stripe"


class Party(StrEnum):
    """Who moves a deal."""

    BUYER = "buyer"
    SELLER = "seller"
    ADMIN = "admin"
    PROVIDER = "provider"
    CLOCK = "clock"


class TransactionMove(StrEnum):
    """What may happen to a deal: `pay` begins a payment, `complete` and `fail` are the provider's word on it.

    `bounce` is its word that what it was to give back has not arrived.
    """

    PAY = "pay"
    CONFIRM = "confirm"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"
    LAPSE = "lapse"
    REFUND = "refund"
    BOUNCE = "bounce"


class Errand(StrEnum):
    """What is asked of a provider behind a move: that a payment can't be made any more, or is given back."""

    CANCEL = "cancel"
    REFUND = "refund"


class Outcome(NamedTuple):
    """What a move makes of a deal; `seconded`, where the other side has given its word already."""

    status: TransactionStatus
    seconded: TransactionStatus | None = None

    def standing(self, *, is_seconded: bool) -> TransactionStatus:
        """The deal's status afterwards."""
        return self.seconded if is_seconded and self.seconded is not None else self.status


_P, _C = TransactionStatus.PENDING, TransactionStatus.COMPLETED
_R = TransactionStatus.REFUNDED
_CANCELLED, _REFUNDED = Outcome(TransactionStatus.CANCELLED), Outcome(TransactionStatus.REFUNDED)

TABLE: dict[tuple[TransactionStatus, Party, TransactionMove], Outcome] = {
    (_P, Party.BUYER, TransactionMove.PAY): Outcome(_P),
    (_P, Party.BUYER, TransactionMove.CONFIRM): Outcome(_P, seconded=_C),
    (_P, Party.SELLER, TransactionMove.CONFIRM): Outcome(_P, seconded=_C),
    (_P, Party.PROVIDER, TransactionMove.COMPLETE): Outcome(_C),
    (_P, Party.PROVIDER, TransactionMove.FAIL): Outcome(TransactionStatus.FAILED),
    (_P, Party.BUYER, TransactionMove.CANCEL): _CANCELLED,
    (_P, Party.SELLER, TransactionMove.CANCEL): _CANCELLED,
    (_P, Party.CLOCK, TransactionMove.LAPSE): _CANCELLED,
    (_C, Party.SELLER, TransactionMove.REFUND): _REFUNDED,
    (_C, Party.ADMIN, TransactionMove.REFUND): _REFUNDED,
    (_C, Party.PROVIDER, TransactionMove.REFUND): _REFUNDED,
    (_R, Party.PROVIDER, TransactionMove.BOUNCE): Outcome(_C),
}
"""Everything that may happen to a deal; what is not here does not happen."""

_ONLY_UNDER = {TransactionMove.PAY: Provider.STRIPE, TransactionMove.CONFIRM: Provider.MANUAL}


def outcome(status: TransactionStatus, party: Party, move: TransactionMove) -> Outcome | None:
    """What a move makes of a deal in that state, None where that party may not make it."""
    return TABLE.get((status, party, move))


def may_ever(party: Party, move: TransactionMove) -> bool:
    """Whether it is that party's move at all, whatever the deal's state."""
    return any((status, party, move) in TABLE for status in TransactionStatus)


def is_made_under(provider: Provider, move: TransactionMove) -> bool:
    """Whether there is such a move where this provider moves the money."""
    return _ONLY_UNDER.get(move, provider) == provider
