"""Messages as they are stored and pushed."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from rules.messages import MessageType
from storage._db import Connection, Time, load
from storage.attachments import Attachment


class Reaction(msgspec.Struct, frozen=True):
    """How many reacted with an emoji, and the first twenty of them."""

    emoji: str
    count: int
    user_ids: list[UUID]


class MessageBody(msgspec.Struct, frozen=True, kw_only=True):
    """A message but for what the log decides; its JSON goes into `append_messages`, which adds the rest.

    Read from the database, `attachments`, `offer` and `reactions` are JSON as PostgreSQL made it (`msgspec.Raw`).
    """

    conversation_id: UUID
    sender_id: UUID
    client_id: str
    type: MessageType
    text: str | None
    attachments: list[Attachment] = []
    reply_to_id: UUID | None
    offer: msgspec.Raw | None = None
    reactions: list[Reaction] = []
    version: int = 1
    edited_at: Time | None = None
    deleted_at: Time | None = None


class Message(MessageBody, frozen=True, kw_only=True):
    """A message; `seq` is that of its `message:created` in the room's log."""

    message_id: UUID
    seq: int
    at: Time


class NewMessage(msgspec.Struct, frozen=True):
    """A message to be stored, with the keyed digest of the payload that asks for it."""

    conversation_id: UUID
    sender_id: UUID
    client_id: str
    body_hmac: bytes
    text: str | None
    reply_to_id: UUID | None
    attachment_ids: tuple[UUID, ...] = ()
    attachments: list[Attachment] = []

    @property
    def type(self) -> MessageType:
        """An image where all of its files are images."""
        files = self.attachments
        is_image = bool(files) and all(file.content_type.startswith("image/") for file in files)
        return MessageType.IMAGE if is_image else MessageType.TEXT

    def body(self) -> str:
        """The JSON of what is known before the log has placed it."""
        return _encode(
            MessageBody(
                conversation_id=self.conversation_id,
                sender_id=self.sender_id,
                client_id=self.client_id,
                type=self.type,
                text=self.text,
                attachments=self.attachments,
                reply_to_id=self.reply_to_id,
            )
        ).decode()


class Appended(msgspec.Struct, frozen=True):
    """What became of one message of a batch, or whom it has woken; the outcomes are those of `append_messages`.

    `payload` is the pushed JSON where it was sent, and `kind` that of the room it was pushed to; id, seq and time are
    those of the message a repeat found.
    """

    ord: int | None
    outcome: str
    room_id: UUID
    kind: str | None
    message_id: UUID | None
    seq: int | None
    at: Time | None
    payload: str | None


class Revision(msgspec.Struct, frozen=True):
    """What a message said before an edit, and since when."""

    version: int
    text: str
    at: Time


_encode = msgspec.json.Encoder().encode

sql = load("messages", Message, Appended, Revision)


async def append_messages(db: Connection, messages: Sequence[NewMessage], *, wait: bool) -> list[Appended]:
    """Store a batch in one statement, judged behind the rooms' locks; the answers are in the order given.

    Behind them, one row for each person who has a conversation back from their archive. No two of the batch may share
    sender and client_id. With `wait` false, those whose room is held come back busy.
    """
    attached = [f"{{{','.join(map(str, m.attachment_ids))}}}" if m.attachment_ids else None for m in messages]
    rows = await db.fetch(
        sql.append_messages.sql,
        [m.conversation_id for m in messages],
        [m.sender_id for m in messages],
        [m.client_id for m in messages],
        [m.body_hmac for m in messages],
        [m.type for m in messages],
        [m.text for m in messages],
        [m.reply_to_id for m in messages],
        attached if any(attached) else None,
        [m.body() for m in messages],
        wait,
    )
    return [Appended(*row) for row in rows]


async def create_offer_message(
    db: Connection, conversation_id: UUID, seq: int, sender_id: UUID, offer_id: UUID
) -> UUID:
    """Let an offer stand in its conversation; the caller holds the room and pushes `message:created` under this seq."""
    message_id: UUID = await sql.create_offer_message(
        db, conversation_id=conversation_id, seq=seq, sender_id=sender_id, offer_id=offer_id
    )
    return message_id


