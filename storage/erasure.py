"""Erasing a person: what is theirs alone goes, what others stand on stays without their name."""

from uuid import UUID

import msgspec

from storage._db import Connection, load

EVENTS_PAGE = 2_000  # of one statement, well within its time


class Said(msgspec.Struct, frozen=True):
    """A message, where it stands, and its place among its sender's."""

    message_id: UUID
    conversation_id: UUID
    client_id: str


sql = load("erasure", Said)


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


async def note_finished(db: Connection, user_id: UUID) -> None:
    """Remember that nothing is left to erase."""
    await sql.note_finished(db, user_id=user_id)


async def list_unfinished(db: Connection, most: int) -> list[UUID]:
    """Deleted people of whom something is left."""
    return [row["user_id"] async for row in sql.list_unfinished(db, most=most)]
