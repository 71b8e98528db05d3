"""Which listings belong together, how well and why; and what a match is to each of its two owners.

A wish (wtb) and an offer (for_sale) get up to 100 points:

| reason | most | for |
|---|---|---|
| text | 50 | how much of the words agrees, or of the titles' spelling, if that is more |
| price | 25 | all of it up to what the wish would pay, falling to nothing at half as much again; in one currency |
| category | 12 | the same; half of it where one of the two is `other` |
| near | 8 | all of it within 5 km, falling to nothing at 100 km; where both say where they are |
| condition | 5 | no worse than the wish asks for; half of it one grade below |

The last four count as far as the text agrees: in full from four fifths of it on, and where nothing agrees not at all.
An offer that costs more than twice what the wish would pay gets nothing. Words are as search knows them: stems, with
the spelling that Arabic writers vary made one (`searchable` in the schema), without those that say nothing of a thing.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rules.listings import Category, Condition, ListingKind

LEAST = 40  # points of a match
SOUGHT = 8  # words of a title that counterparts are looked for by

TEXT, PRICE, CATEGORY, NEAR, CONDITION = 50, 25, 12, 8, 5
AGREED = 0.8  # of the text, from which on the other reasons count in full
TITLES, WISH, OFFER = 0.45, 0.45, 0.1  # of the text: both titles, the wish's in all of the offer, and the reverse
SPELT_ALIKE = 0.7  # of the titles' spelling in common, below which it says nothing
NUMBER = 8  # groups of letters that a number stands for: another model is another thing
TOO_DEAR = 1.5  # times what they would pay: no points for the price
OUT_OF_REACH = 2  # times what they would pay: no match
NEAR_M, FAR_M = 5_000.0, 100_000.0
EARTH_M = 6_371_008.8  # mean radius, as in the schema's metres()

NOISE = frozenset({
    "a", "an", "and", "are", "at", "buy", "cheap", "condit", "find", "for", "from", "i", "in", "interest", "is",
    "it", "look", "my", "need", "new", "of", "on", "or", "our", "price", "sale", "second", "sell", "the", "this",
    "to", "use", "want", "we", "wtb", "with", "you", "your",
    # For sale, wanted, looking for, I buy, in, of, about, with, on, new, used, state, price, suitable.
    "للبيع", "بيع", "مطلوب", "ابح", "ابحث", "شراء", "اشتر", "اشتري", "في", "من", "عن", "مع", "عل", "علي", "ال",
    "جديد", "مستعمل", "حال", "حاله", "سعر", "مناسب",
})  # fmt: skip
"""Stems that say nothing of a thing, and the words that have them."""

_GRADES = tuple(Condition)  # the best first
_RUN = re.compile(r"\d+|[^\W\d]+")


class MatchReason(StrEnum):
    """What a match stands on."""

    TEXT = "text"
    PRICE = "price"
    CATEGORY = "category"
    NEAR = "near"
    CONDITION = "condition"


class MatchQuality(StrEnum):
    """80 points and more, 60 and more, 40 and more; with fewer it is no match, and has none."""

    EXCELLENT = "excellent"
    GOOD = "good"
    POSSIBLE = "possible"


class MatchAction(StrEnum):
    VIEWED = "viewed"
    INTERESTED = "interested"
    CONTACTED = "contacted"
    DISMISSED = "dismissed"
    REPORTED = "reported"


class MatchStatus(StrEnum):
    """What a match is to one of its owners."""

    NEW = "new"
    VIEWED = "viewed"
    INTERESTED = "interested"
    CONTACTED = "contacted"
    DISMISSED = "dismissed"
    MUTUAL = "mutual"
    DEAL_MADE = "deal_made"


class MutualStatus(StrEnum):
    """`closed` is one whose negotiation has ended without a deal."""

    ACTIVE = "active"
    DEAL_MADE = "deal_made"
    CLOSED = "closed"


_MEANS = {
    MatchAction.INTERESTED: MatchStatus.INTERESTED,
    MatchAction.CONTACTED: MatchStatus.CONTACTED,
    MatchAction.DISMISSED: MatchStatus.DISMISSED,
    MatchAction.REPORTED: MatchStatus.DISMISSED,
}


def status_for(both: MatchStatus, acts: Sequence[MatchAction]) -> MatchStatus:
    """What a match is to one owner: what it is to both, else by their own acts, of which the last comes last.

    To have looked at it again takes nothing back.
    """
    if both in (MatchStatus.MUTUAL, MatchStatus.DEAL_MADE):
        return both
    said = [act for act in acts if act is not MatchAction.VIEWED]
    if said:
        return _MEANS[said[-1]]
    return MatchStatus.VIEWED if acts else MatchStatus.NEW


def is_mutual(one: MatchStatus, other: MatchStatus) -> bool:
    """Whether both want it: to have written to the other is to be interested too."""
    return {one, other} <= {MatchStatus.INTERESTED, MatchStatus.CONTACTED}


def is_shown(
    status: MatchStatus, points: int, asked: MatchStatus | None, *, is_open: bool, is_blocked: bool = False
) -> bool:
    """Whether an owner's list has it, of all statuses or the one that is asked for.

    One on which they have not acted is shown while both listings are to be had, and there are points enough; what they
    have dismissed is shown where they ask for it; one with somebody who is blocked, either way, if it is mutual.
    """
    if asked is not None and status is not asked:
        return False
    if is_blocked and status not in (MatchStatus.MUTUAL, MatchStatus.DEAL_MADE):
        return False
    if status in (MatchStatus.NEW, MatchStatus.VIEWED):
        return is_open and points >= LEAST
    return status is not MatchStatus.DISMISSED or asked is not None


def quality(points: int) -> MatchQuality | None:
    """How good a match of so many points is; None where they are too few for one."""
    if points >= 80:
        return MatchQuality.EXCELLENT
    if points >= 60:
        return MatchQuality.GOOD
    return MatchQuality.POSSIBLE if points >= LEAST else None


@dataclass(frozen=True, slots=True)
class Subject:
    """What of a listing counts: `title` and `words` (the title's and the description's) as search knows them, without
    noise; `spelling` the title's trigrams; `place` (lat, lng) in degrees; `price` in minor units, of one piece."""

    kind: ListingKind
    title: frozenset[str]
    words: frozenset[str]
    spelling: frozenset[str]
    price: int
    currency: str
    category: Category
    condition: Condition | None
    place: tuple[float, float] | None


