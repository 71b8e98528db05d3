"""Who talks in a round: people with sessions and groups, written straight into the tables."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

from rules.conversations import ConversationKind
from rules.participants import ParticipantRole
from server.commands.tokens import Tokens
from storage import Connection, Database, conversations, participants, rooms, sessions, users

TTL_S = 24 * 3600


@dataclass(frozen=True)
class Someone:
    """Somebody with a token, and the conversations they talk in."""

    name: str
    user_id: str
    token: str
    conversation_ids: tuple[str, ...]


async def crowd(dsn: str, secret: str, people: int, chats: int) -> list[Someone]:
    """New people in new groups: each in two of them, neighbours, where there is more than one."""
    database = await Database.open(dsn, min_size=1, max_size=1)
    tokens = Tokens((secret,), access_ttl_s=TTL_S, refresh_ttl_s=TTL_S)

    async def make(db: Connection) -> list[Someone]:
        ids, names = [], [f"p{n}.{uuid4().hex[:12]}" for n in range(people)]
        for name in names:
            user_id = await users.create_user(db, username=name, email=f"{name}@example.org", password_hash=None)
            await rooms.create_room(db, user_id, "user")
            ids.append(user_id)
        places: list[list[UUID]] = [[] for _ in ids]
        for chat in range(chats):
            members = [n for n in range(people) if chat in (n % chats, (n + 1) % chats)]
            room_id = await db.fetchval("select uuidv7()")
            await conversations.create_conversation(db, room_id, ConversationKind.GROUP, created_by=ids[members[0]])
            await rooms.create_room(db, room_id, "conversation")
            await participants.create_participants(db, room_id, [(ids[n], ParticipantRole.MEMBER) for n in members])
            for n in members:
                places[n].append(room_id)
        made = []
        for name, user_id, place in zip(names, ids, places, strict=True):
            session_id = await sessions.create_session(db, user_id, device=None, address=None, ttl_s=TTL_S)
            token, _ = tokens.access(user_id, session_id)
            made.append(Someone(name, str(user_id), token, tuple(map(str, place))))
        return made

    try:
        return await database.transaction(make)
    finally:
        await database.close()
