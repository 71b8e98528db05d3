"""Messages: sent in batches, read in pages."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import msgspec

from handlers.conversations import LISTED_PEOPLE, conversation_mine
from handlers.permissions import participant, participant_at_the_lock
from server.commands.context import Batch, Call, Context
from server.commands.pages import Seq, within
from server.commands.registry import BUSY, ClientId, Limit, Outcome, Payload, command, push
from server.errors import Conflict, Invalid, NotFound, ParleyError, TooLarge
from server.rooms.log import Event
from server.rooms.names import Room, conversation_room
from storage import Time, attachments, conversations, messages
from storage.messages import Appended, Message, NewMessage

HISTORY_PAGE = 200

message_created = push(
    "message:created",
    Message,
    "A message was sent; everybody in the room gets it, its sender too.",
    rooms=("conversation", "thread"),
)


class SendMessage(Payload, frozen=True):
    conversation_id: UUID
    client_id: ClientId
    text: str | None = None
    attachment_ids: tuple[UUID, ...] = ()
    reply_to_id: UUID | None = None


class Sent(msgspec.Struct, frozen=True):
    """Where a message stands in its conversation."""

    message_id: UUID
    seq: int
    at: Time


def _room(p: SendMessage) -> Room:
    """Whose lock a send needs: a thread's conversation has the thread's room, but under the same id."""
    return conversation_room(p.conversation_id)


@command("message:send", allow=participant_at_the_lock, limit=Limit.MESSAGE_SEND, batch=True, room=_room)
async def send(batch: Batch, calls: Sequence[Call[SendMessage]]) -> list[Outcome[Sent]]:
    """Send a message. The same client_id again answers with the same message, for good."""
    outcomes: list[Outcome[Sent]] = [BUSY] * len(calls)
    asked: dict[tuple[UUID, str], int] = {}
    again: set[tuple[UUID, UUID]] = set()
    for n, call in enumerate(calls):
        p, sender = call.payload, call.user.user_id
        refusal = _refusal(p, batch.services.bounds.attachments)
        if refusal is not None:
            outcomes[n] = refusal
        elif (sender, p.client_id) in asked or (sender, p.conversation_id) in again:
            # Of one key twice in a batch, the second comes again, and finds the first; what follows it stays behind it.
            again.add((sender, p.conversation_id))
        else:
            asked[sender, p.client_id] = n
    places = list(asked.values())
    new = await _new(batch, [calls[n] for n in places])
    for row in await messages.append_messages(batch.db, new, wait=batch.wait):
        if row.ord is None:
            batch.events.append(_event(row, conversation_mine.name))
            continue
        n = places[row.ord - 1]
        outcomes[n] = await _blocked(batch, calls[n]) if row.outcome == "blocked" else _outcome(row)
        if row.outcome == "sent":
            batch.events.append(_event(row, message_created.name))
    return outcomes


def _refusal(p: SendMessage, most: int) -> ParleyError | None:
    if not p.text and not p.attachment_ids:
        return Invalid({"text": "a message needs text or attachments"})
    if len(p.attachment_ids) > most:
        return TooLarge(f"attachment_ids: a message has at most {most} attachments.", most)
    if len(set(p.attachment_ids)) < len(p.attachment_ids):
        return Invalid({"attachment_ids": "one of them twice"})
    return None


async def _new(batch: Batch, calls: Sequence[Call[SendMessage]]) -> list[NewMessage]:
    asked = [(call.user.user_id, file_id) for call in calls for file_id in call.payload.attachment_ids]
    files = await attachments.list_sendable(batch.db, asked) if asked else {}
    return [
        NewMessage(
            p.conversation_id,
            sender,
            p.client_id,
            call.digest,
            p.text or None,
            p.reply_to_id,
            p.attachment_ids,
            [files[sender, file_id] for file_id in p.attachment_ids if (sender, file_id) in files],
        )
        for call in calls
        for p, sender in [(call.payload, call.user.user_id)]
    ]


async def _blocked(batch: Batch, call: Call[SendMessage]) -> Conflict:
    """The refusal of who may say no more in a conversation, and the conversation."""
    found = await conversations.list_conversations(
        batch.db, call.user.user_id, [call.payload.conversation_id], people=LISTED_PEOPLE
    )
    return Conflict("blocked", "One of you has blocked the other.", found[0] if found else None)


def _outcome(row: Appended) -> Outcome[Sent]:
    place = None
    if row.message_id is not None and row.seq is not None and row.at is not None:
        place = Sent(row.message_id, row.seq, row.at)
    match row.outcome:
        case "sent" | "repeat" if place is not None:
            return place
        case "key_reuse":
            return Conflict("key_reuse", "This client_id sent another message: use a new one.", place)
        case "busy":
            return BUSY
        case "not_found" | "no_reply" | "no_attachment":
            return NotFound()
    raise LookupError(f"append_messages says {row.outcome}")


def _event(row: Appended, name: str) -> Event:
    if row.kind is None or row.seq is None or row.at is None or row.payload is None:
        raise LookupError(f"{name} was appended without its place in the log")
    return Event(Room(row.kind, row.room_id), row.seq, row.at, name, row.payload)


class ReadHistory(Payload, frozen=True):
    conversation_id: UUID
    before_seq: Seq | None = None
    after_seq: Seq | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=HISTORY_PAGE)] = 50


class History(msgspec.Struct, frozen=True):
    """A page of messages, ascending by seq; `more` says whether there are others beyond it in the direction read."""

    messages: list[Message]
    more: bool


@command("message:history", allow=participant, limit=Limit.READS, reads=True)
async def history(ctx: Context, p: ReadHistory) -> History:
    """Read the messages before or after a seq, or the latest; never those from before one's joining."""
    if p.before_seq is not None and p.after_seq is not None:
        raise Invalid({"after_seq": "give before_seq or after_seq, not both"})
    reader, most = ctx.user.user_id, p.limit + 1
    if p.after_seq is not None:
        found = await messages.list_after(ctx.db, reader, p.conversation_id, p.after_seq, most=most)
    else:
        found = await messages.list_before(ctx.db, reader, p.conversation_id, p.before_seq, most=most)
    page = within(found[: p.limit])
    more = len(page) < len(found)
    return History(page if p.after_seq is not None else page[::-1], more)
