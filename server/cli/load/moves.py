"""What somebody at a table may do next, by what they know of it; and, to see it refused, what they may not. Pure."""

import random
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from server.cli.load.packets import Listing, Negotiation, Offer

ASKED = 100_000  # minor units, for a piece
AGREED = ("agreed", "completed")
NewId = Callable[[], str]


class Move(NamedTuple):
    """A command, and the negotiation it is about, if there is one yet; `against` is the rule that it breaks, if any."""

    command: str
    payload: dict[str, Any]
    negotiation: Negotiation | None = None
    against: str = ""


class Seat:
    """What somebody knows of the negotiations about what is for sale, and how they take it."""

    def __init__(self, chances: random.Random) -> None:
        self.known: dict[str, Negotiation] = {}
        self._chances = chances
        self._drawn: dict[str, tuple[int, float]] = {}
        self._stale: dict[str, int] = {}

    def clear(self) -> None:
        """Something else is for sale."""
        self.known.clear()
        self._drawn.clear()
        self._stale.clear()

    def learn(self, negotiation: Negotiation) -> None:
        """The higher version holds."""
        known = self.known.get(negotiation.negotiation_id)
        if known is None or known.version < negotiation.version:
            self.known[negotiation.negotiation_id] = negotiation

    def doubt(self, negotiation: Negotiation) -> None:
        """Somebody was faster: wait until more is known of it."""
        self._stale[negotiation.negotiation_id] = negotiation.version

    def is_stale(self, negotiation: Negotiation) -> bool:
        """Whether more of it is yet to be heard."""
        return negotiation.version <= self._stale.get(negotiation.negotiation_id, 0)

    def chance(self, negotiation: Negotiation | None) -> float:
        """From 0 to 1, the same each time while nothing changes: how often somebody is asked decides nothing."""
        if negotiation is None:
            return self._chances.random()
        version, drawn = self._drawn.get(negotiation.negotiation_id, (0, 0.0))
        if version != negotiation.version:
            drawn = self._chances.random()
            self._drawn[negotiation.negotiation_id] = (negotiation.version, drawn)
        return drawn

    @property
    def agreed(self) -> int:
        """How many have come to a deal."""
        return sum(each.status in AGREED for each in self.known.values())


def sellers_answer(seat: Seat, new_id: NewId) -> Move | None:
    """What the seller says to an offer that waits for them."""
    for each in seat.known.values():
        is_asked = each.status == "open" and each.turn == "seller" and each.current_offer.status == "pending"
        if is_asked and not seat.is_stale(each):
            return _answer(each, seat.chance(each), new_id, accept=0.25, decline=0.2)
    return None


def wants_no_more(seat: Seat) -> bool:
    """Whether a buyer has what they want, or has given up."""
    for mine in seat.known.values():
        if not seat.is_stale(mine):
            is_asked = mine.current_offer.status == "pending"
            return mine.status != "open" or (not is_asked and (not mine.rounds_left or seat.chance(mine) < 0.3))
    return False


def buyers_move(seat: Seat, listing: Listing, new_id: NewId) -> Move | None:
    """What a buyer does who still wants something."""
    mine = next(iter(seat.known.values()), None)
    chance = seat.chance(mine)
    if mine is not None:
        offer = mine.current_offer
        if seat.is_stale(mine):
            return None
        if offer.status == "pending" and mine.turn == "buyer":
            return _answer(mine, chance, new_id, accept=0.3, decline=0.2)
        if offer.status == "pending":
            return Move("offer:withdraw", _named(offer), mine) if chance < 0.02 else None
        if mine.turn == "seller":
            return None
    asked = {
        "listing_id": listing.listing_id,
        "listing_version": listing.version,
        "price": _eur(int(ASKED * (0.5 + 0.4 * chance))),
        "client_id": new_id(),
    }
    return Move("offer:make", asked, mine)


def forbidden_moves(me: str, mine: Seat, sellers: Seat, new_id: NewId) -> Iterable[Move]:
    """Moves that are not theirs to make, whatever else happens meanwhile: at one's own offer, another's, a rival's."""
    for each in mine.known.values():
        offer = each.current_offer
        if offer.maker_id == me:
            for command in ("offer:accept", "offer:decline"):
                yield Move(command, _named(offer), each, "it is their own")
            yield Move("offer:counter", _countered(offer, 1.0, new_id), each, "it is their own")
        else:
            yield Move("offer:withdraw", _named(offer), each, "it is the other side's")
        stale = {**_named(offer), "version": offer.version + 1_000}
        yield Move("offer:decline", stale, each, "it has no such version")
    for each in sellers.known.values():
        if me not in (each.buyer_id, each.seller_id):
            yield Move("offer:accept", _named(each.current_offer), each, "it is between others")


def _answer(negotiation: Negotiation, chance: float, new_id: NewId, *, accept: float, decline: float) -> Move:
    """What to say to the offer on the table."""
    offer = negotiation.current_offer
    if chance < accept:
        return Move("offer:accept", _named(offer), negotiation)
    if chance < accept + decline or not negotiation.rounds_left:
        return Move("offer:decline", _named(offer), negotiation)
    return Move("offer:counter", _countered(offer, 0.9 + 0.2 * chance, new_id), negotiation)


def _countered(offer: Offer, step: float, new_id: NewId) -> dict[str, Any]:
    return {**_named(offer), "price": _eur(max(1, int(offer.price.amount * step))), "client_id": new_id()}


def _named(offer: Offer) -> dict[str, Any]:
    return {"offer_id": offer.offer_id, "version": offer.version}


def _eur(amount: int) -> dict[str, Any]:
    return {"amount": amount, "currency": "EUR"}


def listing_of(pieces: int, new_id: NewId) -> Move:
    """Put something up for sale."""
    asked = {
        "kind": "for_sale",
        "title": "A lamp",
        "description": "It has been through a load test.",
        "price": _eur(ASKED),
        "category": "home_decor",
        "quantity": pieces,
        "client_id": new_id(),
    }
    return Move("listing:create", asked)
