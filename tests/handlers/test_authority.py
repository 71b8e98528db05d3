"""Who may do what: every command of the registry, called by everybody, in a scene that holds what it is about."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

import handlers  # noqa: F401  (declares the commands)
from rules.users import Scope
from server.commands.docs.failures import codes_of
from server.commands.registry import Command, Limit, Transport, commands
from server.commands.tokens import new_stored_token
from storage import resets, sessions
from tests.conftest import MAJORS
from tests.frames import Wire, wired
from tests.market import listed
from tests.people import PASSWORD, ConnectRefused, Instance, Person
from tests.scenes import GROUP_WORD, IN_PRIVATE, NARROW, PRIVATE_WORD, Scene, make_scene, session_of
from tests.servers import Postgres

ROLES = [
    *("owner", "admin", "member", "former"),  # of a group; the former member was shown out
    *("blocker", "blocked"),  # the two of a private conversation
    *("stranger", "anonymous", "site_admin"),  # in neither
    *("read", "limited"),  # the group's owner, with a token of that scope
]
ON_BOTH = {  # called over HTTP and on the socket; all others on one of them
    "account:update",
    "conversation:get",
    "message:edit",
    "message:history",
    "message:send",
    "participant:remove",
    "report:resolve",
    "room:sync",
}
ACCOUNT_CHANGES = {  # a token of the scope `limited` does not make: one's own account, and what others' come to
    "account:delete",
    "account:update",
    "autorule:set",
    "listing:buy",
    "offer:accept",
    "offer:counter",
    "offer:decline",
    "offer:decline_all",
    "offer:make",
    "offer:withdraw",
    "transaction:cancel",
    "transaction:confirm",
    "transaction:pay",
    "transaction:refund",
    "report:resolve",
    "session:revoke",
    "user:restore",
    "user:suspend",
}
AT_ONCE = 4  # rows, each in scenes of its own
UUIDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Payload = dict[str, Any]

LAMP = {
    "kind": "for_sale",
    "title": "A lamp",
    "description": "",
    "price": {"amount": 1, "currency": "EUR"},
    "category": "other",
}


@dataclass(frozen=True)
class Row:
    """What a command is called with by each role in the scene, and what each is answered: ok, a code, code/reason."""

    payload: Callable[[Scene, str], Any]
    answers: Mapping[str, str]


def row(payload: Callable[[Scene, str], Any] | None = None, *, unauthenticated: str = "anonymous", **roles: str) -> Row:
    """The roles that get each answer; who has no token gets `unauthenticated` where nothing else is said."""
    said = {"unauthenticated": unauthenticated, **roles}
    named = [
        (role, answer.replace("conflict_", "conflict/")) for answer, names in said.items() for role in names.split()
    ]
    assert sorted(role for role, _ in named) == sorted(ROLES), f"each role once: {sorted(role for role, _ in named)}"
    return Row(payload or (lambda s, who: {}), dict(named))


# what commands are called with


def chat(**more: Any) -> Callable[[Scene, str], Payload]:
    """In one's conversation: the private one for the two that are blocked, the group for all others."""
    return lambda s, who: {"conversation_id": s.chat(who), **more}


def about(part: str, **more: Any) -> Callable[[Scene, str], Payload]:
    """To do with that person."""
    return lambda s, who: {"user_id": s.id(part), **more}


def in_chat(part: str, **more: Any) -> Callable[[Scene, str], Payload]:
    """To do with that person, in one's conversation."""
    return lambda s, who: {"conversation_id": s.chat(who), "user_id": s.id(part), **more}


def said_by(in_group: str, in_private: str, **more: Any) -> Callable[[Scene, str], Payload]:
    """A message in one's conversation, of whoever is named for it."""
    return lambda s, who: {"message_id": s.said[in_private if who in IN_PRIVATE else in_group], **more}


def own(**more: Any) -> Callable[[Scene, str], Payload]:
    """One's own message; the owner's for those who have none."""
    return lambda s, who: {"message_id": s.said.get(who, s.said["owner"]), **more}


def says(s: Scene, who: str, **more: Any) -> Payload:
    return {"conversation_id": s.chat(who), "client_id": uuid4().hex, "text": f"no {GROUP_WORD} here", **more}


def opens(kind: str, **more: Any) -> Callable[[Scene, str], Payload]:
    """A conversation with the other side of one's block, or with somebody of the group."""

    def payload(s: Scene, who: str) -> Payload:
        party = {"blocker": "blocked", "blocked": "blocker"}.get(who, "other")
        return {"kind": kind, "user_ids": [s.id(party)], "client_id": uuid4().hex, **more}

    return payload


def room(kind: str, s: Scene, who: str) -> Payload:
    return {"room": f"{kind}:{s.chat(who)}"}


def reported(kind: str, id_: Callable[[Scene, str], str]) -> Callable[[Scene, str], Payload]:
    return lambda s, who: {
        "subject": {"kind": kind, "id": id_(s, who)},
        "reason": "spam",
        "client_id": uuid4().hex,
    }


async def another_session(s: Scene, who: str) -> Payload:
    caller = s.people[who]
    async with s.parley.parley.database.connection() as db:
        device = await session_of(s.parley, db, caller.username, UUID(caller.user_id))
    return {"session_id": device.session_id}


