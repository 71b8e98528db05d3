"""What should become of one listing and its buyers, in plain Python, written from the domain's table alone.

A guard is a reason; whoever moves against several may be refused for any of them, and must be refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

BUYER, SELLER, NONE = "buyer", "seller", "none"

# What is said of an offer that has ended so; of every other one, that it is not pending.
OVER = {"timeout": "expired", "listing_sold": "sold", "listing_closed": "listing_changed", "blocked": "blocked"}


@dataclass
class Offer:
    """An offer, and who made its last move with which version, by which a repeat is known."""

    maker: str
    price: int
    quantity: int
    listing_version: int
    round: int
    parent: Offer | None = None
    by: str = "person"
    status: str = "pending"
    reason: str | None = None
    version: int = 1
    is_late: bool = False
    moved: tuple[str, str, int] | None = None

    def end(self, status: str, reason: str | None, by: str = "person") -> None:
        """Let it be in another state; a rule's mark stays."""
        self.status, self.reason = status, reason
        self.by = "rule" if by == "rule" else self.by
        self.version += 1


@dataclass
class Deal:
    """What was agreed, or bought without an offer."""

    buyer: int
    quantity: int
    negotiation: Negotiation | None
    status: str = "pending"
    version: int = 1
    words: set[str] = field(default_factory=set)


@dataclass
class Negotiation:
    """A buyer's haggling with the seller."""

    buyer: int
    most: int
    status: str = "open"
    turn: str = NONE
    offers: list[Offer] = field(default_factory=list)

    @property
    def last(self) -> Offer | None:
        """The offer that is spoken of."""
        return self.offers[-1] if self.offers else None

    @property
    def pending(self) -> Offer | None:
        """The offer on the table."""
        return self.last if self.last is not None and self.last.status == "pending" else None

    @property
    def is_rival(self) -> bool:
        """Whether the buyer's own offer is on the table."""
        return self.pending is not None and self.pending.maker == BUYER and not self.pending.is_late

    @property
    def left(self) -> int:
        """Rounds that are left."""
        return self.most - len(self.offers)

    @property
    def is_live(self) -> bool:
        """Whether it is the buyer's one."""
        return self.status in ("open", "agreed")

    def stand(self, turn: str) -> None:
        """Go on, with this side's turn; without a round left there is nothing to go on with."""
        self.status, self.turn = ("open", turn) if self.left else ("closed", NONE)

    def close(self, reason: str) -> None:
        """End, with what is on the table."""
        if self.pending is not None:
            self.pending.end("cancelled", reason)
        self.status, self.turn = "closed", NONE


@dataclass
class Rule:
    """What the server answers in the seller's name."""

    accept_at: int | None = None
    decline_below: int | None = None
    step: int | None = None
    most: int | None = None
    enabled: bool = True


Refusals = set[str]


