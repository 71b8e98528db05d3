"""The memory of client keys: the same user, command and client_id is the same object, for good."""

from uuid import UUID

import msgspec

from storage._db import Connection, load


class Key(msgspec.Struct, frozen=True):
    """What was asked under a key (a keyed digest) and the object it made."""

    body_hmac: bytes
    result_id: UUID


sql = load("command_keys", Key)


async def claim_key(
    db: Connection, user_id: UUID, command: str, client_id: str, body_hmac: bytes
) -> tuple[UUID, Key | None]:
    """Claim a key for a new object: its id to be and None, or the id of the object it made before and that key.

    Where another transaction is claiming the same key, this waits for it to end.
    """
    claimed: UUID | None = await sql.claim_key(
        db, user_id=user_id, command=command, client_id=client_id, body_hmac=body_hmac
    )
    if claimed is not None:
        return claimed, None
    key: Key = await sql.find_key(db, user_id=user_id, command=command, client_id=client_id)
    return key.result_id, key


async def has_key(db: Connection, user_id: UUID, command: str, client_id: str, body_hmac: bytes) -> bool:
    """Whether this has been asked under this key."""
    key: Key | None = await sql.find_key(db, user_id=user_id, command=command, client_id=client_id)
    return key is not None and key.body_hmac == body_hmac


async def point_key(db: Connection, user_id: UUID, command: str, client_id: str, result_id: UUID) -> None:
    """Let a claimed key answer with an object that was there before."""
    await sql.point_key(db, user_id=user_id, command=command, client_id=client_id, result_id=result_id)
