"""Conversations as they are stored, and as their viewer sees them."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from rules.conversations import ConversationKind
from storage import messages, participants
from storage._db import Connection, Time, load
from storage.messages import Message
from storage.participants import Participant


class SharedConversation(msgspec.Struct, frozen=True, kw_only=True):
    """What everybody in a conversation sees alike: all that a shared room is told of it."""

    conversation_id: UUID
    kind: ConversationKind
    title: str | None
    listing_id: UUID | None
    thread_id: UUID | None
    participants: list[Participant]
    participant_count: int
    head_seq: int
    version: int
    at: Time


class OwnConversation(SharedConversation, frozen=True, kw_only=True):
    """With the viewer's own fields, for their own room. No last_message: logged text could not be erased from here."""

    unread_count: int
    read_seq: int
    delivered_seq: int
    muted_until: Time | None
    archived: bool
    pinned: bool


class Conversation(OwnConversation, frozen=True, kw_only=True):
    """All that its viewer sees of a conversation."""

    last_message: Message | None

    def own(self) -> OwnConversation:
        """Without the last message."""
        return OwnConversation(**{name: getattr(self, name) for name in OwnConversation.__struct_fields__})


class ConversationRow(msgspec.Struct, frozen=True, kw_only=True):
    conversation_id: UUID
    kind: ConversationKind
    title: str | None
    listing_id: UUID | None
    thread_id: UUID | None
    head_seq: int
    version: int
    at: Time
    read_seq: int
    delivered_seq: int
    muted_until: Time | None
    archived: bool
    pinned: bool
    participant_count: int
    unread_count: int


class Place(msgspec.Struct, frozen=True):
    """Where a conversation stands in the list: by latest activity, then id."""

    conversation_id: UUID
    last_at: Time


sql = load("conversations", ConversationRow, Place)


async def create_conversation(
    db: Connection,
    conversation_id: UUID,
    kind: ConversationKind,
    *,
    created_by: UUID,
    title: str | None = None,
    listing_id: UUID | None = None,
    pair: tuple[UUID, UUID] | None = None,
) -> bool:
    """Add a conversation; False where the pair has a private one about this listing already."""
    low, high = sorted(pair) if pair else (None, None)
    made = await sql.create_conversation(
        db,
        conversation_id=conversation_id,
        kind=kind,
        title=title,
        listing_id=listing_id,
        low_user_id=low,
        high_user_id=high,
        created_by=created_by,
    )
    return made is not None


async def find_private(db: Connection, pair: tuple[UUID, UUID], listing_id: UUID | None) -> UUID | None:
    """The private conversation of two people about a listing (or about none)."""
    low, high = sorted(pair)
    found: UUID | None = await sql.find_private(db, low_user_id=low, high_user_id=high, listing_id=listing_id)
    return found


async def lock_conversation(db: Connection, conversation_id: UUID) -> ConversationKind | None:
    """Lock a conversation's row until the transaction ends; its kind, or None where there is none."""
    kind: str | None = await sql.lock_conversation(db, conversation_id=conversation_id)
    return None if kind is None else ConversationKind(kind)


async def bump_version(db: Connection, conversation_id: UUID) -> None:
    """Count a change that all of its people see."""
    await sql.bump_version(db, conversation_id=conversation_id)


async def list_conversations(
    db: Connection, user_id: UUID, conversation_ids: Sequence[UUID], *, people: int
) -> list[Conversation]:
    """The conversations as the person sees them, in the order given, each with its first `people` participants.

    Those the person takes no part in are left out.
    """
    rows = {
        row.conversation_id: row
        async for row in sql.list_conversations(db, user_id=user_id, conversation_ids=conversation_ids)
    }
    seen = [id_ for id_ in conversation_ids if id_ in rows]
    if not seen:
        return []
    crowd = await participants.list_participants(db, seen, people)
    latest = await messages.list_latest(db, user_id, seen)
    return [
        Conversation(**msgspec.structs.asdict(rows[id_]), participants=crowd[id_], last_message=latest.get(id_))
        for id_ in seen
    ]


async def page_conversations(
    db: Connection, user_id: UUID, *, archived: bool, before: Place | None, most: int
) -> list[Place]:
    """A page of the person's conversations, the latest activity first, from behind a place on."""
    rows = sql.page_conversations(
        db,
        user_id=user_id,
        archived=archived,
        before_at=before and before.last_at,
        before_id=before and before.conversation_id,
        most=most,
    )
    return [row async for row in rows]
