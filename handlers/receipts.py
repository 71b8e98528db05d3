"""How far somebody has read, and how far what was sent has reached their devices: two marks that only move forward.

The truth is in the conversation; what others are told is merged to one push a second.
"""

from typing import Annotated
from uuid import UUID

import msgspec

from handlers.conversations import conversation_mine, room_of
from handlers.permissions import participant_at_the_lock
from server.commands.context import Context
from server.commands.pages import Seq
from server.commands.registry import Limit, Payload, command, push
from server.errors import NotFound
from server.rooms.names import user_room
from storage import conversations

CROWD = 50  # in larger groups others are told nothing


class Receipt(msgspec.Struct, frozen=True):
    """Somebody's marks in a conversation."""

    conversation_id: UUID
    user_id: UUID
    read_seq: int
    delivered_seq: int


class Marks(msgspec.Struct, frozen=True):
    """One's own marks as they are now."""

    read_seq: int
    delivered_seq: int


receipt_changed = push(
    "receipt:changed",
    Receipt,
    "Somebody has read, or received, up to there.",
    rooms=("conversation", "thread"),
    ephemeral=True,
)


class Mark(Payload, frozen=True):
    conversation_id: UUID
    seq: Annotated[Seq, msgspec.Meta(description="up to and with which event of the room")]


@command("receipt:read", allow=participant_at_the_lock, limit=Limit.WRITES)
async def read(ctx: Context, p: Mark) -> Marks:
    """Say that one has read up to `seq`. A mark never moves back, and never beyond the head."""
    return await _mark(ctx, p.conversation_id, read=p.seq, delivered=p.seq)


@command("receipt:delivered", allow=participant_at_the_lock, limit=Limit.WRITES)
async def delivered(ctx: Context, p: Mark) -> Marks:
    """Say that one's device has received up to `seq`."""
    return await _mark(ctx, p.conversation_id, read=0, delivered=p.seq)


async def _mark(ctx: Context, conversation_id: UUID, *, read: int, delivered: int) -> Marks:
    me, own = ctx.user.user_id, user_room(ctx.user.user_id)
    await ctx.lock(own)
    moved = await conversations.mark(ctx.db, me, conversation_id, read=read, delivered=delivered)
    mine = await conversations.get_mine(ctx.db, me, conversation_id)
    if mine is None:
        raise NotFound
    if moved:
        ctx.push(conversation_mine, mine, to=own)
        quiet = await conversations.is_crowd(ctx.db, conversation_id, CROWD)
        talk = None if quiet else await conversations.find_talk(ctx.db, conversation_id)
        if talk is not None and not talk.is_blocked:
            receipt = Receipt(conversation_id, me, mine.read_seq, mine.delivered_seq)
            ctx.tell(receipt_changed, receipt, to=room_of(talk.kind, conversation_id), merge=me)
    return Marks(mine.read_seq, mine.delivered_seq)
