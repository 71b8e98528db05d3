"""Conversations: opened, listed, looked at."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from handlers.permissions import participant
from rules.conversations import ConversationKind
from rules.participants import ParticipantRole
from server.commands.context import Context
from server.commands.pages import within
from server.commands.registry import ClientId, Limit, Payload, command, push, signed_in
from server.errors import Invalid, NotFound, TooLarge
from server.rooms.names import user_room
from storage import conversations, participants, rooms, users
from storage.conversations import Conversation, OwnConversation, Place

LIST_PAGE = 100
LISTED_PEOPLE = 20  # of each conversation, but where one is looked at alone

Title = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]

conversation_created = push(
    "conversation:created",
    OwnConversation,
    "One is in a new conversation; the server has joined one's sockets to it.",
    rooms=("user",),
)


class CreateConversation(Payload, frozen=True):
    kind: Literal["private", "group"]
    user_ids: list[UUID]
    client_id: ClientId
    title: Title | None = None
    listing_id: UUID | None = None


async def as_seen(ctx: Context, conversation_id: UUID, *, people: int = LISTED_PEOPLE) -> Conversation:
    """A conversation as the caller sees it. Raises `NotFound` where they take no part in it."""
    found = await conversations.list_conversations(ctx.db, ctx.user.user_id, [conversation_id], people=people)
    if not found:
        raise NotFound
    return found[0]


@command("conversation:create", allow=signed_in, limit=Limit.WRITES, again=as_seen)
async def create(ctx: Context, p: CreateConversation) -> Conversation:
    """Open a conversation. A private one is unique for the pair and listing: where it exists, it is the answer."""
    others = list(dict.fromkeys(user_id for user_id in p.user_ids if user_id != ctx.user.user_id))
    _check(p, others, ctx.services.bounds.group_people)
    pair = (ctx.user.user_id, others[0]) if p.kind == "private" else None
    if len(await users.list_active(ctx.db, others)) < len(others):
        raise NotFound
    made = await conversations.create_conversation(
        ctx.db,
        ctx.new_id,
        ConversationKind(p.kind),
        created_by=ctx.user.user_id,
        title=p.title,
        listing_id=p.listing_id,
        pair=pair,
    )
    if not made and pair is not None:
        ctx.result_id = await conversations.find_private(ctx.db, pair, p.listing_id)
        if ctx.result_id is None:
            raise NotFound
        return await as_seen(ctx, ctx.result_id)
    owner = ParticipantRole.MEMBER if pair else ParticipantRole.OWNER
    people = [(ctx.user.user_id, owner), *((user_id, ParticipantRole.MEMBER) for user_id in others)]
    await rooms.create_room(ctx.db, ctx.new_id, "conversation")
    await participants.create_participants(ctx.db, ctx.new_id, people)
    conversation = await as_seen(ctx, ctx.new_id)
    await ctx.lock(*(user_room(user_id) for user_id, _ in people))
    for user_id, _ in people:
        ctx.push(conversation_created, conversation.own(), to=user_room(user_id))
    return conversation


def _check(p: CreateConversation, others: list[UUID], most: int) -> None:
    """The rules of form that the types can't say. Raises `Invalid` or `TooLarge`."""
    if p.kind == "private":
        if len(others) != 1:
            raise Invalid({"user_ids": "a private conversation has exactly one other person"})
        if p.title is not None:
            raise Invalid({"title": "a private conversation has no title"})
    if len(others) + 1 > most:
        raise TooLarge(f"user_ids: a group has at most {most} people.", most)


class ListConversations(Payload, frozen=True):
    archived: bool = False
    before: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_PAGE)] = 50


class Conversations(msgspec.Struct, frozen=True):
    """A page of conversations; `next` is the `before` of the page behind it."""

    conversations: list[Conversation]
    next: str | None


@command("conversation:list", allow=signed_in, limit=Limit.READS, reads=True)
async def list_(ctx: Context, p: ListConversations) -> Conversations:
    """List one's conversations, the latest activity first."""
    places = await conversations.page_conversations(
        ctx.db,
        ctx.user.user_id,
        archived=p.archived,
        before=None if p.before is None else _read_cursor(p.before),
        most=p.limit + 1,
    )
    found = await conversations.list_conversations(
        ctx.db, ctx.user.user_id, [place.conversation_id for place in places[: p.limit]], people=LISTED_PEOPLE
    )
    page = within(found)
    if len(page) == len(found) and len(places) <= p.limit:
        return Conversations(page, None)
    # Behind the last that is on the page; where people have just left all of them, behind the places that were read.
    last = page[-1].conversation_id if len(page) < len(found) else places[: p.limit][-1].conversation_id
    return Conversations(page, next(_cursor(place) for place in places if place.conversation_id == last))


def _cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(f"{place.last_at} {place.conversation_id}".encode()).decode()


def _read_cursor(text: str) -> Place:
    """Where a page begins. Raises `Invalid` for what no page has answered."""
    try:
        at, _, conversation_id = base64.urlsafe_b64decode(text).decode().partition(" ")
        if not at.endswith("Z") or not msgspec.convert(at, datetime):
            raise ValueError("not a time of ours")
        return msgspec.convert({"conversation_id": conversation_id, "last_at": at}, Place)
    except (binascii.Error, ValueError):
        raise Invalid({"before": "not a place that a page's next has named"}) from None


class GetConversation(Payload, frozen=True):
    conversation_id: UUID


@command("conversation:get", allow=participant, limit=Limit.READS, reads=True)
async def get(ctx: Context, p: GetConversation) -> Conversation:
    """Look at a conversation with all of its people."""
    return await as_seen(ctx, p.conversation_id, people=ctx.services.bounds.group_people)