async def list_messages(db: Connection, message_ids: Sequence[UUID]) -> list[Message]:
    """The messages as they are now, in order of id, for whoever may see them all."""
    return [row async for row in sql.list_messages(db, message_ids=message_ids)]


async def get_message(db: Connection, reader_id: UUID, message_id: UUID) -> Message | None:
    """A message, where the reader may see it now."""
    found: Message | None = await sql.get_message(db, reader_id=reader_id, message_id=message_id)
    return found


async def edit_message(db: Connection, message_id: UUID, text: str) -> None:
    """Let a message say something else, and keep what it said; the caller holds its room."""
    await sql.keep_revision(db, message_id=message_id)
    await sql.edit_message(db, message_id=message_id, text=text)


async def has_revision(db: Connection, message_id: UUID, version: int, text: str) -> bool:
    """Whether a message said this in that version, and says something else now."""
    found: bool = await sql.has_revision(db, message_id=message_id, version=version, text=text)
    return found


async def list_revisions(db: Connection, message_id: UUID) -> list[Revision]:
    """What a message said before, the oldest first."""
    return [row async for row in sql.list_revisions(db, message_id=message_id)]


async def blank_messages(db: Connection, message_ids: Sequence[UUID]) -> tuple[list[UUID], list[UUID]]:
    """Blank messages wherever their text is kept: rows, revisions, reactions, log; the caller holds their rooms.

    Returns those that were not blank before, and the files of their attachments, which are the caller's to delete.
    """
    blanked = [row["message_id"] async for row in sql.blank_messages(db, message_ids=message_ids)]
    for blank in (sql.blank_revisions, sql.blank_reactions, sql.blank_events):
        await blank(db, message_ids=message_ids)
    return blanked, [row["file_id"] async for row in sql.detach(db, message_ids=message_ids)]


async def react(db: Connection, message_id: UUID, user_id: UUID, emoji: str, *, on: bool) -> bool:
    """Set or take back a reaction; whether that changed anything."""
    change = sql.react if on else sql.unreact
    return await change(db, message_id=message_id, user_id=user_id, emoji=emoji) is not None


async def count_emoji(db: Connection, message_id: UUID) -> int:
    """How many different emoji a message has."""
    count: int = await sql.count_emoji(db, message_id=message_id)
    return count


async def list_before(
    db: Connection, reader_id: UUID, conversation_id: UUID, before_seq: int | None, *, most: int
) -> list[Message]:
    """The messages right before a seq (or the last ones) that the reader may see, latest first."""
    rows = sql.list_before(db, reader_id=reader_id, conversation_id=conversation_id, before_seq=before_seq, most=most)
    return [row async for row in rows]


async def list_after(
    db: Connection, reader_id: UUID, conversation_id: UUID, after_seq: int, *, most: int
) -> list[Message]:
    """The messages right after a seq that the reader may see, in order."""
    rows = sql.list_after(db, reader_id=reader_id, conversation_id=conversation_id, after_seq=after_seq, most=most)
    return [row async for row in rows]


async def list_latest(db: Connection, user_id: UUID, conversation_ids: Sequence[UUID]) -> dict[UUID, Message]:
    """The last message of each conversation, as far as the person may see it."""
    rows = sql.list_latest(db, user_id=user_id, conversation_ids=conversation_ids)
    return {row.conversation_id: row async for row in rows}


async def search(
    db: Connection,
    reader_id: UUID,
    query: str,
    *,
    conversation_id: UUID | None,
    before_id: UUID | None,
    most: int,
) -> list[Message]:
    """The messages with these words that the reader may see, the latest first."""
    rows = sql.search(
        db, reader_id=reader_id, query=query, conversation_id=conversation_id, before_id=before_id, most=most
    )
    return [row async for row in rows]
