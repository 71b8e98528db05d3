"""Rooms and ids of others, guessed or known: whoever has no part in them is told the same as of what is not there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import chain
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.commands.registry import Command, Limit, commands
from tests.frames import wired
from tests.handlers import test_authority as authority
from tests.hostile.payloads import Place, places
from tests.market import listed, offer, thread_of
from tests.people import ConnectRefused, Instance, Person
from tests.scenes import Scene, make_scene

KINDS = ("user", "conversation", "thread", "live", "listing")
OPEN_TO_ALL = {"user_id", "user_ids", "listing_id", "thread_id", "parent_id", "faq_id", "buyer_id"}
CURSORS = {"before"}  # a place in the order of one's own, whatever stands there


@pytest.fixture
async def parley(shared_database: str) -> AsyncIterator[Instance]:
    """An instance that counts nobody's calls."""
    instance = await Instance(shared_database, **{f"PARLEY_RATE_{limit.name}": "off" for limit in Limit}).start()
    yield instance
    await instance.stop()


async def rooms_of_others(s: Scene) -> list[UUID]:
    """All that others have which is watched, in every kind of room: people, talk, threads, deals."""
    seller, buyer = s.people["newcomer"], s.people["other"]
    made = await offer(buyer, await listed(seller))
    thread = await thread_of(seller, buyer)
    ids = [s.group, s.private, thread, *(s.id(part) for part in ("owner", "member", "blocker", "blocked"))]
    ids += [made["negotiation"]["conversation_id"], *s.said.values(), made["offer"]["offer_id"]]
    return [UUID(each) for each in ids]


async def test_the_rooms_of_others_are_as_those_that_are_not_there(parley: Instance) -> None:
    s = await make_scene(parley)
    ids = await rooms_of_others(s)
    for part in ("stranger", "former"):
        async with wired(parley, s.people[part].token) as wire:
            nowhere = {}
            for kind in KINDS[:4]:
                about = {"room": f"{kind}:{uuid4()}", "after": 0}
                nowhere[kind] = [await wire.ask(command, about) for command in ("room:join", "room:sync")]
                assert all('"not_found"' in answer for answer in nowhere[kind]), nowhere
                for id_ in ids:
                    about = {"room": f"{kind}:{id_}", "after": 0}
                    heard = [await wire.ask(command, about) for command in ("room:join", "room:sync")]
                    assert heard == nowhere[kind], (part, kind, id_)
            for id_ in ids:  # leaving tells nothing either
                assert await wire.ask("room:leave", {"room": f"conversation:{id_}"}) == '[{"ok":true,"data":{}}]'
        guesses = {f"{kind}:{id_}": 0 for kind in KINDS for id_ in ids}
        phone = await s.people[part].connect(rooms=guesses)
        named = {*phone.hello["rooms"], *phone.hello["reset"]}
        assert named.isdisjoint(guesses), named.intersection(guesses)
        await phone.call("account:me")
        assert not [push for push in phone.heard if push.room in guesses]


ODD_NAMES = [
    "", ":", "conversation", "conversation:", ":{id}", "conversation:*", "*:*", "*", "conversation:%",
    "conversation:?*",
    "Conversation:{id}", " conversation:{id}", "conversation: {id}", "conversation:{id} ", "conversation:{id}\n",
    "conversation::{id}", "conversation:{{{id}}}", "conversation:urn:uuid:{id}", "conversation:{hex}",
    "conversation:{id}:x", "conversation/{id}", "conversation:{id},user:{id}", "presence:{id}", "limits:{nil}",
    "session:{id}", "admin:{id}", "rooms:{id}", "conversation:../user/{id}", "conversation:' or '1'='1",
    "conversation:{wide}", "{id}", "/{id}", "user:{id}\u202e", "conversation:{id}\u200b",
]  # fmt: skip


