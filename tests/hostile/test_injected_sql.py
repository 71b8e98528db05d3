"""SQL, and what else means something to somebody, in every text of every command: to the database it is text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.commands.docs.failures import codes_of
from server.commands.registry import Command, Limit, Transport, commands
from tests.handlers import test_authority as authority
from tests.hostile.payloads import Place, places
from tests.market import listed, offer
from tests.people import PASSWORD, Instance, Person, Refusal
from tests.scenes import Scene, make_scene
from tests.servers import fetch

INJECTED = [
    "'; drop table users cascade; select pg_sleep(30); --",
    "x' or '1'='1",
    'x"; delete from messages; /* $1 $$ %s %(a)s {0} {a} :name \\\' \\" */ --',
    "\\",
    "' union select password_hash from users --",
    "a\0b",
    "\ud800",
    "$1",
]
KEPT = [text for text in INJECTED if "\0" not in text and text != "\ud800"]
IN_A_WORD = ["' union select password_hash from users --", "a\0b", "\ud800"]  # where a list says what may stand
ENDS_THE_CALLER = {"account:logout"}
AT_ONCE = 8


@pytest.fixture
async def parley(shared_database: str) -> AsyncIterator[Instance]:
    """An instance that counts nobody's calls."""
    instance = await Instance(shared_database, **{f"PARLEY_RATE_{limit.name}": "off" for limit in Limit}).start()
    yield instance
    await instance.stop()


ADMINS = "select count(*) from users where 'admin' = any (roles)"
STANDING = """
select relname::text from pg_class where relnamespace = 'public'::regnamespace
union all select proname::text from pg_proc where pronamespace = 'public'::regnamespace order by 1
"""


async def test_no_text_is_anything_but_text(parley: Instance) -> None:
    before = await fetch(parley.dsn, STANDING)
    sentinel, other = await parley.register("sentinel"), await parley.person("other")
    chat = await parley.chat(sentinel, other)
    await sentinel.post("message:send", conversation_id=chat, client_id="1", text="still here")
    admins = await fetch(parley.dsn, ADMINS)
    turns = asyncio.Semaphore(AT_ONCE)
    lists = await asyncio.gather(*(_attacked(parley, command, turns) for command in commands.values()))
    found = list(chain.from_iterable(lists))
    assert not found, "\n".join(["", *found])
    assert await fetch(parley.dsn, STANDING) == before
    assert (await parley.log_in(sentinel.username, PASSWORD)).user_id == sentinel.user_id
    [message] = (await other.post("message:history", conversation_id=chat))["messages"]
    assert message["text"] == "still here"
    scenes = len([name for name in commands if _rows(name)])
    assert (await fetch(parley.dsn, ADMINS))[0][0] <= admins[0][0] + scenes


def _rows(name: str) -> list[tuple[authority.Row, str]]:
    """The rows of a command in which somebody may do it, and who."""
    found = []
    for one in authority.TABLE[name]:
        who = next((who for who in ("owner", "member", "stranger", "site_admin") if one.answers[who] == "ok"), None)
        if who is not None:
            found.append((one, who))
    return found


async def _attacked(parley: Instance, command: Command, turns: asyncio.Semaphore) -> list[str]:
    """What is wrong with the answers to a command with each text in each place, in turn."""
    found: list[str] = []
    spots, rows = places(command), _rows(command.name)
    if not spots or command.name in ENDS_THE_CALLER:
        return found
    async with turns:
        s = await make_scene(parley)
        one, who = rows[0]
        payload = await authority.payload_of(one, s, who)
        caller = s.people[who]
        device = await caller.connect() if command.transport is Transport.SOCKET else None
        for place in spots:
            for text in INJECTED if place.is_text else IN_A_WORD:
                asked = place.put(payload, text)
                if "client_id" in payload and place.path != ("client_id",):
                    asked["client_id"] = uuid4().hex
                if device is not None:
                    answer = await device.answer(command.name, **asked)
                else:
                    _, answer = await parley.post(command.name, asked, token=caller.token)
                found += _faults(command, place, text, answer)
        if device is not None:
            await device.leave()
    return found


