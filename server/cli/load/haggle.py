"""People who haggle at a table: a seller who lists one thing after another, and buyers who all want it."""

from collections import deque
from collections.abc import Sequence
from functools import partial
from time import perf_counter

from server.cli.load import packets
from server.cli.load.deals import Made
from server.cli.load.measure import add
from server.cli.load.moves import (
    Move,
    Seat,
    buyers_move,
    forbidden_moves,
    listing_of,
    sellers_answer,
    wants_no_more,
)
from server.cli.load.packets import Data, Error, Listing, Negotiation, Offer, Transaction
from server.cli.load.person import Asked, Person, refuse
from server.cli.load.stage import Stage
from server.cli.load.timing import Timing

LONGEST_S = 10.0  # that a lot is for sale: what has got stuck is closed
FORBIDDEN = 0.01  # of all moves: that are not theirs to make, to see them refused
_TO_FORBIDDEN = ("conflict", "not_found", "forbidden")


class Lot:
    """What is for sale; `gone` are the buyers who came too late for it."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.since = perf_counter()
        self.gone: set[Person] = set()
        self.is_over = False


class Table:
    """Each makes one move at a time: the next when it was answered or something was heard, or when one is due."""

    def __init__(self, stage: Stage, people: Sequence[Person]) -> None:
        self._stage = stage
        self._seller, *self._buyers = people
        self._people = people
        self._lot: Lot | None = None
        self._busy: set[Person] = set()
        self._seats = {person: Seat(stage.random) for person in people}
        self._due: deque[float] = deque()
        self._timing = Timing()
        self.talkers = people
        for person in people:
            person.play = self

    async def prepare(self) -> None:
        """Nothing: an offer makes its conversation."""

    def begin(self) -> None:
        """Open the first lot."""
        self._stir(self._seller)

    def tend(self) -> None:
        """End a lot at which nothing goes on, and wake who has overslept."""
        if self._lot is not None and perf_counter() - self._lot.since > LONGEST_S:
            self._lot.is_over = True
        self._stir(*self._people)

    def take_turn(self, person: Person, at: float) -> None:
        """A move of this table's is due: whoever can makes it, as soon as somebody can."""
        self._due.append(at)
        self._stir(*self._people)

    @property
    def waiting(self) -> int:
        """How many moves are due and not made."""
        return len(self._due)

    def pushed(self, person: Person, name: str, payload: Data, *, is_late: bool) -> None:
        """Somebody was told something: remember it, and see whether it is their turn."""
        hear = partial(self._stage.deals.hear, person.user_id, said=payload, is_late=is_late)
        if name == "offer:changed":
            offer = packets.read(payload, Offer)
            hear(offer)
            self._told(self._timing.heard((offer.offer_id, offer.version), perf_counter()))
        elif name == "negotiation:changed":
            negotiation = packets.read(payload, Negotiation)
            hear(negotiation)
            self._learn(person, negotiation)
            self._stir(person, self._seller)
        elif name == "transaction:changed":
            hear(packets.read(payload, Transaction))

    def returned(self, person: Person) -> None:
        """What was asked is asked again by itself."""
        self._stir(person)

    # moves

    def _stir(self, *people: Person) -> None:
        """Let these move if they can: in a closed loop each of them, at a rate whoever can while a move is due."""
        is_loop = self._stage.options.rate is None
        for person in people if is_loop else self._people:
            if is_loop and not self._stage.is_on:
                return
            if person in self._busy or not person.is_ready or not (is_loop or self._due):
                continue
            move = self._choose(person)
            if move is not None and (not is_loop or self._stage.spend()):
                self._make(person, move, None if is_loop else self._due.popleft())

    def _make(self, person: Person, move: Move, at: float | None) -> None:
        self._busy.add(person)
        self._stage.span.moved += 1
        person.ask(move.command, move.payload, partial(self._answered, person, move), at=at)

    def _choose(self, person: Person) -> Move | None:
        """What somebody does, if there is anything for them to do; now and then what they may not."""
        move = self._sellers_move() if person is self._seller else self._buyers_move(person)
        if move is not None and self._stage.random.random() < FORBIDDEN:
            seats = self._seats
            others = list(forbidden_moves(person.user_id, seats[person], seats[self._seller], self._client_id))
            return self._stage.random.choice(others) if others else move
        return move

    def _sellers_move(self) -> Move | None:
        lot, seat = self._lot, self._seats[self._seller]
        if lot is not None and not self._is_done(lot):
            return sellers_answer(seat, self._client_id)
        if lot is not None and seat.agreed < lot.listing.quantity:
            return Move("listing:close", {"listing_id": lot.listing.listing_id})
        return listing_of(self._stage.random.randint(1, 2), self._client_id)

    def _buyers_move(self, buyer: Person) -> Move | None:
        if self._lot is None or self._lot.is_over or self._is_gone(self._lot, buyer):
            return None
        return buyers_move(self._seats[buyer], self._lot.listing, self._client_id)

    def _is_gone(self, lot: Lot, buyer: Person) -> bool:
        return buyer in lot.gone or wants_no_more(self._seats[buyer])

    def _is_done(self, lot: Lot) -> bool:
        is_sold = self._seats[self._seller].agreed >= lot.listing.quantity
        return lot.is_over or is_sold or all(self._is_gone(lot, buyer) for buyer in self._buyers)

    # answers

    def _answered(self, person: Person, move: Move, asked: Asked, data: Data | None, error: Error | None) -> None:
        add(self._stage.span.move_s, perf_counter() - asked.at)
        self._busy.discard(person)
        if move.against:
            self._tried(person, move, asked, error)
        elif error is not None:
            self._fail(person, move, asked, error)
        elif data is None or move.command == "listing:close":
            self._lot = None
        elif move.command == "listing:create":
            self._open(packets.read(data, Listing))
        else:
            self._moved(person, move, asked, data)
        self._stir(person, self._seller)

    def _tried(self, person: Person, move: Move, asked: Asked, error: Error | None) -> None:
        """What was not theirs to do was answered: with a refusal, if all is well."""
        self._stage.tried += 1
        if error is None:
            how, offer_id = move.command.removeprefix("offer:"), move.payload["offer_id"]
            self._stage.deals.tolerated(person.user_id, how, move.against, offer_id)
        elif error.code not in _TO_FORBIDDEN:
            refuse(person, asked, error)

    def _moved(self, person: Person, move: Move, asked: Asked, data: Data) -> None:
        has_seen = move.negotiation is not None and "offer_id" in move.payload
        seen = move.negotiation.current_offer if move.negotiation is not None and has_seen else None
        how = move.command.removeprefix("offer:")
        made = Made(person.user_id, how, move.payload, seen, is_again=asked.times > 1)
        moved = self._stage.deals.moved(made, data)
        self._told(self._timing.asked((moved.offer.offer_id, moved.offer.version), asked.at))
        self._learn(person, moved.negotiation)

    def _fail(self, person: Person, move: Move, asked: Asked, error: Error) -> None:
        """Somebody else was faster: wait until more is known of it, or let it be."""
        refuse(person, asked, error, allowed=("conflict",))
        if move.negotiation is not None:
            self._seats[person].doubt(move.negotiation)
        elif move.command == "offer:make" and self._lot is not None:
            self._lot.gone.add(person)
        elif move.command == "listing:close":
            self._lot = None

    def _open(self, listing: Listing) -> None:
        self._lot = Lot(listing)
        self._stage.deals.listed(listing.listing_id, self._seller.user_id, listing.quantity)
        for seat in self._seats.values():
            seat.clear()
        self._stir(*self._buyers)

    def _learn(self, person: Person, negotiation: Negotiation) -> None:
        """What is about an earlier lot is past."""
        if self._lot is not None and negotiation.listing_id == self._lot.listing.listing_id:
            self._seats[person].learn(negotiation)

    def _told(self, durations: Sequence[float]) -> None:
        span = self._stage.span
        span.told += len(durations)
        for duration in durations:
            add(span.told_s, duration)

    def _client_id(self) -> str:
        return f"{self._stage.prefix}{self._stage.number()}"
