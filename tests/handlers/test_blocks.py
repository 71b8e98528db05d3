"""Blocks: made, undone and listed by one; the other sees nothing of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from handlers import blocks as handler
from storage import blocks
from tests.market import listed, refused
from tests.people import Instance, Person, Refusal


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def block(by: Person, whom: Person) -> None:
    assert await by.post("user:block", user_id=whom.user_id) == {}


async def unblock(by: Person, whom: Person) -> None:
    assert await by.post("user:unblock", user_id=whom.user_id) == {}


async def blocked(by: Person) -> list[str]:
    return [user["user_id"] for user in (await by.post("user:blocks"))["users"]]


async def code(person: Person, command: str, user_id: str) -> str:
    with pytest.raises(Refusal) as refused:
        await person.post(command, user_id=user_id)
    return refused.value.code


async def test_one_blocks_and_unblocks_and_sees_whom_the_latest_first(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    carim = await parley.person("carim")
    assert await blocked(amina) == []
    for whom in (bilal, carim, bilal):  # again is no other block
        await block(amina, whom)
    assert await blocked(amina) == [carim.user_id, bilal.user_id]
    listed = (await amina.post("user:blocks"))["users"]
    assert listed[0] == await amina.post("user:get", user_id=carim.user_id)
    for _ in range(2):
        await unblock(amina, carim)
        assert await blocked(amina) == [bilal.user_id]
    await block(amina, carim)
    assert await blocked(amina) == [carim.user_id, bilal.user_id]


async def test_ones_other_devices_hear_of_a_block_once(amina: Person, bilal: Person) -> None:
    phone = await amina.connect()
    for _ in range(2):
        await block(amina, bilal)
    for _ in range(2):
        await unblock(amina, bilal)
    await phone.hearing("block:changed", blocked=False)
    heard = [push.payload for push in phone.heard if push.name == "block:changed"]
    assert heard == [{"user_id": bilal.user_id, "blocked": blocked} for blocked in (True, False)]


async def test_who_is_blocked_sees_nothing_of_it(amina: Person, bilal: Person, their_chat: str) -> None:
    async def seen() -> dict[str, Any]:
        return {
            "her": await bilal.post("user:get", user_id=amina.user_id),
            "found": await bilal.post("user:search", query=amina.username),
            "blocks": await bilal.post("user:blocks"),
            "own": await bilal.post("room:sync", room=f"user:{bilal.user_id}", after=0),
            "chat": await bilal.post("room:sync", room=f"conversation:{their_chat}", after=0),
        }

    before = await seen()
    await block(amina, bilal)
    assert await seen() == before
    assert before["found"]["users"] == [before["her"]]
    assert before["blocks"] == {"users": []}


@pytest.mark.parametrize("command", ["user:block", "user:unblock"])
async def test_nobody_blocks_themselves_or_nobody(parley: Instance, amina: Person, bilal: Person, command: str) -> None:
    assert await code(amina, command, amina.user_id) == "invalid"
    assert await code(amina, command, str(uuid4())) == "not_found"
    async with parley.parley.database.connection() as db:
        await db.execute("update users set status = 'deleted' where user_id = $1", bilal.user_id)
    assert await code(amina, command, bilal.user_id) == "not_found"


async def test_blocks_are_bounded(
    parley: Instance, amina: Person, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "BLOCKS", 2)
    carim, dalia = [await parley.person(name) for name in ("carim", "dalia")]
    for whom in (bilal, carim, bilal):
        await block(amina, whom)
    assert await code(amina, "user:block", dalia.user_id) == "too_large"
    assert await blocked(amina) == [carim.user_id, bilal.user_id]


async def test_what_a_block_refuses_comes_with_what_it_was_about(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    lamp, carim = await listed(amina), await parley.person("carim")
    group = await parley.chat(amina, carim, kind="group")
    sent = {"conversation_id": their_chat, "text": "Hello"}
    said = await bilal.post("message:send", **sent, client_id=uuid4().hex)
    question = await bilal.post("faq:ask", listing_id=lamp["listing_id"], text="Is it?", client_id=uuid4().hex)
    await block(amina, bilal)
    price, message = {"amount": 1, "currency": "EUR"}, {"message_id": said["message_id"]}
    about = {
        "offer:make": ("listing_id", {"listing_id": lamp["listing_id"], "listing_version": 1, "price": price}),
        "listing:buy": ("listing_id", {"listing_id": lamp["listing_id"], "version": 1}),
        "faq:ask": ("listing_id", {"listing_id": lamp["listing_id"], "text": "?"}),
        "faq:reply": ("listing_id", {"parent_id": question["faq_id"], "text": "?"}),
        "message:send": ("conversation_id", sent),
        "message:edit": ("message_id", {**message, "text": "Hey", "version": 1}),
        "message:react": ("message_id", {**message, "emoji": "👍", "on": True}),
    }
    current = {"listing_id": lamp["listing_id"], "conversation_id": their_chat, **message}
    for command, (which, payload) in about.items():
        keyed = {} if command in ("message:edit", "message:react") else {"client_id": uuid4().hex}
        error = await refused(bilal, command, **payload, **keyed)
        assert (error["reason"], error["current"][which]) == ("blocked", current[which]), command
    error = await refused(amina, "participant:add", conversation_id=group, user_id=bilal.user_id)
    assert (error["reason"], error["current"]["conversation_id"]) == ("blocked", group)


@pytest.mark.both_postgres
async def test_a_block_stands_between_two_people_whichever_made_it(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    carim, dalia = [await parley.person(name) for name in ("carim", "dalia")]
    await block(amina, bilal)
    await block(carim, amina)
    await block(amina, carim)
    await block(bilal, dalia)
    ids = {person.username: UUID(person.user_id) for person in (amina, bilal, carim, dalia)}
    a, b, c, d = ids.values()
    async with parley.parley.database.connection() as db:
        assert await blocks.between(db, a, [b, c, d]) == {b, c}
        assert await blocks.between(db, a, [d, b]) == {b}
        assert await blocks.between(db, b, [a, c, d]) == {a, d}
        assert await blocks.between(db, d, [a, c]) == set()
        assert await blocks.between(db, a, []) == set()
