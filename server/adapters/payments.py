"""Who moves the money of a deal where the two do not settle it among themselves."""

from enum import Enum
from typing import NamedTuple, Protocol
from uuid import UUID

from rules.transactions import Provider


class Intent(NamedTuple):
    """A payment that a provider has prepared; its buyer pays with the secret."""

    intent_id: str
    client_secret: str


class Told(Enum):
    """What a provider may tell us of a payment."""

    PAID = "paid"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"
    NOT_REFUNDED = "not_refunded"


class PaymentEvent(NamedTuple):
    """A provider's word, its signature verified. `amount` is what was paid, in our minor units.

    `told_at` is when it came to say so, by its own clock, in seconds since 1970. Of what could not be given back there
    are `refund_id` and `why`.
    """

    provider: Provider
    event_id: str
    type: str
    told: Told
    told_at: int
    intent_id: str
    charge_id: str | None = None
    amount: int = 0
    currency: str = ""
    refund_id: str = ""
    why: str | None = None


class Payments(Protocol):
    """A payment provider. All but `read_event` raise `Unavailable` where it does not do what it is asked."""

    async def create_intent(self, transaction_id: UUID, amount: int, currency: str) -> Intent:
        """Prepare a deal's payment, in minor units; asked again for the same deal, it is the same one.

        Raises `Invalid` for what it will never take.
        """

    async def cancel_intent(self, intent_id: str) -> bool:
        """Let a payment not be made any more; False where it was made. Asked again, it answers the same."""

    async def refund(self, intent_id: str, key: str | None = None) -> str | None:
        """Give back what was paid, all of it; what the provider calls that, None where it was given back already.

        Under a key the provider may answer as it did before.
        """

    def read_event(self, body: bytes, signature: str | None) -> PaymentEvent | None:
        """What a webhook tells, None where it does not concern us. Raises `Invalid` for what is not the provider's."""

    async def close(self) -> None:
        """End."""