async def a_refresh_token(s: Scene, who: str) -> Payload:
    token, stored = new_stored_token()
    async with s.parley.parley.database.connection() as db:
        await sessions.create_token(db, UUID(s.people["stranger"].session_id), stored, 60)
    return {"refresh_token": token}


async def a_reset_token(s: Scene, who: str) -> Payload:
    token, stored = new_stored_token()
    async with s.parley.parley.database.connection() as db:
        await resets.create_reset(db, UUID(s.id("stranger")), stored, 60)
    return {"reset_token": token, "password": "another good one"}


async def in_thread(s: Scene, who: str, **more: Any) -> Payload:
    """To do with a thread of the owner's that the member has joined; its conversation has its id."""

    async def make() -> str:
        about = {"title": "All about lamps", "category": "other", "client_id": uuid4().hex}
        thread_id: str = (await s.people["owner"].post("thread:create", **about))["thread_id"]
        await s.people["member"].post("thread:join", thread_id=thread_id)
        return thread_id

    return {"thread_id": await s.once("thread", make), **more}


async def _listing(s: Scene, whose: str = "owner") -> str:
    """Something of theirs that is for sale."""
    made: Payload = await s.once(f"listing of the {whose}", lambda: listed(s.people[whose]))
    return str(made["listing_id"])


def a_thread(**more: Any) -> Callable[[Scene, str], Any]:
    return lambda s, who: in_thread(s, who, **more)


def talk_of_a_thread(**more: Any) -> Callable[[Scene, str], Any]:
    async def payload(s: Scene, who: str) -> Payload:
        return {"conversation_id": (await in_thread(s, who))["thread_id"], **more}

    return payload


def room_of_a_thread(kind: str = "thread", **more: Any) -> Callable[[Scene, str], Any]:
    async def payload(s: Scene, who: str) -> Payload:
        return {"room": f"{kind}:{(await in_thread(s, who))['thread_id']}", **more}

    return payload


def a_listing(whose: str = "owner", **more: Any) -> Callable[[Scene, str], Any]:
    """To do with something that is for sale."""

    async def payload(s: Scene, who: str) -> Payload:
        return {"listing_id": await _listing(s, whose), **more}

    return payload


def room_of_a_listing(**more: Any) -> Callable[[Scene, str], Any]:
    async def payload(s: Scene, who: str) -> Payload:
        return {"room": f"listing:{await _listing(s)}", **more}

    return payload


async def lists_in_a_thread(s: Scene, who: str) -> Payload:
    return {**LAMP, "client_id": uuid4().hex, **await in_thread(s, who)}


def lists(s: Scene, who: str) -> Payload:
    return {**LAMP, "client_id": uuid4().hex}


async def _deal(s: Scene, *, is_done: bool) -> Payload:
    """What the member buys of the owner."""

    async def make() -> Payload:
        about = {"listing_id": (await listed(s.people["owner"]))["listing_id"], "version": 1, "client_id": uuid4().hex}
        deal: Payload = (await s.people["member"].post("listing:buy", **about))["transaction"]
        for part in ("owner", "member") if is_done else ():
            moved = {"transaction_id": deal["transaction_id"], "version": deal["version"]}
            deal = await s.people[part].post("transaction:confirm", **moved)
        return deal

    return await s.once(f"deal {is_done}", make)


def a_deal(*with_: str, is_done: bool = False) -> Callable[[Scene, str], Any]:
    """To do with a deal of the owner's and the member's, confirmed by both or not yet; by these of its fields."""

    async def payload(s: Scene, who: str) -> Payload:
        deal = await _deal(s, is_done=is_done)
        return {name: deal[name] for name in ("transaction_id", *with_)}

    return payload


async def _offered(s: Scene) -> Payload:
    """What the member offers for something of the owner's."""

    async def make() -> Payload:
        about = {"listing_id": (await listed(s.people["owner"]))["listing_id"], "listing_version": 1}
        made: Payload = await s.people["member"].post("offer:make", **about, price=LAMP["price"], client_id=uuid4().hex)
        return made

    return await s.once("offer", make)


def an_offer(*with_: str, **more: Any) -> Callable[[Scene, str], Any]:
    """To do with the member's offer to the owner; by these of its fields."""

    async def payload(s: Scene, who: str) -> Payload:
        offer = (await _offered(s))["offer"]
        return {**{name: offer[name] for name in ("offer_id", *with_)}, **more}

    return payload


async def a_negotiation(s: Scene, who: str) -> Payload:
    return {"negotiation_id": (await _offered(s))["negotiation"]["negotiation_id"]}


async def a_rule(s: Scene, who: str) -> Payload:
    listing_id = await _listing(s)
    await s.people["owner"].post("autorule:set", listing_id=listing_id, enabled=False)
    return {"listing_id": listing_id}


async def reviews_a_deal(s: Scene, who: str) -> Payload:
    deal = await _deal(s, is_done=True)
    return {"transaction_id": deal["transaction_id"], "rating": 4, "client_id": uuid4().hex}


async def asked(s: Scene) -> Payload:
    """The member's question about something of the owner's."""

    async def make() -> Payload:
        about = {"listing_id": await _listing(s), "text": "?", "client_id": uuid4().hex}
        question: Payload = await s.people["member"].post("faq:ask", **about)
        return question

    return await s.once("question", make)


async def to_a_question(s: Scene, who: str) -> Payload:
    return {"parent_id": (await asked(s))["faq_id"], "text": "!", "client_id": uuid4().hex}