class Market:
    """One listing. Each move returns the reasons against it, and is made where there are none."""

    def __init__(self, quantity: int, price: int, rounds: int) -> None:
        self.quantity = quantity
        self.price = price
        self.version = 1
        self.rounds = rounds
        self.reserved = self.sold = 0
        self.is_closed = False
        self.rule: Rule | None = None
        self.blocked: set[int] = set()
        self.negotiations: list[Negotiation] = []
        self.deals: list[Deal] = []

    @property
    def left(self) -> int:
        """Pieces that nobody was promised."""
        return self.quantity - self.reserved - self.sold

    @property
    def status(self) -> str:
        """The listing's."""
        if self.sold == self.quantity:
            return "sold"
        if self.is_closed:
            return "closed"
        return "active" if self.left else "reserved"

    def of(self, buyer: int) -> Negotiation | None:
        """A buyer's latest negotiation."""
        return next((each for each in reversed(self.negotiations) if each.buyer == buyer), None)

    # the moves

    def make(self, buyer: int, side: str, price: int, quantity: int, version: int) -> Refusals:
        """An offer out of nothing."""
        against, known = self._closed(quantity, version), self.of(buyer)
        if buyer in self.blocked:
            against.add("blocked")
        if known is None and side == SELLER:
            against.add("forbidden")
        live = known if known is not None and known.is_live else None
        if known is not None and live is None and known.left == 0 and known.status == "closed":
            against.add("rounds_spent")
        if live is not None:
            against |= self._occupied(live, side)
        if against:
            return against
        if live is None:
            most = self.rule.most if self.rule is not None and self.rule.enabled else None
            live = Negotiation(buyer, most or self.rounds)
            self.negotiations.append(live)
        if live.pending is not None and live.pending.is_late:
            live.pending.end("expired", "timeout")
        elif live.pending is not None:
            live.pending.end("cancelled", "superseded")
        self._put(live, side, price, quantity)
        return against

    def counter(self, at: Negotiation, offer: Offer, side: str, version: int, price: int, quantity: int) -> Refusals:
        """An answer by another offer."""
        against = self._judge(offer, version, is_theirs=offer.maker != side)
        if not at.left:
            against.add("rounds_spent")
        if self.left < quantity:
            against.add("sold")
        if not against:
            offer.end("rejected", "countered")
            offer.moved = (side, "counter", version)
            self._put(at, side, price, quantity, parent=offer)
        return against

    def accept(self, at: Negotiation, offer: Offer, side: str, version: int) -> Refusals:
        """Agreement."""
        if offer.moved == (side, "accept", version):
            return set()
        against = self._judge(offer, version, is_theirs=offer.maker != side)
        if self.left < offer.quantity:
            against.add("sold")
        if side == BUYER and offer.listing_version != self.version:
            against.add("listing_changed")
        if not against:
            self._agree(at, offer)
            offer.moved = (side, "accept", version)
        return against

    def decline(self, at: Negotiation, offer: Offer, side: str, version: int) -> Refusals:
        """No."""
        if offer.moved == (side, "decline", version):
            return set()
        against = self._judge(offer, version, is_theirs=offer.maker != side)
        if not against:
            self._decline(at, offer, side)
        return against

    def withdraw(self, at: Negotiation, offer: Offer, side: str, version: int) -> Refusals:
        """Taken back."""
        if offer.moved == (side, "withdraw", version):
            return set()
        against = self._judge(offer, version, is_theirs=offer.maker == side)
        if not against:
            offer.end("cancelled", "withdrawn")
            offer.moved = (side, "withdraw", version)
            at.stand(NONE)
        return against

    def decline_all(self, below: int | None) -> int:
        """How many buyers are told no."""
        told = 0
        for at in self.negotiations:
            offer = at.pending
            if offer is None or offer.maker != BUYER or offer.is_late or (below is not None and offer.price >= below):
                continue
            self._decline(at, offer, SELLER)
            told += 1
        return told

    def sweep(self) -> None:
        """The clock looks at what is on the tables."""
        for at in self.negotiations:
            if at.pending is not None and at.pending.is_late:
                at.pending.end("expired", "timeout")
                at.stand(NONE)

    def edit(self, price: int, version: int) -> Refusals:
        """The listing has another price."""
        if price == self.price and version in (self.version, self.version - 1):
            return set()  # it has it already
        against = {"version"} if version != self.version else set()
        if self.status in ("closed", "sold"):
            against.add({"closed": "listing_changed", "sold": "sold"}[self.status])
        if not against:
            self.version += 1
            self.price = price
        return against

    def close(self) -> Refusals:
        """The listing is taken back."""
        if self.status == "sold":
            return {"sold"}
        if not self.is_closed:
            self.is_closed = True
            self._end_open("listing_closed")
        return set()

    def block(self, buyer: int) -> None:
        """The seller wants to hear no more of a buyer."""
        if buyer not in self.blocked:
            self.blocked.add(buyer)
            for at in self.negotiations:
                if at.buyer == buyer and at.status == "open":
                    at.close("blocked")

    def buy(self, buyer: int, quantity: int, version: int) -> Refusals:
        """At the asked price."""
        against = self._closed(quantity, version)
        if buyer in self.blocked:
            against.add("blocked")
        if not against:
            self._reserve(Deal(buyer, quantity, None))
        return against

    def confirm(self, deal: Deal, side: str, version: int) -> Refusals:
        """One side's word; with both the deal is done."""
        against = self._judge_deal(deal, version)
        if side in deal.words:
            against.add("not_your_turn")
        if not against:
            deal.version += 1
            deal.words.add(side)
            if len(deal.words) == 2:
                deal.status = "completed"
                self.reserved -= deal.quantity
                self.sold += deal.quantity
                if deal.negotiation is not None and deal.negotiation.last is not None:
                    deal.negotiation.status = "completed"
                    deal.negotiation.last.end("accepted", None)
        return against

    def cancel(self, deal: Deal, version: int) -> Refusals:
        """Out of a deal, by either side."""
        against = self._judge_deal(deal, version)
        if not against:
            self._release(deal, "withdrawn")
            at = deal.negotiation
            if at is not None and (self.is_closed or at.buyer in self.blocked):
                at.status, at.turn = "closed", NONE
            elif at is not None:
                at.stand(NONE)
        return against

    def lapse(self, deal: Deal) -> None:
        """Nobody has paid."""
        self._release(deal, "payment_lapsed")
        if deal.negotiation is not None:
            deal.negotiation.status, deal.negotiation.turn = "closed", NONE

    # what they have in common

    def _closed(self, quantity: int, version: int) -> Refusals:
        against: Refusals = set()
        if self.status == "closed" or version != self.version:
            against.add("listing_changed")
        if self.left < quantity:
            against.add("sold")
        return against

    def _occupied(self, live: Negotiation, side: str) -> Refusals:
        against: Refusals = set()
        offer = live.pending
        if live.status == "agreed":
            against.add("version")
        if not live.left:
            against.add("rounds_spent")
        if offer is not None and not offer.is_late and (offer.maker != side or offer.listing_version == self.version):
            against.add("not_your_turn")
        if offer is None and live.turn not in (NONE, side):
            against.add("not_your_turn")
        return against

    @staticmethod
    def _judge(offer: Offer, version: int, *, is_theirs: bool) -> Refusals:
        if offer.status != "pending":
            return {OVER.get(offer.reason or "", "not_pending")}
        against: Refusals = set()
        if not is_theirs:
            against.add("not_your_turn")
        if version != offer.version:
            against.add("version")
        if offer.is_late:
            against.add("expired")
        return against

    @staticmethod
    def _judge_deal(deal: Deal, version: int) -> Refusals:
        if deal.status != "pending":
            return {"not_pending", "expired"}
        return {"version"} if version != deal.version else set()

    def _put(self, at: Negotiation, side: str, price: int, quantity: int, *, parent: Offer | None = None) -> None:
        offer = Offer(side, price, quantity, self.version, len(at.offers) + 1, parent)
        at.offers.append(offer)
        at.status, at.turn = "open", SELLER if side == BUYER else BUYER
        if side == BUYER and self.rule is not None and self.rule.enabled:
            self._answer(at, offer, self.rule)

    def _answer(self, at: Negotiation, offer: Offer, rule: Rule) -> None:
        """Accepted from one price on, declined under another, between them the seller's price steps down."""
        if rule.accept_at is not None and offer.price >= rule.accept_at:
            if self.left >= offer.quantity:
                self._agree(at, offer, by="rule")
            return
        if rule.decline_below is not None and offer.price < rule.decline_below:
            offer.end("rejected", "auto_declined", "rule")
            at.stand(BUYER)
            return
        if rule.step is None or not at.left:
            return
        asked = next((each.price for each in reversed(at.offers) if each.maker == SELLER), self.price)
        asked = min(asked, self.price)
        price = min(asked, max(asked - rule.step, rule.accept_at or 1))
        if price > offer.price:
            offer.end("rejected", "countered", "rule")
            at.offers.append(
                Offer(SELLER, price, offer.quantity, self.version, len(at.offers) + 1, parent=offer, by="rule")
            )
            at.turn = BUYER

    def _agree(self, at: Negotiation, offer: Offer, by: str = "person") -> None:
        offer.end("accepted", None, by)
        at.status, at.turn = "agreed", NONE
        self._reserve(Deal(at.buyer, offer.quantity, at))

    def _reserve(self, deal: Deal) -> None:
        self.deals.append(deal)
        self.reserved += deal.quantity
        if not self.left:
            self._end_open("listing_sold")

    def _release(self, deal: Deal, reason: str) -> None:
        deal.status = "cancelled"
        deal.version += 1
        self.reserved -= deal.quantity
        if deal.negotiation is not None and deal.negotiation.last is not None:
            deal.negotiation.last.end("cancelled", reason)

    def _decline(self, at: Negotiation, offer: Offer, side: str) -> None:
        offer.moved = (side, "decline", offer.version)
        offer.end("rejected", "declined")
        at.stand(BUYER)

    def _end_open(self, reason: str) -> None:
        for at in self._open():
            at.close(reason)

    def _open(self) -> Iterator[Negotiation]:
        return (at for at in self.negotiations if at.status == "open")
