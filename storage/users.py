"""People as they are stored."""

import re
from collections.abc import Sequence
from uuid import UUID

import msgspec

from rules.users import Role, UserStatus
from storage._db import Connection, Time, load
from storage._errors import TAKEN


class PublicUser(msgspec.Struct, frozen=True):
    """An account as others see it."""

    user_id: UUID
    username: str
    full_name: str | None
    full_name_ar: str | None
    profile_picture_url: str | None
    roles: list[Role]
    verified: bool
    seller_rating: float | None
    total_sales: int


class User(msgspec.Struct, frozen=True):
    """An account as its owner sees it."""

    user_id: UUID
    username: str
    email: str
    full_name: str | None
    full_name_ar: str | None
    phone: str | None
    whatsapp_number: str | None
    profile_picture_url: str | None
    locale: str
    roles: list[Role]
    status: UserStatus
    verified: bool
    seller_rating: float | None
    total_sales: int
    preferences: msgspec.Raw
    notification_channels: list[str]
    at: Time

    def public(self) -> PublicUser:
        """What others see of it."""
        return PublicUser(*(getattr(self, name) for name in PublicUser.__struct_fields__))


class Login(msgspec.Struct, frozen=True):
    """What signing in is decided by; no hash means that no password fits."""

    user_id: UUID
    password_hash: str | None
    status: UserStatus


class TalkRoom(msgspec.Struct, frozen=True):
    """Where somebody is heard."""

    room_id: UUID
    kind: str


SEARCHED = 500  # people of that name who are compared for closeness
_INSIDE = re.compile(r"[a-z0-9\u0621-\u064a]{3}", re.IGNORECASE)
"""What may be found inside of a word: the index knows nothing shorter. All else is looked for where words begin."""

_encode = msgspec.json.Encoder().encode

sql = load("users", User, PublicUser, Login, TalkRoom)


async def check_free(
    db: Connection, *, username: str, email: str, phone: str | None, whatsapp_number: str | None
) -> None:
    """A cheap look before an expensive step: `create_user` decides.

    Raises `Conflict` (taken) where somebody has one of these.
    """
    taken = await sql.find_taken(db, username=username, email=email, phone=phone, whatsapp_number=whatsapp_number)
    if taken is not None:
        raise TAKEN[taken]()


async def create_user(
    db: Connection,
    *,
    username: str,
    email: str,
    password_hash: str | None,
    full_name: str | None = None,
    full_name_ar: str | None = None,
    phone: str | None = None,
    whatsapp_number: str | None = None,
    locale: str = "en",
) -> UUID:
    """Add a person. Raises `Conflict` (taken) through the constraint that is in the way."""
    user_id: UUID = await sql.create_user(
        db,
        username=username,
        email=email,
        password_hash=password_hash,
        full_name=full_name,
        full_name_ar=full_name_ar,
        phone=phone,
        whatsapp_number=whatsapp_number,
        locale=locale,
    )
    return user_id


async def get_user(db: Connection, user_id: UUID) -> User | None:
    """The account, or None."""
    user: User | None = await sql.get_user(db, user_id=user_id)
    return user


async def lock_user(db: Connection, user_id: UUID) -> User | None:
    """The account, locked until the transaction ends, or None."""
    user: User | None = await sql.lock_user(db, user_id=user_id)
    return user


async def update_user(db: Connection, user: User) -> User | None:
    """Store what people write of themselves; the account as it is now, None where nothing is new.

    Raises `Conflict` (taken) through the constraint that is in the way.
    """
    updated: User | None = await sql.update_user(db, account=_encode(user).decode())
    return updated


async def count_sales(db: Connection, user_id: UUID, by: int) -> None:
    """Count deals that somebody has made as a seller, or take them back; the caller holds the row."""
    await sql.count_sales(db, user_id=user_id, by=by)


async def set_status(db: Connection, user_id: UUID, status: UserStatus, reason: str) -> None:
    """Let somebody in or keep them out, and remember why."""
    await sql.set_status(db, user_id=user_id, status=status, reason=reason)


async def find_status_reason(db: Connection, user_id: UUID) -> str | None:
    """Why somebody's status was last changed."""
    reason: str | None = await sql.find_status_reason(db, user_id=user_id)
    return reason


async def has_role(db: Connection, user_id: UUID, role: Role) -> bool:
    """Whether somebody who is active holds a role now."""
    held: bool = await sql.has_role(db, user_id=user_id, role=role)
    return held


async def set_roles(db: Connection, user_id: UUID, roles: Sequence[Role]) -> None:
    """Say which roles somebody holds."""
    await sql.set_roles(db, user_id=user_id, roles=roles)


async def list_usernames(db: Connection, role: Role) -> list[str]:
    """The usernames of those who hold a role."""
    return [row["username"] async for row in sql.list_usernames(db, role=role)]


async def set_password(db: Connection, user_id: UUID, password_hash: str) -> None:
    """Let another password fit."""
    await sql.set_password(db, user_id=user_id, password_hash=password_hash)


async def find_password(db: Connection, user_id: UUID) -> str | None:
    """The hash of an active person's password; None where none fits."""
    found: str | None = await sql.find_password(db, user_id=user_id)
    return found


async def list_public(db: Connection, user_ids: Sequence[UUID]) -> list[PublicUser]:
    """What others see of these people, in the order given; those who are unknown or deleted are left out."""
    return [row async for row in sql.list_public(db, user_ids=user_ids)]


async def search_users(db: Connection, query: str, most: int) -> list[PublicUser]:
    """The active people whose username begins with the query, then those whose names contain it or come close to it."""
    escaped = re.sub(r"([\\%_])", r"\\\1", query)
    pattern = f"%{escaped}%" if _INSIDE.search(query) else f"% {escaped}%"
    rows = sql.search_users(db, query=query, pattern=pattern, candidates=SEARCHED, most=most)
    return await list_public(db, [row["user_id"] async for row in rows])


async def list_talk_rooms(db: Connection, user_id: UUID, most: int) -> list[TalkRoom]:
    """The rooms of the conversations that somebody takes part in, the most recently active first."""
    return [row async for row in sql.list_talk_rooms(db, user_id=user_id, most=most)]


async def find_login(db: Connection, login: str) -> Login | None:
    """Find who signs in under a username or address, whatever its case."""
    found: Login | None = await sql.find_login(db, login=login)
    return found


async def find_user_id(db: Connection, username: str) -> UUID | None:
    """The id behind a username."""
    user_id: UUID | None = await sql.find_user_id(db, username=username)
    return user_id


async def touch_login(db: Connection, user_id: UUID, password_hash: str) -> bool:
    """Remember that the person signed in now; False where they are not active any more, or this is not their password.

    Whoever ends all of their sessions comes before or behind it, by the lock on the person's row.
    """
    return await sql.touch_login(db, user_id=user_id, password_hash=password_hash) is not None


async def lock_users(db: Connection, user_ids: Sequence[UUID]) -> None:
    """Lock people's rows until the transaction ends, in order of id, before anything else of theirs."""
    async for _ in sql.lock_users(db, user_ids=user_ids):
        pass


async def lock_active(db: Connection, user_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the ids that are active people, and stay so until the transaction ends; before any room is locked."""
    return {row["user_id"] async for row in sql.lock_active(db, user_ids=user_ids)}