def a_reported(kind: str) -> Callable[[Scene, str], Any]:
    """What everybody sees of the market: something listed, or what was asked about it."""

    async def payload(s: Scene, who: str) -> Payload:
        question = await asked(s)
        return reported(kind, lambda s, who: str(question[f"{kind}_id"]))(s, who)

    return payload


async def an_answer(s: Scene, who: str) -> Payload:
    return {"faq_id": (await s.people["owner"].post("faq:answer", **await to_a_question(s, who)))["faq_id"]}


async def about_a_listing(s: Scene, who: str) -> Payload:
    """A conversation with somebody about something of theirs."""
    opened = opens("private")(s, who)
    owner = next(person for person in s.people.values() if person.user_id == opened["user_ids"][0])
    return {**opened, "listing_id": (await listed(owner))["listing_id"]}


def a_file(s: Scene, who: str) -> Payload:
    told = {"name": "moon.png", "content_type": "image/png", "size": 1, "sha256": "0" * 64}
    return {**told, "client_id": uuid4().hex}


def a_newcomer(s: Scene, who: str) -> Payload:
    name = f"new.{uuid4().hex[:12]}"
    return {"username": name, "email": f"{name}@example.org", "password": PASSWORD}


# who is who

FULL = "owner admin member former blocker blocked stranger site_admin"  # with tokens that allow everything
WRITERS = f"{FULL} limited"
READERS = f"{WRITERS} read"
GROUP = "owner admin member"
PAIR = "blocker blocked"
OUT = "former stranger site_admin"  # of any conversation: to them there is none

PUBLIC = {"ok": f"{READERS} anonymous", "unauthenticated": ""}
FOR_ALL_WHO_READ = {"ok": READERS}
FOR_ALL_WHO_WRITE = {"ok": WRITERS, "forbidden": "read"}
FOR_ONES_ACCOUNT = {"ok": FULL, "forbidden": "read limited"}
FOR_SITE_ADMINS = {"ok": "site_admin", "forbidden": f"{GROUP} {PAIR} former stranger read limited"}
TAKING_PART_TO_READ = {"ok": f"{GROUP} {PAIR} read limited", "not_found": OUT}
TAKING_PART = {"ok": f"{GROUP} {PAIR} limited", "forbidden": "read", "not_found": OUT}
NOT_PAST_A_BLOCK = {"ok": f"{GROUP} limited", "conflict_blocked": PAIR, "forbidden": "read", "not_found": OUT}
OWNER_OF_GROUP = {"ok": "owner limited", "forbidden": f"admin member {PAIR} read", "not_found": OUT}
ADMINS_OF_GROUP = {"ok": "owner admin limited", "forbidden": f"member {PAIR} read", "not_found": OUT}
NOBODY_IN_IT = {"forbidden": f"{GROUP} {PAIR} read limited", "not_found": OUT}


async def a_match(s: Scene, who: str) -> Payload:
    return {"match_id": await s.once("match", lambda: _match(s)), "action": "interested"}


async def _match(s: Scene) -> str:
    """Of something that the owner wants and something that the member sells."""
    title = f"A sofa {uuid4().hex}"
    sofa = await listed(s.people["member"], title=title)
    wish = await listed(s.people["owner"], kind="wtb", title=title)
    pair = [UUID(each["listing_id"]) for each in (sofa, wish)]
    known = "select match_id from listing_matches where source_listing_id = any ($1) and matched_listing_id = any ($1)"
    async with asyncio.timeout(10), s.parley.parley.database.connection() as db:
        while (match_id := await db.fetchval(known, pair)) is None:
            await asyncio.sleep(0.005)
    return str(match_id)


OWNER_OF_LISTING = {"ok": "owner limited", "forbidden": f"admin member {PAIR} {OUT} read"}
OUT_OF_THREAD = f"admin {PAIR} {OUT}"
IN_THREAD = {"ok": "owner member limited", "forbidden": "read", "not_found": OUT_OF_THREAD}
IN_THREAD_TO_READ = {"ok": "owner member read limited", "not_found": OUT_OF_THREAD}
NOBODY_IN_THREAD = {"forbidden": "owner member read limited", "not_found": OUT_OF_THREAD}
OUT_OF_DEAL = f"admin {PAIR} {OUT}"
IN_DEAL = {"ok": "owner member", "forbidden": "read limited", "not_found": OUT_OF_DEAL}
TO_WHOM_IT_IS_MADE = {
    "ok": "owner",
    "conflict_not_your_turn": "member",
    "forbidden": "read limited",
    "not_found": OUT_OF_DEAL,
}
IN_DEAL_TO_READ = {"ok": "owner member read limited", "not_found": OUT_OF_DEAL}
IN_DEAL_OR_ADMIN_TO_READ = {
    "ok": "owner member read limited site_admin",
    "not_found": f"admin {PAIR} former stranger",
}
THE_MEMBER = {"ok": "member", "not_found": f"owner admin {PAIR} limited {OUT}", "forbidden": "read"}
THE_MEMBER_TO_READ = {"ok": "member", "not_found": f"owner admin {PAIR} limited read {OUT}"}

