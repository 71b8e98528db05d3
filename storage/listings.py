"""Listings as they are stored, and as their viewer sees them."""

from collections.abc import Sequence
from typing import Annotated, Any, Self
from uuid import UUID

import msgspec

from rules.listings import Category, Condition, Feed, ListingKind, ListingStatus
from storage._db import Connection, Time, load
from storage.money import Money
from storage.rooms import Head

MOST_DAYS = 365  # ahead that a listing may end


class Location(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place, in degrees (WGS 84)."""

    lat: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    lng: Annotated[float, msgspec.Meta(ge=-180, le=180)]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a listing's version counts the changes of. `price` is of one piece."""

    title: str
    description: str
    price: Money
    category: Category
    condition: Condition | None
    quantity: int
    images: list[str]

    def row(self) -> str:
        """As PostgreSQL makes columns of it."""
        fields = {name: getattr(self, name) for name in Terms.__struct_fields__}
        price: Money = fields.pop("price")
        row = {**fields, "price_amount": price.amount, "price_currency": price.currency}
        return msgspec.json.encode(row).decode()


class Showing(msgspec.Struct, frozen=True, kw_only=True):
    """How a listing is shown, and where."""

    feed: Feed
    video: str | None
    thumbnail: str | None
    location: Location | None


class SharedListing(msgspec.Struct, frozen=True, kw_only=True):
    """What everybody sees alike of a listing: all that shared rooms are told. `price` is of one piece.

    `version` moves with its terms: title, description, price, category, condition, quantity, images.
    """

    listing_id: UUID
    user_id: UUID
    thread_id: UUID | None
    kind: ListingKind
    title: str
    description: str
    price: Money
    category: Category
    condition: Condition | None
    quantity: int
    reserved: int
    sold: int
    feed: Feed
    images: list[str]
    video: str | None
    thumbnail: str | None
    location: Location | None
    status: ListingStatus
    views: int
    likes: int
    version: int
    expires_at: Time
    at: Time

    def without_words(self) -> Self:
        """As the log keeps it once it is gone: what people agreed about, without what its owner wrote and showed."""
        gone: dict[str, Any] = {"title": "deleted", "description": "", "images": [], "location": None}
        return msgspec.structs.replace(self, **gone, video=None, thumbnail=None)


class Listing(SharedListing, frozen=True, kw_only=True):
    """All that its viewer sees of a listing; `distance_m` where a place was searched from."""

    liked: bool
    distance_m: int | None = None

    @property
    def terms(self) -> Terms:
        """Its terms."""
        return Terms(**{name: getattr(self, name) for name in Terms.__struct_fields__})

    @property
    def showing(self) -> Showing:
        """How it is shown."""
        return Showing(**{name: getattr(self, name) for name in Showing.__struct_fields__})

    def shared(self) -> SharedListing:
        """Without what is the viewer's own."""
        return SharedListing(**{name: getattr(self, name) for name in SharedListing.__struct_fields__})


class ListingRow(msgspec.Struct, frozen=True, kw_only=True):
    listing_id: UUID
    user_id: UUID
    thread_id: UUID | None
    kind: ListingKind
    title: str
    description: str
    price_amount: int
    price_currency: str
    category: Category
    condition: Condition | None
    quantity: int
    reserved: int
    sold: int
    feed: Feed
    images: msgspec.Raw
    video: str | None
    thumbnail: str | None
    lat: float | None
    lng: float | None
    status: ListingStatus
    views: int
    likes: int
    version: int
    expires_at: Time
    at: Time
    liked: bool
    distance_m: int | None

    def listing(self) -> Listing:
        """As it travels."""
        fields: dict[str, Any] = {
            name: getattr(self, name) for name in self.__struct_fields__ if name in Listing.__struct_fields__
        }
        fields["images"] = msgspec.json.decode(self.images)
        location = None if self.lat is None or self.lng is None else Location(self.lat, self.lng)
        return Listing(**fields, price=Money(self.price_amount, self.price_currency), location=location)


class LockedListing(msgspec.Struct, frozen=True, kw_only=True):
    """What moves are judged by; `has_expired` by the database's clock behind the lock."""

    listing_id: UUID
    user_id: UUID
    thread_id: UUID | None
    kind: ListingKind
    price_amount: int
    price_currency: str
    quantity: int
    reserved: int
    sold: int
    feed: Feed
    status: ListingStatus
    version: int
    has_expired: bool

    @property
    def available(self) -> int:
        """Pieces that are promised to nobody."""
        return self.quantity - self.reserved - self.sold


sql = load("listings", Head, ListingRow, LockedListing)


async def lock_listing(db: Connection, listing_id: UUID, *, share: bool = False) -> LockedListing | None:
    """Lock a listing until the transaction ends, before its negotiations; None where there is none, or it was deleted.

    `share` where its stock and terms only have to stand still.
    """
    lock = sql.share_listing if share else sql.lock_listing
    found: LockedListing | None = await lock(db, listing_id=listing_id)
    return found


async def read_held(db: Connection, listing_id: UUID) -> LockedListing | None:
    """A listing whose row the caller holds already; None where it has been deleted."""
    found: LockedListing | None = await sql.read_held(db, listing_id=listing_id)
    return found


async def lock_stock(db: Connection, listing_id: UUID) -> LockedListing:
    """Lock a listing on which a deal stands, deleted or not, before its negotiations."""
    found: LockedListing = await sql.lock_stock(db, listing_id=listing_id)
    return found


async def find_owner(db: Connection, listing_id: UUID) -> UUID | None:
    """Whose a listing is, or None where there is none."""
    found: UUID | None = await sql.find_owner(db, listing_id=listing_id)
    return found


async def lock_expired(db: Connection, listing_id: UUID) -> LockedListing | None:
    """Lock a listing whose time is over and that does not say so yet; None where somebody is at it or has done it."""
    found: LockedListing | None = await sql.lock_expired(db, listing_id=listing_id)
    return found


async def list_expired(db: Connection, most: int) -> list[UUID]:
    """Listings whose time is over and that do not say so yet."""
    return [row["listing_id"] async for row in sql.list_expired(db, most=most)]


async def keep_visible(db: Connection, listing_id: UUID) -> bool:
    """Whether everybody may see a listing; it is not removed before the transaction ends."""
    return await sql.keep_visible(db, listing_id=listing_id) is not None


async def list_heads(db: Connection, listing_ids: Sequence[UUID]) -> list[Head]:
    """The heads of the rooms of those listings that everybody may see."""
    return [head async for head in sql.list_heads(db, listing_ids=listing_ids)]


async def list_listings(
    db: Connection, viewer_id: UUID, listing_ids: Sequence[UUID], *, seen_from: tuple[float, float] | None = None
) -> list[Listing]:
    """The listings as the person sees them, in the order given; without deleted ones and those of deleted threads.

    `seen_from` is a place (lat, lng) to say the distance from.
    """
    lat, lng = seen_from or (None, None)
    rows = sql.list_listings(db, viewer_id=viewer_id, listing_ids=listing_ids, lat=lat, lng=lng)
    found = {row.listing_id: row.listing() async for row in rows}
    return [found[id_] for id_ in listing_ids if id_ in found]


async def find_end(db: Connection, asked: Time | None, days: int, ends_at: Time | None) -> Time | None:
    """When a listing ends: as asked, or so many days on, and not before it was to end already.

    None where that is past, or more than `MOST_DAYS` ahead.
    """
    found: Time | None = await sql.find_end(db, asked=asked, days=days, most_days=MOST_DAYS, ends_at=ends_at)
    return found


async def create_listing(
    db: Connection,
    listing_id: UUID,
    user_id: UUID,
    thread_id: UUID | None,
    kind: ListingKind,
    terms: Terms,
    showing: Showing,
    expires_at: Time,
) -> None:
    """Add a listing; its thread, where it has one, is held."""
    await sql.create_listing(
        db,
        listing_id=listing_id,
        user_id=user_id,
        thread_id=thread_id,
        kind=kind,
        terms=terms.row(),
        expires_at=expires_at,
        **_columns(showing),
    )


async def update_listing(db: Connection, listing_id: UUID, terms: Terms, showing: Showing, version: int) -> None:
    """Write what a listing says; the caller holds its row."""
    await sql.update_listing(db, listing_id=listing_id, terms=terms.row(), version=version, **_columns(showing))


def _columns(showing: Showing) -> dict[str, Any]:
    place = showing.location
    return {
        "feed": showing.feed,
        "video": showing.video,
        "thumbnail": showing.thumbnail,
        "lat": place and place.lat,
        "lng": place and place.lng,
    }


async def set_stock(db: Connection, listing_id: UUID, *, reserved: int, sold: int, status: ListingStatus) -> None:
    """Write how much of a listing is promised and sold; the caller holds its row."""
    await sql.set_stock(db, listing_id=listing_id, reserved=reserved, sold=sold, status=status)


async def set_end(db: Connection, listing_id: UUID, expires_at: Time, status: ListingStatus) -> None:
    """Put a listing's end off; the caller holds its row."""
    await sql.set_end(db, listing_id=listing_id, expires_at=expires_at, status=status)
