"""Accounts: registering, signing in, renewing, and who one is."""

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from handlers.nothing import Nothing
from handlers.sessions import end
from rules.users import OWN_ROLES, Role, Scope, UserStatus, label_fault, phone_fault, username_fault
from server.commands.context import Context, encode
from server.commands.registry import Limit, Payload, Transport, anyone, command, push, signed_in
from server.commands.tokens import hash_stored_token, new_stored_token
from server.errors import Conflict, Invalid, NotFound, RateLimited, TooLarge, Unauthenticated
from server.rooms.names import Room, user_room
from storage import Time, resets, rooms, sessions, users
from storage.users import PublicUser, User

# What an erasure leaves of a name and an address is nobody's to take beforehand.
Username = Annotated[str, msgspec.Meta(min_length=2, max_length=64, pattern=r"\A(?!(?i:deleted-))[\w.-]+\Z")]
Email = Annotated[
    str, msgspec.Meta(min_length=3, max_length=254, pattern=r"\A(?!.*(?i:@deleted\.invalid)\Z)[^@\s]+@[^@\s]+\Z")
]
Password = Annotated[str, msgspec.Meta(min_length=8, max_length=1_000)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Phone = Annotated[str, msgspec.Meta(min_length=3, max_length=32, pattern=r"\A\+?[0-9 ()./-]+\Z")]
WhatsApp = Annotated[str, msgspec.Meta(pattern=r"\A\+[1-9][0-9]{6,14}\Z")]
Locale = Annotated[str, msgspec.Meta(min_length=2, max_length=35, pattern=r"\A[A-Za-z0-9-]+\Z")]

PictureUrl = Annotated[str, msgspec.Meta(max_length=2_000, pattern=r"\Ahttps://[^\s/?#]+[^\s]*\Z")]
Channel = Annotated[str, msgspec.Meta(min_length=1, max_length=32, pattern=r"\A[a-z_]+\Z")]

PREFERENCES_BYTES = 16 * 1024
CHANNELS = 16
TOLD_CONVERSATIONS = 1_000  # the most recently active ones hear of a profile that has changed


class SignedIn(msgspec.Struct, frozen=True):
    """A session's tokens; `expires_at` is the access token's end."""

    user: User
    access_token: str
    refresh_token: str
    expires_at: Time


user_updated = push("user:updated", User, "One's account has changed.", rooms=("user",))
profile_changed = push(
    "profile:changed",
    PublicUser,
    "Somebody who takes part has changed what others see of them.",
    rooms=("conversation", "thread"),
    ephemeral=True,
)


FAULTS = {
    "username": username_fault,
    "full_name": label_fault,
    "full_name_ar": label_fault,
    "device": label_fault,
    "phone": phone_fault,
}


class Named(Payload, frozen=True):
    """What people and devices are called, judged by the rules too. Raises `Invalid`."""

    def __post_init__(self) -> None:
        given = {name: text for name in FAULTS if isinstance(text := getattr(self, name, None), str)}
        faults = {name: fault for name, text in given.items() if (fault := FAULTS[name](text))}
        if faults:
            raise Invalid(faults)


class Register(Named, frozen=True):
    username: Username
    email: Email
    password: Password
    full_name: Name | None = None
    full_name_ar: Name | None = None
    phone: Phone | None = None
    whatsapp_number: WhatsApp | None = None
    locale: Locale = "en"


@command(
    "account:register",
    allow=anyone,
    limit=Limit.WRITES,
    transport=Transport.HTTP,
    transaction=False,
    raises=(Conflict,),
)
async def register(ctx: Context, p: Register) -> SignedIn:
    """Open an account and sign in to it."""
    async with ctx.services.database.connection() as db:
        await users.check_free(db, username=p.username, email=p.email, phone=p.phone, whatsapp_number=p.whatsapp_number)
    password_hash = await ctx.services.passwords.hash(p.password, ctx.network)
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


class LogIn(Named, frozen=True):
    login: Annotated[str, msgspec.Meta(min_length=1, max_length=254)]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
    device: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None


@command(
    "account:login",
    allow=anyone,
    limit=Limit.LOGIN,
    further=(Limit.LOGIN_ACCOUNT,),
    transport=Transport.HTTP,
    transaction=False,
)
async def log_in(ctx: Context, p: LogIn) -> SignedIn:
    """Sign in by username or e-mail address. Unknown people and wrong passwords get the same answer, as late."""
    # What was typed alone decides about `rate_limited`: it must not tell which names are one account's, or anybody's.
    ctx.take(Limit.LOGIN_ACCOUNT, ("login", p.login.lower()))
    async with ctx.services.database.connection() as db:
        found = await users.find_login(db, p.login)
    may_try = found is not None and _take_try(ctx, found.user_id)
    fits = await ctx.services.passwords.matches(found.password_hash if found else None, p.password, ctx.network)
    if found is None or not may_try or not fits or found.status != UserStatus.ACTIVE:
        raise Unauthenticated("Username or password is wrong.")
    async with ctx.transaction():
        if await users.touch_login(ctx.db, found.user_id, found.password_hash or ""):
            return await open_session(ctx, found.user_id, device=p.device)
    raise Unauthenticated("Username or password is wrong.")


def _take_try(ctx: Context, user_id: UUID) -> bool:
    """Count a try at an account's password, under whichever of its names; False where it has had too many."""
    try:
        ctx.take(Limit.LOGIN_ACCOUNT, user_id)
    except RateLimited:
        return False
    return True


class Refresh(Payload, frozen=True):
    refresh_token: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


@command("account:refresh", allow=anyone, limit=Limit.WRITES, transport=Transport.HTTP, transaction=False)
async def refresh(ctx: Context, p: Refresh) -> SignedIn:
    """Renew the tokens. The refresh token is spent; using it again ends the session, for somebody has a copy."""
    async with ctx.transaction():
        token = await sessions.lock_token(ctx.db, hash_stored_token(p.refresh_token))
        if token is not None and token.live and token.status == "active" and not token.expired:
            await sessions.spend_token(ctx.db, token.token_id)
            return await issue(ctx, token.user_id, token.session_id, Scope(token.scope))
        if token is not None and token.status == "revoked" and token.live:
            await end(ctx, token.user_id, token.session_id, "refresh_token_reused")
    raise Unauthenticated("This refresh token is spent, expired or unknown: sign in again.")


@command("account:me", allow=signed_in, limit=Limit.READS, reads=True)
async def me(ctx: Context, p: Nothing) -> User:
    """Read one's own account."""
    return await own_user(ctx, ctx.user.user_id)


class UpdateAccount(Named, frozen=True):
    username: Username | UnsetType = UNSET
    email: Email | UnsetType = UNSET
    full_name: Name | UnsetType | None = UNSET
    full_name_ar: Name | UnsetType | None = UNSET
    phone: Phone | UnsetType | None = UNSET
    whatsapp_number: WhatsApp | UnsetType | None = UNSET
    profile_picture_url: PictureUrl | UnsetType | None = UNSET
    locale: Locale | UnsetType = UNSET
    preferences: dict[str, Any] | UnsetType = UNSET
    notification_channels: Annotated[list[Channel], msgspec.Meta(max_length=CHANNELS)] | UnsetType = UNSET
    roles: list[Literal["buyer", "seller", "mentor"]] | UnsetType = UNSET


@command(
    "account:update",
    allow=signed_in,
    limit=Limit.WRITES,
    further=(Limit.LOGIN_ACCOUNT,),
    scope=Scope.FULL,
    raises=(Conflict,),
)
async def update(ctx: Context, p: UpdateAccount) -> User:
    """Change one's account: null clears a field, absence keeps it. Nobody becomes an administrator by it."""
    before = await users.lock_user(ctx.db, ctx.user.user_id)
    if before is None or before.status != UserStatus.ACTIVE:
        raise Unauthenticated("This account is closed.")  # its sockets are about to be
    after = await users.update_user(ctx.db, _changed(before, p))
    if after is None:
        return before
    if after.email != before.email:
        # Nobody has proved that it was theirs, and it is written to: as often as one that forgets, and no more.
        ctx.take(Limit.LOGIN_ACCOUNT, ("left", before.email.lower()))
        await resets.spend_resets(ctx.db, after.user_id)  # mailed to an address that is theirs no more
        ctx.then(lambda: ctx.services.notifier.email_changed(before.email, before.username, before.locale))
    ctx.push(user_updated, after, to=user_room(after.user_id))
    if after.public() != before.public():
        for room in await users.list_talk_rooms(ctx.db, after.user_id, TOLD_CONVERSATIONS):
            ctx.tell(profile_changed, after.public(), to=Room(room.kind, room.room_id), merge=after.user_id)
    return after


def _changed(user: User, p: UpdateAccount) -> User:
    """The account as it is wanted. Raises `TooLarge`."""
    given = {name: value for name in p.__struct_fields__ if (value := getattr(p, name)) is not UNSET}
    if "preferences" in given:
        encoded = encode(given["preferences"])
        if len(encoded) > PREFERENCES_BYTES:
            raise TooLarge(f"preferences: more than {PREFERENCES_BYTES} bytes of JSON.", PREFERENCES_BYTES)
        given["preferences"] = msgspec.Raw(encoded)
    if "notification_channels" in given:
        given["notification_channels"] = list(dict.fromkeys(given["notification_channels"]))
    if "roles" in given:
        kept = {*given["roles"], *(role for role in user.roles if role not in OWN_ROLES)}
        given["roles"] = [role for role in Role if role in kept]
    return msgspec.structs.replace(user, **given)


async def own_user(ctx: Context, user_id: UUID) -> User:
    """An account as its owner sees it. Raises `NotFound`."""
    user = await users.get_user(ctx.db, user_id)
    if user is None:
        raise NotFound
    return user


async def open_session(ctx: Context, user_id: UUID, *, device: str | None) -> SignedIn:
    """Open a session for the device that calls, and issue its first tokens."""
    agent = ctx.call.agent[:200]  # what a client says of itself, in bytes of its choice
    session_id = await sessions.create_session(
        ctx.db,
        user_id,
        device=device or (None if label_fault(agent) else agent),
        address=ctx.call.address,
        ttl_s=ctx.services.tokens.refresh_ttl_s,
    )
    return await issue(ctx, user_id, session_id, Scope.FULL)


async def issue(ctx: Context, user_id: UUID, session_id: UUID, scope: Scope) -> SignedIn:
    """Issue a session's tokens: an access token, and the one refresh token that renews it."""
    tokens = ctx.services.tokens
    refresh_token, stored = new_stored_token()
    await sessions.create_token(ctx.db, session_id, stored, tokens.refresh_ttl_s)
    access_token, expires_at = tokens.access(user_id, session_id, scope)
    return SignedIn(await own_user(ctx, user_id), access_token, refresh_token, expires_at)