TABLE: dict[str, list[Row]] = {
    "account:register": [row(a_newcomer, **PUBLIC)],
    "account:login": [row(lambda s, who: {"login": s.people["stranger"].username, "password": PASSWORD}, **PUBLIC)],
    "account:refresh": [row(a_refresh_token, **PUBLIC)],
    "account:forgot": [row(lambda s, who: {"email": f"{s.people['stranger'].username}@example.org"}, **PUBLIC)],
    "account:reset": [row(a_reset_token, **PUBLIC)],
    "account:me": [row(**FOR_ALL_WHO_READ)],
    "account:update": [row(lambda s, who: {"full_name": "Another Name"}, **FOR_ONES_ACCOUNT)],
    "account:delete": [row(lambda s, who: {"password": PASSWORD}, **FOR_ONES_ACCOUNT)],
    "account:logout": [
        row(**FOR_ALL_WHO_WRITE),
        row(lambda s, who: {"all": True}, **FOR_ONES_ACCOUNT),
    ],
    "account:renew": [
        row(lambda s, who: {"token": s.people[who].token if who in s.people else "none"}, **FOR_ALL_WHO_READ),
        row(
            lambda s, who: {"token": s.people["stranger"].token},
            ok="stranger",
            unauthenticated=f"{GROUP} {PAIR} former site_admin read limited anonymous",
        ),
    ],
    "session:list": [row(**FOR_ALL_WHO_READ)],
    "session:revoke": [
        row(lambda s, who: another_session(s, who if who in s.people else "owner"), **FOR_ONES_ACCOUNT),
        row(
            lambda s, who: {"session_id": s.people["member"].session_id},
            ok="member",
            not_found=f"owner admin {PAIR} {OUT}",
            forbidden="read limited",
        ),
    ],
    "user:get": [row(about("other"), **FOR_ALL_WHO_READ)],
    "user:search": [row(lambda s, who: {"query": s.people["other"].username}, **FOR_ALL_WHO_READ)],
    "user:suspend": [row(about("other", reason="spam"), **FOR_SITE_ADMINS)],
    "user:restore": [row(about("other", reason="all is well"), **FOR_SITE_ADMINS)],
    "user:block": [row(about("other"), **FOR_ALL_WHO_WRITE)],
    "user:unblock": [row(about("other"), **FOR_ALL_WHO_WRITE)],
    "user:blocks": [row(**FOR_ALL_WHO_READ)],
    "report:file": [
        row(reported("user", lambda s, who: s.id("other")), **FOR_ALL_WHO_WRITE),
        row(reported("conversation", lambda s, who: s.chat(who)), **TAKING_PART),
        row(reported("message", lambda s, who: said_by("admin", "blocked")(s, who)["message_id"]), **TAKING_PART),
        row(reported("message", lambda s, who: own()(s, who)["message_id"]), **TAKING_PART),
        row(a_reported("listing"), **FOR_ALL_WHO_WRITE),
        row(a_reported("faq"), **FOR_ALL_WHO_WRITE),
    ],
    "report:list": [row(**FOR_SITE_ADMINS)],
    "report:resolve": [
        row(lambda s, who: {"report_id": s.report, "resolution": "spoke to them"}, **FOR_SITE_ADMINS),
    ],
    "attachment:create": [row(a_file, **FOR_ALL_WHO_WRITE)],
    "attachment:complete": [row(lambda s, who: {"attachment_id": s.uploaded}, **THE_MEMBER)],
    "attachment:get": [
        row(lambda s, who: {"attachment_id": s.shown[s.chat(who)]}, **TAKING_PART_TO_READ),
        row(lambda s, who: {"attachment_id": s.unsent}, **THE_MEMBER_TO_READ),
    ],
    "conversation:create": [
        row(opens("group"), ok=f"{GROUP} {OUT} limited", conflict_blocked=PAIR, forbidden="read"),
        row(
            about_a_listing,
            ok=f"{GROUP} {OUT} limited",
            conflict_blocked=PAIR,
            forbidden="read",
        ),
        row(opens("private", listing_id=str(UUID(int=1))), not_found=WRITERS, forbidden="read"),
        row(opens("private"), **FOR_ALL_WHO_WRITE),  # the two of the block have theirs already
    ],
    "conversation:list": [row(**FOR_ALL_WHO_READ)],
    "conversation:get": [row(chat(), **TAKING_PART_TO_READ)],
    "conversation:update": [
        row(chat(pinned=True, archived=True), **TAKING_PART),
        row(chat(title="another", version=1), **ADMINS_OF_GROUP),
    ],
    "conversation:leave": [
        # Who has left already is answered as if this were a repeat.
        row(chat(), ok=f"{GROUP} former limited", forbidden=f"{PAIR} read", not_found="stranger site_admin"),
        row(talk_of_a_thread(), **NOBODY_IN_THREAD),
    ],
    "participant:add": [
        row(in_chat("newcomer"), **ADMINS_OF_GROUP),
        row(talk_of_a_thread(user_id=str(UUID(int=1))), **NOBODY_IN_THREAD),
        row(in_chat("newcomer", role="admin"), **OWNER_OF_GROUP),
        row(in_chat("newcomer", role="owner"), **NOBODY_IN_IT),
        row(in_chat("other"), **ADMINS_OF_GROUP),  # who takes part already
        row(  # who does, with another role
            in_chat("admin"), conflict_version="owner admin limited", forbidden=f"member {PAIR} read", not_found=OUT
        ),
        row(  # oneself
            lambda s, who: in_chat(who if who in s.people else "stranger")(s, who),
            conflict_version="owner admin limited",
            forbidden=f"member {PAIR} read",
            not_found=OUT,
        ),
    ],
    "participant:remove": [
        row(in_chat("other"), **ADMINS_OF_GROUP),
        row(in_chat("admin"), **OWNER_OF_GROUP),
        row(in_chat("owner"), **NOBODY_IN_IT),
    ],
    "participant:promote": [
        row(in_chat("other"), **OWNER_OF_GROUP),
        row(in_chat("other", role="owner"), **OWNER_OF_GROUP),
        row(lambda s, who: in_chat(who if who in s.people else "owner", role="owner")(s, who), **OWNER_OF_GROUP),
        row(in_chat("owner", role="member"), **NOBODY_IN_IT),
        row(in_chat("other", role="member"), **OWNER_OF_GROUP),  # what they are already
        row(in_chat("owner", role="owner"), **ADMINS_OF_GROUP),  # an admin may be who has handed over
        row(in_chat("admin", role="member"), **ADMINS_OF_GROUP),  # stepping down, where it is oneself
        row(  # stepping down, or asking for it again
            lambda s, who: in_chat(who if who in s.people else "owner", role="member")(s, who),
            ok="admin member",
            forbidden=f"owner {PAIR} read limited",
            not_found=OUT,
        ),
    ],
    "message:send": [
        row(says, **NOT_PAST_A_BLOCK),
        row(talk_of_a_thread(client_id="lamps", text="a lamp"), **IN_THREAD),
        row(
            lambda s, who: says(s, who, attachment_ids=[s.unsent]),
            ok="member",
            not_found=f"owner admin limited {OUT}",
            conflict_blocked=PAIR,
            forbidden="read",
        ),
        row(  # in reply to what was said elsewhere
            lambda s, who: says(s, who, reply_to_id=s.said["owner" if who in IN_PRIVATE else "blocker"]),
            not_found=f"{GROUP} limited {OUT}",
            conflict_blocked=PAIR,
            forbidden="read",
        ),
    ],
    "message:edit": [
        row(own(text="better so", version=1), **NOT_PAST_A_BLOCK),
        row(
            said_by("member", "blocker", text="better so", version=1),
            ok="member",
            conflict_blocked="blocker",
            forbidden="owner admin blocked read limited",
            not_found=OUT,
        ),
    ],
    "message:delete": [
        row(own(), **TAKING_PART),
        row(
            said_by("other", "blocker"),
            ok="owner admin blocker limited",
            forbidden="member blocked read",
            not_found=OUT,
        ),
        row(
            said_by("owner", "blocked"),
            ok="owner admin blocked limited",
            forbidden="member blocker read",
            not_found=OUT,
        ),
    ],
    "message:revisions": [row(said_by("other", "blocker"), **TAKING_PART_TO_READ)],
    "message:react": [
        row(said_by("other", "blocker", emoji="👍", on=True), **NOT_PAST_A_BLOCK),
        row(said_by("other", "blocker", emoji="👍", on=False), **TAKING_PART),
    ],
    "message:history": [
        row(chat(), **TAKING_PART_TO_READ),
        row(chat(after_seq=0), **TAKING_PART_TO_READ),
        row(talk_of_a_thread(), **IN_THREAD_TO_READ),
    ],
    "message:search": [
        row(chat(query=GROUP_WORD), **TAKING_PART_TO_READ),
        row(lambda s, who: {"query": f"{GROUP_WORD} or {PRIVATE_WORD}"}, **FOR_ALL_WHO_READ),
    ],
    "receipt:read": [row(chat(seq=1), **TAKING_PART)],
    "receipt:delivered": [row(chat(seq=1), **TAKING_PART)],
    "typing:set": [row(chat(state="typing"), **TAKING_PART)],
    "presence:set": [row(lambda s, who: {"state": "away"}, **FOR_ALL_WHO_WRITE)],
    "presence:watch": [row(lambda s, who: {"user_ids": [s.id("other")]}, **FOR_ALL_WHO_READ)],
    "presence:unwatch": [row(lambda s, who: {"user_ids": [s.id("other")]}, **FOR_ALL_WHO_READ)],
    "room:join": [
        row(lambda s, who: room("conversation", s, who), **TAKING_PART_TO_READ),
        row(lambda s, who: {"room": f"user:{s.id('member')}"}, **THE_MEMBER_TO_READ),
        row(lambda s, who: room("thread", s, who), not_found=READERS),
        row(room_of_a_thread(), **IN_THREAD_TO_READ),
        row(room_of_a_listing(), **FOR_ALL_WHO_READ),
        row(room_of_a_thread("conversation"), not_found=READERS),
    ],
    "offer:make": [
        row(
            a_listing(listing_version=1, price=LAMP["price"], client_id="lamp"),
            ok=f"admin member {PAIR} {OUT}",
            invalid="owner",
            forbidden="read limited",
        ),
        row(
            a_listing("blocker", listing_version=1, price=LAMP["price"], client_id="lamp"),
            ok=f"{GROUP} {OUT}",
            invalid="blocker",
            conflict_blocked="blocked",
            forbidden="read limited",
        ),
    ],
    "offer:counter": [
        row(an_offer("version", price={"amount": 2, "currency": "EUR"}, client_id="lamp"), **TO_WHOM_IT_IS_MADE),
    ],
    "offer:accept": [row(an_offer("version"), **TO_WHOM_IT_IS_MADE)],
    "offer:decline": [row(an_offer("version"), **TO_WHOM_IT_IS_MADE)],
    "offer:withdraw": [
        row(
            an_offer("version"),
            ok="member",
            conflict_not_your_turn="owner",
            forbidden="read limited",
            not_found=OUT_OF_DEAL,
        ),
    ],
    "offer:decline_all": [
        row(a_listing(), ok="owner", forbidden=f"admin member {PAIR} {OUT} read limited"),
    ],
    "negotiation:get": [row(a_negotiation, **IN_DEAL_TO_READ)],
    "negotiation:history": [row(a_negotiation, **IN_DEAL_TO_READ)],
    "negotiation:list": [row(**FOR_ALL_WHO_READ)],
    "autorule:set": [
        row(a_listing(enabled=True), ok="owner", forbidden=f"admin member {PAIR} {OUT} read limited"),
    ],
    "autorule:get": [row(a_rule, ok="owner read limited", forbidden=f"admin member {PAIR} {OUT}")],
    "autorule:test": [row(a_listing(), ok="owner read limited", forbidden=f"admin member {PAIR} {OUT}")],
    "listing:buy": [
        row(
            a_listing(version=1, client_id="lamp"),
            ok=f"admin member {PAIR} {OUT}",
            forbidden="owner read limited",
        ),
    ],
    "transaction:get": [row(a_deal(), **IN_DEAL_OR_ADMIN_TO_READ)],
    "transaction:list": [row(**FOR_ALL_WHO_READ)],
    "transaction:receipt": [row(a_deal(), **IN_DEAL_OR_ADMIN_TO_READ)],
    "transaction:confirm": [row(a_deal("version"), **IN_DEAL)],
    "transaction:cancel": [row(a_deal("version"), **IN_DEAL)],
    "transaction:pay": [
        row(a_deal("version"), ok="member", forbidden="owner read limited", not_found=OUT_OF_DEAL),
    ],
    "transaction:refund": [
        row(
            a_deal("version", is_done=True),
            ok="owner site_admin",
            forbidden="member read limited",
            not_found=f"admin {PAIR} former stranger",
        ),
    ],
    "review:create": [
        row(reviews_a_deal, ok="owner member limited", forbidden="read", not_found=OUT_OF_DEAL),
    ],
    "review:list": [row(about("other"), **FOR_ALL_WHO_READ)],
    "listing:create": [
        row(lists, **FOR_ALL_WHO_WRITE),
        row(lists_in_a_thread, ok="owner member limited", forbidden=f"{OUT_OF_THREAD} read"),
    ],
    "listing:update": [row(a_listing(version=1, title="x"), **OWNER_OF_LISTING)],
    "listing:close": [
        row(a_listing(), ok="owner limited site_admin", forbidden=f"admin member {PAIR} former stranger read"),
    ],
    "listing:extend": [row(a_listing(), **OWNER_OF_LISTING)],
    "listing:like": [row(a_listing(on=True), **FOR_ALL_WHO_WRITE)],
    "listing:get": [row(a_listing(), **FOR_ALL_WHO_READ)],
    "listing:search": [row(**FOR_ALL_WHO_READ)],
    "match:act": [
        row(a_match, ok="owner member limited", forbidden="read", not_found=f"admin {PAIR} {OUT}"),
    ],
    "match:list": [row(**FOR_ALL_WHO_READ)],
    "mutual:list": [row(**FOR_ALL_WHO_READ)],
    "faq:ask": [
        row(a_listing(text="?", client_id="lamps"), **FOR_ALL_WHO_WRITE),
        row(
            a_listing("blocker", text="?", client_id="lamps"),
            ok=f"{GROUP} blocker {OUT} limited",
            conflict_blocked="blocked",
            forbidden="read",
        ),
    ],
    "faq:answer": [row(to_a_question, **OWNER_OF_LISTING)],
    "faq:reply": [row(to_a_question, **FOR_ALL_WHO_WRITE)],
    "faq:accept": [row(an_answer, ok="owner member limited", forbidden=f"{OUT_OF_THREAD} read")],
    "faq:list": [row(a_listing(), **FOR_ALL_WHO_READ)],
    "room:leave": [row(lambda s, who: room("conversation", s, who), **FOR_ALL_WHO_READ)],
    "room:sync": [
        row(lambda s, who: {**room("conversation", s, who), "after": 0}, **TAKING_PART_TO_READ),
        row(lambda s, who: {"room": f"user:{s.id('member')}", "after": 0}, **THE_MEMBER_TO_READ),
        row(lambda s, who: {**room("thread", s, who), "after": 0}, not_found=READERS),
        row(room_of_a_thread(after=0), **IN_THREAD_TO_READ),
        row(room_of_a_listing(after=0), **FOR_ALL_WHO_READ),
        row(room_of_a_thread("conversation", after=0), not_found=READERS),
    ],
    "thread:create": [
        row(
            lambda s, who: {"title": "All about lamps", "category": "other", "client_id": uuid4().hex},
            **FOR_ALL_WHO_WRITE,
        )
    ],
    "thread:list": [row(**FOR_ALL_WHO_READ)],
    "thread:get": [row(a_thread(), **FOR_ALL_WHO_READ)],
    "thread:update": [
        row(a_thread(version=1, title="x"), ok="owner limited", forbidden=f"member {OUT_OF_THREAD} read"),
        row(
            a_thread(version=1, is_pinned=True),
            ok="site_admin",
            forbidden=f"{GROUP} {PAIR} former stranger read limited",
        ),
    ],
    "thread:delete": [
        row(a_thread(), ok="owner limited site_admin", forbidden=f"admin member {PAIR} former stranger read"),
    ],
    "thread:join": [row(a_thread(), **FOR_ALL_WHO_WRITE)],
    "thread:leave": [row(a_thread(), **FOR_ALL_WHO_WRITE)],
    "thread:favorite": [
        row(a_thread(), ok="owner member limited", forbidden=f"{OUT_OF_THREAD} read"),
    ],
}


