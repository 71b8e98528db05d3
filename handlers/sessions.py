"""Sessions: one a device that has signed in; seen, ended, and moved on with a fresh token."""

from uuid import UUID

import msgspec

from handlers.nothing import Done, Nothing
from handlers.rooms import the_socket
from rules.users import Scope
from server.commands import gateway
from server.commands.context import Context, Services, Work, work
from server.commands.registry import Limit, Payload, Transport, command, push, signed_in
from server.commands.tokens import spelt
from server.errors import Forbidden, NotFound, Unauthenticated
from server.rooms.names import user_room
from storage import Time, sessions
from storage.sessions import Session

LISTED = 200  # of one person; who signs in more often than that ends them all at once
EXPIRED_BATCH = 200  # sessions of one transaction of the sweep


class SessionRevoked(msgspec.Struct, frozen=True):
    """A session that has ended, and why."""

    session_id: UUID
    reason: str


session_revoked = push(
    "session:revoked", SessionRevoked, "A session has ended; its sockets are closed.", rooms=("user",)
)


class Sessions(msgspec.Struct, frozen=True):
    """The devices that are signed in: the caller's own first, then the last seen."""

    sessions: list[Session]


@command("session:list", allow=signed_in, limit=Limit.READS, reads=True)
async def list_(ctx: Context, p: Nothing) -> Sessions:
    """List the devices that are signed in to one's account."""
    return Sessions(await sessions.list_sessions(ctx.db, ctx.user.user_id, ctx.user.session_id, LISTED))


class RevokeSession(Payload, frozen=True):
    session_id: UUID


@command("session:revoke", allow=signed_in, limit=Limit.WRITES, scope=Scope.FULL)
async def revoke(ctx: Context, p: RevokeSession) -> Done:
    """Sign one of one's devices out: its tokens and sockets end. One that has ended already is left as it is."""
    if not await sessions.has_session(ctx.db, p.session_id, ctx.user.user_id):
        raise NotFound
    await end(ctx, ctx.user.user_id, p.session_id, "revoked")
    return Done()


class LogOut(Payload, frozen=True):
    all: bool = False


@command("account:logout", allow=signed_in, limit=Limit.WRITES)
async def log_out(ctx: Context, p: LogOut) -> Done:
    """Sign this device out, or with `all` every device; a token that makes no account changes ends its own alone."""
    if not p.all:
        await end(ctx, ctx.user.user_id, ctx.user.session_id, "logout")
    elif ctx.user.scope.allows(Scope.FULL):
        await end_all(ctx, ctx.user.user_id, "logout")
    else:
        raise Forbidden("This token ends no other sessions: sign in for one that does.")
    return Done()


class RenewSocket(Payload, frozen=True):
    token: str


class Renewed(msgspec.Struct, frozen=True):
    """When the socket ends now."""

    expires_at: Time


@command(
    "account:renew",
    allow=signed_in,
    limit=Limit.READS,
    transport=Transport.SOCKET,
    reads=True,
    transaction=False,
)
async def renew(ctx: Context, p: RenewSocket) -> Renewed:
    """Keep the socket beyond its token's end by a fresh token of the same session, with the scope of that one."""
    claims = ctx.services.tokens.read(p.token)
    if (claims.user_id, claims.session_id) != (ctx.user.user_id, ctx.user.session_id):
        raise Unauthenticated("This token is of another session: connect anew with it.")
    gateway.renew(the_socket(ctx), claims)
    return Renewed(spelt(claims.expires_at))


async def end(ctx: Work, user_id: UUID, session_id: UUID, reason: str) -> None:
    """End a session: its tokens now, its sockets on every instance when the push is delivered there."""
    if await sessions.end_session(ctx.db, session_id, reason):
        ctx.push(session_revoked, SessionRevoked(session_id, reason), to=user_room(user_id))


async def end_all(ctx: Work, user_id: UUID, reason: str) -> None:
    """End all of a person's sessions; the caller holds the person's row, or nobody kept from signing in anew."""
    for session_id in await sessions.end_sessions(ctx.db, user_id, reason):
        ctx.push(session_revoked, SessionRevoked(session_id, reason), to=user_room(user_id))


async def end_expired(services: Services) -> int:
    """End the sessions that stand beyond their end, batch by batch; how many have ended."""
    ended = 0
    while True:
        some = await work(services, _end_some)
        ended += some
        if some < EXPIRED_BATCH:
            return ended


async def _end_some(at_work: Work) -> int:
    found = await sessions.lock_expired(at_work.db, EXPIRED_BATCH)
    for expired in found:
        await end(at_work, expired.user_id, expired.session_id, "expired")
    return len(found)
