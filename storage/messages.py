"""Messages as they are stored and pushed."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from rules.messages import MessageType
from storage._db import Connection, Time, load


class MessageBody(msgspec.Struct, frozen=True, kw_only=True):
    """A message but for what the log decides; its JSON goes into `append_messages`, which adds the rest."""

    conversation_id: UUID
    sender_id: UUID
    client_id: str
    type: MessageType
    text: str | None
    attachments: list[msgspec.Raw] = []
    reply_to_id: UUID | None
    offer: msgspec.Raw | None = None
    reactions: list[msgspec.Raw] = []
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
    text: str
    reply_to_id: UUID | None

    def body(self) -> str:
        """The JSON of what is known before the log has placed it."""
        return _encode(
            MessageBody(
                conversation_id=self.conversation_id,
                sender_id=self.sender_id,
                client_id=self.client_id,
                type=MessageType.TEXT,
                text=self.text,
                reply_to_id=self.reply_to_id,
            )
        ).decode()


class Appended(msgspec.Struct, frozen=True):
    """What became of one message of a batch: sent, repeat, key_reuse, not_found, no_reply or busy.

    `payload` is the pushed JSON where it was sent; id, seq and time are those of the message a repeat found.
    """

    ord: int
    outcome: str
    message_id: UUID | None
    seq: int | None
    at: Time | None
    payload: str | None


_encode = msgspec.json.Encoder().encode

sql = load("messages", Message, Appended)


async def append_messages(db: Connection, messages: Sequence[NewMessage], *, wait: bool) -> list[Appended]:
    """Store a batch in one statement, judged behind the rooms' locks; the answers are in the order given.

    No two of the batch may share sender and client_id. With `wait` false, those whose room is held come back busy.
    """
    rows = await db.fetch(
        sql.append_messages.sql,
        [m.conversation_id for m in messages],
        [m.sender_id for m in messages],
        [m.client_id for m in messages],
        [m.body_hmac for m in messages],
        [m.text for m in messages],
        [m.reply_to_id for m in messages],
        [m.body() for m in messages],
        wait,
    )
    return [Appended(*row) for row in rows]


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
