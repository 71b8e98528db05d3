"""People as others find them, and as administrators keep them out and let them in again."""

from typing import Annotated
from uuid import UUID

import msgspec
import structlog

from handlers.accounts import own_user, user_updated
from handlers.permissions import admin
from handlers.sessions import end_all
from rules.users import Scope, UserStatus
from server.commands.context import Context
from server.commands.registry import Limit, Payload, command, signed_in
from server.errors import Invalid, NotFound
from server.rooms.names import user_room
from storage import users
from storage.users import PublicUser, User

SEARCH_PAGE = 50

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]

logger = structlog.get_logger("parley.users")


class GetUser(Payload, frozen=True):
    user_id: UUID


@command("user:get", allow=signed_in, limit=Limit.READS, reads=True)
async def get(ctx: Context, p: GetUser) -> PublicUser:
    """Look at somebody's public profile."""
    found = await users.list_public(ctx.db, [p.user_id])
    if not found:
        raise NotFound
    return found[0]


class SearchUsers(Payload, frozen=True):
    query: Annotated[str, msgspec.Meta(min_length=2, max_length=100)]
    limit: Annotated[int, msgspec.Meta(ge=1, le=SEARCH_PAGE)] = 20


class Users(msgspec.Struct, frozen=True):
    """People as others see them."""

    users: list[PublicUser]


@command("user:search", allow=signed_in, limit=Limit.READS, reads=True)
async def search(ctx: Context, p: SearchUsers) -> Users:
    """Find active people: first those whose username begins with the query, then by their names, the closest first."""
    return Users(await users.search_users(ctx.db, p.query, p.limit))


class JudgeUser(Payload, frozen=True):
    user_id: UUID
    reason: Reason


@command("user:suspend", allow=admin, limit=Limit.WRITES, scope=Scope.FULL)
async def suspend(ctx: Context, p: JudgeUser) -> User:
    """Keep somebody out: their sessions and sockets end, and they can't sign in."""
    if p.user_id == ctx.user.user_id:
        raise Invalid({"user_id": "nobody suspends themselves"})
    return await _judge(ctx, p, UserStatus.SUSPENDED)


@command("user:restore", allow=admin, limit=Limit.WRITES, scope=Scope.FULL)
async def restore(ctx: Context, p: JudgeUser) -> User:
    """Let somebody who was suspended sign in again."""
    return await _judge(ctx, p, UserStatus.ACTIVE)


async def _judge(ctx: Context, p: JudgeUser, status: UserStatus) -> User:
    """Give somebody a status, for a reason; where they have it for that reason already, nothing is done again."""
    before = await users.lock_user(ctx.db, p.user_id)
    if before is None or before.status == UserStatus.DELETED:
        raise NotFound
    if before.status == status and p.reason == await users.find_status_reason(ctx.db, p.user_id):
        return before
    await users.set_status(ctx.db, p.user_id, status, p.reason)
    after = await own_user(ctx, p.user_id)
    if after.status != before.status:
        ctx.push(user_updated, after, to=user_room(p.user_id))
        logger.info("status_changed", user_id=str(p.user_id), status=status, by=str(ctx.user.user_id))
    if status == UserStatus.SUSPENDED:
        await end_all(ctx, p.user_id, "suspended")
    return after
