"""People as they are stored."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from rules.users import Role, UserStatus
from storage._db import Connection, Time, load


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


class Login(msgspec.Struct, frozen=True):
    """What signing in is decided by; no hash means that no password fits."""

    user_id: UUID
    password_hash: str | None
    status: UserStatus


sql = load("users", User, Login)


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


async def find_login(db: Connection, login: str) -> Login | None:
    """Find who signs in under a username or address, whatever its case."""
    found: Login | None = await sql.find_login(db, login=login)
    return found


async def find_user_id(db: Connection, username: str) -> UUID | None:
    """The id behind a username."""
    user_id: UUID | None = await sql.find_user_id(db, username=username)
    return user_id


async def touch_login(db: Connection, user_id: UUID) -> None:
    """Remember that the person signed in now."""
    await sql.touch_login(db, user_id=user_id)


async def list_active(db: Connection, user_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the ids that are active people."""
    return {row["user_id"] async for row in sql.list_active(db, user_ids=user_ids)}
