"""Finding listings: what is asked, and where a page begins."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec

from rules.listings import Category, Feed, ListingKind
from rules.money import MOST
from storage._db import Connection, load
from storage.money import Currency


class Sort(StrEnum):
    """In which order; of equals the newest first, by price the oldest."""

    NEW = "new"
    PRICE = "price"
    DISTANCE = "distance"
    RELEVANCE = "relevance"


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A listing's place in a search: what it is sorted by, and, by relevance, the newest listing that was ranked."""

    sort: Sort
    listing_id: UUID
    key: float | None = None
    currency: Currency | None = None
    amount: Annotated[int, msgspec.Meta(gt=0, le=MOST)] | None = None
    newest: UUID | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it has what its order needs."""
        needed: dict[Sort, Sequence[object]] = {
            Sort.NEW: (),
            Sort.PRICE: (self.currency, self.amount),
            Sort.DISTANCE: (self.key,),
            Sort.RELEVANCE: (self.key, self.newest),
        }
        return None not in needed[self.sort]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for; prices in minor units of `currency`. By distance needs `lat`, `lng` and `radius_m`."""

    query: str | None = None
    kind: ListingKind | None = None
    category: Category | None = None
    thread_id: UUID | None = None
    user_id: UUID | None = None
    feed: Feed | None = None
    currency: str | None = None
    price_min: int | None = None
    price_max: int | None = None
    lat: float | None = None
    lng: float | None = None
    radius_m: int | None = None
    sort: Sort = Sort.NEW


class Found(msgspec.Struct, frozen=True):
    """A listing that was found: all that it could be sorted by."""

    listing_id: UUID
    price_currency: str
    price_amount: int
    distance: float | None
    rank: float | None
    latest: UUID | None

    def place(self, sort: Sort) -> Place:
        """Where it stands, sorted so."""
        match sort:
            case Sort.NEW:
                return Place(sort, self.listing_id)
            case Sort.PRICE:
                return Place(sort, self.listing_id, None, self.price_currency, self.price_amount)
            case Sort.DISTANCE:
                return Place(sort, self.listing_id, self.distance)
            case Sort.RELEVANCE:
                return Place(sort, self.listing_id, self.rank, newest=self.latest)


sql = load("listing_search", Found)


async def search(db: Connection, viewer_id: UUID, wanted: Wanted, before: Place | None, most: int) -> list[Found]:
    """What fits, in order, from behind a place on; of what is to be had, or, asked for it, of all the viewer's own."""
    place = None if before is None else _encode(msgspec.structs.asdict(before))
    rows = sql.search(db, viewer_id=viewer_id, wanted=_encode(wanted), before=place, most=most)
    return [row async for row in rows]


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()
