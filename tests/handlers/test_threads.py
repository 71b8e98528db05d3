"""Threads: made, found, looked at, changed; everybody sees them."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from uuid import uuid4

import pytest

from handlers import members
from tests.people import Instance, Person
from tests.threads import code, make_admin, new_thread, refusal


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def test_a_thread_is_made_once_and_everybody_sees_it(amina: Person, bilal: Person) -> None:
    phone = await amina.connect()
    asked = {"title": "Nintendo", "category": "other", "description": "all of it", "client_id": "one"}
    made = await amina.post("thread:create", **asked)
    assert made == {
        "thread_id": made["thread_id"],
        "title": "Nintendo",
        "description": "all of it",
        "category": "other",
        "owner_id": amina.user_id,
        "member_count": 1,
        "boost_level": None,
        "boost_points": 0,
        "is_hot": False,
        "is_pinned": False,
        "joined": True,
        "favorite": False,
        "version": 1,
        "at": made["at"],
    }
    assert await amina.post("thread:create", **asked) == made
    error = await refusal(amina, "thread:create", **{**asked, "title": "Sega"})
    assert (error["reason"], error["current"]) == ("key_reuse", made)
    assert await bilal.post("thread:get", thread_id=made["thread_id"]) == {**made, "joined": False}
    opened = (await phone.hearing("conversation:created", conversation_id=made["thread_id"])).payload
    assert (opened["kind"], opened["thread_id"], opened["title"]) == ("thread", made["thread_id"], "Nintendo")
    sent = await phone.send(made["thread_id"], "hello")
    heard = await phone.hearing("message:created", text="hello")
    assert (heard.room, heard.seq) == (f"thread:{made['thread_id']}", sent["seq"])
    assert await code(bilal, "thread:get", thread_id=str(uuid4())) == "not_found"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"category": "boats"}, "category"),
        ({"title": ""}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"description": "x" * 10_001}, "description"),
    ],
)
async def test_what_is_no_thread_is_not_made(amina: Person, fields: dict[str, Any], wrong: str) -> None:
    given = {"title": "x", "category": "other", "client_id": uuid4().hex, **fields}
    error = await refusal(amina, "thread:create", **given)
    assert error["code"] in ("invalid", "too_large")
    assert wrong in str(error)


async def test_threads_are_listed_pinned_first_then_the_newest(parley: Instance, amina: Person, bilal: Person) -> None:
    admin = await make_admin(bilal)
    made = [await new_thread(amina, category="beauty", title=f"T{n}") for n in range(6)]
    pinned = made[2]
    await admin.post("thread:update", thread_id=pinned, version=1, is_pinned=True)
    await admin.post("thread:join", thread_id=made[4])
    await admin.post("thread:delete", thread_id=made[5])

    async def listed(person: Person, limit: int = 2, **asked: Any) -> list[str]:
        found, before, pages = [], None, 0
        while True:
            page = await person.post("thread:list", limit=limit, **asked, **({"before": before} if before else {}))
            assert len(page["threads"]) <= limit
            found += [one["thread_id"] for one in page["threads"]]
            if (before := page["next"]) is None:
                return [thread_id for thread_id in found if thread_id in made]
            assert (pages := pages + 1) < 500

    newest = [pinned, made[4], made[3], made[1], made[0]]
    assert await listed(bilal, category="beauty") == newest
    assert await listed(bilal, limit=100) == newest
    assert await listed(bilal, joined=True) == [made[4]]
    assert await listed(amina, joined=True) == newest
    assert await listed(amina, joined=True, category="books") == []
    assert await listed(bilal, joined=False, category="beauty") == [pinned, made[3], made[1], made[0]]
    error = await refusal(bilal, "thread:list", before="x")
    assert list(error["fields"]) == ["before"]


async def test_a_page_of_threads_ends_at_its_bytes(amina: Person) -> None:
    for _ in range(10):
        await new_thread(amina, description="😀" * 9_000, category="furniture")
    page = await amina.post("thread:list", joined=True, limit=100)
    assert 1 <= len(page["threads"]) < 10
    rest = await amina.post("thread:list", joined=True, limit=100, before=page["next"])
    assert len(page["threads"]) + len(rest["threads"]) == 10


async def test_its_owner_changes_a_thread_and_administrators_pin_it(
    amina: Person, bilal: Person, carim: Person, thread: str
) -> None:
    phone = await amina.connect()
    change = {"thread_id": thread, "version": 1, "title": "Apples", "description": "green", "category": "books"}
    changed = await amina.post("thread:update", **change)
    assert (changed["title"], changed["description"], changed["category"], changed["version"]) == (
        "Apples", "green", "books", 2,
    )  # fmt: skip
    heard = await phone.hearing("thread:changed", version=2)
    assert heard.payload == {key: value for key, value in changed.items() if key not in ("joined", "favorite")}
    assert heard.room == f"thread:{thread}"
    assert await amina.post("thread:update", **change) == changed  # asked again
    error = await refusal(amina, "thread:update", **{**change, "title": "Pears"})
    assert (error["reason"], error["current"]) == ("version", changed)
    assert await code(bilal, "thread:update", **change) == "forbidden"
    assert await code(amina, "thread:update", thread_id=thread, version=2, is_pinned=True) == "forbidden"
    admin = await make_admin(carim)
    assert await code(admin, "thread:update", thread_id=thread, version=2, title="Mine") == "forbidden"
    assert (await admin.post("thread:update", thread_id=thread, version=2, is_pinned=True))["is_pinned"]
    cleared = await amina.post("thread:update", thread_id=thread, version=3, description=None)
    assert (cleared["description"], cleared["is_pinned"], cleared["version"]) == (None, True, 4)
    talk = await amina.post("conversation:get", conversation_id=thread)
    assert (talk["kind"], talk["title"], talk["version"]) == ("thread", "Apples", 4)
    assert len([push for push in phone.heard if push.name == "thread:changed"]) <= 3


async def test_of_two_changes_at_once_one_wins(amina: Person, thread: str) -> None:
    answers = await asyncio.gather(
        *(
            amina.instance.post("thread:update", {"thread_id": thread, "version": 1, "title": title}, token=amina.token)
            for title in ("one", "two")
        )
    )
    assert sorted(status for status, _ in answers) == [200, 409]


async def test_a_favorite_is_ones_own_and_of_those_who_have_joined(amina: Person, bilal: Person, thread: str) -> None:
    assert (await amina.post("thread:favorite", thread_id=thread))["favorite"] is True
    assert await code(bilal, "thread:favorite", thread_id=thread) == "forbidden"
    await bilal.post("thread:join", thread_id=thread)
    assert (await bilal.post("thread:get", thread_id=thread))["favorite"] is False
    assert (await amina.post("thread:favorite", thread_id=thread, on=False))["favorite"] is False
    assert await code(amina, "thread:favorite", thread_id=str(uuid4())) == "not_found"


def test_the_push_names_say_what_they_should() -> None:
    assert re.fullmatch(r"<durable or ephemeral push member:left to thread, user>", repr(members.member_left))
