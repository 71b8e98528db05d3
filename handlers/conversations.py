"""Conversations: opened, listed, looked at."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from handlers.permissions import participant
from rules.conversations import ConversationKind
from rules.participants import ParticipantRole, may_rename
from server.commands.context import Context, Work, digest
from server.commands.pages import within
from server.commands.registry import ClientId, Limit, Payload, command, push, signed_in
from server.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from server.rooms.names import Room, conversation_room, thread_room, user_room
from storage import as_time, blocks, command_keys, conversations, listings, participants, rooms, users
from storage.conversations import Conversation, Header, Mine, OwnConversation, Place, SharedConversation

LIST_PAGE = 100
LISTED_PEOPLE = 20  # of each conversation, but where one is looked at alone

Title = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]

conversation_created = push(
    "conversation:created",
    OwnConversation,
    "One is in a new conversation; the server has joined one's sockets to it.",
    rooms=("user",),
)

conversation_updated = push(
    "conversation:updated", SharedConversation, "What all of its people see has changed.", rooms=("conversation",)
)
conversation_mine = push(
    "conversation:mine",
    Mine,
    "One's own fields of a conversation have changed, on whatever device; receipts included.",
    rooms=("user",),
)


class CreateConversation(Payload, frozen=True):
    kind: Literal["private", "group"]
    user_ids: list[UUID]
    client_id: ClientId
    title: Title | None = None
    listing_id: UUID | None = None


def room_of(kind: ConversationKind, conversation_id: UUID) -> Room:
    """Where a conversation is heard: a thread's in the thread's room."""
    return thread_room(conversation_id) if kind == ConversationKind.THREAD else conversation_room(conversation_id)


async def as_seen(ctx: Context, conversation_id: UUID, *, people: int = LISTED_PEOPLE) -> Conversation:
    """A conversation as the caller sees it. Raises `NotFound` where they take no part in it."""
    found = await conversations.list_conversations(ctx.db, ctx.user.user_id, [conversation_id], people=people)
    if not found:
        raise NotFound
    return found[0]


@command("conversation:create", allow=signed_in, limit=Limit.WRITES, again=as_seen)
async def create(ctx: Context, p: CreateConversation) -> Conversation:
    """Open a conversation. A private one is unique for the pair and listing: where it exists, it is the answer."""
    me = ctx.user.user_id
    others = list(dict.fromkeys(user_id for user_id in p.user_ids if user_id != me))
    _check(p, others, ctx.services.bounds.group_people)
    pair = (me, others[0]) if p.kind == "private" else None
    if len(await users.lock_active(ctx.db, [me, *others])) <= len(others):
        raise NotFound
    if p.listing_id is not None and not await listings.keep_visible(ctx.db, p.listing_id):
        raise NotFound
    if pair is not None:
        known = await conversations.find_private(ctx.db, pair, p.listing_id)
        if known is not None:
            ctx.result_id = known
            return await as_seen(ctx, known)
    if await blocks.between(ctx.db, me, others):
        raise Conflict("blocked", "One of you has blocked the other.")
    made = await conversations.create_conversation(
        ctx.db,
        ctx.new_id,
        ConversationKind(p.kind),
        created_by=me,
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
    people = [(me, owner), *((user_id, ParticipantRole.MEMBER) for user_id in others)]
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


class UpdateConversation(Payload, frozen=True):
    conversation_id: UUID
    version: int | None = None
    title: Title | msgspec.UnsetType | None = msgspec.UNSET
    archived: bool | msgspec.UnsetType = msgspec.UNSET
    muted_until: Annotated[datetime, msgspec.Meta(tz=True)] | msgspec.UnsetType | None = msgspec.UNSET
    pinned: bool | msgspec.UnsetType = msgspec.UNSET


@command("conversation:update", allow=participant, limit=Limit.WRITES)
async def update(ctx: Context, p: UpdateConversation) -> Conversation:
    """Change a group's title, for all; or what is one's own: archived, muted until, pinned. A title needs `version`."""
    header = await conversations.lock_conversation(ctx.db, p.conversation_id)
    await ctx.lock(conversation_room(p.conversation_id), user_room(ctx.user.user_id))
    part = await participants.find_participant(ctx.db, p.conversation_id, ctx.user.user_id)
    if header is None or part is None:
        raise NotFound
    if p.title is not msgspec.UNSET:
        await _rename(ctx, p, header, part.role, p.title)
    await _change_own(ctx, p)
    return await as_seen(ctx, p.conversation_id)


async def _rename(
    ctx: Context, p: UpdateConversation, header: Header, role: ParticipantRole, title: str | None
) -> None:
    if header.kind == ConversationKind.THREAD:
        raise Forbidden("Its title is the thread's: thread:update changes it.")
    if header.kind != ConversationKind.GROUP:
        raise Forbidden("Only a group has a title.")
    if not may_rename(role):
        raise Forbidden(f"As {role} you may not change the title.")
    if p.version is None:
        raise Invalid({"version": "required with title: the version that you saw"})
    if (header.version, header.title, header.changed_by) == (p.version + 1, title, ctx.user.user_id):
        return  # asked again
    key = _key(ctx, UpdateConversation(p.conversation_id, p.version, title))
    if header.version != p.version:
        if await command_keys.has_key(ctx.db, *key):
            return  # asked again, and changed since
        raise Conflict("version", "It has changed: look again.", await as_seen(ctx, p.conversation_id))
    await conversations.rename(ctx.db, p.conversation_id, title, ctx.user.user_id)
    await command_keys.claim_key(ctx.db, *key)
    await tell_updated(ctx, p.conversation_id, ctx.user.user_id)


def _key(ctx: Context, asked: UpdateConversation) -> tuple[UUID, str, str, bytes]:
    """What a person's new title of a version is remembered under, for when it is asked again after others."""
    name = ctx.call.command.name
    return (
        ctx.user.user_id,
        name,
        f"{asked.conversation_id} {asked.version}",
        digest(ctx.services.digest_key, name, asked),
    )


async def tell_updated(ctx: Work, conversation_id: UUID, viewer_id: UUID) -> None:
    """Push what all see of a conversation, whose room is locked; `viewer_id` is anybody who takes part."""
    [found] = await conversations.list_conversations(ctx.db, viewer_id, [conversation_id], people=LISTED_PEOPLE)
    room = conversation_room(conversation_id)
    shared = msgspec.structs.replace(found.shared(), head_seq=ctx.next_seq(room))
    ctx.push(conversation_updated, shared, to=room)


async def _change_own(ctx: Context, p: UpdateConversation) -> None:
    mine = await conversations.get_mine(ctx.db, ctx.user.user_id, p.conversation_id)
    if mine is None:
        raise NotFound
    muted = p.muted_until
    wanted = msgspec.structs.replace(
        mine,
        archived=mine.archived if p.archived is msgspec.UNSET else p.archived,
        muted_until=mine.muted_until if muted is msgspec.UNSET else muted and as_time(muted),
        pinned=mine.pinned if p.pinned is msgspec.UNSET else p.pinned,
    )
    if wanted == mine:
        return
    await conversations.set_mine(
        ctx.db,
        ctx.user.user_id,
        p.conversation_id,
        archived=wanted.archived,
        muted_until=wanted.muted_until,
        pinned=wanted.pinned,
    )
    if mine.archived and not wanted.archived:
        # Their sockets may not stand in it: they are joined from here on.
        head = ctx.next_seq(conversation_room(p.conversation_id)) - 1
        wanted = msgspec.structs.replace(wanted, head_seq=head)
    ctx.push(conversation_mine, wanted, to=user_room(ctx.user.user_id))
