"""Messages after they were sent: edited, deleted, and what they said before."""

from functools import partial
from typing import Annotated, Any
from uuid import UUID

import msgspec

from handlers.permissions import participant_at_the_lock, reader_of_the_message
from rules.messages import MessageType, may_delete
from server.adapters.attachments import delete_files
from server.commands.context import Context, encode
from server.commands.registry import Limit, Payload, Push, command, push
from server.errors import Conflict, Forbidden, NotFound
from server.rooms import log
from server.rooms.names import Room
from storage import conversations, messages, participants
from storage.messages import Message, Revision

message_edited = push("message:edited", Message, "A message says something else.", rooms=("conversation", "thread"))
message_deleted = push(
    "message:deleted",
    Message,
    "A message is blank now, and so is its copy in the log.",
    rooms=("conversation", "thread"),
)


def _without_text(payload: str) -> tuple[int, str]:
    message = msgspec.json.decode(payload)
    blank: dict[str, Any] = {"text": None, "attachments": [], "reactions": []}
    return message["seq"], encode({**message, **blank}).decode()


def hide_from_newcomers(changed: Push[Message]) -> None:
    """Let those hear that a message has changed who were not there when it was sent, but not what it says."""
    log.redact(changed.name, _without_text)


hide_from_newcomers(message_edited)


class EditMessage(Payload, frozen=True):
    message_id: UUID
    text: Annotated[str, msgspec.Meta(min_length=1)]
    version: int


@command("message:edit", allow=participant_at_the_lock, limit=Limit.WRITES)
async def edit(ctx: Context, p: EditMessage) -> Message:
    """Let one's own message say something else; `version` is the one that was seen. What it said before is kept."""
    room, message = await lock_message(ctx, p.message_id)
    if message.sender_id != ctx.user.user_id:
        raise Forbidden("Only its sender edits a message.")
    _refuse_offers(message)
    if await _is_repeat(ctx, message, p):
        return message
    await refuse_blocked(ctx, room, message)
    if message.deleted_at is not None or message.version != p.version:
        raise Conflict("version", "The message has changed: look again.", message)
    await messages.edit_message(ctx.db, p.message_id, p.text)
    return await tell_changed(ctx, room, p.message_id, message_edited)


async def _is_repeat(ctx: Context, message: Message, p: EditMessage) -> bool:
    """Whether this very edit has been made, and others since perhaps. Of what is deleted nobody can tell any more."""
    if message.version == p.version + 1:
        return message.text == p.text
    return 0 < p.version < message.version and await messages.has_revision(ctx.db, p.message_id, p.version + 1, p.text)


class DeleteMessage(Payload, frozen=True):
    message_id: UUID


@command("message:delete", allow=participant_at_the_lock, limit=Limit.WRITES)
async def delete(ctx: Context, p: DeleteMessage) -> Message:
    """Blank a message for all, wherever its text is kept; its seq stays. Its sender may, and in a group its admins."""
    room, message = await lock_message(ctx, p.message_id)
    _refuse_offers(message)
    if message.sender_id != ctx.user.user_id:
        part = await participants.find_participant(ctx.db, room.id, ctx.user.user_id)
        if part is None or not may_delete(part.role):
            raise Forbidden("Only its sender, or a group's admins, delete a message.")
    if message.deleted_at is not None:
        return message  # asked again
    _, files = await messages.blank_messages(ctx.db, [p.message_id])
    ctx.then(partial(delete_files, ctx.services.attachments, files))
    return await tell_changed(ctx, room, p.message_id, message_deleted)


class ReadRevisions(Payload, frozen=True):
    message_id: UUID


class Revisions(msgspec.Struct, frozen=True):
    """What the message said before, the oldest first; the last one is the message itself."""

    revisions: list[Revision]


@command("message:revisions", allow=reader_of_the_message, limit=Limit.READS, reads=True)
async def revisions(ctx: Context, p: ReadRevisions) -> Revisions:
    """Read what an edited message said before."""
    return Revisions(await messages.list_revisions(ctx.db, p.message_id))


def _refuse_offers(message: Message) -> None:
    """Raises `Forbidden` for the message in which an offer stands: what was offered stays said."""
    if message.type == MessageType.OFFER:
        raise Forbidden("An offer is neither edited nor deleted: counter or withdraw it.")


async def refuse_blocked(ctx: Context, room: Room, message: Message) -> None:
    """Raises `Conflict` in a private conversation of which one has blocked the other: no more is said there."""
    talk = await conversations.find_talk(ctx.db, room.id)
    if talk is not None and talk.is_blocked:
        raise Conflict("blocked", "One of you has blocked the other.", message)


async def lock_message(ctx: Context, message_id: UUID) -> tuple[Room, Message]:
    """Lock the room of a message, which whoever changes the message holds; then the message as it is now.

    Raises `NotFound` where the caller may not see it; who may not see it before does not wait for the lock.
    """
    seen = await messages.get_message(ctx.db, ctx.user.user_id, message_id)
    if seen is None:
        raise NotFound
    [room] = (await ctx.lock_ids(seen.conversation_id)).values()
    message = await messages.get_message(ctx.db, ctx.user.user_id, message_id)
    if message is None:
        raise NotFound
    return room, message


async def tell_changed(ctx: Context, room: Room, message_id: UUID, how: Push[Message]) -> Message:
    """Push a message as it is now to its room, which is locked."""
    message = await messages.get_message(ctx.db, ctx.user.user_id, message_id)
    if message is None:
        raise NotFound
    ctx.push(how, message, to=room, message_id=message_id)
    return message
