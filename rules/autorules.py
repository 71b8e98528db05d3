"""What a seller's auto-rule answers to a buyer's offer."""

from enum import StrEnum
from typing import NamedTuple


class Verdict(StrEnum):
    ACCEPT = "accept"
    DECLINE = "decline"
    COUNTER = "counter"
    LEAVE = "leave"


class Rule(NamedTuple):
    """Thresholds and step, in minor units of the listing's currency, each None where the seller decides."""

    accept_at: int | None
    decline_below: int | None
    counter_step: int | None


class Decision(NamedTuple):
    """What is done about an offer; `price` is that of the counter-offer."""

    verdict: Verdict
    price: int | None = None


def decide(rule: Rule, price: int, asked: int, rounds_left: int) -> Decision:
    """Answer a buyer's price, where the seller asks for `asked`: their last offer, never more than the listing's price.

    From `accept_at` on it is accepted, under `decline_below` declined. Between the two the seller's price comes down by
    `counter_step`, never under `accept_at` and never up again; what would come down to the buyer's price, where nothing
    says what to accept, is left to the seller, as is everything without a step or without a round left.
    """
    if rule.accept_at is not None and price >= rule.accept_at:
        return Decision(Verdict.ACCEPT)
    if rule.decline_below is not None and price < rule.decline_below:
        return Decision(Verdict.DECLINE)
    if rule.counter_step is None or rounds_left == 0:
        return Decision(Verdict.LEAVE)
    lower = min(asked, max(asked - rule.counter_step, rule.accept_at or 1))
    return Decision(Verdict.LEAVE) if lower <= price else Decision(Verdict.COUNTER, lower)
