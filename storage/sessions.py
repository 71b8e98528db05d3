"""Sessions of devices, their refresh tokens, and what a connect reads."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from rules.users import Role, Scope
from storage._db import Connection, Time, load


class LiveSession(msgspec.Struct, frozen=True):
    """A session that stands; `stale` says that last_seen_at is over a minute old."""

    session_id: UUID
    user_id: UUID
    roles: list[Role]
    stale: bool


class Session(msgspec.Struct, frozen=True):
    """A device's session as its owner sees it; `current` is the one that asks."""

    session_id: UUID
    device: str | None
    address: str | None
    started_at: Time
    last_seen_at: Time
    current: bool


class ExpiredSession(msgspec.Struct, frozen=True):
    """A session that stands beyond its end."""

    session_id: UUID
    user_id: UUID


class RefreshToken(msgspec.Struct, frozen=True):
    token_id: UUID
    session_id: UUID
    user_id: UUID
    scope: Scope
    status: str
    expired: bool
    live: bool


class Admission(msgspec.Struct, frozen=True):
    """What a connect has to know: of `n`, its place among those asked for; of the whole; and of each room.

    `floors` are the seqs behind which the rooms' histories begin for this person. `stale` says that last_seen_at is
    over a minute old.
    """

    n: int
    stale: bool
    roles: list[Role]
    server_time: Time
    epoch: UUID
    room_ids: list[UUID]
    kinds: list[str]
    heads: list[int]
    floors: list[int]


sql = load("sessions", LiveSession, Session, ExpiredSession, RefreshToken, Admission)


async def create_session(
    db: Connection, user_id: UUID, *, device: str | None, address: str | None, scope: Scope = Scope.FULL, ttl_s: float
) -> UUID:
    """Open a session for a device that has signed in; it ends after so long, unless a refresh token is made for it."""
    session_id: UUID = await sql.create_session(
        db, user_id=user_id, device=device, address=address, scope=scope, ttl_s=ttl_s
    )
    return session_id


async def find_session(db: Connection, session_id: UUID, user_id: UUID) -> LiveSession | None:
    """The session, where it stands and its person is active."""
    found: LiveSession | None = await sql.find_session(db, session_id=session_id, user_id=user_id)
    return found


async def touch_sessions(db: Connection, session_ids: Sequence[UUID]) -> None:
    """Note that somebody uses these sessions now."""
    await sql.touch_sessions(db, session_ids=session_ids)


async def end_session(db: Connection, session_id: UUID, reason: str) -> bool:
    """End a session and its tokens; False where it had ended before."""
    ended = await sql.end_session(db, session_id=session_id, reason=reason)
    await sql.revoke_tokens(db, session_id=session_id)
    return ended is not None


async def end_sessions(db: Connection, user_id: UUID, reason: str) -> list[UUID]:
    """End all of a person's sessions and their tokens; those that stood until now."""
    ended = [row["session_id"] async for row in sql.end_sessions(db, user_id=user_id, reason=reason)]
    await sql.revoke_persons_tokens(db, user_id=user_id)
    return ended


async def has_session(db: Connection, session_id: UUID, user_id: UUID) -> bool:
    """Whether a session is, or was, this person's."""
    found: bool = await sql.has_session(db, session_id=session_id, user_id=user_id)
    return found


async def list_sessions(db: Connection, user_id: UUID, current_id: UUID, most: int) -> list[Session]:
    """A person's sessions that stand: the one that asks, then the others, the last seen first."""
    rows = sql.list_sessions(db, user_id=user_id, current_id=current_id, most=most)
    return [row async for row in rows]


async def lock_expired(db: Connection, most: int) -> list[ExpiredSession]:
    """Some of the sessions that stand beyond their end, locked until the transaction ends."""
    return [row async for row in sql.lock_expired(db, most=most)]


async def forget_devices(db: Connection, days: int, most: int) -> int:
    """Forget what devices some of the sessions were on that ended so long ago, and their addresses; how many."""
    forgotten: int = await sql.forget_devices(db, days=days, most=most)
    return forgotten


async def sweep_tokens(db: Connection, reset_days: int, most: int) -> int:
    """Delete some of the tokens that have expired, those that reset a password so long ago; how many went."""
    swept: int = await sql.sweep_tokens(db, reset_days=reset_days, most=most)
    return swept


async def create_token(db: Connection, session_id: UUID, hash_: bytes, ttl_s: int) -> None:
    """Store the hash of a new refresh token; the session ends with it."""
    await sql.move_end(db, session_id=session_id, ttl_s=ttl_s)
    await sql.create_token(db, session_id=session_id, hash=hash_, ttl_s=ttl_s)


async def lock_token(db: Connection, hash_: bytes) -> RefreshToken | None:
    """Find a refresh token by its hash, its session locked until the transaction ends; or None."""
    if await sql.lock_renewed(db, hash=hash_) is None:
        return None
    token: RefreshToken | None = await sql.find_token(db, hash=hash_)
    return token


async def spend_token(db: Connection, token_id: UUID) -> None:
    """Mark a refresh token used: its next use is somebody else's."""
    await sql.spend_token(db, token_id=token_id)


async def find_admissions(db: Connection, people: Sequence[tuple[UUID, UUID]], most: int) -> list[Admission | None]:
    """What each connect has to know, by the ids of its person and session, in the order asked for.

    Its rooms are the person's own first, then by latest activity, at most `most` + 2. None where the session has ended
    or the person is not active.
    """
    user_ids, session_ids = [user_id for user_id, _ in people], [session_id for _, session_id in people]
    found: list[Admission | None] = [None] * len(people)
    async for row in sql.find_admissions(db, user_ids=user_ids, session_ids=session_ids, most=most):
        found[row.n - 1] = row
    return found