def _faults(command: Command, place: Place, text: str, answer: dict[str, Any]) -> list[str]:
    told = f"{command.name} {place} {text!r}: {json.dumps(answer)[:300]}"
    if not answer["ok"]:
        code = answer["error"]["code"]
        # Unavailable would be a statement that slept.
        return [told] if code in ("internal", "unavailable") or code not in codes_of(command) else []
    if text not in KEPT:
        return [told]
    kept = list(_named(answer["data"], place.path[-1]))
    return [told] if not place.is_id and kept and isinstance(kept[0], str) and text not in kept else []


def _named(data: Any, name: str) -> Iterator[Any]:
    """The values of all fields of that name in an answer."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key == name:
                yield value
            yield from _named(value, name)
    elif isinstance(data, list):
        for item in data:
            yield from _named(item, name)


@pytest.mark.parametrize("text", KEPT)
async def test_what_was_said_comes_back_to_the_letter(parley: Instance, text: str) -> None:
    s = await make_scene(parley)
    for stored, read in await _round_trips(s, text):
        assert read == stored
    async with parley.parley.database.connection() as db:  # and so it stands
        stored = await db.fetchval(
            "select count(*) from messages where text = $1 and conversation_id = $2", text, UUID(s.group)
        )
    assert stored == 1


async def _round_trips(s: Scene, text: str) -> list[tuple[Any, Any]]:
    """Everything that is stored of what people type, and what is read of it by another way."""
    owner, member = s.people["owner"], s.people["member"]
    sent = await owner.post("message:send", conversation_id=s.group, client_id=uuid4().hex, text=text)
    history = await member.post("message:history", conversation_id=s.group, after_seq=sent["seq"] - 1)
    group = await owner.post("conversation:get", conversation_id=s.group)
    await owner.post("conversation:update", conversation_id=s.group, version=group["version"], title=text)
    titled = await member.post("conversation:get", conversation_id=s.group)
    about = {"title": text, "description": text, "category": "other", "client_id": uuid4().hex}
    thread = await owner.post("thread:create", **about)
    listing = await listed(owner, title=text, description=text)
    question = await member.post("faq:ask", listing_id=listing["listing_id"], text=text, client_id=uuid4().hex)
    made = await offer(member, listing, message=text)
    preferences = {text: {text: [text]}}
    await owner.post("account:update", preferences=preferences)
    seen = await member.post("listing:get", listing_id=listing["listing_id"])
    searched = await _found(member, text, s.group)
    synced = await member.post("room:sync", room=f"conversation:{s.group}", after=sent["seq"] - 1)
    edited = await owner.post("message:edit", message_id=sent["message_id"], version=1, text=f"{text}{text}")
    revisions = await member.post("message:revisions", message_id=sent["message_id"])
    key = await owner.post("message:send", conversation_id=s.group, client_id=text[:64], text="by its key")
    again = await owner.post("message:send", conversation_id=s.group, client_id=text[:64], text="by its key")
    await owner.post("message:edit", message_id=sent["message_id"], version=2, text=text)
    desk = await owner.post("negotiation:get", negotiation_id=made["negotiation"]["negotiation_id"])
    return [
        (text, history["messages"][0]["text"]),
        (text, synced["events"][0]["payload"]["text"]),
        (text, titled["title"]),
        ([text] * 2, [thread["title"], thread["description"]]),
        (text, (await member.post("thread:get", thread_id=thread["thread_id"]))["title"]),
        ([text] * 2, [seen["title"], seen["description"]]),
        (text, question["text"]),
        (text, (await owner.post("faq:list", listing_id=listing["listing_id"]))["faqs"][0]["text"]),
        (text, desk["current_offer"]["message"]),
        (preferences, (await owner.post("account:me"))["preferences"]),
        (text + text, edited["text"]),
        (text, revisions["revisions"][0]["text"]),
        (key, again),
        ([], [message for message in searched if message["conversation_id"] != s.group]),
    ]


async def _found(person: Person, text: str, conversation_id: str) -> list[dict[str, Any]]:
    """What a search for it finds, which nobody has to understand."""
    with suppress(Refusal):  # nothing in it is a word
        found = await person.post("message:search", query=text, conversation_id=conversation_id)
        messages: list[dict[str, Any]] = found["messages"]
        return messages
    return []
