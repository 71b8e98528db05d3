"""Accounts: registering, signing in, renewing, and who one is."""

from typing import Annotated
from uuid import UUID

import msgspec

from rules.users import Scope, UserStatus
from server.commands.context import Context
from server.commands.registry import Limit, Payload, Transport, anyone, command, push, signed_in
from server.commands.tokens import hash_refresh_token, new_refresh_token
from server.errors import NotFound, Unauthenticated
from server.rooms.names import user_room
from storage import Time, rooms, sessions, users
from storage.users import User

Username = Annotated[str, msgspec.Meta(min_length=2, max_length=64, pattern=r"\A[\w.-]+\Z")]
Email = Annotated[str, msgspec.Meta(min_length=3, max_length=254, pattern=r"\A[^@\s]+@[^@\s]+\Z")]
Password = Annotated[str, msgspec.Meta(min_length=8, max_length=1_000)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Phone = Annotated[str, msgspec.Meta(min_length=3, max_length=32, pattern=r"\A\+?[0-9 ()./-]+\Z")]
WhatsApp = Annotated[str, msgspec.Meta(pattern=r"\A\+[1-9][0-9]{6,14}\Z")]
Locale = Annotated[str, msgspec.Meta(min_length=2, max_length=35, pattern=r"\A[A-Za-z0-9-]+\Z")]


class SignedIn(msgspec.Struct, frozen=True):
    """A session's tokens; `expires_at` is the access token's end."""

    user: User
    access_token: str
    refresh_token: str
    expires_at: Time


class SessionRevoked(msgspec.Struct, frozen=True):
    """A session that has ended, and why."""

    session_id: UUID
    reason: str


session_revoked = push(
    "session:revoked", SessionRevoked, "A session has ended; its sockets are closed.", rooms=("user",)
)


class Register(Payload, frozen=True):
    username: Username
    email: Email
    password: Password
    full_name: Name | None = None
    full_name_ar: Name | None = None
    phone: Phone | None = None
    whatsapp_number: WhatsApp | None = None
    locale: Locale = "en"


@command("account:register", allow=anyone, limit=Limit.WRITES, transport=Transport.HTTP, transaction=False)
async def register(ctx: Context, p: Register) -> SignedIn:
    """Open an account and sign in to it."""
    password_hash = await ctx.services.passwords.hash(p.password)
    async with ctx.transaction():
        user_id = await users.create_user(
            ctx.db,
            username=p.username,
            email=p.email,
            password_hash=password_hash,
            full_name=p.full_name,
            full_name_ar=p.full_name_ar,
            phone=p.phone,
            whatsapp_number=p.whatsapp_number,
            locale=p.locale,
        )
        await rooms.create_room(ctx.db, user_id, "user")
        return await open_session(ctx, user_id, device=None)


class LogIn(Payload, frozen=True):
    login: Annotated[str, msgspec.Meta(min_length=1, max_length=254)]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
    device: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None


@command("account:login", allow=anyone, limit=Limit.LOGIN, transport=Transport.HTTP, transaction=False)
async def log_in(ctx: Context, p: LogIn) -> SignedIn:
    """Sign in by username or e-mail address. Unknown people and wrong passwords get the same answer, as late."""
    async with ctx.services.database.connection() as db:
        found = await users.find_login(db, p.login)
    # By the account, whichever of its names was typed; a name of nobody's is limited as if it were somebody's.
    ctx.take(Limit.LOGIN_ACCOUNT, found.user_id if found else p.login.lower())
    fits = await ctx.services.passwords.matches(found.password_hash if found else None, p.password)
    if found is None or not fits or found.status != UserStatus.ACTIVE:
        raise Unauthenticated("Username or password is wrong.")
    async with ctx.transaction():
        await users.touch_login(ctx.db, found.user_id)
        return await open_session(ctx, found.user_id, device=p.device)


class Refresh(Payload, frozen=True):
    refresh_token: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


@command("account:refresh", allow=anyone, limit=Limit.WRITES, transport=Transport.HTTP, transaction=False)
async def refresh(ctx: Context, p: Refresh) -> SignedIn:
    """Renew the tokens. The refresh token is spent; using it again ends the session, for somebody has a copy."""
    async with ctx.transaction():
        token = await sessions.lock_token(ctx.db, hash_refresh_token(p.refresh_token))
        if token is not None and token.live and token.status == "active" and not token.expired:
            await sessions.spend_token(ctx.db, token.token_id)
            return await issue(ctx, token.user_id, token.session_id, Scope(token.scope))
        if token is not None and token.status == "revoked" and token.live:
            await revoke(ctx, token.user_id, token.session_id, "refresh_token_reused")
    raise Unauthenticated("This refresh token is spent, expired or unknown: sign in again.")


class Nothing(Payload, frozen=True):
    """No fields."""


@command("account:me", allow=signed_in, limit=Limit.READS, reads=True)
async def me(ctx: Context, p: Nothing) -> User:
    """Read one's own account."""
    return await own_user(ctx, ctx.user.user_id)


async def own_user(ctx: Context, user_id: UUID) -> User:
    """An account as its owner sees it. Raises `NotFound`."""
    user = await users.get_user(ctx.db, user_id)
    if user is None:
        raise NotFound
    return user


async def open_session(ctx: Context, user_id: UUID, *, device: str | None) -> SignedIn:
    """Open a session for the device that calls, and issue its first tokens."""
    session_id = await sessions.create_session(
        ctx.db, user_id, device=device or ctx.call.agent[:200] or None, address=ctx.call.address
    )
    return await issue(ctx, user_id, session_id, Scope.FULL)


async def issue(ctx: Context, user_id: UUID, session_id: UUID, scope: Scope) -> SignedIn:
    """Issue a session's tokens: an access token, and the one refresh token that renews it."""
    tokens = ctx.services.tokens
    refresh_token, stored = new_refresh_token()
    await sessions.create_token(ctx.db, session_id, stored, tokens.refresh_ttl_s)
    access_token, expires_at = tokens.access(user_id, session_id, scope)
    return SignedIn(await own_user(ctx, user_id), access_token, refresh_token, expires_at)


async def revoke(ctx: Context, user_id: UUID, session_id: UUID, reason: str) -> None:
    """End a session: its tokens now, its sockets on every instance when the push is delivered there."""
    if await sessions.end_session(ctx.db, session_id, reason):
        ctx.push(session_revoked, SessionRevoked(session_id, reason), to=user_room(user_id))
