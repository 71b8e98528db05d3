"""Reactions to messages."""

from typing import Annotated
from uuid import UUID

import msgspec

from handlers.edits import hide_from_newcomers, lock_message, refuse_blocked, tell_changed
from handlers.permissions import participant_at_the_lock
from server.commands.context import Context
from server.commands.registry import Limit, Payload, command, push
from server.errors import Conflict, TooLarge
from storage import messages
from storage.messages import Message

EMOJI = 50  # different ones of one message: it travels whole with each reaction

message_reacted = push(
    "message:reacted", Message, "Somebody reacted to a message, or took that back.", rooms=("conversation", "thread")
)
hide_from_newcomers(message_reacted)


class React(Payload, frozen=True):
    message_id: UUID
    emoji: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    on: bool


@command("message:react", allow=participant_at_the_lock, limit=Limit.WRITES, raises=(Conflict,))
async def react(ctx: Context, p: React) -> Message:
    """React to a message with an emoji, or take it back."""
    room, message = await lock_message(ctx, p.message_id)
    if p.on and message.deleted_at is not None:  # also where it had been given: nothing is left that would say so
        raise Conflict("version", "The message has been deleted.", message)
    if not await messages.react(ctx.db, p.message_id, ctx.user.user_id, p.emoji, on=p.on):
        return message  # it is as asked already
    if p.on:
        await refuse_blocked(ctx, room, message)
        if await messages.count_emoji(ctx.db, p.message_id) > EMOJI:
            raise TooLarge(f"A message has at most {EMOJI} different emoji.", EMOJI)
    return await tell_changed(ctx, room, p.message_id, message_reacted)
