"""Stripe, by its own library: payment intents, refunds, and webhooks.

docs.stripe.com/payments/payment-intents, /refunds, /webhooks, /currencies. The library is imported with this module,
which takes 0.3 s: nobody else imports it.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

import aiohttp
import msgspec
import stripe
import structlog

from rules.transactions import Provider
from server.adapters.payments import Intent, PaymentEvent, Told
from server.errors import Invalid, Unavailable

TIMEOUT_S = 10.0  # of one try
RETRIES = 1  # by the library, after half a second
TOLERANCE_S = 300  # of a webhook's age: older ones may be somebody's recording
HUNDREDFOLD = frozenset({"ISK", "UGX"})  # without minor units, but Stripe counts them in hundredths
WHOLE = frozenset({"MGA"})  # with minor units, but Stripe counts it whole
TENS = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})  # three decimals, of which the last has to be 0

T = TypeVar("T")

logger = structlog.get_logger("parley.payments")


def to_stripe(amount: int, currency: str) -> int | None:
    """Our minor units in Stripe's; None for a sum that it can't move."""
    if currency in HUNDREDFOLD:
        return amount * 100
    if currency in WHOLE:
        return amount // 100 if amount % 100 == 0 else None
    return None if currency in TENS and amount % 10 else amount


def from_stripe(amount: int, currency: str) -> int:
    """Stripe's units in our minor units, rounded down."""
    if currency in HUNDREDFOLD:
        return amount // 100
    return amount * 100 if currency in WHOLE else amount


class _Object(msgspec.Struct):
    """A payment intent, a charge or a refund, as far as it matters here."""

    id: str
    object: str
    currency: str = ""
    amount_received: int = 0
    latest_charge: str | None = None
    payment_intent: str | None = None
    refunded: bool = False
    status: str = ""
    failure_reason: str | None = None


class _Data(msgspec.Struct):
    object: _Object


class _Event(msgspec.Struct):
    id: str
    type: str
    created: int
    data: _Data


class _Head(msgspec.Struct):
    type: str


_TOLD = {
    "payment_intent.succeeded": Told.PAID,
    "payment_intent.payment_failed": Told.FAILED,
    "payment_intent.canceled": Told.CANCELLED,
    "charge.refunded": Told.REFUNDED,
    # The same may be told by all three: which ones there are hangs on how it was paid, and on the API's version.
    "refund.failed": Told.NOT_REFUNDED,
    "refund.updated": Told.NOT_REFUNDED,
    "charge.refund.updated": Told.NOT_REFUNDED,
}
_NOT_GIVEN = frozenset({"failed", "canceled"})  # what a refund's status is then
REASON = 100  # characters of why