UNCOUNTED = dict.fromkeys((f"PARLEY_RATE_{limit.name}" for limit in Limit), "off")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parley(postgres: Postgres) -> AsyncIterator[Instance]:
    """An instance that counts nobody's calls, for all of this: its connections keep the statements prepared."""
    dsn = await postgres.create(postgres.dsn(MAJORS[0]), migrated=True)
    instance = await Instance(dsn, **UNCOUNTED).start()
    yield instance
    await instance.stop()
    await postgres.drop(dsn)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def apart(parley: Instance) -> AsyncIterator[Instance]:
    """Another instance on the same database, which hears nothing of the first one."""
    instance = await Instance(parley.dsn, **UNCOUNTED).start()
    yield instance
    await instance.stop()


# calling


@dataclass(frozen=True)
class Heard:
    """An answer as it came: the body over HTTP, the ack's on the socket; and what else tells one from another."""

    body: str
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def code(self) -> str:
        """ok, or the error's code, a conflict's with its reason."""
        answer = json.loads(self.body)
        if answer["ok"]:
            return "ok"
        error = answer["error"]
        return f"conflict/{error['reason']}" if error["code"] == "conflict" else str(error["code"])


async def over_http(parley: Instance, command: Command, payload: Payload, token: str | None) -> Heard:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with parley.http.post(parley.url + command.path, json=payload, headers=headers) as response:
        kept = tuple(sorted((name, value) for name, value in response.headers.items() if name != "Date"))
        return Heard(await response.text(), response.status, kept)


