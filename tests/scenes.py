"""A scene in which all stands that a command can be about, and everybody who may call one."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID, uuid4

from rules.conversations import ConversationKind
from rules.participants import ParticipantRole
from rules.reports import SubjectKind
from rules.users import Role, Scope
from storage import (
    Connection,
    attachments,
    blocks,
    conversations,
    messages,
    participants,
    reports,
    rooms,
    sessions,
    users,
)
from storage.messages import NewMessage
from storage.reports import Subject
from tests.people import PASSWORD, Instance, Person
from tests.uploads import PNG

T = TypeVar("T")

GROUP_WORD, PRIVATE_WORD = "saffron", "cardamom"
"""What all the texts of the group hold, and of the private conversation, and no others: who has no part in one must
never be answered with its word."""

IN_GROUP = {
    "owner": ParticipantRole.OWNER,
    "admin": ParticipantRole.ADMIN,
    "member": ParticipantRole.MEMBER,
    "other": ParticipantRole.MEMBER,
    "former": ParticipantRole.MEMBER,
}
IN_PRIVATE = ("blocker", "blocked")
CAST = (*IN_GROUP, *IN_PRIVATE, "newcomer", "stranger", "site_admin")
NARROW = {"read": Scope.READ, "limited": Scope.LIMITED}
"""The owner again, with tokens that allow less."""

PEOPLE = """
with people as (
    insert into users (username, email, password_hash)
    select username, username || '@example.org', $2 from unnest($1::text[]) as username
    returning user_id, username
), roomed as (
    insert into rooms (room_id, kind) select user_id, 'user' from people
), opened as (
    insert into user_sessions (user_id, scope, ends_at)
    select user_id, scope, now() + interval '1 hour'
      from people join unnest($3::text[], $4::text[]) as wanted (username, scope) using (username)
    returning session_id, user_id, scope
)
select user_id, username, session_id, scope from people join opened using (user_id)
"""
"""What `users.create_user`, `rooms.create_room` and `sessions.create_session` do, for all at once: one by one they are
half of what a scene takes, and a thousand scenes are made."""

_hashes: list[str] = []  # of the one password that all have: Argon2 takes its time


@dataclass
class Scene:
    """A group and a private conversation with a block, and what was said there.

    `said` has a message of each, by their part; that of `other` has been edited. `shown` has a message's attachment,
    by conversation. `uploaded` is the member's and not complete yet, `unsent` is theirs and complete. `report` is the
    member's, on the admin.
    """

    parley: Instance
    people: dict[str, Person]
    group: str
    private: str
    said: dict[str, str]
    shown: dict[str, str]
    uploaded: str
    unsent: str
    report: str
    _made: dict[str, Any] = field(default_factory=dict)

    async def once(self, what: str, make: Callable[[], Awaitable[T]]) -> T:
        """What this makes, made when it is first asked for: it stands in the scene from then on."""
        if what not in self._made:
            self._made[what] = await make()
        made: T = self._made[what]
        return made

    def id(self, part: str) -> str:
        """Who plays that part."""
        return self.people[part].user_id

    def chat(self, part: str) -> str:
        """The conversation that stands between this caller and the others."""
        return self.private if part in IN_PRIVATE else self.group


async def make_scene(parley: Instance, *, is_chief: bool = False, has_left: bool = True) -> Scene:
    """Build it, in one transaction.

    `is_chief` makes the owner an administrator of the site too; `has_left` False leaves the former member in the group.
    """
    if not _hashes:
        _hashes.append(await parley.parley.services.passwords.hash(PASSWORD, "the tests"))

    async def make(db: Connection) -> Scene:
        people = await _people(parley, db)
        await users.set_roles(db, UUID(people["site_admin"].user_id), [Role.ADMIN])
        if is_chief:
            await users.set_roles(db, UUID(people["owner"].user_id), [Role.ADMIN])
        ids = {part: UUID(person.user_id) for part, person in people.items()}
        low, high = (ids[part] for part in IN_PRIVATE)
        group = await _chat(db, [(ids[part], role) for part, role in IN_GROUP.items()], f"all about {GROUP_WORD}")
        private = await _chat(db, [(user_id, ParticipantRole.MEMBER) for user_id in (low, high)], None)
        shown = {str(chat): await _attachment(db, by) for chat, by in ((group, ids["member"]), (private, low))}
        said = await _talk(db, ids, group, private, shown)
        await messages.edit_message(db, UUID(said["other"]), f"what is {GROUP_WORD}, again?")
        await blocks.create_block(db, low, high)
        report = uuid4()
        subject = Subject(SubjectKind.MESSAGE, UUID(said["admin"]))
        assert await reports.create_report(db, report, ids["member"], subject, reason="spam", text=None)
        scene = Scene(
            parley,
            people,
            str(group),
            str(private),
            said,
            shown,
            await _attachment(db, ids["member"], is_complete=False),
            await _attachment(db, ids["member"]),
            str(report),
        )
        if has_left:
            await participants.remove_participant(db, group, ids["former"])
        return scene

    return await parley.parley.database.transaction(make)


async def _people(parley: Instance, db: Connection) -> dict[str, Person]:
    names = {part: f"{part.replace('_', '.')}.{uuid4().hex[:12]}" for part in CAST}
    wanted = {(names[part], Scope.FULL): part for part in CAST}
    wanted |= {(names["owner"], scope): part for part, scope in NARROW.items()}
    people = {}
    for row in await db.fetch(PEOPLE, list(names.values()), _hashes[0], *map(list, zip(*wanted, strict=True))):
        scope = Scope(row["scope"])
        part = wanted[row["username"], scope]
        people[part] = _signed_in(parley, row["username"], row["user_id"], row["session_id"], scope)
    return people


async def session_of(
    parley: Instance, db: Connection, username: str, user_id: UUID, scope: Scope = Scope.FULL
) -> Person:
    """Somebody on a device of their own."""
    session_id = await sessions.create_session(db, user_id, device=None, address=None, scope=scope, ttl_s=3_600)
    return _signed_in(parley, username, user_id, session_id, scope)


def _signed_in(parley: Instance, username: str, user_id: UUID, session_id: UUID, scope: Scope) -> Person:
    token, _ = parley.parley.services.tokens.access(user_id, session_id, scope)
    return Person(parley, username, str(user_id), str(session_id), token)


async def _chat(db: Connection, people: Sequence[tuple[UUID, ParticipantRole]], title: str | None) -> UUID:
    chat, first = uuid4(), people[0][0]
    kind = ConversationKind.GROUP if title else ConversationKind.PRIVATE
    pair = None if title else (first, people[1][0])
    await conversations.create_conversation(db, chat, kind, created_by=first, title=title, pair=pair)
    await rooms.create_room(db, chat, "conversation")
    await participants.create_participants(db, chat, people)
    return chat


async def _attachment(db: Connection, owner: UUID, *, is_complete: bool = True) -> str:
    """An attachment that was uploaded. Its file is in no store: nobody downloads it here."""
    attachment, sha256 = uuid4(), hashlib.sha256(PNG).digest()
    await attachments.create_attachment(
        db, attachment, owner, name="moon.png", content_type="image/png", size=len(PNG), sha256=sha256
    )
    assert await attachments.record_upload(db, attachment, uuid4(), sha256=sha256, head=PNG)
    if is_complete:
        await attachments.complete_attachment(db, attachment)
    return str(attachment)


async def _talk(
    db: Connection, ids: Mapping[str, UUID], group: UUID, private: UUID, shown: Mapping[str, str]
) -> dict[str, str]:
    """A message of each, by their part; those of the member and the blocker hold the attachments."""
    new = []
    for part in (*IN_GROUP, *IN_PRIVATE):
        chat, word = (private, PRIVATE_WORD) if part in IN_PRIVATE else (group, GROUP_WORD)
        files = (UUID(shown[str(chat)]),) if part in ("member", "blocker") else ()
        asked = [(ids[part], file) for file in files]
        told = list((await attachments.list_sendable(db, asked)).values()) if asked else []
        text = f"{part} likes {word}"
        new.append(NewMessage(chat, ids[part], uuid4().hex, b"of the scene", text, None, files, told))
    said = {}
    for row in await messages.append_messages(db, new, wait=True):
        assert row.outcome == "sent", row
        assert row.ord is not None
        said[(*IN_GROUP, *IN_PRIVATE)[row.ord - 1]] = str(row.message_id)
    return said
