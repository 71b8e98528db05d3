"""The cast of the tests: instances of Parley, people, and their devices, which are real clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import socketio
from argon2 import PasswordHasher

from rules.users import Scope
from server.app import Parley
from server.config import Config, load
from server.rooms.bus import Bus
from storage import Connection, rooms, sessions, users

SECRET = "a secret of the tests that is thirty-two bytes long or more"
PASSWORD = "correct horse كلمة"
PATIENCE_S = 10.0
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
NOBODY = QUICK.hash("nobody's password")


class Refusal(Exception):
    """An answer that is an error: its code, and the whole of it."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error}")
        self.code: str = error["code"]
        self.error = error


class ConnectRefused(Exception):
    """A connect that the server has refused: what `connect_error` said."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        super().__init__(str(said))
        self.said = said


def unwrap(answer: Mapping[str, Any]) -> Any:
    """The data of an answer. Raises `Refusal` for an error."""
    if not answer["ok"]:
        raise Refusal(answer["error"])
    return answer["data"]


@dataclass
class Push:
    """What a device heard; `room`, `seq` and `at` are those of its second argument, where it has one."""

    name: str
    payload: Any
    meta: Mapping[str, Any]

    @property
    def room(self) -> str | None:
        return self.meta.get("room")

    @property
    def seq(self) -> int:
        return int(self.meta["seq"])


@dataclass
class Device:
    """A person's socket, by python-socketio's AsyncClient; `heard` is every push, in order."""

    client: socketio.AsyncClient
    heard: list[Push] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _cut: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def hello(self) -> dict[str, Any]:
        """The connection's hello, which is the first it heard."""
        assert self.heard[0].name == "hello", self.heard
        hello: dict[str, Any] = self.heard[0].payload
        return hello

    async def hears(self, name: str, payload: Any = None, meta: Any = None) -> None:
        async with self._news:
            self.heard.append(Push(name, payload, meta or {}))
            self._news.notify_all()

    async def answer(self, command: str, **payload: Any) -> dict[str, Any]:
        """The whole answer to a command."""
        answer: dict[str, Any] = await self.client.call(command, payload, timeout=PATIENCE_S)
        return answer

    async def call(self, command: str, **payload: Any) -> Any:
        """The data of a command's answer. Raises `Refusal`."""
        return unwrap(await self.answer(command, **payload))

    async def send(self, conversation_id: str, text: str, client_id: str | None = None) -> Any:
        """Send a message, under a client_id of its own unless one is given."""
        return await self.call(
            "message:send", conversation_id=conversation_id, text=text, client_id=client_id or uuid4().hex
        )

    async def until(self, seen: Callable[[list[Push]], Any], what: str = "what was expected") -> Any:
        """Wait until `seen` finds something in what was heard, and return that."""
        async with self._news:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while not (found := seen(self.heard)):
                        await self._news.wait()
            except TimeoutError:
                raise AssertionError(f"never heard {what}; heard {self.heard}") from None
            return found

    async def hearing(self, name: str, **fields: Any) -> Push:
        """Wait for a push of that name whose payload has these fields, and return the first."""

        def seen(heard: Sequence[Push]) -> Push | None:
            fits = (
                push
                for push in heard
                if push.name == name and all(push.payload.get(key) == value for key, value in fields.items())
            )
            return next(fits, None)

        found: Push = await self.until(seen, f"{name} {fields}")
        return found

    async def hearing_up_to(self, room: str, seq: int) -> list[Push]:
        """Wait until a room's event `seq` was heard; what was heard of the room until now."""
        return await self.until(
            lambda heard: self.of(room) if any(p.room == room and p.meta.get("seq") == seq for p in heard) else None,
            f"{room} {seq}",
        )

    def of(self, room: str) -> list[Push]:
        """What was heard of a room, in order."""
        return [push for push in self.heard if push.room == room]

    def texts(self, conversation_id: str) -> list[str]:
        """The texts of a conversation's messages as they were pushed."""
        room = f"conversation:{conversation_id}"
        return [push.payload["text"] for push in self.of(room) if push.name == "message:created"]

    def position(self, conversation_id: str) -> int:
        """The seq up to which the device has heard a conversation; 0 where it has heard nothing."""
        return max((push.seq for push in self.of(f"conversation:{conversation_id}")), default=0)

    async def gone(self) -> None:
        """Wait until the device has been disconnected."""
        async with asyncio.timeout(PATIENCE_S):
            await self._cut.wait()

    async def leave(self) -> None:
        """Disconnect."""
        await self.client.disconnect()


