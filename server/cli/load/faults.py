"""What may go wrong, in words, and how often it did. Pure."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

SHOWN = 5  # examples of each kind


class Fault(StrEnum):
    """A breach of what the server promises; the value is the promise."""

    LOST = "every acked message reached every member"
    DOUBLED = "nothing came twice"
    REORDERED = "everything came in its room's order"
    GAP = "no number of a room was left out"
    MISNUMBERED = "an ack and all deliveries name one number"
    STRANGE = "nothing was heard that nobody has sent, or by those it was not for"
    ALTERED = "a message came as it was said"
    UNANSWERED = "every command was answered"
    REFUSED = "nothing was refused without a reason"
    ABSENT = "every socket was let in, came back when it was cut, and was there at the end"
    BUG = "no answer was an internal error"
    OVERSOLD = "a piece is sold once"
    TWO_DEALS = "a negotiation comes to one deal at most"
    TWO_WINNERS = "one move wins at each version of an offer"
    ILLEGAL = "nobody makes a move that is not theirs to make"
    TERMS = "a move makes of an offer what it has to, and a deal is what was agreed"
    VERSION = "versions go up"
    SIDES_DIFFER = "both sides are told the same"
    OUTSIDER = "nobody but the two sides is told"
    UNTOLD = "every move is told to both sides"


TALK = (
    Fault.LOST,
    Fault.DOUBLED,
    Fault.REORDERED,
    Fault.GAP,
    Fault.MISNUMBERED,
    Fault.STRANGE,
    Fault.ALTERED,
    Fault.UNANSWERED,
    Fault.REFUSED,
    Fault.ABSENT,
    Fault.BUG,
)
DEALS = tuple(fault for fault in Fault if fault not in TALK)


class Found(msgspec.Struct):
    """The faults of one kind: how many, and the first of them in words."""

    count: int = 0
    examples: list[str] = []


class Faults:
    """Gathers them."""

    def __init__(self) -> None:
        self.found: dict[Fault, Found] = {}

    def note(self, fault: Fault, what: str, count: int = 1) -> None:
        """Something was not as it should be."""
        found = self.found.setdefault(fault, Found())
        found.count += count
        if len(found.examples) < SHOWN:
            found.examples.append(what)

    def count(self, fault: Fault) -> int:
        """How often that was seen."""
        return self.found[fault].count if fault in self.found else 0


def gathered(many: Iterable[dict[Fault, Found]]) -> dict[Fault, Found]:
    """What several have found, together."""
    all_ = Faults()
    for each in many:
        for fault, found in each.items():
            into = all_.found.setdefault(fault, Found())
            into.count += found.count
            into.examples = [*into.examples, *found.examples][:SHOWN]
    return all_.found
