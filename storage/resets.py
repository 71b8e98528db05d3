"""Tokens that let somebody who forgot their password choose another."""

from uuid import UUID

import msgspec

from storage._db import Connection, load


class Forgetful(msgspec.Struct, frozen=True):
    """Whoever asks for a token, and how to write to them."""

    user_id: UUID
    username: str
    email: str
    locale: str


sql = load("resets", Forgetful)


async def lock_person(db: Connection, email: str) -> Forgetful | None:
    """The active person of an address, whatever its case, locked until the transaction ends; or None."""
    found: Forgetful | None = await sql.lock_person(db, email=email)
    return found


async def spend_resets(db: Connection, user_id: UUID) -> None:
    """Use up whatever token a person has; the caller holds their row."""
    await sql.spend_resets(db, user_id=user_id)


async def create_reset(db: Connection, user_id: UUID, hash_: bytes, ttl_s: int) -> None:
    """Store the hash of a person's new token in place of the one before, which is spent; the caller holds their row."""
    await spend_resets(db, user_id)
    await sql.create_reset(db, user_id=user_id, hash=hash_, ttl_s=ttl_s)


async def spend_reset(db: Connection, hash_: bytes) -> UUID | None:
    """Use a token up: whose password it resets, their row locked until the transaction ends; or None."""
    if await sql.lock_holder(db, hash=hash_) is None:
        return None
    user_id: UUID | None = await sql.spend_reset(db, hash=hash_)
    return user_id