@dataclass
class Person:
    """Somebody with an account and a session on it."""

    instance: Instance
    username: str
    user_id: str
    session_id: str
    token: str
    refresh_token: str = ""
    devices: list[Device] = field(default_factory=list)

    async def connect(
        self,
        to: Instance | str | None = None,
        *,
        transports: Sequence[str] = ("websocket",),
        token: str | None = None,
        serializer: str = "default",
        **auth: Any,
    ) -> Device:
        """Connect a device, here or to another instance, and wait for its hello. Raises `ConnectRefused`."""
        target = to if isinstance(to, str) else (to or self.instance).url
        device = Device(socketio.AsyncClient(reconnection=False, serializer=serializer))
        device.client.on("*", device.hears)
        device.client.on("disconnect", device._cut.set)
        refused: list[Mapping[str, Any]] = []
        device.client.on("connect_error", refused.append)
        try:
            await device.client.connect(
                target,
                auth={"token": self.token if token is None else token, **auth},
                transports=list(transports),
                wait_timeout=PATIENCE_S,  # not its second: other tests run beside this one
            )
        except socketio.exceptions.ConnectionError:
            if not refused:
                raise
            raise ConnectRefused(refused[0]) from None
        self.devices.append(device)
        await device.hearing("hello")
        return device

    async def post(self, command: str, **payload: Any) -> Any:
        """The data of a command's answer over HTTP. Raises `Refusal`."""
        return unwrap((await self.instance.post(command, payload, token=self.token))[1])


class Instance:
    """An instance of Parley in this process, on a port of its own."""

    def __init__(self, dsn: str, *, bus: Bus | None = None, has_strong_passwords: bool = False, **environ: str) -> None:
        """`has_strong_passwords` as in earnest: hashes take a fifth of a second of CPU each, and 64 MiB."""
        self.dsn = dsn
        self.config: Config = load(
            {
                "DATABASE_URL": dsn,
                "PARLEY_SECRET": SECRET,
                "PARLEY_PORT": "0",
                "PARLEY_POOL_MIN": "1",
                "PARLEY_POOL_MAX": "10",
                "PARLEY_DRAIN_MS": "0",
                **environ,
            }
        )
        self.parley = Parley(self.config, dsn, (SECRET,), bus=bus)
        self._has_strong_passwords = has_strong_passwords
        self.people: list[Person] = []

    async def start(self) -> Instance:
        self.url = f"http://127.0.0.1:{await self.parley.start()}"
        if not self._has_strong_passwords:
            passwords = self.parley.services.passwords
            passwords._hasher, passwords._nobody = QUICK, NOBODY
        self.http = aiohttp.ClientSession()
        return self

    async def stop(self) -> None:
        for person in self.people:
            for device in person.devices:
                await device.leave()
        await self.http.close()
        await self.parley.stop()

    async def person(self, name: str, *, scope: Scope = Scope.FULL, ttl_s: int = 3600) -> Person:
        """Somebody new, signed in; the username has a random end, so that people of many tests share a database."""
        username = f"{name}.{uuid4().hex[:12]}"

        async def create(db: Connection) -> tuple[UUID, UUID]:
            user_id = await users.create_user(
                db, username=username, email=f"{username}@example.org", password_hash=None
            )
            await rooms.create_room(db, user_id, "user")
            session_id = await sessions.create_session(
                db, user_id, device="test", address=None, scope=scope, ttl_s=ttl_s
            )
            return user_id, session_id

        user_id, session_id = await self.parley.database.transaction(create)
        token, _ = self.parley.services.tokens.access(user_id, session_id, scope, ttl_s=ttl_s)
        person = Person(self, username, str(user_id), str(session_id), token)
        self.people.append(person)
        return person

    async def register(self, name: str, **fields: Any) -> Person:
        """Somebody new who has a password, by `account:register`; the username has a random end."""
        username = f"{name}.{uuid4().hex[:12]}"
        given = {"username": username, "email": f"{username}@example.org", "password": PASSWORD, **fields}
        return self.whoever(unwrap((await self.post("account:register", given))[1]))

    async def log_in(self, login: str, password: str = PASSWORD, **fields: Any) -> Person:
        """Somebody on another device, by `account:login`. Raises `Refusal`."""
        given = {"login": login, "password": password, **fields}
        return self.whoever(unwrap((await self.post("account:login", given))[1]))

    def whoever(self, signed_in: Mapping[str, Any]) -> Person:
        """Whoever has been signed in by that answer, with its refresh token."""
        token, user = signed_in["access_token"], signed_in["user"]
        session_id = str(self.parley.services.tokens.read(token).session_id)
        person = Person(self, user["username"], user["user_id"], session_id, token, signed_in["refresh_token"])
        self.people.append(person)
        return person

    async def post(self, command: str, payload: Any, *, token: str | None = None) -> tuple[int, dict[str, Any]]:
        """The status and the whole answer of a command over HTTP."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        path = "/api/" + command.replace(":", "/")
        async with self.http.post(self.url + path, json=payload, headers=headers) as response:
            return response.status, await response.json()

    async def chat(self, *people: Person, kind: str = "private", **fields: Any) -> str:
        """A conversation of these people, opened by the first; its id."""
        conversation = await people[0].post(
            "conversation:create",
            kind=kind,
            user_ids=[person.user_id for person in people[1:]],
            client_id=uuid4().hex,
            **fields,
        )
        conversation_id: str = conversation["conversation_id"]
        return conversation_id