async def test_no_spelling_of_a_rooms_name_opens_it(parley: Instance) -> None:
    s = await make_scene(parley)
    id_ = s.private
    wide = "".join(chr(ord(char) + 0xFEE0) if char.isdigit() else char for char in id_)
    filled = {"id": id_, "hex": UUID(id_).hex, "wide": wide, "nil": UUID(int=0)}
    spelt = {form: form.format(**filled) for form in (*ODD_NAMES, "conversation:{id}")}
    for part in ("stranger", "blocker"):  # who has no part in it, and who has
        async with wired(parley, s.people[part].token) as wire:
            for form, name in spelt.items():
                is_right = part == "blocker" and form == "conversation:{id}"
                for command in ("room:join", "room:sync"):
                    answer = json.loads(await wire.ask(command, {"room": name, "after": 0}))[0]
                    assert answer["ok"] == is_right, (form, command, answer)
                    if not is_right:
                        assert answer["error"]["code"] in ("invalid", "not_found"), (form, command, answer)
        try:
            phone = await s.people[part].connect(rooms=dict.fromkeys(filter(None, spelt.values()), 0))
        except ConnectRefused as refused:
            raise AssertionError(refused.said) from None
        own = {f"user:{s.id(part)}"} | ({f"conversation:{id_}"} if part == "blocker" else set())
        assert set(phone.hello["rooms"]) == own


# ids


async def hidden_from_the_group(s: Scene) -> dict[str, str]:
    """What only others have a part in, by the name of the field where its id would stand."""
    seller, buyer = s.people["newcomer"], s.people["stranger"]
    made = await offer(buyer, await listed(seller))
    bought = await listed(seller)
    deal = await buyer.post(
        "listing:buy", listing_id=bought["listing_id"], version=bought["version"], client_id=uuid4().hex
    )
    message = s.said["blocker"]
    return {
        "conversation_id": s.private,
        "message_id": message,
        "reply_to_id": message,
        "attachment_id": s.shown[s.private],
        "attachment_ids": s.shown[s.private],
        "session_id": s.people["blocker"].session_id,
        "offer_id": made["offer"]["offer_id"],
        "negotiation_id": made["negotiation"]["negotiation_id"],
        "transaction_id": deal["transaction"]["transaction_id"],
        "id": message,  # the subject of a report
        # what is of another kind
        **dict.fromkeys(OPEN_TO_ALL, s.private),
        "match_id": message,
        "report_id": message,
    }


def caller_of(one: authority.Row) -> str | None:
    """Somebody in the group who may do it, where it is right."""
    return next((who for who in ("owner", "member", "site_admin") if one.answers[who] == "ok"), None)


ID_PLACES = [
    (command, place)
    for command in commands.values()
    for place in places(command)
    if place.is_id and place.path[-1] not in CURSORS
]


def test_every_id_that_a_command_takes_is_known_here() -> None:
    known = {*OPEN_TO_ALL, "conversation_id", "message_id", "reply_to_id", "attachment_id", "attachment_ids", "id"}
    known |= {"session_id", "offer_id", "negotiation_id", "transaction_id", "match_id", "report_id"}
    assert {_name(place) for _, place in ID_PLACES} == known
    assert len(ID_PLACES) > 70


def _name(place: Place) -> str:
    return place.path[-2] if place.path[-1] == "[]" else place.path[-1]


async def test_an_id_of_others_in_whatever_place_is_as_one_that_is_not_there(parley: Instance) -> None:
    s = await make_scene(parley)
    hidden = await hidden_from_the_group(s)
    by_command: dict[str, list[Place]] = {}
    for command, place in ID_PLACES:
        by_command.setdefault(command.name, []).append(place)
    turns = asyncio.Semaphore(4)

    async def told_apart(command: Command) -> list[str]:
        found = []
        for one in authority.TABLE[command.name]:
            who = caller_of(one)
            if who is None:
                continue
            async with turns:
                payload = await authority.payload_of(one, s, who)
                for place in by_command[command.name]:
                    there = await _ask(parley, command, s.people[who], place.put(payload, hidden[_name(place)]))
                    nowhere = await _ask(parley, command, s.people[who], place.put(payload, str(uuid4())))
                    if there != nowhere:
                        found.append(f"{command.name} {place} by {who}:\n  {there}\n  {nowhere}")
        return found

    lists = await asyncio.gather(*(told_apart(commands[name]) for name in by_command))
    found = list(chain.from_iterable(lists))
    assert not found, "\n".join(["", *found])


async def _ask(parley: Instance, command: Command, person: Person, payload: dict[str, Any]) -> str:
    """The answer, without the ids that were asked with."""
    if "client_id" in payload:
        payload["client_id"] = uuid4().hex
    [way] = authority.ways(command, both=False)
    heard = await way(parley, command, payload, person.token)
    return authority.UUIDS.sub("…", heard.body) if heard.code != "ok" or command.reads else f"{command.name} was done"
