"""What a listing may be, and what its counts and the clock make of it."""

from enum import StrEnum


class ListingKind(StrEnum):
    FOR_SALE = "for_sale"
    WTB = "wtb"


class Category(StrEnum):
    TRADING_CARDS = "trading_cards"
    MENS_FASHION = "mens_fashion"
    SNEAKERS = "sneakers"
    SPORTS_CARDS = "sports_cards"
    COLLECTIBLES = "collectibles"
    ELECTRONICS = "electronics"
    HOME_DECOR = "home_decor"
    BEAUTY = "beauty"
    KIDS_BABY = "kids_baby"
    FURNITURE = "furniture"
    BOOKS = "books"
    OTHER = "other"


class Condition(StrEnum):
    NEW = "new"
    LIKE_NEW = "like_new"
    GOOD = "good"
    FAIR = "fair"


class Feed(StrEnum):
    DISCOVER = "discover"
    COMMUNITY = "community"


class ListingStatus(StrEnum):
    ACTIVE = "active"
    RESERVED = "reserved"
    SOLD = "sold"
    EXPIRED = "expired"
    CLOSED = "closed"


def status_of(was: ListingStatus, quantity: int, reserved: int, sold: int, *, has_expired: bool) -> ListingStatus:
    """The status that a listing's counts make: sold out is for good, what has ended stays ended."""
    if sold == quantity:
        return ListingStatus.SOLD
    if was == ListingStatus.CLOSED:
        return ListingStatus.CLOSED
    if was == ListingStatus.EXPIRED or has_expired:
        return ListingStatus.EXPIRED
    return ListingStatus.RESERVED if reserved + sold == quantity else ListingStatus.ACTIVE
