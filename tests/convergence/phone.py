"""A phone as a mobile developer writes it from the wire contract: a snapshot, then pushes, and nothing else.

It names its rooms when it comes back, orders by seq, drops what it has, fills holes by `room:sync`, and loads afresh
what `hello.reset` names. An ack changes nothing in it. What it shows it has from:

- title, version, listing_id …: `conversation:created`, `participant:added` in its own room, `conversation:updated`.
- participants, participant_count: `participant:added`, `changed`, `removed`; `conversation:updated` where it lists all.
- read_seq, delivered_seq, muted_until, archived, pinned: `conversation:mine`.
- messages: `message:created`, `edited`, `deleted`, `reacted`, each with the whole message.
- last_message: the message with the highest seq. head_seq: the seq of the room's last event that it has applied.
- unread_count: the messages of others behind its own read_seq that are not deleted.
- its own profile: `user:updated`; whom it has blocked: `block:changed`.

`unread_count` of `conversation:mine` is not used: which of the conversation's events it has counted is not said, and
the two rooms come in no common order. A phone that has not loaded all that is unread can't know the number for certain.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import socketio

from tests.people import PATIENCE_S, Instance, Refusal, unwrap

HISTORY_PAGE = 4  # small pages, so that there are several
SYNC_PAGE = 3
LIST_PAGE = 2
ARCHIVE_PAGE = 100
TRIES = 5
UNREAD_CAP = 1_000

MINE = ("read_seq", "delivered_seq", "muted_until", "archived", "pinned")
SHARED = ("kind", "title", "listing_id", "thread_id", "version", "at")
MARKS = ("read_seq", "delivered_seq")

Object = dict[str, Any]


class Cut(Exception):
    """The connection is gone; whether what was asked has been done is unknown."""


def conversation_room(conversation_id: str) -> str:
    """The room of a conversation that is no thread's."""
    return f"conversation:{conversation_id}"


