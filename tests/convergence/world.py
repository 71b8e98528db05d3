"""Three people with two phones each on two instances, whatever they may do, and what their phones should show then."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import socketio
from argon2 import PasswordHasher

from server.rooms.bus import LocalBus, LocalHub
from server.rooms.log import Event
from storage import Connection, sessions
from tests.convergence.phone import MARKS, TRIES, Cut, Object, Phone, conversation_room
from tests.people import PASSWORD, Instance, Person, Refusal, unwrap
from tests.servers import execute, fetch
from tests.uploads import attach

EMOJI = "👍❤😂"
LATER, EARLIER = "2036-01-01T00:00:00.000Z", "2016-01-01T00:00:00.000Z"
ROLES = ("admin", "member", "owner")
PASSWORD_HASH = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
HELD = 3  # publications that overtake one that is held


@dataclass(frozen=True)
class Step:
    """Something that somebody does. `a` and `b` choose among what there is; `by` is a phone's socket, or HTTP (2).

    With `together` the next step does not wait for this one.
    """

    do: str
    who: int = 0
    by: int = 2
    a: int = 0
    b: int = 0
    on: bool = True
    together: bool = False


class Weather:
    """What becomes of publications on their way to the other instance: by turns passed on, lost, or overtaken."""

    def __init__(self, fates: Sequence[str] = ("pass",)) -> None:
        self.change(fates)

    def change(self, fates: Sequence[str]) -> None:
        """Begin anew."""
        self._fates = itertools.cycle(fates)
        self._held: list[tuple[int, Callable[[], None]]] = []
        self._count = 0
        self.lost = self.overtaken = 0

    def carry(self, publish: Callable[[], None]) -> None:
        """Pass a publication on, or not, or later."""
        self._count += 1
        fate = next(self._fates)
        if fate == "pass":
            publish()
        elif fate == "hold":
            self.overtaken += 1
            self._held.append((self._count + HELD, publish))
        else:
            self.lost += 1
        due = [late for until, late in self._held if until <= self._count]
        self._held = [(until, late) for until, late in self._held if until > self._count]
        for late in due:
            late()


class WeatherBus(LocalBus):
    """A bus within the process, as good as the weather."""

    def __init__(self, hub: LocalHub, weather: Weather) -> None:
        super().__init__(hub)
        self._weather = weather

    def publish(self, event: Event) -> None:
        self._weather.carry(lambda: super(WeatherBus, self).publish(event))


@dataclass
class Member:
    """One of the people: a session of their own for HTTP, and two phones, each with a session."""

    person: Person
    phones: list[Phone] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    is_gone: bool = False

    @property
    def user_id(self) -> str:
        return self.person.user_id


class World:
    """One run; its phones are of `phone_kind`.

    `done` are the commands that were answered ok, `refused` what was not, `trace` what was asked.
    """

    phone_kind = Phone

    def __init__(self, instances: Sequence[Instance], root: Person) -> None:
        self.instances = instances
        self.root = root
        self.members: list[Member] = []
        self.chats: list[str] = []
        self.messages: list[tuple[str, str]] = []
        self.done: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.trace: list[str] = []
        self.checks = self.resets = self.synced = 0
        self.early: list[str] = []
        self._pending: list[asyncio.Task[Any]] = []
        self._keys = itertools.count(1)

    async def begin(self) -> None:
        """Two who talk, and a group of all three."""
        for n, name in enumerate(("amina", "bilal", "carim")):
            member = Member(await self.instances[n % 2].person(name))
            self.members.append(member)
            for phone in range(2):
                token, session_id = await self._sign_in(member)
                member.sessions.append(session_id)
                at = self.instances[phone]
                member.phones.append(self.phone(at, member, token, keeps_archive=not phone))
        await self.create_private(Step("create_private"))
        await self.create_group(Step("create_group", a=2))
        await asyncio.gather(*(phone.connect(phone.instance) for phone in self._phones()))

    def phone(self, at: Instance, member: Member, token: str, *, keeps_archive: bool) -> Phone:
        """A device of somebody's, not connected yet."""
        return self.phone_kind(at, member.user_id, token, keeps_archive=keeps_archive, asked=self.done)

    async def run(self, steps: Sequence[Step]) -> None:
        """Take the steps, and hold every phone against a fresh snapshot in the end."""
        for step in steps:
            self.trace.append(f"{step}")
            if self.members[step.who].is_gone:
                continue
            await self.before(step)
            doing = getattr(self, step.do)
            if step.do in ALONE:
                await doing(step)
                continue
            task = asyncio.ensure_future(doing(step))
            self._pending.append(task)
            if not step.together:
                await self._settle()
        await self.check(Step("check"))

    async def before(self, step: Step) -> None:
        """What is done before a step."""

    async def end(self) -> None:
        """Let everybody go."""
        await asyncio.gather(*self._pending, return_exceptions=True)
        for phone in self._phones():
            self.resets += phone.resets
            self.synced += phone.synced
            self.early += phone.early
            await phone.disconnect()

    async def _settle(self) -> None:
        pending, self._pending = self._pending, []
        await asyncio.gather(*pending)

    def _phones(self) -> list[Phone]:
        return [phone for member in self.members if not member.is_gone for phone in member.phones]

    async def _sign_in(self, member: Member) -> tuple[str, str]:
        """A token of a new session, and the session."""
        services = self.instances[0].parley.services

        async def create(db: Connection) -> UUID:
            return await sessions.create_session(db, UUID(member.user_id), device="phone", address=None, ttl_s=3_600)

        session_id = await services.database.transaction(create)
        token, _ = services.tokens.access(UUID(member.user_id), session_id)
        return token, str(session_id)

    async def _sign_in_again(self, member: Member, *phones: int) -> None:
        """On phones that have been signed out; when they come back, they go on where they were."""
        for n in phones:
            if member.phones[n].is_connected:
                await member.phones[n].gone()
            member.phones[n].token, member.sessions[n] = await self._sign_in(member)

    # commands

    async def call(self, step: Step, command: str, **payload: Any) -> Any:
        """The data of an answer, None where it is refused. What has an unknown outcome is asked again."""
        member = self.members[step.who]
        phone = member.phones[step.by] if step.by < 2 else None
        self.trace.append(f"  {command} {payload}")
        for _ in range(TRIES):
            try:
                if phone is not None and phone.is_connected:
                    answer = await phone.call(command, payload)
                else:
                    at = self.instances[step.a % 2]
                    answer = (await at.post(command, payload, token=member.person.token))[1]
            except Cut:
                phone = None
                continue
            if answer["ok"]:
                self.done.add(command)
                return answer["data"]
            code = answer["error"]["code"]
            assert code != "internal", (command, payload, answer)
            self.refused[f"{command} {code}"] += 1
            self.trace.append(f"  refused: {command} {code}")
            if code != "unavailable":
                return None
        raise AssertionError(f"{command} is unavailable")

    def key(self) -> str:
        """A client_id of its own."""
        return f"key {next(self._keys)}"

    def chat(self, step: Step) -> str:
        """One of the conversations, whoever takes part in it."""
        return self.chats[step.a % len(self.chats)]

    def other(self, step: Step) -> str:
        """Somebody else."""
        return self.members[(step.who + 1 + step.b % 2) % 3].user_id

    def message(self, step: Step) -> tuple[str, str] | None:
        """One of the latest messages, and its conversation."""
        return self.messages[-1 - step.b % min(len(self.messages), 8)] if self.messages else None

    def _as_known(self, step: Step, conversation_id: str) -> tuple[Phone, Any]:
        """A conversation as the one who acts has it, on the phone in their hand."""
        phone = self.members[step.who].phones[step.by % 2]
        return phone, phone.chats.get(conversation_id)

    async def create_private(self, step: Step) -> None:
        await self._create(step, "private", [self.other(step)])

    async def create_group(self, step: Step) -> None:
        others = [self.other(step), self.other(Step("", step.who, b=step.b + 1))][: 1 + step.a % 3]
        await self._create(step, "group", others, title=f"Title {step.b}" if step.on else None)

    async def _create(self, step: Step, kind: str, user_ids: list[str], **fields: Any) -> None:
        payload = {"kind": kind, "user_ids": user_ids, "client_id": self.key(), **fields}
        twice = [step, Step("", step.who, 2, step.a)] if step.on else [step]
        made = await asyncio.gather(*(self.call(one, "conversation:create", **payload) for one in twice))
        ids = {conversation["conversation_id"] for conversation in made if conversation}
        assert len(ids) <= 1, f"made twice: {made}"
        self.chats += ids - set(self.chats)

    async def rename(self, step: Step) -> None:
        _, known = self._as_known(step, self.chat(step))
        version = known.shared["version"] if known else 1
        title = f"Title {step.b}" if step.on else None
        await self.call(step, "conversation:update", conversation_id=self.chat(step), version=version, title=title)

    async def archive(self, step: Step) -> None:
        await self.call(step, "conversation:update", conversation_id=self.chat(step), archived=step.on)

    async def mute(self, step: Step) -> None:
        until = (LATER, None, EARLIER)[step.b % 3]
        await self.call(step, "conversation:update", conversation_id=self.chat(step), muted_until=until)

    async def pin(self, step: Step) -> None:
        await self.call(step, "conversation:update", conversation_id=self.chat(step), pinned=step.on)

    async def leave(self, step: Step) -> None:
        await self.call(step, "conversation:leave", conversation_id=self.chat(step))

    async def add(self, step: Step) -> None:
        role = ROLES[step.b % 2]
        await self._change_people(step, "participant:add", role=role)

    async def remove(self, step: Step) -> None:
        await self._change_people(step, "participant:remove")

    async def promote(self, step: Step) -> None:
        await self._change_people(step, "participant:promote", role=ROLES[step.b // 2 % 3])

    async def _change_people(self, step: Step, command: str, **fields: Any) -> None:
        """By whoever owns the group as far as the actor knows, or by the actor, who may not be allowed to."""
        _, known = self._as_known(step, self.chat(step))
        target = self.other(step)
        if known is not None and step.on:
            owners = [user_id for user_id, one in known.people.items() if one["role"] == "owner"]
            acting = [n for n, one in enumerate(self.members) if one.user_id in owners and not one.is_gone]
            if acting:
                target = self.members[step.who].user_id if acting[0] != step.who else target
                step = Step(step.do, acting[0], step.by, step.a, step.b)
        await self.call(step, command, conversation_id=self.chat(step), user_id=target, **fields)

    async def send(self, step: Step) -> None:
        payload: Object = {"conversation_id": self.chat(step), "client_id": self.key(), "text": f"text {step.b}"}
        replied = self.message(step)
        if step.b % 3 == 0 and replied:
            payload["reply_to_id"] = replied[1]
        await self._send(step, payload)

    async def send_file(self, step: Step) -> None:
        person = self.members[step.who].person
        try:
            file = await attach(person)
        except Refusal:  # signed out meanwhile
            return
        self.done |= {"attachment:create", "attachment:complete"}
        await self._send(step, {"conversation_id": self.chat(step), "client_id": self.key(), "attachment_ids": [file]})

    async def _send(self, step: Step, payload: Object) -> None:
        """Once, or by the socket and over HTTP at once: it is one message all the same."""
        twice = [step, Step("", step.who, 2, step.a + 1)] if step.on else [step]
        sent = await asyncio.gather(*(self.call(one, "message:send", **payload) for one in twice))
        ids = {one["message_id"] for one in sent if one}
        assert len(ids) <= 1, f"sent twice: {sent}"
        self.messages += [(payload["conversation_id"], message_id) for message_id in ids]

    async def edit(self, step: Step) -> None:
        if (found := self.message(step)) is not None:
            _, known = self._as_known(step, found[0])
            message = known.messages.get(found[1]) if known else None
            version = message["version"] if message and step.on else 1
            await self.call(step, "message:edit", message_id=found[1], text=f"edit {step.a}", version=version)

    async def delete(self, step: Step) -> None:
        if (found := self.message(step)) is not None:
            await self.call(step, "message:delete", message_id=found[1])

    async def react(self, step: Step) -> None:
        if (found := self.message(step)) is not None:
            await self.call(step, "message:react", message_id=found[1], emoji=EMOJI[step.a % 3], on=step.on)

    async def read(self, step: Step) -> None:
        await self._mark(step, "receipt:read")

    async def delivered(self, step: Step) -> None:
        await self._mark(step, "receipt:delivered")

    async def _mark(self, step: Step, command: str) -> None:
        _, known = self._as_known(step, self.chat(step))
        head = known.position if known else 1
        await self.call(step, command, conversation_id=self.chat(step), seq=head if step.on else step.b)

    async def update(self, step: Step) -> None:
        changes: list[Object] = [
            {"full_name": f"Name {step.b}"},
            {"full_name": None, "locale": "ar"},
            {"preferences": {"sound": step.b}, "notification_channels": ["push"][: step.b % 2]},
            {"roles": ["seller"] if step.on else []},
            {"username": self.root.username},  # taken
        ]
        await self.call(step, "account:update", **changes[step.a % len(changes)])

    async def block(self, step: Step) -> None:
        await self.call(step, "user:block" if step.on else "user:unblock", user_id=self.other(step))

    async def look(self, step: Step) -> None:
        """Commands that show, amid everything else."""
        listed = await self.call(step, "session:list")
        assert listed is None or len(listed["sessions"]) >= 1
        await self.call(step, "user:blocks")
        await self.call(step, "room:sync", room=conversation_room(self.chat(step)), after=step.b)

    # phones, one step at a time

    async def close(self, step: Step) -> None:
        """A phone is put away."""
        await self.members[step.who].phones[step.b % 2].disconnect()

    async def cut(self, step: Step) -> None:
        """A phone's connection breaks amid whatever is going on."""
        await self.members[step.who].phones[step.b % 2].break_off()

    async def come_back(self, step: Step) -> None:
        """A phone resumes, here or there: as it should, with another epoch, from the beginning, or as a new one."""
        phone = self.members[step.who].phones[step.b % 2]
        auth: Object = {}
        if step.a == 1:
            auth = {"epoch": str(uuid4())}
        elif step.a == 2:
            auth = {"rooms": dict.fromkeys((phone.room, *map(phone.room_of, phone.chats), *phone.watched()), 0)}
        elif step.a == 3:
            phone.is_loaded, phone.chats = False, {}
        await phone.connect(self.instances[step.on], **auth)

    async def look_away(self, step: Step) -> None:
        """A phone leaves a room, until the next look at everything."""
        phone = self.members[step.who].phones[step.b % 2]
        if phone.is_connected:
            phone.look_away(self.chat(step))

    async def revoke(self, step: Step) -> None:
        """One of somebody's phones is signed out by another device."""
        member, n = self.members[step.who], step.b % 2
        if await self.call(Step("", step.who, 2, step.a), "session:revoke", session_id=member.sessions[n]) is not None:
            await self._sign_in_again(member, n)

    async def log_out(self, step: Step) -> None:
        """Somebody signs out this phone, or all of their devices."""
        member, n = self.members[step.who], step.b % 2
        phone = member.phones[n]
        unwrap((await self.instances[step.a % 2].post("account:logout", {"all": step.on}, token=phone.token))[1])
        self.done.add("account:logout")
        await self._sign_in_again(member, *([0, 1] if step.on else [n]))
        if step.on:
            member.person.token, _ = await self._sign_in(member)

    async def suspend(self, step: Step) -> None:
        """Somebody is kept out, and let in again."""
        member = self.members[step.who]
        for command in ("user:suspend", "user:restore"):
            await self.root.post(command, user_id=member.user_id, reason="a try")
            self.done.add(command)
        await self._sign_in_again(member, 0, 1)
        member.person.token, _ = await self._sign_in(member)

    async def erase(self, step: Step) -> None:
        """Somebody deletes their account."""
        member = self.members[step.who]
        if step.who != 2:
            return  # the others need somebody to talk to
        await self._settle()
        await execute(
            self.instances[0].dsn,
            f"update users set password_hash = '{PASSWORD_HASH}' where user_id = '{member.user_id}'",
        )
        await member.person.post("account:delete", password=PASSWORD)
        self.done.add("account:delete")
        for phone in member.phones:
            if phone.is_connected:
                await phone.gone()
            await phone.disconnect()
        member.is_gone = True

    # what all of it comes to

    async def check(self, step: Step) -> None:
        """Bring every phone up to the heads; each shows then what a fresh snapshot shows."""
        await self._settle()
        self.checks += 1
        apart = await self._apart()
        for member in self.members:
            if member.is_gone:
                continue
            token, _ = await self._sign_in(member)
            fresh = self.phone(self.instances[step.b % 2], member, token, keeps_archive=True)
            await fresh.connect(fresh.instance)
            await fresh.reaches({fresh.room: 0})
            heads = await self.heads(fresh, member)
            for n, phone in enumerate(member.phones):
                await self._bring_up(phone, heads)
                found = self.differences(phone, fresh, apart)
                assert not found, "\n".join([f"{member.person.username}'s phone {n}:", *found])
            await self._check_lists(fresh)
            await fresh.disconnect()

    async def heads(self, fresh: Phone, member: Member) -> dict[str, int]:
        """What all of somebody's phones are to have heard, by room."""
        heads = {fresh.room_of(one): chat.told["head_seq"] for one, chat in fresh.chats.items()}
        return heads | {fresh.room: fresh.position}

    def differences(self, phone: Phone, fresh: Phone, apart: Collection[frozenset[str]]) -> list[str]:
        """What a phone shows otherwise than it is, in words."""
        return differences(phone, fresh, apart)

    async def _apart(self) -> set[frozenset[str]]:
        """The pairs of which one has blocked the other."""
        rows = await fetch(self.instances[0].dsn, "select blocker_id::text, blocked_id::text from user_blocks")
        return {frozenset(row) for row in rows}

    async def _bring_up(self, phone: Phone, heads: dict[str, int]) -> None:
        for _ in range(TRIES):
            if not phone.is_connected:
                try:
                    await phone.connect(phone.instance)
                except socketio.exceptions.ConnectionError as error:
                    raise AssertionError(f"not let in: {error}") from error
            phone.look_again()
            try:
                return await phone.reaches(heads)
            except AssertionError:
                if phone.is_connected:
                    raise
        raise AssertionError("cut off again and again")

    async def _check_lists(self, fresh: Phone) -> None:
        """A conversation in the list is what it is when it is looked at alone, and no conversation is in both."""
        found: list[Object] = []
        for archived in (False, True):
            page = await fresh.ask("conversation:list", archived=archived, limit=100)
            assert all(one["archived"] == archived for one in page["conversations"])
            found += page["conversations"]
        listed = {one["conversation_id"]: one for one in found}
        assert len(listed) == len(found)
        for conversation_id, chat in fresh.chats.items():
            told, shown = chat.told, listed.pop(conversation_id)
            some = told["participants"][: len(shown["participants"])]
            assert {**shown, "participants": some} == {**told, "participants": some}, (shown, told)
        assert not listed


ALONE = frozenset({"close", "cut", "come_back", "look_away", "revoke", "log_out", "suspend", "erase", "check"})


def differences(phone: Phone, fresh: Phone, apart: Collection[frozenset[str]]) -> list[str]:
    """What a phone shows otherwise than it is, in words. `apart` are the pairs that a block stands between.

    Not held against it, because nothing tells it: others' marks (ephemeral: they may be behind, never ahead, but for
    what it had before a block, which a fresh snapshot does not show); of a conversation whose room it does not stand
    in, what happened there. The order of the people is that of their joining, finer than it is shown.
    """
    found = []
    if phone.user != fresh.user:
        found.append(f"profile: shows {phone.user}, is {fresh.user}")
    if phone.blocked != fresh.blocked:
        found.append(f"blocked: shows {sorted(phone.blocked)}, are {sorted(fresh.blocked)}")
    if phone.chats.keys() != fresh.chats.keys():
        found.append(f"conversations: shows {sorted(phone.chats)}, are {sorted(fresh.chats)}")
    for conversation_id in sorted(phone.chats.keys() & fresh.chats.keys()):
        chat, whole = phone.chats[conversation_id], fresh.chats[conversation_id]
        people = {person["user_id"]: person for person in whole.told["participants"]}
        hidden = people.keys() - {phone.me} if _is_cut(whole.told, apart) else set()
        found += [
            f"{conversation_id}: {user_id} is shown with {mark} {people[user_id][mark]} past a block"
            for user_id in hidden
            for mark in MARKS
            if people[user_id][mark] != 0
        ]
        shown, told = chat.shown(), {**whole.told, "participants": people}
        if not chat.is_followed:
            names = chat.mine.keys()
        else:
            names = told.keys()
            found += differing(f"{conversation_id} messages", chat.messages, whole.messages)
            found += [
                f"{conversation_id}: {user_id} has {mark} {shown['participants'][user_id][mark]}, beyond {one[mark]}"
                for user_id, one in people.items()
                for mark in MARKS
                if user_id not in hidden
                and user_id in shown["participants"]
                and shown["participants"][user_id][mark] > one[mark]
            ]
        for one in (shown, told):
            one["participants"] = {
                user_id: person if user_id == phone.me else {k: v for k, v in person.items() if k not in MARKS}
                for user_id, person in one["participants"].items()
            }
            if told["kind"] == "thread":  # `member:joined` says who has come, and no more
                one["participants"] = set(one["participants"])
        found += [
            f"{conversation_id} {name}: shows {shown.get(name)}, is {told[name]}"
            for name in names
            if shown.get(name) != told[name]
        ]
    return found


def _is_cut(told: Object, apart: Collection[frozenset[str]]) -> bool:
    """Whether it is a private conversation with a block between its two people."""
    return told["kind"] == "private" and {person["user_id"] for person in told["participants"]} in apart


def differing(what: str, shown: dict[str, Any], told: dict[str, Any]) -> list[str]:
    """What of these is shown otherwise than it is, in words."""
    return [
        f"{what} {key}: shows {shown.get(key)}, is {told.get(key)}"
        for key in sorted(shown.keys() | told.keys())
        if shown.get(key) != told.get(key)
    ]
