"""Erasing a person: what is theirs alone goes, what others stand on stays without their name."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from storage._db import Connection, load

EVENTS_PAGE = 2_000  # of one statement, well within its time


class Said(msgspec.Struct, frozen=True):
    """A message, where it stands, and its place among its sender's."""

    message_id: UUID
    conversation_id: UUID
    client_id: str


class Reviewed(msgspec.Struct, frozen=True):
    """A review, and between whom."""

    review_id: UUID
    author_id: UUID
    subject_id: UUID


class Posted(msgspec.Struct, frozen=True):
    """A question, answer or reply, its listing, and whose that is."""

    faq_id: UUID
    listing_id: UUID
    owner_id: UUID


sql = load("erasure", Posted, Said, Reviewed)


async def erase_person(db: Connection, user_id: UUID) -> None:
    """Take everything personal out of an account, its sessions, blocks and reports; the account stays as deleted."""
    await sql.erase_user(db, user_id=user_id)
    await sql.erase_devices(db, user_id=user_id)
    await sql.delete_tokens(db, user_id=user_id)
    await sql.delete_blocks(db, user_id=user_id)
    await sql.erase_reports(db, user_id=user_id)


async def blank_events(db: Connection, user_id: UUID) -> None:
    """Blank what the person's own devices were told, but for the ends of sessions; the caller holds their room."""
    after = 0
    while after is not None:
        after = await sql.blank_events(db, user_id=user_id, after=after, most=EVENTS_PAGE)


async def list_rooms(db: Connection, user_id: UUID, after: UUID, most: int) -> list[UUID]:
    """Conversations in which the person still takes part, by id, from behind one on."""
    rows = sql.list_rooms(db, user_id=user_id, after=after, most=most)
    return [row["conversation_id"] async for row in rows]


async def find_group(db: Connection, user_id: UUID) -> UUID | None:
    """A group in which the person still takes part, or None."""
    found: UUID | None = await sql.find_group(db, user_id=user_id)
    return found


async def list_messages(db: Connection, user_id: UUID, after: str, most: int) -> list[Said]:
    """The person's messages that still say something, by client_id, from behind one on."""
    return [row async for row in sql.list_messages(db, user_id=user_id, after=after, most=most)]


async def find_worded(db: Connection, user_id: UUID) -> UUID | None:
    """A negotiation in which the person wrote something with an offer, or None."""
    found: UUID | None = await sql.find_worded(db, user_id=user_id)
    return found


async def blank_offers(db: Connection, negotiation_id: UUID, user_id: UUID) -> list[UUID]:
    """Blank what the person wrote with their offers of a negotiation, which is locked; which offers these are."""
    rows = sql.blank_offers(db, negotiation_id=negotiation_id, user_id=user_id)
    return [row["offer_id"] async for row in rows]


async def blank_offer_events(db: Connection, offer_ids: Sequence[UUID]) -> set[UUID]:
    """Blank what the log keeps of the offers' words; the caller holds their rooms."""
    return {row["room_id"] async for row in sql.blank_offer_events(db, offer_ids=offer_ids)}


async def list_reviews(db: Connection, user_id: UUID, most: int) -> list[Reviewed]:
    """The person's reviews that still say something."""
    return [row async for row in sql.list_reviews(db, user_id=user_id, most=most)]


async def blank_reviews(db: Connection, review_ids: Sequence[UUID]) -> set[UUID]:
    """Blank reviews wherever their text is kept; the caller holds both people's rooms."""
    return {row["room_id"] async for row in sql.blank_reviews(db, review_ids=review_ids)}


async def note_finished(db: Connection, user_id: UUID) -> None:
    """Remember that nothing is left to erase."""
    await sql.note_finished(db, user_id=user_id)


async def list_unfinished(db: Connection, most: int) -> list[UUID]:
    """Deleted people of whom something is left."""
    return [row["user_id"] async for row in sql.list_unfinished(db, most=most)]


async def list_blockers(db: Connection, user_id: UUID, most: int) -> list[UUID]:
    """Who has blocked the person."""
    return [row["blocker_id"] async for row in sql.list_blockers(db, user_id=user_id, most=most)]


async def delete_blocks_of(db: Connection, user_id: UUID, blocker_ids: Sequence[UUID]) -> list[UUID]:
    """Let these block the person no more: of whom that was news. The caller holds their rooms."""
    rows = sql.delete_blocks_of(db, user_id=user_id, blocker_ids=blocker_ids)
    return [row["blocker_id"] async for row in rows]


async def find_listing(db: Connection, user_id: UUID) -> UUID | None:
    """Something that the person has listed and that is not blank yet."""
    found: UUID | None = await sql.find_listing(db, user_id=user_id)
    return found


async def blank_listing(db: Connection, listing_id: UUID) -> None:
    """Blank a listing, which the caller holds; what people agreed about it stays."""
    await sql.blank_listing(db, listing_id=listing_id)


async def delete_listing(db: Connection, listing_id: UUID) -> None:
    """Let nobody see a listing any more; its row stays."""
    await sql.delete_listing(db, listing_id=listing_id)


async def list_posted(db: Connection, user_id: UUID, most: int) -> list[Posted]:
    """What the person has asked and answered in public, and what still says something."""
    return [row async for row in sql.list_posted(db, user_id=user_id, most=most)]


async def blank_posted(db: Connection, faq_ids: Sequence[UUID]) -> set[UUID]:
    """Blank questions, answers and replies, in the log too; the caller holds the rooms in which they were told."""
    return {row["room_id"] async for row in sql.blank_posted(db, faq_ids=faq_ids)}


async def blank_acts(db: Connection, user_id: UUID) -> None:
    """Blank what the person's devices wrote beside their acts on matches."""
    await sql.blank_acts(db, user_id=user_id)


async def delete_likes(db: Connection, user_id: UUID) -> list[UUID]:
    """Forget some of what the person liked: which listings, whose likes are to be counted anew."""
    return [row["listing_id"] async for row in sql.delete_likes(db, user_id=user_id)]
