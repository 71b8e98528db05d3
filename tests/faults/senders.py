"""Clients that go on whatever happens: they keep their position, send again what was not acknowledged, and count."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import socketio

from rules.conversations import ConversationKind
from rules.participants import ParticipantRole
from server.commands.tokens import Tokens
from storage import Connection, Database, conversations, participants, rooms, sessions, users
from tests.faults.checker import Acked

ANSWER_S = 1.0  # the client library does not end a call when its connection breaks
AGAIN_S = 0.05  # between two tries: the server is down, and a client that hammers it is no help


@dataclass
class Sender:
    """Somebody who sends a number of messages to one conversation, over as many connections as that takes."""

    url: str
    token: str
    user_id: str
    conversation_id: str
    count: int
    acked: list[Acked] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    sends: int = 0
    _client: socketio.AsyncClient | None = None

    async def run(self) -> None:
        """Send all, one after the other, until each is acknowledged."""
        for n in range(self.count):
            await self._send(self._key(n))

    async def again(self) -> None:
        """Send the first message once more, as one whose ack was lost."""
        await self._send(self._key(0))

    def _key(self, n: int) -> str:
        return f"{self.user_id[-6:]}-{n}"

    async def _send(self, client_id: str) -> None:
        payload = {"conversation_id": self.conversation_id, "client_id": client_id, "text": client_id}
        while True:
            try:
                client = await self.connected()
                self.sends += 1
                answer = await client.call("message:send", payload, timeout=ANSWER_S)
            except (socketio.exceptions.SocketIOError, OSError):
                await self.drop()
                await asyncio.sleep(AGAIN_S)
                continue
            if answer["ok"]:
                data = answer["data"]
                self.acked.append(Acked(self.user_id, client_id, data["message_id"], data["seq"]))
                return
            if answer["error"]["code"] not in {"unavailable", "rate_limited"}:
                raise AssertionError(f"refused: {answer}")
            await asyncio.sleep(AGAIN_S)

    async def connected(self) -> socketio.AsyncClient:
        """The connection, a new one where the last is gone; it resumes behind what has been seen."""
        if self._client is not None and self._client.connected:
            return self._client
        await self.drop()
        client = socketio.AsyncClient(reconnection=False)
        client.on("message:created", self._hear)
        room = f"conversation:{self.conversation_id}"
        auth = {"token": self.token, "rooms": {room: self.seen[-1] if self.seen else 0}}
        try:
            await client.connect(self.url, auth=auth, transports=["websocket"], wait_timeout=3)
        except BaseException:
            if client.eio.http is not None:  # the library leaves it open when a connect fails
                await client.eio.http.close()
            raise
        self._client = client
        return client

    async def _hear(self, payload: Any, meta: Any) -> None:
        # As the contract tells clients: what is not beyond their position has been seen.
        if not self.seen or meta["seq"] > self.seen[-1]:
            self.seen.append(meta["seq"])

    async def seen_up_to(self, seq: int, seconds: float = 20.0) -> None:
        """Wait until the log's event `seq` was seen, reconnecting if need be."""
        async with asyncio.timeout(seconds):
            while not self.seen or self.seen[-1] < seq:
                try:
                    await self.connected()
                except (socketio.exceptions.SocketIOError, OSError):
                    await self.drop()
                await asyncio.sleep(AGAIN_S)

    async def drop(self) -> None:
        """Let the connection go."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.disconnect()


async def crowd(dsn: str, secret: str, url: str, people: int, chats: int, count: int) -> list[Sender]:
    """People in groups, ready to send `count` messages each: group n has every `chats`-th of them."""
    database = await Database.open(dsn, min_size=1, max_size=1)
    tokens = Tokens((secret,), access_ttl_s=3600, refresh_ttl_s=3600)

    async def make(db: Connection) -> list[Sender]:
        ids: list[UUID] = []
        for n in range(people):
            name = f"sender{n}"
            user_id = await users.create_user(db, username=name, email=f"{name}@example.org", password_hash=None)
            await rooms.create_room(db, user_id, "user")
            ids.append(user_id)
        senders = []
        for n in range(chats):
            group = ids[n::chats]
            room_id = await db.fetchval("select uuidv7()")
            await conversations.create_conversation(db, room_id, ConversationKind.GROUP, created_by=group[0])
            await rooms.create_room(db, room_id, "conversation")
            await participants.create_participants(
                db, room_id, [(user_id, ParticipantRole.MEMBER) for user_id in group]
            )
            for user_id in group:
                session_id = await sessions.create_session(db, user_id, device=None, address=None, ttl_s=3_600)
                token, _ = tokens.access(user_id, session_id)
                senders.append(Sender(url, token, str(user_id), str(room_id), count))
        return senders

    try:
        return await database.transaction(make)
    finally:
        await database.close()
