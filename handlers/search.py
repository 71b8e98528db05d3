"""Finding messages by their words, English and Arabic alike."""

from typing import Annotated
from uuid import UUID

import msgspec

from handlers.permissions import part_of
from server.commands.context import Context
from server.commands.pages import within
from server.commands.registry import Limit, Payload, command, signed_in
from server.errors import Invalid
from storage import messages
from storage.messages import Message

SEARCH_PAGE = 50


class SearchMessages(Payload, frozen=True):
    query: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    conversation_id: UUID | None = None
    before: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=SEARCH_PAGE)] = 20


class FoundMessages(msgspec.Struct, frozen=True):
    """A page of messages, the latest first; `next` is the `before` of the page behind it."""

    messages: list[Message]
    next: str | None


@command("message:search", allow=signed_in, limit=Limit.READS, reads=True)
async def search(ctx: Context, p: SearchMessages) -> FoundMessages:
    """Find messages by words: all of them, `"a phrase"`, `one or another`, `-without`; in one conversation, or all."""
    if p.conversation_id is not None:
        await part_of(ctx, p.conversation_id)
    found = await messages.search(
        ctx.db,
        ctx.user.user_id,
        p.query,
        conversation_id=p.conversation_id,
        before_id=None if p.before is None else _read_cursor(p.before),
        most=p.limit + 1,
    )
    page = within(found[: p.limit])
    return FoundMessages(page, str(page[-1].message_id) if len(page) < len(found) else None)


def _read_cursor(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Invalid({"before": "not a place that a page's next has named"}) from None
