"""Deleting one's account, for good: the person at once, what they said in batches."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import Annotated
from uuid import UUID

import msgspec
import structlog

from handlers.edits import message_deleted
from handlers.forgetting import forget_blocks, forget_dealings, forget_wares
from handlers.members import go as leave_thread
from handlers.nothing import Done
from handlers.participants import go
from handlers.sessions import end_all
from handlers.threads import end
from rules.users import Scope
from server.adapters.attachments import delete_files
from server.commands.context import Context, Services, Work, work
from server.commands.registry import Limit, Payload, command, signed_in
from server.errors import ParleyError, Unauthenticated, Unavailable
from server.rooms.names import conversation_room, thread_room, user_room
from storage import conversations, erasure, members, messages, participants, threads, users
from storage.erasure import Said

BATCH = 200  # messages of one transaction, each with a push
AT_ONCE = 10  # batches before the answer; what is more goes on behind it, and after a restart
logger = structlog.get_logger("parley.erasure")

UNFINISHED = 100  # people of one run of the job


class DeleteAccount(Payload, frozen=True):
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]


@command(
    "account:delete",
    allow=signed_in,
    limit=Limit.WRITES,
    further=(Limit.LOGIN_ACCOUNT,),
    scope=Scope.FULL,
    transaction=False,
)
async def delete(ctx: Context, p: DeleteAccount) -> Done:
    """Delete one's account: everything personal goes, every device is signed out, and nobody comes back to it."""
    user_id = ctx.user.user_id
    ctx.take(Limit.LOGIN_ACCOUNT, user_id)
    async with ctx.services.database.connection() as db:
        stored = await users.find_password(db, user_id)
    if not await ctx.services.passwords.matches(stored, p.password, ctx.network):
        raise Unauthenticated("The password is wrong.")
    async with ctx.transaction():
        await users.lock_user(ctx.db, user_id)
        if await users.find_password(ctx.db, user_id) != stored:
            raise Unauthenticated("The password is wrong.")  # changed meanwhile
        await end_all(ctx, user_id, "account_deleted")
        await erasure.erase_person(ctx.db, user_id)
        # The rooms come last, and what is pushed while they are held comes behind what is blanked.
        await ctx.lock(user_room(user_id))
        await erasure.blank_events(ctx.db, user_id)
    is_all = False
    with suppress(Unavailable):  # a room is busy: the account is gone all the same
        is_all = await erase_talk(ctx.services, user_id, AT_ONCE)
    if not is_all:
        ctx.then(partial(erase_talk, ctx.services, user_id))
    return Done()


async def finish_all(services: Services) -> int:
    """Go on where an instance was stopped amid an erasure; how many people were left."""
    async with services.database.connection() as db:
        left = await erasure.list_unfinished(db, UNFINISHED)
    for user_id in left:
        try:
            await erase_talk(services, user_id)
        except ParleyError as error:  # the others are not made to wait for it; it comes again
            logger.warning("erasure_failed", user_id=str(user_id), error=error.message)
    return len(left)


async def erase_talk(services: Services, user_id: UUID, batches: float = inf) -> bool:
    """Take a deleted person out of their groups and threads, and blank what they said; whether that was all.

    What they dealt in ends first. Of wares and of words at most so many batches are done. Everybody in the rooms is
    told of each message, as of one that its sender deletes.
    """
    await _outwait(services, user_id)
    await forget_dealings(services, user_id)
    if not await forget_wares(services, user_id, batches):
        return False
    await forget_dealings(services, user_id)  # what was agreed about their wares until these had ended
    await forget_blocks(services, user_id)
    after = ""
    while batches > 0:
        batches -= 1
        async with services.database.connection() as db:
            group = await erasure.find_group(db, user_id)
            thread = None if group else await members.find_thread(db, user_id)
            found = [] if group or thread else await erasure.list_messages(db, user_id, after, BATCH)
        if group:
            await work(services, partial(_leave, group, user_id))
        elif thread:
            await work(services, partial(_leave_thread, thread, user_id))
        elif found:
            files = await work(services, partial(_blank, found))
            await delete_files(services.attachments, files)
            after = found[-1].client_id
        else:
            async with services.database.connection() as db:
                await erasure.note_finished(db, user_id)
            return True
    return False


async def _outwait(services: Services, user_id: UUID) -> None:
    """Hold each of the person's rooms once: whoever wrote there without seeing them deleted has come to an end then."""

    async def hold(at_work: Work) -> None:
        await at_work.lock_ids(*found)

    found = [UUID(int=0)]
    while found:
        async with services.database.connection() as db:
            found = await erasure.list_rooms(db, user_id, found[-1], BATCH)
        await work(services, hold)


async def _leave(group: UUID, user_id: UUID, at_work: Work) -> None:
    await conversations.lock_conversation(at_work.db, group)
    await at_work.lock(conversation_room(group), user_room(user_id))
    part = await participants.find_participant(at_work.db, group, user_id)
    if part is not None:
        await go(at_work, group, part)


async def _leave_thread(thread_id: UUID, user_id: UUID, at_work: Work) -> None:
    """Leave a thread, or delete it where its owner is the last in it: a job takes away what hangs on it."""
    thread = await threads.lock_thread(at_work.db, thread_id)
    if thread is None or thread.is_deleted or not await members.is_member(at_work.db, thread_id, user_id):
        return
    heir = await members.find_heir(at_work.db, thread_id)
    await at_work.lock(thread_room(thread_id), user_room(user_id))
    if thread.owner_id == user_id and heir is None:
        await end(at_work, thread_id, by=user_id)
    else:
        await leave_thread(at_work, thread, user_id, heir)


async def _blank(found: Sequence[Said], at_work: Work) -> list[UUID]:
    rooms = await at_work.lock_ids(*{said.conversation_id for said in found})
    # Some may have been deleted by others before the rooms were held: those have been told of.
    blanked, files = await messages.blank_messages(at_work.db, [said.message_id for said in found])
    for message in await messages.list_messages(at_work.db, blanked):
        room = rooms[message.conversation_id]
        at_work.push(message_deleted, message, to=room, message_id=message.message_id)
    return files
