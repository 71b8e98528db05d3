"""Questions about listings, their answers and replies."""

from uuid import UUID

import msgspec

from rules.faqs import FaqType
from storage._db import Connection, Time, load


class Faq(msgspec.Struct, frozen=True, kw_only=True):
    """A question, an answer of the listing's owner, or a reply to any of them; no text where its author is erased."""

    faq_id: UUID
    listing_id: UUID
    user_id: UUID
    parent_id: UUID | None
    type: FaqType
    text: str | None
    is_accepted: bool
    at: Time


class FaqRow(Faq, frozen=True, kw_only=True):
    """With the question at its root."""

    question_id: UUID

    def faq(self) -> Faq:
        """As it travels."""
        return Faq(**{name: getattr(self, name) for name in Faq.__struct_fields__})


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where something stands in the list: by its question, then its id."""

    question_id: UUID
    faq_id: UUID


sql = load("faqs", FaqRow)


async def create_faq(
    db: Connection,
    faq_id: UUID,
    listing_id: UUID,
    user_id: UUID,
    text: str,
    type_: FaqType,
    parent: FaqRow | None = None,
) -> None:
    """Add what somebody says of a listing, which is locked."""
    await sql.create_faq(
        db,
        faq_id=faq_id,
        listing_id=listing_id,
        user_id=user_id,
        question_id=parent.question_id if parent else faq_id,
        parent_id=parent and parent.faq_id,
        type=type_,
        text=text,
    )


async def get_faq(db: Connection, faq_id: UUID) -> FaqRow | None:
    """What somebody said, or None."""
    found: FaqRow | None = await sql.get_faq(db, faq_id=faq_id)
    return found


async def list_faqs(db: Connection, listing_id: UUID, before: Place | None, most: int) -> list[FaqRow]:
    """A listing's questions, the newest first, each followed by what was said to it; from behind a place on."""
    rows = sql.list_faqs(
        db,
        listing_id=listing_id,
        question_id=before and before.question_id,
        faq_id=before and before.faq_id,
        most=most,
    )
    return [row async for row in rows]


async def accept(db: Connection, answer: FaqRow) -> None:
    """Let an answer be the one accepted of its question; the listing's row is held."""
    await sql.accept_nothing(db, parent_id=answer.parent_id)
    await sql.accept_faq(db, faq_id=answer.faq_id)
