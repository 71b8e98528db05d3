"""Threads: made, found, looked at, changed, deleted. Everybody sees them; what is said there is their members'."""

import base64
import binascii
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import msgspec

from handlers.conversations import LISTED_PEOPLE, conversation_created
from handlers.emptying import empty_thread
from handlers.permissions import owner_or_administrator_at_the_lock
from rules.conversations import ConversationKind
from rules.listings import Category
from rules.users import Role
from server.commands.context import Context, Work
from server.commands.pages import within
from server.commands.registry import ClientId, Limit, Payload, command, push, signed_in
from server.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge, Unauthenticated
from server.rooms.names import thread_room, user_room
from storage import conversations, members, rooms, threads, users
from storage.threads import LockedThread, Place, SharedThread, Thread

LIST_PAGE = 100
JOINED = 1_000  # threads of one person: as many as a connect puts their sockets into
DESCRIPTION = 10_000

Title = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Description = Annotated[str, msgspec.Meta(max_length=DESCRIPTION)]


class ThreadDeleted(msgspec.Struct, frozen=True):
    """There is no such thread any more."""

    thread_id: UUID


thread_changed = push(
    "thread:changed",
    SharedThread,
    "A thread has other terms or another owner, or turned hot or cold.",
    rooms=("thread",),
)
thread_deleted = push(
    "thread:deleted", ThreadDeleted, "The thread is gone, and its room with it: nothing follows.", rooms=("thread",)
)


async def as_seen(ctx: Context, thread_id: UUID) -> Thread:
    """A thread as the caller sees it. Raises `NotFound` where there is none."""
    found = await threads.list_threads(ctx.db, ctx.user.user_id, [thread_id])
    if not found:
        raise NotFound
    return found[0]


async def lock_thread(work: Work, thread_id: UUID) -> LockedThread:
    """Lock a thread's row: before its conversation's, its listings' and any room's. Raises `NotFound`."""
    thread = await threads.lock_thread(work.db, thread_id)
    if thread is None or thread.is_deleted:
        raise NotFound
    return thread


async def tell_changed(work: Work, thread_id: UUID) -> None:
    """Push what everybody sees of a thread, which is locked with its room."""
    thread = await lock_thread(work, thread_id)
    work.push(thread_changed, thread.shared(), to=thread_room(thread_id), message_id=thread_id)


async def refuse_too_many(ctx: Context) -> None:
    """Raises `TooLarge` where the caller, whose room is locked, has joined more threads than anybody may."""
    if await members.count_joined(ctx.db, ctx.user.user_id) > JOINED:
        raise TooLarge(f"One joins at most {JOINED} threads: leave another first.", JOINED)


class CreateThread(Payload, frozen=True):
    title: Title
    category: Category
    client_id: ClientId
    description: Description | None = None


@command("thread:create", allow=signed_in, limit=Limit.WRITES, again=as_seen)
async def create(ctx: Context, p: CreateThread) -> Thread:
    """Open a thread, whose owner and first member one is."""
    me, thread_id = ctx.user.user_id, ctx.new_id
    if not await users.lock_active(ctx.db, [me]):
        raise Unauthenticated("This account is closed.")
    await threads.create_thread(ctx.db, thread_id, me, title=p.title, description=p.description, category=p.category)
    await conversations.create_conversation(
        ctx.db, thread_id, ConversationKind.THREAD, created_by=me, title=p.title, thread_id=thread_id
    )
    await rooms.create_room(ctx.db, thread_id, "thread")
    await members.create_owner(ctx.db, thread_id, me)
    await ctx.lock(user_room(me))
    await refuse_too_many(ctx)
    [made] = await conversations.list_conversations(ctx.db, me, [thread_id], people=LISTED_PEOPLE)
    ctx.push(conversation_created, made.own(), to=user_room(me), message_id=thread_id)
    return await as_seen(ctx, thread_id)


class GetThread(Payload, frozen=True):
    thread_id: UUID


@command("thread:get", allow=signed_in, limit=Limit.READS, reads=True)
async def get(ctx: Context, p: GetThread) -> Thread:
    """Look at a thread."""
    return await as_seen(ctx, p.thread_id)


class ListThreads(Payload, frozen=True):
    category: Category | None = None
    joined: bool | None = None
    before: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_PAGE)] = 50


class Threads(msgspec.Struct, frozen=True):
    """A page of threads; `next` is the `before` of the page behind it."""

    threads: list[Thread]
    next: str | None