async def on_wire(wire: Wire, command: Command, payload: Payload) -> Heard:
    ack = await wire.ask(command.name, payload)
    return Heard(ack.removeprefix("[").removesuffix("]"))


async def on_socket(parley: Instance, command: Command, payload: Payload, token: str | None) -> Heard:
    try:
        async with wired(parley, token or "") as wire:
            return await on_wire(wire, command, payload)
    except ConnectRefused as refused:
        return Heard(json.dumps({"ok": False, "error": refused.said["data"]}))


Way = Callable[[Instance, Command, Payload, str | None], Awaitable[Heard]]


def ways(command: Command, *, both: bool) -> list[Way]:
    """How a command is called: by all of its transports, or the first."""
    found: list[Way] = []
    if command.transport is not Transport.SOCKET:
        found.append(over_http)
    if command.transport is not Transport.HTTP:
        found.append(on_socket)
    return found if both else found[:1]


def name_of(way: Way) -> str:
    return "over HTTP" if way is over_http else "on the socket"


async def payload_of(one: Row, s: Scene, who: str) -> Payload:
    made = one.payload(s, who)
    return made if isinstance(made, dict) else await made


def elsewhere(payload: Payload) -> Payload:
    """The same about objects that there are not."""
    changed: Payload = json.loads(UUIDS.sub(lambda _: str(uuid4()), json.dumps(payload)))
    return changed


