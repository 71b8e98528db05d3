"""People who haggle at a table: a seller who lists one thing after another, and buyers who all want it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

from server.cli.load.deals import SIDES
from server.cli.load.measure import bucket_of
from server.cli.load.person import Asked, Data, Person
from server.cli.load.stage import Stage

ASKED = 100_000  # minor units, for a piece
LONGEST_S = 10.0  # that a lot is for sale: what has got stuck is closed
MOST_TIMED = 5_000  # moves of which somebody waits to hear; those that nobody made, as a sale ends them, stay behind
_AGREED = ("agreed", "completed")


class Move(NamedTuple):
    """A command, and the negotiation it is about, if there is one yet."""

    command: str
    payload: Data
    negotiation: Data | None = None


class Lot:
    """What is for sale; `gone` are the buyers who want no more of it."""

    def __init__(self, listing: Data) -> None:
        self.listing_id: str = listing["listing_id"]
        self.version: int = listing["version"]
        self.pieces: int = listing["quantity"]
        self.since = perf_counter()
        self.gone: set[Person] = set()
        self.is_over = False


@dataclass(slots=True)
class _Timed:
    """When a move was made, 0 before that is known, and when the sides were told, of which so many were."""

    heard_at: list[float]
    asked_at: float = 0.0
    sides: int = 0


class Table:
    """Each makes one move at a time: the next when it was answered or something was heard, or when their turn comes."""

    def __init__(self, stage: Stage, people: Sequence[Person]) -> None:
        self._stage = stage
        self._seller, *self._buyers = people
        self._people = people
        self._lot: Lot | None = None
        self._busy: set[Person] = set()
        self._known: dict[Person, dict[str, Data]] = {person: {} for person in people}
        self._stale: dict[Person, dict[str, int]] = {person: {} for person in people}
        self._timed: dict[tuple[str, int], _Timed] = {}
        self.talkers = people
        for person in people:
            person.play = self

    async def prepare(self) -> None:
        """Nothing: an offer makes its conversation."""

    def begin(self) -> None:
        """Open the first lot."""
        self.act(self._seller)

    def tend(self) -> None:
        """Called every second: end a lot at which nothing goes on, and wake who has overslept."""
        if self._lot is not None and perf_counter() - self._lot.since > LONGEST_S:
            self._lot.is_over = True
        self._stir(*self._people)

    def act(self, person: Person, at: float | None = None) -> bool:
        """Let somebody make a move, which was due at a time; False where there is none for them to make."""
        if person in self._busy or not person.is_ready or not self._stage.is_on:
            return False
        move = self._sellers_move() if person is self._seller else self._buyers_move(person)
        if move is None or not self._stage.spend():
            return False
        self._busy.add(person)
        self._stage.span.moved += 1
        person.ask(move.command, move.payload, self._answered(person, move), at=at)
        return True

    def pushed(self, person: Person, name: str, payload: Data) -> None:
        """Somebody was told something: remember it, and see whether it is their turn."""
        deals = self._stage.deals
        if name == "offer:changed":
            deals.hear(person.name, "offer", payload)
            self._time(payload["offer_id"], payload["version"], heard_at=perf_counter())
        elif name == "negotiation:changed":
            deals.hear(person.name, "negotiation", payload)
            self._learn(person, payload)
            self._stir(person)
        elif name == "transaction:changed":
            deals.hear(person.name, "transaction", payload)

    def returned(self, person: Person) -> None:
        """What was asked is asked again by itself."""
        self._stir(person)

    # moves

    def _sellers_move(self) -> Move | None:
        lot, chance = self._lot, self._stage.random.random
        mine = self._known[self._seller]
        if lot is not None and not self._is_done(lot, mine):
            for negotiation in self._on_turn(self._seller, "seller"):
                return self._answer(negotiation, chance(), accept=0.25, decline=0.2)
            return None
        if lot is not None and sum(each["status"] in _AGREED for each in mine.values()) < lot.pieces:
            return Move("listing:close", {"listing_id": lot.listing_id})
        asked = {
            "kind": "for_sale",
            "title": "A lamp",
            "description": "It has been through a load test.",
            "price": _eur(ASKED),
            "category": "home_decor",
            "quantity": self._stage.random.randint(1, 2),
            "client_id": self._client_id(),
        }
        return Move("listing:create", asked)

    def _buyers_move(self, buyer: Person) -> Move | None:
        lot, chance = self._lot, self._stage.random.random()
        if lot is None or lot.is_over or buyer in lot.gone:
            return None
        mine = next(iter(self._known[buyer].values()), None)
        if mine is not None:
            offer = mine["current_offer"]
            if self._is_stale(buyer, mine):
                return None
            if mine["status"] != "open" or (offer["status"] != "pending" and (not mine["rounds_left"] or chance < 0.3)):
                self._go(lot, buyer)
                return None
            if offer["status"] == "pending" and mine["turn"] == "buyer":
                return self._answer(mine, chance, accept=0.3, decline=0.2)
            if offer["status"] == "pending":
                is_withdrawn = chance < 0.02
                return Move("offer:withdraw", _named(offer), mine) if is_withdrawn else None
            if mine["turn"] == "seller":
                return None
        asked = {
            "listing_id": lot.listing_id,
            "listing_version": lot.version,
            "price": _eur(int(ASKED * (0.5 + 0.4 * chance))),
            "client_id": self._client_id(),
        }
        return Move("offer:make", asked, mine)

    def _answer(self, negotiation: Data, chance: float, *, accept: float, decline: float) -> Move:
        """What to say to the offer on the table."""
        offer = negotiation["current_offer"]
        if chance < accept:
            return Move("offer:accept", _named(offer), negotiation)
        if chance < accept + decline or not negotiation["rounds_left"]:
            return Move("offer:decline", _named(offer), negotiation)
        step = self._stage.random.uniform(0.9, 1.1)
        price = _eur(max(1, int(offer["price"]["amount"] * step)))
        return Move("offer:counter", {**_named(offer), "price": price, "client_id": self._client_id()}, negotiation)

    def _go(self, lot: Lot, buyer: Person) -> None:
        lot.gone.add(buyer)
        self._stir(self._seller)

    def _on_turn(self, person: Person, side: str) -> Iterator[Data]:
        for each in self._known[person].values():
            is_asked = (
                each["status"] == "open" and each["turn"] == side and each["current_offer"]["status"] == "pending"
            )
            if is_asked and not self._is_stale(person, each):
                yield each

    def _is_done(self, lot: Lot, sellers: dict[str, Data]) -> bool:
        agreed = sum(each["status"] in _AGREED for each in sellers.values())
        return lot.is_over or agreed >= lot.pieces or len(lot.gone) == len(self._buyers)

    # answers

    def _answered(self, person: Person, move: Move) -> Callable[[Asked, Data | None, Data | None], None]:
        def then(asked: Asked, data: Data | None, error: Data | None) -> None:
            span, bucket = self._stage.span, bucket_of(perf_counter() - asked.at)
            span.move_s[bucket] = span.move_s.get(bucket, 0) + 1
            self._busy.discard(person)
            if data is None:
                self._fail(person, move)
            elif move.command == "listing:create":
                self._open(data)
            elif move.command == "listing:close":
                self._lot = None
            else:
                self._moved(person, move, data, asked.at)
            self._stir(person)

        return then

    def _moved(self, person: Person, move: Move, data: Data, at: float) -> None:
        how, offer, deals = move.command.removeprefix("offer:"), data["offer"], self._stage.deals
        if "version" in move.payload:
            deals.moved(person.name, how, move.payload["offer_id"], move.payload["version"])
        if how == "accept":
            deals.accepted(person.name, offer)
        self._time(offer["offer_id"], offer["version"], asked_at=at)
        self._learn(person, data["negotiation"])

    def _fail(self, person: Person, move: Move) -> None:
        """Somebody else was faster: wait until more is known of it, or let it be."""
        if move.negotiation is not None:
            self._stale[person][move.negotiation["negotiation_id"]] = move.negotiation["version"]
        elif move.command == "offer:make" and self._lot is not None:
            self._lot.gone.add(person)
            self._stir(self._seller)
        elif move.command == "listing:close":
            self._lot = None

    def _open(self, listing: Data) -> None:
        self._lot = Lot(listing)
        self._stage.deals.listed(self._lot.listing_id, self._lot.pieces)
        for person in self._people:
            self._known[person].clear()
            self._stale[person].clear()
        if len(self._timed) > MOST_TIMED:
            self._timed.clear()
        self._stir(*self._buyers)

    # knowledge

    def _learn(self, person: Person, negotiation: Data) -> None:
        """The higher version holds; what is about an earlier lot is past."""
        if self._lot is None or negotiation["listing_id"] != self._lot.listing_id:
            return
        known, id_ = self._known[person], negotiation["negotiation_id"]
        if id_ not in known or known[id_]["version"] < negotiation["version"]:
            known[id_] = negotiation

    def _is_stale(self, person: Person, negotiation: Data) -> bool:
        return bool(negotiation["version"] <= self._stale[person].get(negotiation["negotiation_id"], 0))

    def _stir(self, *people: Person) -> None:
        if self._stage.options.rate is None:
            for person in people:
                self.act(person)

    def _time(self, offer_id: str, version: int, *, asked_at: float = 0.0, heard_at: float = 0.0) -> None:
        """How long it took from a move until each side was told, whatever of the two is known first."""
        key, span = (offer_id, version), self._stage.span
        timed = self._timed.setdefault(key, _Timed([]))
        if asked_at:
            timed.asked_at = asked_at
        if heard_at:
            timed.sides += 1
            timed.heard_at.append(heard_at)
        if timed.asked_at:
            for heard in timed.heard_at:
                span.told += 1
                bucket = bucket_of(heard - timed.asked_at)
                span.told_s[bucket] = span.told_s.get(bucket, 0) + 1
            timed.heard_at.clear()
            if timed.sides == SIDES:
                del self._timed[key]

    def _client_id(self) -> str:
        return f"{self._stage.prefix}{self._stage.number()}"


def _eur(amount: int) -> dict[str, Any]:
    return {"amount": amount, "currency": "EUR"}


def _named(offer: Data) -> dict[str, Any]:
    return {"offer_id": offer["offer_id"], "version": offer["version"]}
