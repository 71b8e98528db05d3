"""Whether negotiation kept its rules, as far as the people at the table can see. Pure.

A piece is sold once, a negotiation comes to one deal at most, one move wins at each version of an offer, a move makes
of it what the move is for, a deal is what was agreed. Who has to be told of it all is the matter of `telling`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from server.cli.load.faults import Fault, Faults
from server.cli.load.packets import Moved, Offer, Transaction, read
from server.cli.load.recent import Recent
from server.cli.load.telling import Telling, Thing

_ENDS = {"accept": "accepted", "decline": "rejected", "withdraw": "cancelled"}  # what a move makes of the offer


class Made(NamedTuple):
    """A move that was acked: whose, which, what was asked, on which offer as they saw it, and whether once more."""

    who: str
    how: str
    asked: Mapping[str, Any]
    seen: Offer | None
    is_again: bool = False

    @property
    def name(self) -> str:
        """In words; two moves with one name are one move."""
        return f"{self.who}'s {self.how} {self.asked.get('client_id', '')}".rstrip()


class Deals:
    """All that was listed, moved and told at the tables of one worker; people go by their user_id."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._telling = Telling(faults)
        self._listed: Recent[str, tuple[str, int]] = Recent()
        self._sold: Recent[str, dict[str, int]] = Recent()
        self._agreed: Recent[str, str] = Recent()
        self._rounds: Recent[tuple[str, int], str] = Recent()
        self._winners: Recent[tuple[str, int], str] = Recent()
        self.agreed = 0

    def listed(self, listing_id: str, seller: str, pieces: int) -> None:
        """Something is for sale."""
        self._listed[listing_id] = (seller, pieces)

    def moved(self, made: Made, data: Mapping[str, Any]) -> Moved:
        """A move that its maker may make was acked; what it came to. Raises `Malformed`."""
        moved = read(data, Moved)
        if made.seen is not None:
            at = (made.seen.offer_id, made.asked["version"])
            before = self._winners.put(at, made.name)
            if before != made.name:
                self._faults.note(Fault.TWO_WINNERS, f"offer {at[0]} at version {at[1]}: {before} and {made.name}")
        wrong = [*(_ended(made, moved) if made.how in _ENDS else self._put(made, moved.offer))]
        if wrong:
            what = f"{made.name} came to offer {moved.offer.offer_id}, where {' and '.join(wrong)} is wrong"
            self._faults.note(Fault.TERMS, what)
        for noun in ("offer", "negotiation", "transaction"):
            thing: Thing | None = getattr(moved, noun)
            if thing is not None:
                self._telling.expect(thing, thing.version, made.name, data[noun])
        if made.how == "counter" and made.seen is not None:
            self._telling.expect(made.seen, made.asked["version"] + 1, made.name)
        if made.how == "accept":
            self.agreed += 1
        self._look_at(moved.offer)
        return moved

    def tolerated(self, who: str, how: str, why: str, offer_id: str) -> None:
        """A move that is not theirs to make was acked."""
        self._faults.note(Fault.ILLEGAL, f"{who} was let {how} offer {offer_id}, and {why}")

    def hear(self, who: str, thing: Thing, said: Mapping[str, Any], *, is_late: bool = False) -> None:
        """Somebody was told; `is_late` where they were away, and it may come behind what is newer."""
        self._telling.hear(who, thing, said, is_late=is_late)
        if isinstance(thing, Offer):
            self._look_at(thing)

    @property
    def is_settled(self) -> bool:
        """Whether everybody was told of everything."""
        return self._telling.is_settled

    def close(self) -> None:
        """Nothing more is heard: note who was not told."""
        self._telling.close()

    def _put(self, made: Made, offer: Offer) -> Iterator[str]:
        """What is wrong with an offer that was put on the table."""
        if offer.maker_id != made.who:
            yield "maker_id"
        if msgspec.to_builtins(offer.price) != made.asked["price"]:
            yield "price"
        if offer.parent_offer_id != made.asked.get("offer_id"):
            yield "parent_offer_id"
        if offer.seller_id != self._listed.get(offer.listing_id, (offer.seller_id, 0))[0]:
            yield "seller_id"
        if made.who not in (offer.buyer_id, offer.seller_id):
            yield "buyer_id"
        if offer.quantity != (1 if made.seen is None else made.seen.quantity):
            yield "quantity"
        if made.seen is not None and offer.round != made.seen.round + 1:
            yield "round"
        if not made.is_again and (offer.version, offer.status) != (1, "pending"):
            yield "version or status"

    def _look_at(self, offer: Offer) -> None:
        """An offer was seen: each has a round of its own, and those that are accepted use up what is for sale."""
        at = (offer.negotiation_id, offer.round)
        if self._rounds.put(at, offer.offer_id) != offer.offer_id:
            what = f"round {at[1]} of negotiation {at[0]} is of {self._rounds[at]} and {offer.offer_id}"
            self._faults.note(Fault.TERMS, what)
        if offer.status != "accepted":
            return
        before = self._agreed.put(offer.negotiation_id, offer.offer_id)
        if before != offer.offer_id:
            what = f"negotiation {offer.negotiation_id}: accepted were {before} and {offer.offer_id}"
            self._faults.note(Fault.TWO_DEALS, what)
        sold = self._sold.put(offer.listing_id, {})
        if offer.offer_id not in sold:
            sold[offer.offer_id] = offer.quantity
            _, pieces = self._listed.get(offer.listing_id, ("", 0))
            if pieces and sum(sold.values()) > pieces:
                what = f"listing {offer.listing_id} of {pieces}: accepted were {', '.join(sold)}"
                self._faults.note(Fault.OVERSOLD, what)


def _ended(made: Made, moved: Moved) -> Iterator[str]:
    """What is wrong with an offer that a move has ended, and with the deal that came of it."""
    seen, offer = made.seen, moved.offer
    if seen is None:
        return
    for name in ("offer_id", "negotiation_id", "listing_id", "maker_id", "buyer_id", "seller_id", "price", "quantity"):
        if getattr(offer, name) != getattr(seen, name):
            yield name
    if (offer.version, offer.status) != (made.asked["version"] + 1, _ENDS[made.how]):
        yield "version or status"
    if (offer.maker_id == made.who) != (made.how == "withdraw"):
        yield "maker_id"
    if made.how == "accept" and not _is_deal(moved.transaction, offer):
        yield "transaction"


def _is_deal(deal: Transaction | None, offer: Offer) -> bool:
    """Whether a deal is what the offer said."""
    if deal is None:
        return False
    names = ("offer_id", "negotiation_id", "listing_id", "buyer_id", "seller_id")
    is_same = all(getattr(deal, name) == getattr(offer, name) for name in names)
    return is_same and deal.subtotal == msgspec.structs.replace(offer.price, amount=offer.price.amount * offer.quantity)