NOUNS = sorted({name.partition(":")[0] for name in TABLE})
each_noun = pytest.mark.parametrize("noun", NOUNS)
in_one_loop = pytest.mark.asyncio(loop_scope="module")


def rows(noun: str | None = None) -> list[tuple[Command, int, Row]]:
    """The table, or a noun's part of it, without what is no command: another test speaks of that."""
    names = [name for name in TABLE if name in commands and noun in (None, name.partition(":")[0])]
    return [(commands[name], n, one) for name in names for n, one in enumerate(TABLE[name], 1)]


def token_of(s: Scene, who: str) -> str | None:
    return s.people[who].token if who in s.people else None


def words_of_others(who: str, command: Command) -> set[str]:
    """The words that this caller must not find in an answer."""
    if (who, command.name) == ("site_admin", "report:list"):
        return set()  # administrators see whatever has been reported, in other scenes too
    if who in IN_PRIVATE:
        return {GROUP_WORD}
    return {PRIVATE_WORD} if who in ("owner", "admin", "member", *NARROW) else {GROUP_WORD, PRIVATE_WORD}


# the tests


def test_every_command_has_its_rows() -> None:
    missing = [name for name in commands if name not in TABLE]
    assert not missing, (
        f"Say in TABLE of {__name__} who may call {', '.join(missing)}: a row with a payload made of the scene "
        "(tests/scenes.py; let it make what is not there yet) and the answer that each role has to get."
    )


def test_every_row_has_its_command() -> None:
    gone = [name for name in TABLE if name not in commands]
    assert not gone, f"There is no command {', '.join(gone)} any more: take its rows out of TABLE of {__name__}."


