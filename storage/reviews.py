"""Reviews as they are stored and shown."""

from uuid import UUID

import msgspec

from storage._db import Connection, Time, load


class Review(msgspec.Struct, frozen=True):
    """What one of the two of a deal says of the other. No text: there was none, or its author is gone."""

    review_id: UUID
    transaction_id: UUID
    author_id: UUID
    subject_id: UUID
    rating: int
    text: str | None
    at: Time


sql = load("reviews", Review)


async def create_review(
    db: Connection,
    review_id: UUID,
    transaction_id: UUID,
    author_id: UUID,
    subject_id: UUID,
    *,
    rating: int,
    text: str | None,
) -> None:
    """Add a review, and count it for the other, whose row is held."""
    await sql.create_review(
        db,
        review_id=review_id,
        transaction_id=transaction_id,
        author_id=author_id,
        subject_id=subject_id,
        rating=rating,
        text=text,
    )
    await sql.count_rating(db, user_id=subject_id, rating=rating)


async def get_review(db: Connection, review_id: UUID) -> Review | None:
    """A review, or None."""
    found: Review | None = await sql.get_review(db, review_id=review_id)
    return found


async def find_review(db: Connection, transaction_id: UUID, author_id: UUID) -> Review | None:
    """What somebody said about a deal, or None."""
    found: Review | None = await sql.find_review(db, transaction_id=transaction_id, author_id=author_id)
    return found


async def page_reviews(db: Connection, subject_id: UUID, before: UUID | None, most: int) -> list[Review]:
    """A page of what was said of somebody, the newest first."""
    return [row async for row in sql.page_reviews(db, subject_id=subject_id, before=before, most=most)]
