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

    def shared(self) -> SharedConversation:
        """Without what is the viewer's own."""
        return SharedConversation(**{name: getattr(self, name) for name in SharedConversation.__struct_fields__})


class Mine(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One's own fields of a conversation.

    `head_seq` is there when the conversation has come back from the archive: the socket has been joined to its room
    behind that seq.
    """

    conversation_id: UUID
    read_seq: int
    delivered_seq: int
    unread_count: int
    muted_until: Time | None
    archived: bool
    pinned: bool
    head_seq: int | None = None


class Header(msgspec.Struct, frozen=True):
    """What changes to a conversation are judged by."""

    kind: ConversationKind
    title: str | None
    version: int
    changed_by: UUID | None


class Talk(msgspec.Struct, frozen=True):
    """Where and whether one may talk: `is_blocked` of a private conversation of which one has blocked the other."""

    kind: ConversationKind
    is_blocked: bool


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


sql = load("conversations", ConversationRow, Header, Mine, Place, Talk)


async def create_conversation(
    db: Connection,
    conversation_id: UUID,
    kind: ConversationKind,
    *,
    created_by: UUID,
    title: str | None = None,
    listing_id: UUID | None = None,
    thread_id: UUID | None = None,
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
        thread_id=thread_id,
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


async def lock_conversation(db: Connection, conversation_id: UUID) -> Header | None:
    """Lock a conversation's row until the transaction ends; what it is, or None where there is none."""
    found: Header | None = await sql.lock_conversation(db, conversation_id=conversation_id)
    return found


async def rename(db: Connection, conversation_id: UUID, title: str | None, by: UUID) -> None:
    """Give a conversation another title, and count the change."""
    await sql.rename(db, conversation_id=conversation_id, title=title, changed_by=by)


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
    crowd = await participants.list_participants(db, user_id, seen, people)
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


async def get_mine(db: Connection, user_id: UUID, conversation_id: UUID) -> Mine | None:
    """One's own fields of a conversation as they are now, or None where one takes no part."""
    found: Mine | None = await sql.get_mine(db, user_id=user_id, conversation_id=conversation_id)
    return found


async def set_mine(
    db: Connection, user_id: UUID, conversation_id: UUID, *, archived: bool, muted_until: Time | None, pinned: bool
) -> None:
    """Change one's own fields; the caller holds the conversation's room and one's own."""
    await sql.set_mine(
        db,
        user_id=user_id,
        conversation_id=conversation_id,
        archived=archived,
        muted_until=muted_until,
        pinned=pinned,
    )


async def mark(db: Connection, user_id: UUID, conversation_id: UUID, *, read: int, delivered: int) -> bool:
    """Move one's marks forward, up to the head; whether one of them moved. The caller holds one's own room."""
    moved = await sql.mark(db, user_id=user_id, conversation_id=conversation_id, read=read, delivered=delivered)
    return moved is not None


async def is_crowd(db: Connection, conversation_id: UUID, people: int) -> bool:
    """Whether more than so many take part."""
    found: bool = await sql.is_crowd(db, conversation_id=conversation_id, people=people)
    return found


async def find_talk(db: Connection, conversation_id: UUID) -> Talk | None:
    """What kind of conversation it is, and whether a block keeps its people from talking; None where there is none."""
    found: Talk | None = await sql.find_talk(db, conversation_id=conversation_id)
    return found


async def wake(db: Connection, conversation_id: UUID) -> list[UUID]:
    """Bring a conversation back from the archives of those who have not muted it: who they are."""
    return [row["user_id"] async for row in sql.wake(db, conversation_id=conversation_id)]
