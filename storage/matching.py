"""Which listings belong together: what of them is compared, and what is found stored."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from rules.listings import Category, Condition, ListingKind
from rules.matches import LEAST, SOUGHT, Points, Subject, meaningful, total, trigrams
from storage._db import Connection, load
from storage.matches import Reason

REMATCHED = 500  # of a listing's matches, the latest, that are looked at again when it changes


class SubjectRow(msgspec.Struct, frozen=True, kw_only=True):
    """What of a listing is compared; `is_matched`, as one that is a match already."""

    listing_id: UUID
    user_id: UUID
    thread_id: UUID | None
    kind: ListingKind
    title: str
    title_words: list[str]
    words: list[str]
    price_amount: int
    price_currency: str
    category: Category
    condition: Condition | None
    lat: float | None
    lng: float | None
    edition: int
    is_matched: bool

    @property
    def sought(self) -> list[str]:
        """The words by which counterparts are looked for: the longest ones, which are the rarest, as a rule."""
        plain = [word for word in meaningful(self.title_words) if "\\" not in word]  # which a tsquery reads otherwise
        return sorted(plain, key=lambda word: (-len(word), word))[:SOUGHT]

    def subject(self) -> Subject:
        """As the rules compare it."""
        return Subject(
            kind=ListingKind(self.kind),
            title=meaningful(self.title_words),
            words=meaningful(self.words),
            spelling=trigrams(self.title),
            price=self.price_amount,
            currency=self.price_currency,
            category=Category(self.category),
            condition=None if self.condition is None else Condition(self.condition),
            place=None if self.lat is None or self.lng is None else (self.lat, self.lng),
        )


class Standing(msgspec.Struct, frozen=True):
    """A listing that stands still, the edition of what counts for its matches, and whether it is to be had."""

    listing_id: UUID
    edition: int
    is_open: bool


class Written(msgspec.Struct, frozen=True):
    """A match that is new, or stands otherwise."""

    match_id: UUID
    is_new: bool


sql = load("matching", SubjectRow, Standing, Written)


async def list_unmatched(db: Connection, after: UUID, most: int) -> list[UUID]:
    """Listings whose counterparts have not been looked for as they are now, in order, from behind one on."""
    return [row["listing_id"] async for row in sql.list_unmatched(db, after=after, most=most)]


async def find_unmatched(db: Connection, listing_id: UUID) -> SubjectRow | None:
    """A listing whose counterparts have not been looked for, or None."""
    found: SubjectRow | None = await sql.find_unmatched(db, listing_id=listing_id)
    return found


async def list_counterparts(db: Connection, source: SubjectRow) -> list[SubjectRow]:
    """Those that may belong with a listing, at most 200, and the latest that are matched with it already."""
    rows = sql.list_counterparts(db, listing_id=source.listing_id, sought=source.sought, most=REMATCHED)
    return [row async for row in rows]


async def share_threads(db: Connection, thread_ids: Sequence[UUID]) -> None:
    """Let threads' members stand still until the transaction ends, before any listing is locked."""
    await sql.share_threads(db, thread_ids=thread_ids)


async def share_listings(db: Connection, listing_ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """Let listings stand still until the transaction ends; how those that there are stand, by id."""
    return {row.listing_id: row async for row in sql.share_listings(db, listing_ids=listing_ids)}


async def write_matches(db: Connection, source_id: UUID, found: Sequence[tuple[UUID, Points]]) -> list[Written]:
    """Store what a listing and others have in common; what is new, or stands otherwise.

    The caller holds the listings.
    """
    reasons = [[Reason(reason, points) for reason, points in each] for _, each in found]
    rows = sql.write_matches(
        db,
        source_id=source_id,
        matched_ids=[matched_id for matched_id, _ in found],
        scores=[total(each) for _, each in found],
        reasons=[msgspec.json.encode(each).decode() for each in reasons],
        least=LEAST,
    )
    return [row async for row in rows]


async def note_matched(db: Connection, listing_id: UUID, edition: int) -> None:
    """Remember that the counterparts of a listing's edition have been looked for."""
    await sql.note_matched(db, listing_id=listing_id, edition=edition)
