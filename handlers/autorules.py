"""Auto-rules: what the server answers to buyers in a seller's name, in the transaction of their offer."""

from typing import Annotated
from uuid import UUID

import msgspec

from handlers.bargaining import Changes
from handlers.deals import strike
from rules.autorules import Rule, Verdict, decide
from rules.money import MOST
from rules.offers import By, Move, Mover, Side
from rules.users import Scope
from server.commands.context import Context
from server.commands.registry import Limit, Payload, Permission, command
from server.errors import Forbidden, Invalid, NotFound
from storage import Time, autorules, listings, offers, rooms
from storage.autorules import AutoRuleRow
from storage.listings import LockedListing
from storage.money import Money
from storage.negotiations import LockedNegotiation
from storage.offers import Terms

TESTED = 100  # past offers of a test
ANSWER_STANDS_S = 172_800

owner_of_the_listing = Permission("owner_of_the_listing")
"""The listing's owner, judged by the handler."""


class SetAutoRule(Payload, frozen=True):
    listing_id: UUID
    enabled: bool
    accept_at: Money | None = None
    decline_below: Money | None = None
    counter_step: Money | None = None
    max_rounds: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None


class AutoRule(msgspec.Struct, frozen=True):
    """What is answered to buyers of a listing: accepted from a price on, declined under one, countered between."""

    listing_id: UUID
    accept_at: Money | None
    decline_below: Money | None
    counter_step: Money | None
    max_rounds: int | None
    enabled: bool
    version: int
    at: Time


class GetAutoRule(Payload, frozen=True):
    listing_id: UUID


class TestAutoRule(Payload, frozen=True):
    listing_id: UUID
    accept_at: Money | None = None
    decline_below: Money | None = None
    counter_step: Money | None = None
    max_rounds: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    enabled: bool = True


class TestedOffer(msgspec.Struct, frozen=True):
    """What the rule would have answered to an offer; `price` is that of a counter-offer."""

    offer_id: UUID
    offered: Money
    decision: Verdict
    price: Money | None


class TestedRule(msgspec.Struct, frozen=True):
    """The answers to the last offers, the latest first."""

    decisions: list[TestedOffer]


@command("autorule:set", allow=owner_of_the_listing, limit=Limit.OFFER_MOVES, scope=Scope.FULL)
async def set_(ctx: Context, p: SetAutoRule) -> AutoRule:
    """Let the server answer offers on a listing of one's own from now on. What is left out is left to oneself."""
    listing = await listings.lock_listing(ctx.db, p.listing_id)
    if listing is None:
        raise NotFound
    rule = _judged(ctx, listing.user_id, listing.price_currency, p)
    await autorules.set_rule(
        ctx.db,
        p.listing_id,
        accept_at=rule.accept_at,
        decline_below=rule.decline_below,
        counter_step=rule.counter_step,
        max_rounds=p.max_rounds,
        enabled=p.enabled,
    )
    return await _seen(ctx, p.listing_id)


@command("autorule:get", allow=owner_of_the_listing, limit=Limit.READS, reads=True)
async def get(ctx: Context, p: GetAutoRule) -> AutoRule:
    """Look at the rule of a listing of one's own."""
    owner = await listings.find_owner(ctx.db, p.listing_id)
    if owner is None:
        raise NotFound
    if owner != ctx.user.user_id:
        raise Forbidden("The listing's owner alone sees its rule.")
    return await _seen(ctx, p.listing_id)


@command("autorule:test", allow=owner_of_the_listing, limit=Limit.READS, reads=True)
async def test(ctx: Context, p: TestAutoRule) -> TestedRule:
    """Try a rule against the last 100 offers on a listing of one's own. Nothing is changed."""
    found = await listings.list_listings(ctx.db, ctx.user.user_id, [p.listing_id])
    if not found:
        raise NotFound
    currency = found[0].price.currency
    rule, decisions = _judged(ctx, found[0].user_id, currency, p), []
    for past in await autorules.list_past(ctx.db, p.listing_id, TESTED):
        decision = decide(rule, past.price, past.asked, past.rounds_left)
        counter = None if decision.price is None else Money(decision.price, currency)
        decisions.append(TestedOffer(past.offer_id, Money(past.price, currency), decision.verdict, counter))
    return TestedRule(decisions)


def _judged(ctx: Context, owner: UUID, currency: str, p: SetAutoRule | TestAutoRule) -> Rule:
    """The rule of a payload. Raises `Forbidden`, and `Invalid` for what contradicts itself."""
    if owner != ctx.user.user_id:
        raise Forbidden("The listing's owner alone sets its rule.")

    def amount(name: str, money: Money | None) -> int | None:
        if money is not None and money.currency != currency:
            raise Invalid({f"{name}.currency": f"the listing is priced in {currency}"})
        return None if money is None else money.amount

    rule = Rule(
        amount("accept_at", p.accept_at),
        amount("decline_below", p.decline_below),
        amount("counter_step", p.counter_step),
    )
    if rule.accept_at is not None and rule.decline_below is not None and rule.decline_below > rule.accept_at:
        raise Invalid({"decline_below": "more than accept_at: one price would be both"})
    return rule


async def _seen(ctx: Context, listing_id: UUID) -> AutoRule:
    row = await autorules.get_rule(ctx.db, listing_id)
    if row is None:
        raise NotFound

    def money(amount: int | None) -> Money | None:
        return None if amount is None else Money(amount, row.currency)

    return AutoRule(
        row.listing_id,
        money(row.accept_at),
        money(row.decline_below),
        money(row.counter_step),
        row.max_rounds,
        row.enabled,
        row.version,
        row.at,
    )


async def answer_by_rule(
    changes: Changes, listing: LockedListing, negotiation: LockedNegotiation, offer_id: UUID
) -> None:
    """Answer a buyer's offer, just put on the table, by the rule of its listing, whose row is held for its stock."""
    db = changes.work.db
    row = await autorules.get_rule(db, listing.listing_id)
    if row is None or not row.enabled or negotiation.turn != Side.SELLER:
        return
    offer = await offers.lock_offer(db, offer_id)
    last = await offers.last_asked(db, negotiation.negotiation_id)
    asked = listing.price_amount if last is None else min(last, listing.price_amount)
    decision = decide(_rule(row), offer.price_amount, asked, negotiation.rounds_left)
    if decision.verdict is Verdict.ACCEPT and listing.available >= offer.quantity:
        await strike(changes, listing, negotiation, offer, by=By.RULE)
    elif decision.verdict is Verdict.DECLINE:
        await changes.apply(negotiation, offer, Mover.OTHER, Move.AUTO_DECLINE, by=By.RULE)
    elif decision.price is not None and decision.price * offer.quantity <= MOST:  # else a sum that nobody can count
        negotiation = await changes.apply(negotiation, offer, Mover.OTHER, Move.COUNTER, by=By.RULE)
        terms = Terms(Money(decision.price, row.currency), offer.quantity, None, ANSWER_STANDS_S)
        await changes.put(
            negotiation,
            await rooms.new_id(db),
            terms,
            maker_id=negotiation.seller_id,
            listing_version=listing.version,
            parent_id=offer_id,
            by=By.RULE,
        )


def _rule(row: AutoRuleRow) -> Rule:
    return Rule(row.accept_at, row.decline_below, row.counter_step)