class StripePayments:
    """Payments by Stripe; `url` is its API's base, where that is not Stripe's own."""

    def __init__(self, key: str, webhook_secret: str, url: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self._secret = webhook_secret
        self._http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=timeout_s))
        self._client = stripe.StripeClient(
            key,
            base_addresses={"api": url.rstrip("/")} if url else None,
            http_client=self._http,
            max_network_retries=RETRIES,
        )

    async def create_intent(self, transaction_id: UUID, amount: int, currency: str) -> Intent:
        """A payment intent, by a key that makes it the same one within a day; it is ours to keep for longer."""
        charged = to_stripe(amount, currency)
        if charged is None:
            raise _not_moved(amount, currency)
        try:
            made = await self._asked(
                lambda: self._client.v1.payment_intents.create_async(
                    {
                        "amount": charged,
                        "currency": currency.lower(),
                        "metadata": {"transaction_id": str(transaction_id)},
                        "automatic_payment_methods": {"enabled": True},
                    },
                    {"idempotency_key": str(transaction_id)},
                )
            )
        except _Refused as refused:
            raise _not_moved(amount, currency) if refused.is_final else refused from None
        if not made.client_secret:
            raise Unavailable("The payment provider has prepared no payment: try again.")
        return Intent(made.id, made.client_secret)

    async def cancel_intent(self, intent_id: str) -> bool:
        """Cancel, unless it was paid or cancelled before. Raises `Unavailable` while it is neither yet."""
        try:
            await self._asked(lambda: self._client.v1.payment_intents.cancel_async(intent_id))
        except _Refused as refused:
            if refused.reason != "payment_intent_unexpected_state":
                raise
            found = await self._asked(lambda: self._client.v1.payment_intents.retrieve_async(intent_id))
            if found.status not in ("succeeded", "canceled"):
                raise
            return found.status == "canceled"
        return True

    async def refund(self, intent_id: str, key: str | None = None) -> str | None:
        """Refund all that is left of a payment: Stripe gives nothing back twice, whatever the key."""
        try:
            made = await self._asked(
                lambda: self._client.v1.refunds.create_async(
                    {"payment_intent": intent_id}, {"idempotency_key": key} if key else {}
                )
            )
        except _Refused as refused:
            if refused.reason != "charge_already_refunded":
                raise
            return None
        if made.status in _NOT_GIVEN:
            logger.error("refund_failed", intent_id=intent_id, refund_id=made.id, reason=made.failure_reason)
            raise Unavailable("The payment provider could not give it back: try again, or settle it otherwise.")
        return made.id

    def read_event(self, body: bytes, signature: str | None) -> PaymentEvent | None:
        """Verify a webhook by the library, and take of it what concerns us.

        Of refunds these are those of all that was paid, and those that have failed.
        """
        try:
            stripe.WebhookSignature.verify_header(body, signature, self._secret, TOLERANCE_S)
            told = _TOLD.get(msgspec.json.decode(body, type=_Head).type)
            event = msgspec.json.decode(body, type=_Event) if told else None
        except (stripe.SignatureVerificationError, ValueError) as error:
            logger.warning("webhook_refused", error=type(error).__name__)
            raise Invalid({"Stripe-Signature": "not of this body, by this endpoint's secret, and fresh"}) from None
        if event is None or told is None:
            return None
        about = event.data.object
        currency = about.currency.upper()
        is_refund = told in (Told.REFUNDED, Told.NOT_REFUNDED)
        intent_id = about.payment_intent if is_refund else about.id
        is_so = about.refunded if told is Told.REFUNDED else about.status in _NOT_GIVEN
        if intent_id is None or (is_refund and not is_so):
            return None
        return PaymentEvent(
            Provider.STRIPE,
            event.id,
            event.type,
            told,
            event.created,
            intent_id,
            None if is_refund else about.latest_charge,
            from_stripe(about.amount_received, currency),
            currency,
            about.id if told is Told.NOT_REFUNDED else "",
            about.failure_reason[:REASON] if about.failure_reason else None,
        )

    async def close(self) -> None:
        """Close the connections to Stripe."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def _asked(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask Stripe. Raises `Unavailable`, whatever keeps it from doing so; what it says may name people."""
        try:
            return await call()
        except stripe.StripeError as error:
            reason = error.code or type(error).__name__
            logger.warning("stripe_failed", reason=reason, status=error.http_status, request_id=error.request_id)
            raise _Refused(reason, is_final=isinstance(error, stripe.InvalidRequestError)) from None
        # The library lets out what fails while the answer is read.
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            logger.warning("stripe_failed", reason=type(error).__name__)
            raise _Refused(type(error).__name__) from None


class _Refused(Unavailable):
    """Stripe has not done it; `reason` is its error's code, `is_final` says that it never will, asked the same."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__("The payment provider did not answer as it should: try again.")
        self.reason = reason
        self.is_final = is_final


def _not_moved(amount: int, currency: str) -> Invalid:
    """What is answered where asking again is of no use."""
    why = f"Stripe does not take {amount} minor units of {currency}: cancel the deal, and agree on another sum."
    return Invalid({"transaction_id": "of a sum that Stripe does not take"}, why)
