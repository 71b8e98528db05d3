"""Who is in a thread: who joins it takes part in its conversation, from its beginning on, and stands in its room.

The joiner's devices, wherever they are connected, come to stand there by the durable `participant:added` in their own
room, as in a group: the log brings it to them whatever the bus loses, and its `head_seq` is where they begin, which is
right before their own `member:joined`. Leaving ends by `member:left`: in the thread's room nothing is delivered to them
behind it; where a crowd is told by an ephemeral push, the copy in their own room, always durable, shows them out.
"""

from functools import partial
from uuid import UUID

import msgspec

from handlers.conversations import LISTED_PEOPLE
from handlers.participants import ParticipantAdded, participant_added
from handlers.threads import as_seen, lock_thread, refuse_too_many, tell_changed
from rules.participants import ParticipantRole
from server.commands.context import Context, Work
from server.commands.registry import Limit, Payload, Push, command, push, signed_in
from server.errors import Forbidden, NotFound, Unauthenticated
from server.rooms.names import thread_room, user_room
from storage import conversations, members, participants, threads, users
from storage.threads import LockedThread, Thread

CROWD = 500  # members; in threads with more, comings and goings are told by ephemeral pushes


class MemberMoved(msgspec.Struct, frozen=True):
    """Somebody who has come, or gone."""

    thread_id: UUID
    user_id: UUID


member_joined = push(
    "member:joined",
    MemberMoved,
    f"Somebody has joined the thread; ephemeral above {CROWD} members.",
    rooms=("thread",),
    ephemeral_in=("thread",),
)
member_left = push(
    "member:left",
    MemberMoved,
    f"Somebody has left the thread, and hears no more of it; ephemeral in its room above {CROWD} members.",
    rooms=("thread", "user"),
    ephemeral_in=("thread",),
)


class NameThread(Payload, frozen=True):
    thread_id: UUID


@command("thread:join", allow=signed_in, limit=Limit.WRITES)
async def join(ctx: Context, p: NameThread) -> Thread:
    """Join a thread, and take part in its conversation, all of which one sees."""
    me, room = ctx.user.user_id, thread_room(p.thread_id)
    if not await users.lock_active(ctx.db, [me]):
        raise Unauthenticated("This account is closed.")
    thread = await lock_thread(ctx, p.thread_id)
    if await members.is_member(ctx.db, p.thread_id, me):
        return await as_seen(ctx, p.thread_id)  # asked again
    await ctx.lock(room, user_room(me))
    head = ctx.next_seq(room) - 1
    await members.add_member(ctx.db, p.thread_id, me, head)
    await refuse_too_many(ctx)
    await _tell_newcomer(ctx, p.thread_id, head)
    _tell_thread(ctx, member_joined, MemberMoved(p.thread_id, me), thread.member_count + 1)
    return await as_seen(ctx, p.thread_id)


async def _tell_newcomer(ctx: Context, thread_id: UUID, head: int) -> None:
    """Let the joiner's devices stand in the thread's room behind `head`."""
    me = ctx.user.user_id
    part = await participants.find_participant(ctx.db, thread_id, me)
    found = await conversations.list_conversations(ctx.db, me, [thread_id], people=LISTED_PEOPLE)
    if part is None or not found:
        raise NotFound
    conversation = msgspec.structs.replace(found[0].own(), head_seq=head)
    added = ParticipantAdded(thread_id, part, conversation)
    ctx.push(participant_added, added, to=user_room(me), message_id=thread_id)  # with the thread's title


def _tell_thread(work: Work, how: Push[MemberMoved], moved: MemberMoved, count: int) -> None:
    """Tell a thread's room, which is locked, who moved: of so many, who has moved among them."""
    if count > CROWD:
        work.tell(how, moved, to=thread_room(moved.thread_id))
    else:
        work.push(how, moved, to=thread_room(moved.thread_id))


@command("thread:leave", allow=signed_in, limit=Limit.WRITES)
async def leave(ctx: Context, p: NameThread) -> Thread:
    """Leave a thread. An owner hands over to the longest-standing member; the last one deletes it instead."""
    me = ctx.user.user_id
    thread = await lock_thread(ctx, p.thread_id)
    if not await members.is_member(ctx.db, p.thread_id, me):
        return await as_seen(ctx, p.thread_id)  # asked again
    heir = await members.find_heir(ctx.db, p.thread_id)
    if thread.owner_id == me and heir is None:
        raise Forbidden("You are the last in your thread: delete it instead.")
    await ctx.lock(thread_room(p.thread_id), user_room(me))
    await go(ctx, thread, me, heir)
    if thread.member_count > CROWD:  # no event of a log will say so
        ctx.then(partial(_review, ctx, me))
    return await as_seen(ctx, p.thread_id)


async def _review(ctx: Context, user_id: UUID) -> None:
    """Have it looked at who may still see that the person is there."""
    ctx.services.presences.review(user_id)


async def go(work: Work, thread: LockedThread, user_id: UUID, heir: UUID | None) -> None:
    """Let a member go, and the heir own the thread where they did; the thread, its room and theirs are locked."""
    await members.remove_member(work.db, thread.thread_id, user_id)
    moved = MemberMoved(thread.thread_id, user_id)
    _tell_thread(work, member_left, moved, thread.member_count)
    work.push(member_left, moved, to=user_room(user_id))
    if thread.owner_id == user_id and heir is not None:
        await threads.hand_over(work.db, thread.thread_id, heir)
        await participants.set_role(work.db, thread.thread_id, heir, ParticipantRole.OWNER)
        await tell_changed(work, thread.thread_id)


class FavorThread(Payload, frozen=True):
    thread_id: UUID
    on: bool = True


@command("thread:favorite", allow=signed_in, limit=Limit.WRITES)
async def favorite(ctx: Context, p: FavorThread) -> Thread:
    """Mark a thread that one has joined as a favorite, or no more."""
    await as_seen(ctx, p.thread_id)
    if not await members.set_favorite(ctx.db, p.thread_id, ctx.user.user_id, on=p.on):
        raise Forbidden("Join the thread first.")
    return await as_seen(ctx, p.thread_id)