Points = tuple[tuple[MatchReason, int], ...]


def meaningful(words: Iterable[str]) -> frozenset[str]:
    """Words without those that say nothing of a thing; all of them where there are no others."""
    given = frozenset(words)
    return given - NOISE or given


def trigrams(title: str) -> frozenset[str]:
    """The groups of three letters in a title's words, each word padded by two spaces before it and one behind.

    Numbers stand for themselves, and apart, so that `iphone13` is spelt as `iphone 13` is, and `iphone 12` is not.
    """
    found: set[str] = set()
    for run in _RUN.findall(title):
        if run.isdecimal():
            found.update(f"{run}#{n}" for n in range(NUMBER))
        else:
            padded = f"  {run} "
            found.update(padded[n : n + 3] for n in range(len(padded) - 2))
    return frozenset(found)


def score(one: Subject, other: Subject) -> Points:
    """The points of a wish and an offer, whichever comes first, by reason; none where they don't belong together.

    Raises ValueError for two of a kind.
    """
    if one.kind is other.kind:
        raise ValueError("a match is of something wanted and something for sale")
    wish, offer = (one, other) if one.kind is ListingKind.WTB else (other, one)
    if wish.currency == offer.currency and offer.price > OUT_OF_REACH * wish.price:
        return ()
    text = text_of(wish, offer)
    agreed = min(1.0, text / AGREED)
    found = (
        (MatchReason.TEXT, text * TEXT),
        (MatchReason.PRICE, agreed * _price(wish, offer) * PRICE),
        (MatchReason.CATEGORY, agreed * _category(wish.category, offer.category) * CATEGORY),
        (MatchReason.NEAR, agreed * _nearness(wish, offer) * NEAR),
        (MatchReason.CONDITION, agreed * _condition(wish.condition, offer.condition) * CONDITION),
    )
    return tuple((reason, math.floor(points)) for reason, points in found if points >= 1)


def total(points: Points) -> int:
    """The points of all reasons."""
    return sum(each for _, each in points)


def text_of(wish: Subject, offer: Subject) -> float:
    """How far the texts agree, from 0 to 1: by their words, or by the titles' spelling, where that is much alike."""
    by_words = (
        TITLES * _dice(wish.title, offer.title)
        + WISH * _share(wish.title, offer.words)
        + OFFER * _share(offer.title, wish.words)
    )
    spelt = _dice(wish.spelling, offer.spelling)
    return min(1.0, max(by_words, spelt if spelt >= SPELT_ALIKE else 0.0))


def _dice(one: frozenset[str], other: frozenset[str]) -> float:
    """What two sets have in common, of all that they have."""
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 0.0


def _share(part: frozenset[str], whole: frozenset[str]) -> float:
    return len(part & whole) / len(part) if part else 0.0


def _price(wish: Subject, offer: Subject) -> float:
    if wish.currency != offer.currency:
        return 0.0
    dear = TOO_DEAR * wish.price
    return max(0.0, min(1.0, (dear - offer.price) / (dear - wish.price)))


def _category(one: Category, other: Category) -> float:
    if one is other:
        return 1.0
    return 0.5 if Category.OTHER in (one, other) else 0.0


def _nearness(wish: Subject, offer: Subject) -> float:
    if wish.place is None or offer.place is None:
        return 0.0
    return max(0.0, min(1.0, (FAR_M - metres(wish.place, offer.place)) / (FAR_M - NEAR_M)))


def _condition(asked: Condition | None, offered: Condition | None) -> float:
    if asked is None:
        return 1.0
    if offered is None:
        return 0.0
    below = _GRADES.index(offered) - _GRADES.index(asked)
    return 1.0 if below <= 0 else 0.5 if below == 1 else 0.0


def metres(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Between two places (lat, lng) on the sphere, by the haversine formula."""
    (lat, lng), (lat2, lng2) = ((math.radians(n) for n in place) for place in (one, other))
    half = math.sin((lat2 - lat) / 2) ** 2 + math.cos(lat) * math.cos(lat2) * math.sin((lng2 - lng) / 2) ** 2
    return 2 * EARTH_M * math.asin(min(1.0, math.sqrt(half)))
