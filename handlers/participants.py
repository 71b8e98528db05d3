"""Who takes part in a group: let in, shown out."""

from uuid import UUID

import msgspec

from handlers.conversations import LISTED_PEOPLE, as_seen, tell_updated
from handlers.nothing import Done
from handlers.permissions import part_of, participant, participant_at_the_lock
from rules.conversations import ConversationKind
from rules.participants import ParticipantRole, may_add, may_promote, may_remove
from server.commands.context import Context, Work
from server.commands.registry import Limit, Payload, command, push
from server.errors import Conflict, Forbidden, NotFound, TooLarge
from server.rooms.names import conversation_room, user_room
from storage import blocks, conversations, participants, users
from storage.conversations import Conversation, OwnConversation
from storage.participants import Participant


class ParticipantAdded(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody was let in; in their own room, with the conversation they find (and whose head_seq they begin at)."""

    conversation_id: UUID
    participant: Participant
    conversation: OwnConversation | None = None


class ParticipantRemoved(msgspec.Struct, frozen=True):
    """Somebody was shown out by somebody."""

    conversation_id: UUID
    user_id: UUID
    by: UUID


participant_added = push(
    "participant:added",
    ParticipantAdded,
    "Somebody takes part in the conversation now.",
    rooms=("conversation", "user"),
)
participant_removed = push(
    "participant:removed",
    ParticipantRemoved,
    "Somebody takes part no more, and hears no more.",
    rooms=("conversation", "user"),
)


participant_changed = push(
    "participant:changed",
    ParticipantAdded,
    "Somebody who takes part has another role.",
    rooms=("conversation",),
)


class AddParticipant(Payload, frozen=True):
    conversation_id: UUID
    user_id: UUID
    role: ParticipantRole = ParticipantRole.MEMBER


@command("participant:add", allow=participant, limit=Limit.WRITES, raises=(Conflict,))
async def add(ctx: Context, p: AddParticipant) -> Conversation:
    """Let somebody into a group; they see it from here on. Owners let in anybody, admins members."""
    is_there = bool(await users.lock_active(ctx.db, [p.user_id]))
    actor, target = await _lock_and_judge(ctx, p.conversation_id, p.user_id)
    if not may_add(actor.role, p.role):
        raise Forbidden(f"As {actor.role} you may not add somebody as {p.role}.")
    if target is not None:
        return await _known_as(ctx, p, target)
    if not is_there:
        raise NotFound
    if await blocks.between(ctx.db, ctx.user.user_id, [p.user_id]):
        raise Conflict("blocked", "One of you has blocked the other.", await as_seen(ctx, p.conversation_id))
    most = ctx.services.bounds.group_people
    if await participants.count_participants(ctx.db, p.conversation_id) >= most:
        raise TooLarge(f"A group has at most {most} people.", most)
    room = conversation_room(p.conversation_id)
    seq = ctx.next_seq(room)
    await participants.add_participant(ctx.db, p.conversation_id, p.user_id, p.role, seq)
    newcomer = await participants.find_participant(ctx.db, p.conversation_id, p.user_id)
    found = await conversations.list_conversations(ctx.db, p.user_id, [p.conversation_id], people=LISTED_PEOPLE)
    if newcomer is None or not found:
        raise NotFound
    conversation = msgspec.structs.replace(found[0].own(), head_seq=seq)
    ctx.push(participant_added, ParticipantAdded(p.conversation_id, newcomer), to=room)
    ctx.push(participant_added, ParticipantAdded(p.conversation_id, newcomer, conversation), to=user_room(p.user_id))
    return msgspec.structs.replace(await as_seen(ctx, p.conversation_id), head_seq=seq)


async def _known_as(ctx: Context, p: AddParticipant, target: Participant) -> Conversation:
    """The conversation, for whoever adds once more. Raises `Conflict` where the person has another role in it."""
    conversation = await as_seen(ctx, p.conversation_id)
    if target.role != p.role:
        message = f"They take part already, as {target.role}: participant:promote gives another role."
        raise Conflict("version", message, conversation)
    return conversation


class RemoveParticipant(Payload, frozen=True):
    conversation_id: UUID
    user_id: UUID


@command("participant:remove", allow=participant, limit=Limit.WRITES)
async def remove(ctx: Context, p: RemoveParticipant) -> Conversation:
    """Show somebody out of a group: nothing they send is stored and nothing reaches them after it."""
    actor, target = await _lock_and_judge(ctx, p.conversation_id, p.user_id)
    if target is None:
        if may_remove(actor.role, ParticipantRole.MEMBER) and await participants.has_left(
            ctx.db, p.conversation_id, p.user_id
        ):
            return await as_seen(ctx, p.conversation_id)  # asked again
        raise NotFound
    if not may_remove(actor.role, target.role):
        raise Forbidden(f"As {actor.role} you may not remove somebody who is {target.role}.")
    seq = ctx.next_seq(conversation_room(p.conversation_id))
    await _show_out(ctx, p.conversation_id, p.user_id, by=ctx.user.user_id)
    return msgspec.structs.replace(await as_seen(ctx, p.conversation_id), head_seq=seq)


class PromoteParticipant(Payload, frozen=True):
    conversation_id: UUID
    user_id: UUID
    role: ParticipantRole = ParticipantRole.ADMIN


@command("participant:promote", allow=participant, limit=Limit.WRITES)
async def promote(ctx: Context, p: PromoteParticipant) -> Conversation:
    """Give somebody in a group another role: its owner may, and is an admin once it is given away. Admins step down."""
    actor, target = await _lock_and_judge(ctx, p.conversation_id, p.user_id)
    if target is None:
        raise NotFound
    if not may_promote(actor.role, target.role, p.role, oneself=p.user_id == ctx.user.user_id):
        raise Forbidden(f"As {actor.role} you may not make somebody who is {target.role} {p.role}.")
    if target.role == p.role:
        return await as_seen(ctx, p.conversation_id)  # asked again
    if p.role == ParticipantRole.OWNER:
        await _give_role(ctx, p.conversation_id, ctx.user.user_id, ParticipantRole.ADMIN)
    await _give_role(ctx, p.conversation_id, p.user_id, p.role)
    await tell_updated(ctx, p.conversation_id, p.user_id)
    return await as_seen(ctx, p.conversation_id)


class LeaveConversation(Payload, frozen=True):
    conversation_id: UUID


@command("conversation:leave", allow=participant_at_the_lock, limit=Limit.WRITES)
async def leave(ctx: Context, p: LeaveConversation) -> Done:
    """Leave a group. An owner hands over to the longest-standing admin, or else member."""
    if await participants.has_left(ctx.db, p.conversation_id, ctx.user.user_id):
        return Done()  # asked again
    await part_of(ctx, p.conversation_id)
    header = await conversations.lock_conversation(ctx.db, p.conversation_id)
    await ctx.lock(conversation_room(p.conversation_id), user_room(ctx.user.user_id))
    part = await participants.find_participant(ctx.db, p.conversation_id, ctx.user.user_id)
    if header is None or part is None:
        return Done()  # shown out meanwhile
    if header.kind == ConversationKind.THREAD:
        raise Forbidden("It is a thread's: thread:leave leaves both.")
    if header.kind != ConversationKind.GROUP:
        raise Forbidden("Only a group can be left: archive the conversation, or block the person.")
    await go(ctx, p.conversation_id, part)
    return Done()


async def go(ctx: Work, conversation_id: UUID, part: Participant) -> None:
    """Let somebody leave a group, and an heir be its owner; the group, its room and theirs are locked."""
    await _show_out(ctx, conversation_id, part.user_id, by=part.user_id)
    if part.role == ParticipantRole.OWNER:
        heir = await participants.find_heir(ctx.db, conversation_id)
        if heir is not None:
            await _give_role(ctx, conversation_id, heir, ParticipantRole.OWNER)
            await tell_updated(ctx, conversation_id, heir)


async def _show_out(ctx: Work, conversation_id: UUID, user_id: UUID, *, by: UUID) -> None:
    await participants.remove_participant(ctx.db, conversation_id, user_id)
    removed = ParticipantRemoved(conversation_id, user_id, by)
    ctx.push(participant_removed, removed, to=conversation_room(conversation_id))
    ctx.push(participant_removed, removed, to=user_room(user_id))


async def _give_role(ctx: Work, conversation_id: UUID, user_id: UUID, role: ParticipantRole) -> None:
    await participants.set_role(ctx.db, conversation_id, user_id, role)
    changed = await participants.find_participant(ctx.db, conversation_id, user_id)
    if changed is not None:
        ctx.push(participant_changed, ParticipantAdded(conversation_id, changed), to=conversation_room(conversation_id))


async def _lock_and_judge(ctx: Context, conversation_id: UUID, user_id: UUID) -> tuple[Participant, Participant | None]:
    """Lock the conversation, its room and the person's; then the caller's part and the person's, as they are now.

    Raises `NotFound` where the caller takes no part, `Forbidden` where the conversation is not a group.
    """
    header = await conversations.lock_conversation(ctx.db, conversation_id)
    await ctx.lock(conversation_room(conversation_id), user_room(user_id))
    actor = await participants.find_participant(ctx.db, conversation_id, ctx.user.user_id)
    if header is None or actor is None:
        raise NotFound
    if header.kind != ConversationKind.GROUP:
        raise Forbidden(
            "Only a group lets people in and shows them out; a thread is joined and left by each for themselves."
        )
    return actor, await participants.find_participant(ctx.db, conversation_id, user_id)