@in_one_loop
@each_noun
async def test_everybody_is_answered_as_the_table_says_and_no_answer_holds_what_others_said(
    parley: Instance, noun: str
) -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def call(command: Command, n: int, one: Row, way: Way) -> tuple[list[str], list[str]]:
        async with turns:
            return await disagreements(parley, command, n, one, way)

    calls = [call(*one, way) for one in rows(noun) for way in ways(one[0], both=one[0].name in ON_BOTH)]
    found = await asyncio.gather(*calls)
    allowed, others = (list(chain.from_iterable(lists)) for lists in zip(*found, strict=True))
    shown = "\n".join(["", f"wrong allows: {len(allowed)}", *allowed, f"other disagreements: {len(others)}", *others])
    assert not allowed + others, shown


async def disagreements(parley: Instance, command: Command, n: int, one: Row, way: Way) -> tuple[list[str], list[str]]:
    """Where the answers to a row are not the table's: who is let in or told what they must not be; and all others."""
    allowed, others = [], []
    s = await make_scene(parley)
    for who, expected in one.answers.items():
        heard = await way(parley, command, await payload_of(one, s, who), token_of(s, who))
        told = f"{command.name} (row {n}, {name_of(way)}) by {who}: {heard.code}, not {expected}"
        code = heard.code.partition("/")[0]
        if code not in ("ok", *codes_of(command)):
            others.append(f"{command.name} (row {n}, {name_of(way)}) by {who}: {code}, which is not documented")
        if heard.code != expected:
            (allowed if heard.code == "ok" else others).append(told)
        if any(word in heard.body for word in words_of_others(who, command)):
            allowed.append(f"{command.name} (row {n}, {name_of(way)}) by {who} holds what others said: {heard.body}")
        if heard.code == "ok" and not command.reads:
            s = await make_scene(parley)  # nobody finds what somebody before them has used up
    return allowed, others


def test_the_table_hides_much() -> None:
    assert sum(answer == "not_found" for _, _, one in rows() for answer in one.answers.values()) > 200


@in_one_loop
@each_noun
async def test_what_one_may_not_see_is_answered_as_what_is_not_there(parley: Instance, noun: str) -> None:
    told = []
    s = await make_scene(parley)
    for command, n, one in rows(noun):
        hiding = {"not_found", "forbidden"} if command.allow.name == "admin" else {"not_found"}
        for who in (who for who, answer in one.answers.items() if answer in hiding):
            for way in ways(command, both=True):
                payload = await payload_of(one, s, who)
                token = s.people[who].token
                there = await way(parley, command, payload, token)
                nowhere = await way(parley, command, elsewhere(payload), token)
                if there != nowhere or there.code not in hiding:
                    told.append(f"{command.name} (row {n}, {name_of(way)}) by {who}:\n  {there}\n  {nowhere}")
    assert not told, "\n".join(["", f"told apart: {len(told)}", *told])


@in_one_loop
@each_noun
@pytest.mark.parametrize("is_apart", [False, True], ids=["there", "by another instance, without a bus"])
async def test_who_is_shown_out_gets_the_same_answers_on_the_socket_they_had_open(
    parley: Instance, apart: Instance, noun: str, *, is_apart: bool
) -> None:
    told = []
    for command, n, one in rows(noun):
        if command.transport is Transport.HTTP:
            continue
        s = await make_scene(parley, has_left=False)
        former = s.people["former"]
        async with wired(apart if is_apart else parley, former.token) as wire:
            payload = await payload_of(one, s, "former")
            await s.people["owner"].post("participant:remove", conversation_id=s.group, user_id=former.user_id)
            heard = await on_wire(wire, command, payload)
            if heard.code != one.answers["former"]:
                told.append(f"{command.name} (row {n}): {heard.code}, not {one.answers['former']}")
            if heard.code == "not_found":
                nowhere = await on_wire(wire, command, elsewhere(payload))
                if heard != nowhere:
                    told.append(f"{command.name} (row {n}):\n  {heard}\n  {nowhere}")
    assert not told, "\n".join(["", *told])


def test_a_limited_token_leaves_out_what_the_list_says() -> None:
    assert {name for name, command in commands.items() if command.scope is Scope.FULL} == ACCOUNT_CHANGES


@in_one_loop
@each_noun
async def test_a_narrow_token_is_refused_exactly_what_its_scope_leaves_out(parley: Instance, noun: str) -> None:
    """Of somebody who may do everything: the owner of the group, an administrator of the site too."""
    told = []
    for command, n, one in rows(noun):
        if n > 1 or command.allow.public:
            continue
        [way] = ways(command, both=False)
        expected = {
            "owner": False,
            "limited": command.name in ACCOUNT_CHANGES,
            "read": not command.reads,
        }
        for who, is_refused in expected.items():
            s = await make_scene(parley, is_chief=True)
            caller: Person = s.people[who]
            heard = await way(parley, command, await payload_of(one, s, who), caller.token)
            message = json.loads(heard.body).get("error", {}).get("message", "")
            was_refused = heard.code == "forbidden" and message.startswith("This token ")
            may_not_anyway = one.answers["owner"] == "forbidden"  # whoever has made what the row is about
            if was_refused != is_refused or ((heard.code == "forbidden") != is_refused and not may_not_anyway):
                told.append(f"{command.name} by {who}: {heard.body}")
    assert not told, "\n".join(["", *told])