@dataclass
class Chat:
    """A conversation as the phone has it. `told` is how the server last showed it whole.

    `is_followed` is false where the phone does not stand in its room: what is in the archive it looks at when it is
    shown, and not before.
    """

    told: Object
    me: str
    position: int
    is_followed: bool = True
    people: dict[str, Object] = field(default_factory=dict)
    messages: dict[str, Object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shared = {name: self.told[name] for name in SHARED}
        self.mine = {name: self.told[name] for name in MINE}
        self.people = {person["user_id"]: person for person in self.told["participants"]}

    @property
    def joined_seq(self) -> int:
        """Where the conversation begins for its viewer."""
        return int(self.people[self.me]["joined_seq"]) if self.me in self.people else 0

    def keep(self, message: Object) -> None:
        """Take a message as it is now."""
        self.messages[message["message_id"]] = message

    def place(self, person: Object) -> None:
        """Take somebody's part as it is now; their marks never move back."""
        known = self.people.get(person["user_id"])
        if known is not None and known["joined_seq"] == person["joined_seq"]:
            person = {**person, **{mark: max(known[mark], person[mark]) for mark in MARKS}}
        self.people[person["user_id"]] = person

    def list_all(self, people: list[Object]) -> None:
        """Take a list of everybody who takes part."""
        gone = self.people.keys() - {person["user_id"] for person in people}
        for user_id in gone:
            del self.people[user_id]
        for person in people:
            self.place(person)

    def mark(self, user_id: str, marks: Mapping[str, Any]) -> None:
        """Take somebody's marks."""
        if user_id in self.people:
            self.place({**self.people[user_id], **{mark: marks[mark] for mark in MARKS}})

    def shown(self) -> Object:
        """All that the phone shows of it, as `conversation:get` spells it, but for the order of the people."""
        behind = max(self.mine["read_seq"], self.joined_seq)
        unread = [
            message
            for message in self.messages.values()
            if message["seq"] > behind and message["sender_id"] != self.me and message["deleted_at"] is None
        ]
        return {
            "conversation_id": self.told["conversation_id"],
            **self.shared,
            **self.mine,
            "participants": self.people,
            "participant_count": len(self.people),
            "unread_count": min(len(unread), UNREAD_CAP),
            "last_message": max(self.messages.values(), key=lambda message: message["seq"], default=None),
            "head_seq": self.position,
        }


class Phone:
    """Somebody's device. One that `keeps_archive` stands in archived conversations too; another looks at them later."""

    def __init__(
        self, instance: Instance, user_id: str, token: str, *, keeps_archive: bool, asked: set[str] | None = None
    ) -> None:
        self.instance = instance
        self.token = token
        self.me = user_id
        self.room = f"user:{user_id}"
        self.keeps_archive = keeps_archive
        self.asked = set() if asked is None else asked
        self.chats: dict[str, Chat] = {}
        self.user: Object = {}
        self.blocked: set[str] = set()
        self.position = 0
        self.epoch: str | None = None
        self.is_loaded = False
        self.heads: dict[str, int] = {}  # by room, the highest seq that this connection has heard of
        self.early: list[str] = []  # messages of before one's joining that were pushed all the same
        self.heard: list[str] = []  # what it was told and did, for whoever has to find out
        self.resets = 0
        self.synced = 0
        self._client: socketio.AsyncClient | None = None
        self._worker: asyncio.Task[None] | None = None
        self._inbox: asyncio.Queue[tuple[str, Any, Mapping[str, Any]]] = asyncio.Queue()
        self._cut = asyncio.Event()
        self._moved = asyncio.Event()
        self._is_busy = False
        self._named: dict[str, int] = {}
        self._left: list[str] = []
        self._greeted: dict[str, int] = {}
        self._threads: set[str] = set()  # the conversations that are threads', whose rooms are called so

    def room_of(self, conversation_id: str) -> str:
        """The room of a conversation."""
        return f"thread:{conversation_id}" if conversation_id in self._threads else conversation_room(conversation_id)

    # the connection

    @property
    def is_connected(self) -> bool:
        """Whether it has a socket that it knows nothing bad of."""
        return self._client is not None and not self._cut.is_set()

    async def connect(self, to: Instance, **auth: Any) -> None:
        """Connect, naming the rooms it has; `auth` says something else than it would. The hello is still to come."""
        await self.disconnect()
        self.instance = to
        self._named = {self.room: self.position} if self.is_loaded else {}
        for conversation_id, chat in self.chats.items():
            if self.keeps_archive or not chat.mine["archived"] or conversation_id in self._threads:
                self._named[self.room_of(conversation_id)] = chat.position
            else:
                chat.is_followed = False
        self._named |= self.watched()
        self.heard.append(f"connect {self._named} {auth}")
        said = {"token": self.token, "epoch": self.epoch, "rooms": self._named, **auth}
        inbox: asyncio.Queue[tuple[str, Any, Mapping[str, Any]]] = asyncio.Queue()
        cut = asyncio.Event()
        client = socketio.AsyncClient(reconnection=False)
        client.on("*", lambda name, payload=None, meta=None: inbox.put_nowait((name, payload, meta or {})))
        client.on("disconnect", cut.set)
        await client.connect(
            to.url,
            auth={key: value for key, value in said.items() if value is not None},
            transports=["websocket"],
            wait_timeout=10,
        )
        self._client, self._inbox, self._cut, self.heads, self._left = client, inbox, cut, {}, []
        self._is_busy = True  # until the hello has been taken
        self._worker = asyncio.create_task(self._work(inbox))

    def watched(self) -> dict[str, int]:
        """The rooms beside its own and its conversations' that it stands in, and its positions there."""
        return {}

    async def disconnect(self) -> None:
        """Go, as an app does that is closed: what has come and was not looked at is lost."""
        if self._worker is not None:
            self._worker.cancel()
            done = await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None
            for error in done:
                if isinstance(error, Exception):
                    raise error
        if self._client is not None:
            client, self._client = self._client, None
            await client.disconnect()
            if client.eio.http is not None:
                await client.eio.http.close()  # the library leaves it open when the connection broke

    async def break_off(self) -> None:
        """Lose the connection, as in a tunnel; neither side says goodbye."""
        if self.is_connected:
            assert self._client is not None
            self._client.eio.ws._response.connection.transport.abort()
            await self.gone()

    async def gone(self) -> None:
        """Wait until the connection has ended."""
        async with asyncio.timeout(PATIENCE_S):
            await self._cut.wait()

    async def call(self, command: str, payload: Object) -> Object:
        """The whole answer to a command on the socket. Raises `Cut`."""
        if not self.is_connected:
            raise Cut
        assert self._client is not None
        calling = asyncio.ensure_future(self._client.call(command, payload, timeout=PATIENCE_S))
        cut = asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait({calling, cut}, return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                raise Cut
            answer: Object = calling.result()
        except socketio.exceptions.SocketIOError:
            raise Cut from None
        finally:
            calling.cancel()
            cut.cancel()
        return answer

    async def ask(self, command: str, **payload: Any) -> Any:
        """The data of an answer over HTTP. Raises `Refusal`."""
        for _ in range(TRIES):
            _, answer = await self.instance.post(command, payload, token=self.token)
            if answer["ok"] or answer["error"]["code"] != "unavailable":
                break
        data = unwrap(answer)
        self.asked.add(command)
        return data

    # what comes

    async def _work(self, inbox: asyncio.Queue[tuple[str, Any, Mapping[str, Any]]]) -> None:
        """Take what comes, one after the other."""
        try:
            while True:
                name, payload, meta = await inbox.get()
                self._is_busy = True
                await self._take(name, payload, meta)
                self._is_busy = False
                self._moved.set()
        except Cut:
            pass  # it comes back
        except Refusal as refusal:
            if refusal.code != "unauthenticated":  # signed out: it comes back when it has signed in again
                raise
        finally:
            self._moved.set()

    async def _take(self, name: str, payload: Any, meta: Mapping[str, Any]) -> None:
        self.heard.append(f"{name} {payload if not meta or 'message' not in name else payload['seq']} {dict(meta)}")
        if name == "hello":
            await self._greet(payload)
        elif not meta and name in ("leave", "return"):  # what its own screen asks for
            await (self._leave(payload) if name == "leave" else self._rejoin(payload))
        elif "seq" in meta:
            await self._hear(meta["room"], name, payload, meta["seq"])
        elif name == "receipt:changed" and (chat := self.chats.get(payload["conversation_id"])) is not None:
            chat.mark(payload["user_id"], payload)

    async def reaches(self, heads: Mapping[str, int]) -> None:
        """Wait until it has applied everything up to these heads, but for rooms that it does not follow."""

        def behind() -> dict[str, tuple[int, int | None]]:
            rooms = {room: (head, self._position(room)) for room, head in heads.items() if self._follows(room)}
            return {room: (head, at) for room, (head, at) in rooms.items() if at is None or at < head}

        try:
            async with asyncio.timeout(PATIENCE_S):
                while (behind() or self._is_busy or not self._inbox.empty()) and self.is_connected:
                    if self._worker is not None and self._worker.done():
                        break
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            told = "\n  ".join(self.heard[-60:])
            raise AssertionError(f"never heard up to the head, (head, heard): {behind()}; heard\n  {told}") from None
        if self._worker is not None and self._worker.done():
            self._worker.result()
        assert not behind(), f"cut off, (head, heard): {behind()}"

    def _follows(self, room: str) -> bool:
        chat = self.chats.get(room.partition(":")[2])
        return room == self.room or chat is None or chat.is_followed

    def _position(self, room: str) -> int | None:
        if room == self.room:
            return self.position
        chat = self.chats.get(room.partition(":")[2])
        return None if chat is None else chat.position

    async def _greet(self, hello: Object) -> None:
        """Drop what one may not see any more, load afresh what can't be filled, fill what was not named."""
        self.heads = dict(hello["rooms"])
        self._greeted = hello["rooms"]
        self._threads |= {room.partition(":")[2] for room in self.heads if room.startswith("thread:")}
        self.resets += len(hello["reset"])
        if not self.is_loaded or self.room in hello["reset"]:
            await self._load_all()
        else:
            for conversation_id, chat in list(self.chats.items()):
                room = self.room_of(conversation_id)
                head = self.heads.get(room)
                if head is None and room in self._named:
                    del self.chats[conversation_id]
                elif room in hello["reset"]:
                    await self._load(conversation_id)
                elif head is not None:
                    chat.is_followed = True
                    if room not in self._named and head > chat.position:
                        await self._sync(room)
        await self._greet_watched(hello)
        self.epoch = hello["epoch"]  # last: cut off before, it has all of that to do again

    async def _greet_watched(self, hello: Object) -> None:
        """The same of the rooms that it watches beside."""

    async def _load_all(self) -> None:
        """The first snapshot: who one is, one's conversations, archived or not, each with all of its messages."""
        position = self.heads[self.room]
        user = await self.ask("account:me")
        self.blocked = {one["user_id"] for one in (await self.ask("user:blocks"))["users"]}
        kinds = ("conversation", "thread")
        found = [room.partition(":")[2] for room in self.heads if room.partition(":")[0] in kinds]
        for archived in (True, False):
            # What has news while one turns the pages goes to the top, and is on none of those that follow. The hello
            # has named it; of archived conversations nothing does: they are taken in one page.
            before, limit = None, ARCHIVE_PAGE if archived else LIST_PAGE
            while True:
                page = await self.ask("conversation:list", archived=archived, before=before, limit=limit)
                found += [conversation["conversation_id"] for conversation in page["conversations"]]
                self._note_threads(page["conversations"])
                if (before := page["next"]) is None:
                    break
        chats = {conversation_id: await self._read(conversation_id) for conversation_id in dict.fromkeys(found)}
        self.position, self.user, self.is_loaded = position, user, True
        self.chats = {conversation_id: chat for conversation_id, chat in chats.items() if chat is not None}

    async def _load(self, conversation_id: str) -> None:
        """Load a conversation; where it is not there any more, one's own room will say so, too."""
        chat = await self._read(conversation_id)
        if chat is not None:
            self.chats[conversation_id] = chat
        else:
            self.chats.pop(conversation_id, None)

    async def _read(self, conversation_id: str) -> Chat | None:
        """A conversation as it is; its position is a head from before it was read."""
        room = self.room_of(conversation_id)
        self.heard.append(f"  read {room}")
        try:
            head = self.heads.get(room)
            if head is None and self.keeps_archive:
                head = self.heads[room] = unwrap(await self.call("room:join", {"room": room}))["head_seq"]
                self.asked.add("room:join")
            told = await self.ask("conversation:get", conversation_id=conversation_id)
            chat = Chat(told, self.me, told["head_seq"] if head is None else head, head is not None)
            before = None
            while True:
                page = await self.ask(
                    "message:history", conversation_id=conversation_id, before_seq=before, limit=HISTORY_PAGE
                )
                for message in page["messages"]:
                    chat.keep(message)
                if not page["more"]:
                    return chat
                before = page["messages"][0]["seq"]
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
            return None

    def _note_threads(self, told: list[Object]) -> None:
        """Remember which conversations are threads'."""
        self._threads |= {one["conversation_id"] for one in told if one["kind"] == "thread"}

    async def _hear(self, room: str, name: str, payload: Any, seq: int) -> None:
        """Take a durable push: in its turn, once, and what is missing before it first."""
        self.heads[room] = max(seq, self.heads.get(room, 0))
        position = self._position(room)
        if position is not None and seq > position + 1:
            await self._sync(room)
            position = self._position(room)
        if position is not None and seq > position:
            await self._apply(room, name, payload, seq)
        else:
            self.heard.append(f"  dropped, at {position}")

    async def _sync(self, room: str) -> None:
        """Fill a hole; what the server does not show is not for this person."""
        self.synced += 1
        self.heard.append(f"  sync {room} from {self._position(room)}")
        while (after := self._position(room)) is not None:
            try:
                page = await self.ask("room:sync", room=room, after=after, limit=SYNC_PAGE)
            except Refusal as refusal:
                if refusal.code != "not_found":
                    raise
                return
            if page["reset"]:
                self.resets += 1
                await self._load_room(room)
                return
            for event in page["events"]:
                position = self._position(room)
                if position is not None and event["seq"] > position:
                    await self._apply(room, event["name"], event["payload"], event["seq"])
            if not page["more"]:
                return

    async def _load_room(self, room: str) -> None:
        """Load afresh what can't be filled."""
        await (self._load_all() if room == self.room else self._load(room.partition(":")[2]))

    async def _apply(self, room: str, name: str, payload: Any, seq: int) -> None:
        if room == self.room:
            await self._apply_own(name, payload, seq)
            self.position = seq  # last: cut off before, it hears the event again
            return
        chat = self.chats[room.partition(":")[2]]
        chat.position = seq
        chat.is_followed = True
        if name.startswith("message:"):
            if payload["seq"] > chat.joined_seq:
                chat.keep(payload)
            else:
                self.early.append(f"{name} {seq}: {payload}")
        elif name in ("participant:added", "participant:changed"):
            chat.place(payload["participant"])
        elif name == "participant:removed" and payload["user_id"] == self.me:
            del self.chats[payload["conversation_id"]]
        elif name == "participant:removed":
            chat.people.pop(payload["user_id"], None)
        elif name == "conversation:updated":
            chat.shared = {field: payload[field] for field in SHARED}
            if len(payload["participants"]) == payload["participant_count"]:
                chat.list_all(payload["participants"])

    async def _apply_own(self, name: str, payload: Any, seq: int) -> None:
        is_live = seq > self._greeted[self.room]
        if name == "user:updated":
            self.user = payload
        elif name == "block:changed":
            (self.blocked.add if payload["blocked"] else self.blocked.discard)(payload["user_id"])
        elif name == "conversation:created" and payload["conversation_id"] not in self.chats:
            await self._enter(payload, is_live=is_live)
        elif name == "participant:added":
            known = self.chats.get(payload["conversation_id"])
            if known is None or known.joined_seq < payload["participant"]["joined_seq"]:
                await self._enter(payload["conversation"], is_live=is_live)
        elif name == "participant:removed":
            self.chats.pop(payload["conversation_id"], None)
        elif name == "conversation:mine":
            await self._take_mine(payload, is_live=is_live)

    async def _enter(self, told: Object, *, is_live: bool) -> None:
        """Begin a conversation behind the head that the push names; its messages come as pushes.

        Told live, the socket stands in its room. Told in a replay it does so only where the hello has named the room:
        the conversation may have been put into the archive since.
        """
        self._note_threads([told])
        room = self.room_of(told["conversation_id"])
        if told["kind"] == "thread":  # one that was there before has been said in, for its newcomers to read
            self.heads[room] = max(told["head_seq"], self.heads.get(room, 0))
            await self._load(told["conversation_id"])
            return
        chat = Chat(told, self.me, told["head_seq"])
        if len(told["participants"]) < told["participant_count"]:
            with contextlib.suppress(Refusal):  # shown out meanwhile
                whole = await self.ask("conversation:get", conversation_id=told["conversation_id"])
                chat.list_all(whole["participants"])
        self.chats[told["conversation_id"]] = chat
        if self.heads.get(room, 0) > chat.position:
            await self._sync(room)  # what this connection has heard of before it knew the room
        if not is_live and room not in self._greeted:
            chat.is_followed = False
            if self.keeps_archive:
                await self._rejoin(told["conversation_id"])

    async def _take_mine(self, mine: Object, *, is_live: bool) -> None:
        chat = self.chats.get(mine["conversation_id"])
        if chat is None:
            await self._load(mine["conversation_id"])
            return
        was_archived, chat.mine = chat.mine["archived"], {name: mine[name] for name in MINE}
        chat.mark(self.me, mine)
        if was_archived and not mine["archived"]:
            room = self.room_of(mine["conversation_id"])
            if self.keeps_archive:
                # By the contract's page alone: stand in it from where one was.
                await self._rejoin(mine["conversation_id"])
            elif is_live:
                # By the reference: the socket has been joined behind `head_seq`. Said in a replay that is not so: the
                # conversation may be in the archive again, and where it is not, the hello has named its room.
                chat.is_followed = True
                if mine.get("head_seq", 0) > chat.position:
                    await self._sync(room)

    def look_away(self, conversation_id: str) -> None:
        """Stand in a conversation's room no more, in the order of what comes."""
        self._inbox.put_nowait(("leave", conversation_id, {}))

    def look_again(self) -> None:
        """Stand in all rooms again that it has left, in the order of what comes."""
        for conversation_id in self._left:
            self._inbox.put_nowait(("return", conversation_id, {}))

    async def _leave(self, conversation_id: str) -> None:
        chat = self.chats.get(conversation_id)
        if chat is not None and chat.is_followed:
            unwrap(await self.call("room:leave", {"room": self.room_of(conversation_id)}))
            self.asked.add("room:leave")
            chat.is_followed = False
            self._left.append(conversation_id)

    async def _rejoin(self, conversation_id: str) -> None:
        """Stand in a conversation's room, from where one was."""
        chat, room = self.chats.get(conversation_id), self.room_of(conversation_id)
        if conversation_id in self._left:
            self._left.remove(conversation_id)
        if chat is None:
            return
        try:
            joined = unwrap(await self.call("room:join", {"room": room, "after": chat.position}))
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
            return  # one's own room will say so
        self.asked.add("room:join")
        self.heads[room] = max(joined["head_seq"], self.heads.get(room, 0))
        chat.is_followed = True
        if joined["reset"]:
            self.resets += 1
            self.heads[room] = joined["head_seq"]
            await self._load(conversation_id)
