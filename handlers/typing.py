"""Who is typing. Every push carries the whole list, which replaces the one before; an entry ends after six seconds."""

from uuid import UUID

import msgspec

from handlers.conversations import room_of
from handlers.nothing import Done
from handlers.permissions import participant
from rules.typing import TypingState
from server.commands.context import Context
from server.commands.registry import Limit, Payload, Transport, command, push
from server.rooms.typing import Typist
from storage import conversations


class TypingChanged(msgspec.Struct, frozen=True):
    """All who type in a conversation now."""

    conversation_id: UUID
    typing: list[Typist]


typing_changed = push(
    "typing:changed",
    TypingChanged,
    "The list of who types has changed.",
    rooms=("conversation", "thread"),
    ephemeral=True,
)


class SetTyping(Payload, frozen=True):
    conversation_id: UUID
    state: TypingState


@command("typing:set", allow=participant, limit=Limit.READS, transport=Transport.SOCKET)
async def set_(ctx: Context, p: SetTyping) -> Done:
    """Say that one types, records or has stopped; again every few seconds while it goes on."""
    talk = await conversations.find_talk(ctx.db, p.conversation_id)
    if talk is not None and not talk.is_blocked:
        ctx.services.typing.set(room_of(talk.kind, p.conversation_id), ctx.user.user_id, p.state)
    return Done()
