"""Who takes part in a conversation, as it is stored."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from rules.participants import ParticipantRole
from storage._db import Connection, Time, load


class Participant(msgspec.Struct, frozen=True):
    """One person's part; history and replay begin behind `joined_seq`.

    In a private conversation of which one has blocked the other, the other's marks are 0.
    """

    user_id: UUID
    role: ParticipantRole
    joined_at: Time
    joined_seq: int
    read_seq: int
    delivered_seq: int


class ParticipantRow(msgspec.Struct, frozen=True):
    conversation_id: UUID
    user_id: UUID
    role: ParticipantRole
    joined_at: Time
    joined_seq: int
    read_seq: int
    delivered_seq: int

    def participant(self) -> Participant:
        return Participant(self.user_id, self.role, self.joined_at, self.joined_seq, self.read_seq, self.delivered_seq)


class Place(msgspec.Struct, frozen=True):
    """Where a conversation begins for a person, and its head, in one snapshot."""

    user_id: UUID
    conversation_id: UUID
    joined_seq: int
    head_seq: int


sql = load("participants", Participant, ParticipantRow, Place)


async def create_participants(
    db: Connection, conversation_id: UUID, people: Sequence[tuple[UUID, ParticipantRole]]
) -> None:
    """Write the people a new conversation begins with; they see all of it."""
    await sql.create_participants(
        db,
        conversation_id=conversation_id,
        user_ids=[user_id for user_id, _ in people],
        roles=[role for _, role in people],
    )


async def add_participant(
    db: Connection, conversation_id: UUID, user_id: UUID, role: ParticipantRole, joined_seq: int
) -> None:
    """Let a person in, or in again; what lies at or before `joined_seq` stays unseen."""
    await sql.add_participant(db, conversation_id=conversation_id, user_id=user_id, role=role, joined_seq=joined_seq)


async def remove_participant(db: Connection, conversation_id: UUID, user_id: UUID) -> None:
    """Show a person out."""
    await sql.remove_participant(db, conversation_id=conversation_id, user_id=user_id)


async def find_participant(db: Connection, conversation_id: UUID, user_id: UUID) -> Participant | None:
    """A person's part in a conversation as it is now, or None."""
    found: Participant | None = await sql.find_participant(db, conversation_id=conversation_id, user_id=user_id)
    return found


async def has_left(db: Connection, conversation_id: UUID, user_id: UUID) -> bool:
    """Whether a person took part once and does so no more."""
    left: bool = await sql.has_left(db, conversation_id=conversation_id, user_id=user_id)
    return left


async def count_participants(db: Connection, conversation_id: UUID) -> int:
    """How many take part now."""
    count: int = await sql.count_participants(db, conversation_id=conversation_id)
    return count


async def list_participants(
    db: Connection, viewer_id: UUID, conversation_ids: Sequence[UUID], most: int
) -> dict[UUID, list[Participant]]:
    """Of each conversation the first `most` people by joining, as the viewer sees them."""
    found: dict[UUID, list[Participant]] = {id_: [] for id_ in conversation_ids}
    rows = sql.list_participants(db, viewer_id=viewer_id, conversation_ids=conversation_ids, most=most)
    async for row in rows:
        found[row.conversation_id].append(row.participant())
    return found


async def list_places(db: Connection, askers: Sequence[tuple[UUID, UUID]], kind: str) -> list[Place]:
    """Of these people and conversations, pair by pair, those who take part, where the room is of that kind."""
    user_ids, conversation_ids = [user_id for user_id, _ in askers], [room_id for _, room_id in askers]
    rows = sql.list_places(db, user_ids=user_ids, conversation_ids=conversation_ids, kind=kind)
    return [row async for row in rows]


async def set_role(db: Connection, conversation_id: UUID, user_id: UUID, role: ParticipantRole) -> None:
    """Give somebody who takes part another role."""
    await sql.set_role(db, conversation_id=conversation_id, user_id=user_id, role=role)


async def find_heir(db: Connection, conversation_id: UUID) -> UUID | None:
    """Who owns a group when its owner has gone: the longest-standing admin, then member; None where nobody is left."""
    heir: UUID | None = await sql.find_heir(db, conversation_id=conversation_id)
    return heir
