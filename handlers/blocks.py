"""Blocks: whom one wants to hear nothing of. Those who are blocked are told nothing of it."""

from uuid import UUID

import msgspec

from handlers.endings import end_between
from handlers.nothing import Done, Nothing
from handlers.users import Users
from server.commands.context import Context
from server.commands.registry import Limit, Payload, command, push, signed_in
from server.errors import Invalid, NotFound, TooLarge
from server.rooms.names import user_room
from storage import blocks, users

BLOCKS = 1_000  # of one person


class BlockChanged(msgspec.Struct, frozen=True):
    """Somebody whom one has blocked, or blocks no more."""

    user_id: UUID
    blocked: bool


block_changed = push(
    "block:changed", BlockChanged, "One has blocked somebody on another device, or does so no more.", rooms=("user",)
)


class BlockUser(Payload, frozen=True):
    user_id: UUID


@command("user:block", allow=signed_in, limit=Limit.WRITES)
async def block(ctx: Context, p: BlockUser) -> Done:
    """Block somebody; one who is blocked already stays so."""
    await _check(ctx, p)
    # Whoever makes one of the two an offer meanwhile holds them both: it comes before this, and ends, or sees it.
    await users.lock_users(ctx.db, [ctx.user.user_id, p.user_id])
    if await blocks.create_block(ctx.db, ctx.user.user_id, p.user_id):
        changes = await end_between(ctx, ctx.user.user_id, p.user_id)
        await changes.tell()
        ctx.push(block_changed, BlockChanged(p.user_id, blocked=True), to=user_room(ctx.user.user_id))
        ctx.then(lambda: _review(ctx, p.user_id))
    if await blocks.count_blocks(ctx.db, ctx.user.user_id) > BLOCKS:
        raise TooLarge(f"One blocks at most {BLOCKS} people.", BLOCKS)
    return Done()


@command("user:unblock", allow=signed_in, limit=Limit.WRITES)
async def unblock(ctx: Context, p: BlockUser) -> Done:
    """Block somebody no more; one who is not blocked stays so."""
    await _check(ctx, p)
    if await blocks.delete_block(ctx.db, ctx.user.user_id, p.user_id):
        ctx.push(block_changed, BlockChanged(p.user_id, blocked=False), to=user_room(ctx.user.user_id))
    return Done()


@command("user:blocks", allow=signed_in, limit=Limit.READS, reads=True)
async def list_(ctx: Context, p: Nothing) -> Users:
    """List the people one has blocked, the latest first."""
    return Users(await users.list_public(ctx.db, await blocks.list_blocked(ctx.db, ctx.user.user_id)))


async def _review(ctx: Context, user_id: UUID) -> None:
    """Neither sees any more whether the other is there."""
    for one in (ctx.user.user_id, user_id):
        ctx.services.presences.review(one)


async def _check(ctx: Context, p: BlockUser) -> None:
    """Somebody else who is there. Raises `Invalid` or `NotFound`."""
    if p.user_id == ctx.user.user_id:
        raise Invalid({"user_id": "nobody blocks themselves"})
    if not await users.list_public(ctx.db, [p.user_id]):
        raise NotFound
