"""Finding listings by words, place, price and what they are."""

import base64
import binascii
from typing import Annotated, Any
from uuid import UUID

import msgspec

from handlers.listings import check_currency
from rules.listings import Category, Feed, ListingKind
from server.commands.context import Context
from server.commands.pages import within
from server.commands.registry import Limit, Payload, command, signed_in
from server.errors import Invalid
from storage import listing_search, listings
from storage.listing_search import Place, Sort, Wanted
from storage.listings import Listing
from storage.money import Money

SEARCH_PAGE = 50


class Near(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A circle: its middle in degrees (WGS 84), its radius in metres."""

    lat: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    lng: Annotated[float, msgspec.Meta(ge=-180, le=180)]
    radius_m: Annotated[int, msgspec.Meta(ge=1, le=200_000)]


class SearchListings(Payload, frozen=True):
    query: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    kind: ListingKind | None = None
    category: Category | None = None
    thread_id: UUID | None = None
    user_id: UUID | None = None
    price_min: Money | None = None
    price_max: Money | None = None
    near: Near | None = None
    feed: Feed | None = None
    sort: Sort = Sort.NEW
    before: Annotated[str, msgspec.Meta(max_length=300)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=SEARCH_PAGE)] = 20


class FoundListings(msgspec.Struct, frozen=True):
    """A page of listings, in the order asked for; `next` is the `before` of the page behind it."""

    listings: list[Listing]
    next: str | None


@command("listing:search", allow=signed_in, limit=Limit.READS, reads=True)
async def search(ctx: Context, p: SearchListings) -> FoundListings:
    """Find what is to be had now; with one's own `user_id` all that one has listed, whatever its status.

    Words are English or Arabic, as in message:search. Prices are of one currency. The newest come first; or, by `sort`,
    the cheapest, currency by currency; the nearest; the most relevant of the latest 500 that fit.
    """
    wanted = _wanted(p)
    before = None if p.before is None else _read_cursor(p.before, p.sort)
    found = await listing_search.search(ctx.db, ctx.user.user_id, wanted, before, p.limit + 1)
    seen_from = None if p.near is None else (p.near.lat, p.near.lng)
    ids = [one.listing_id for one in found[: p.limit]]
    shown = await listings.list_listings(ctx.db, ctx.user.user_id, ids, seen_from=seen_from)
    page = within(shown)
    if len(page) == len(shown) and len(found) <= p.limit:
        return FoundListings(page, None)
    # Behind the last that is on the page; where some have just gone, behind what was read.
    last = page[-1].listing_id if len(page) < len(shown) else ids[-1]
    return FoundListings(page, next(_cursor(one.place(p.sort)) for one in found if one.listing_id == last))


def _wanted(p: SearchListings) -> Wanted:
    """What is looked for. Raises `Invalid` for what does not go together."""
    prices = {name: price for name in ("price_min", "price_max") if (price := getattr(p, name)) is not None}
    for path, price in prices.items():
        check_currency(price, path)
    if len({price.currency for price in prices.values()}) > 1:
        raise Invalid({"price_max.currency": "another than price_min's"})
    if p.sort is Sort.DISTANCE and p.near is None:
        raise Invalid({"near": "required to sort by distance"})
    if p.sort is Sort.RELEVANCE and p.query is None:
        raise Invalid({"query": "required to sort by relevance"})
    near: dict[str, Any] = {} if p.near is None else {"lat": p.near.lat, "lng": p.near.lng, "radius_m": p.near.radius_m}
    amounts = {path: price.amount for path, price in prices.items()}
    currency = next((price.currency for price in prices.values()), None)
    return Wanted(
        query=p.query,
        kind=p.kind,
        category=p.category,
        thread_id=p.thread_id,
        user_id=p.user_id,
        feed=p.feed,
        currency=currency,
        sort=p.sort,
        **amounts,
        **near,
    )


def _cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _read_cursor(text: str, sort: Sort) -> Place:
    """Where a page begins. Raises `Invalid` for what no page of this order has answered."""
    try:
        place = msgspec.json.decode(base64.urlsafe_b64decode(text), type=Place)
    except (binascii.Error, ValueError):
        raise Invalid({"before": "not a place that a page's next has named"}) from None
    if place.sort is not sort or not place.is_whole:
        raise Invalid({"before": "not a place of this order: ask for its first page"})
    return place