@command("thread:list", allow=signed_in, limit=Limit.READS, reads=True)
async def list_(ctx: Context, p: ListThreads) -> Threads:
    """List threads, pinned ones first, then the newest: all, or those that one has joined, or has not."""
    places = await threads.page_threads(
        ctx.db,
        ctx.user.user_id,
        category=p.category,
        joined=p.joined,
        before=None if p.before is None else _read_cursor(p.before),
        most=p.limit + 1,
    )
    shown = places[: p.limit]
    found = await threads.list_threads(ctx.db, ctx.user.user_id, [place.thread_id for place in shown])
    page = within(found)
    if len(page) == len(found):
        return Threads(page, _cursor(shown[-1]) if len(places) > p.limit else None)
    return Threads(page, next(_cursor(place) for place in shown if place.thread_id == page[-1].thread_id))


def _cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(f"{place.is_pinned:d} {place.thread_id}".encode()).decode()


def _read_cursor(text: str) -> Place:
    """Where a page begins. Raises `Invalid` for what no page has answered."""
    try:
        pinned, _, thread_id = base64.urlsafe_b64decode(text).decode().partition(" ")
        return Place(UUID(thread_id), {"0": False, "1": True}[pinned])
    except (binascii.Error, ValueError, KeyError):
        raise Invalid({"before": "not a place that a page's next has named"}) from None


class UpdateThread(Payload, frozen=True):
    thread_id: UUID
    version: int
    title: Title | msgspec.UnsetType = msgspec.UNSET
    description: Description | msgspec.UnsetType | None = msgspec.UNSET
    category: Category | msgspec.UnsetType = msgspec.UNSET
    is_pinned: bool | msgspec.UnsetType = msgspec.UNSET


@command("thread:update", allow=owner_or_administrator_at_the_lock, limit=Limit.WRITES)
async def update(ctx: Context, p: UpdateThread) -> Thread:
    """Change a thread, as its owner; to pin it is the administrators' alone."""
    given = _given(p)
    thread = await lock_thread(ctx, p.thread_id)
    if thread.owner_id != ctx.user.user_id and given.keys() != {"is_pinned"}:
        raise Forbidden("Only its owner changes a thread.")
    if "is_pinned" in given and not await users.has_role(ctx.db, ctx.user.user_id, Role.ADMIN):
        raise Forbidden("Administrators alone pin a thread.")
    wanted = msgspec.structs.replace(thread, **given)
    if thread.version == p.version + 1 and (thread, thread.changed_by) == (wanted, ctx.user.user_id):
        return await as_seen(ctx, p.thread_id)  # asked again
    if thread.version != p.version:
        raise Conflict("version", "It has changed: look again.", await as_seen(ctx, p.thread_id))
    if wanted != thread:
        terms = {name: getattr(wanted, name) for name in ("title", "description", "category", "is_pinned")}
        await threads.update_thread(ctx.db, p.thread_id, **terms, by=ctx.user.user_id)
        await ctx.lock(thread_room(p.thread_id))
        await tell_changed(ctx, p.thread_id)
    return await as_seen(ctx, p.thread_id)


def _given(p: UpdateThread) -> dict[str, Any]:
    fields = ("title", "description", "category", "is_pinned")
    return {name: value for name in fields if (value := getattr(p, name)) is not msgspec.UNSET}


@command("thread:delete", allow=owner_or_administrator_at_the_lock, limit=Limit.WRITES)
async def delete(ctx: Context, p: GetThread) -> Thread:
    """Delete a thread with what is listed and said in it, as its owner or an administrator.

    What of its listings deals stand on is closed and stays, in no thread.
    """
    thread = await threads.lock_thread(ctx.db, p.thread_id)
    if thread is None or (thread.is_deleted and thread.changed_by != ctx.user.user_id):
        raise NotFound
    if thread.is_deleted:
        return thread.seen_by_nobody()  # asked again
    if thread.owner_id != ctx.user.user_id and not await users.has_role(ctx.db, ctx.user.user_id, Role.ADMIN):
        raise Forbidden("Only its owner, or an administrator, deletes a thread.")
    await ctx.lock(thread_room(p.thread_id))
    await end(ctx, p.thread_id, by=ctx.user.user_id)
    ctx.then(partial(empty_thread, ctx.services, p.thread_id))
    return thread.seen_by_nobody()


async def end(work: Work, thread_id: UUID, *, by: UUID) -> None:
    """Delete a thread, which is locked with its room: at once for everybody, what hangs on it in batches afterwards."""
    await threads.delete_thread(work.db, thread_id, by)
    work.push(thread_deleted, ThreadDeleted(thread_id), to=thread_room(thread_id))
