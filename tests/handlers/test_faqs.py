"""Questions about listings: asked, answered by the owner, replied to, and an answer accepted."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.market import listed, refused, set_
from tests.people import Instance, Person


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


@pytest.fixture
async def lamp(amina: Person) -> dict[str, Any]:
    """What Amina sells."""
    return await listed(amina)


async def ask(person: Person, listing: dict[str, Any], text: str = "Does it glow?") -> dict[str, Any]:
    """A question."""
    asked = {"listing_id": listing["listing_id"], "text": text, "client_id": uuid4().hex}
    question: dict[str, Any] = await person.post("faq:ask", **asked)
    return question


async def say(person: Person, how: str, parent: dict[str, Any], text: str = "It does.") -> dict[str, Any]:
    """An answer or a reply."""
    asked = {"parent_id": parent["faq_id"], "text": text, "client_id": uuid4().hex}
    said: dict[str, Any] = await person.post(f"faq:{how}", **asked)
    return said


async def all_of(person: Person, listing: dict[str, Any], limit: int = 100) -> list[dict[str, Any]]:
    """The whole list, page by page."""
    found: list[dict[str, Any]] = []
    before: dict[str, Any] = {}
    while True:
        page = await person.post("faq:list", listing_id=listing["listing_id"], limit=limit, **before)
        assert len(page["faqs"]) <= limit
        found += page["faqs"]
        if page["next"] is None:
            return found
        before = {"before": page["next"]}


async def test_a_question_is_what_the_contract_says_and_the_room_and_the_owner_hear_of_it(
    parley: Instance, amina: Person, bilal: Person, lamp: dict[str, Any]
) -> None:
    owner, watcher = await amina.connect(), await (await parley.person("carim")).connect()
    await watcher.call("room:join", room=f"listing:{lamp['listing_id']}")
    asked = await ask(bilal, lamp, "هل يضيء؟")
    assert set(asked) == {"faq_id", "listing_id", "user_id", "parent_id", "type", "text", "is_accepted", "at"}
    assert [asked[name] for name in ("listing_id", "user_id", "parent_id", "type", "text", "is_accepted")] == [
        *(lamp["listing_id"], bilal.user_id, None, "question", "هل يضيء؟", False)
    ]
    for device, room in ((owner, f"user:{amina.user_id}"), (watcher, f"listing:{lamp['listing_id']}")):
        push = await device.hearing("faq:posted")
        assert (push.room, push.payload) == (room, asked)


async def test_the_owner_alone_answers_and_questions_alone(amina: Person, bilal: Person, lamp: dict[str, Any]) -> None:
    asked = await ask(bilal, lamp)
    answered = await say(amina, "answer", asked)
    assert (answered["type"], answered["parent_id"]) == ("answer", asked["faq_id"])
    more = {"text": "x", "client_id": "a"}
    assert (await refused(bilal, "faq:answer", parent_id=asked["faq_id"], **more))["code"] == "forbidden"
    replied = await say(bilal, "reply", answered)
    for parent in (answered, replied):
        error = await refused(amina, "faq:answer", parent_id=parent["faq_id"], **more)
        assert list(error["fields"]) == ["parent_id"]


async def test_a_repeat_is_the_same(amina: Person, bilal: Person, lamp: dict[str, Any]) -> None:
    asked = {"listing_id": lamp["listing_id"], "text": "?", "client_id": "a"}
    first = await bilal.post("faq:ask", **asked)
    assert await bilal.post("faq:ask", **asked) == first
    error = await refused(bilal, "faq:ask", **{**asked, "text": "!"})
    assert (error["reason"], error["current"]) == ("key_reuse", first)
    for how in ("answer", "reply"):
        more = {"parent_id": first["faq_id"], "text": "?", "client_id": how}
        assert await amina.post(f"faq:{how}", **more) == await amina.post(f"faq:{how}", **more)
    assert len(await all_of(bilal, lamp)) == 3


async def test_one_answer_of_a_question_is_accepted(
    parley: Instance, amina: Person, bilal: Person, lamp: dict[str, Any]
) -> None:
    device = await amina.connect()
    asked, other = await ask(bilal, lamp), await ask(bilal, lamp)
    answers = [await say(amina, "answer", asked, str(n)) for n in range(2)]
    beside = await say(amina, "answer", other)
    for person, one in ((bilal, answers[0]), (amina, beside), (amina, answers[1]), (amina, answers[1])):
        accepted = await person.post("faq:accept", faq_id=one["faq_id"])
        assert accepted == {**one, "is_accepted": True}
    assert {one["faq_id"] for one in await all_of(bilal, lamp) if one["is_accepted"]} == {
        *(beside["faq_id"], answers[1]["faq_id"])
    }
    await ask(bilal, lamp, "the last")
    await device.hearing("faq:posted", text="the last")
    heard = [push.payload["faq_id"] for push in device.heard if push.name == "faq:accepted"]
    assert heard == [answers[0]["faq_id"], beside["faq_id"], answers[1]["faq_id"]]  # asked again, it is not told again


async def test_of_answers_accepted_at_once_one_is_left(amina: Person, bilal: Person, lamp: dict[str, Any]) -> None:
    asked = await ask(bilal, lamp)
    answers = [await say(amina, "answer", asked) for _ in range(4)]
    await asyncio.gather(
        *(person.post("faq:accept", faq_id=one["faq_id"]) for one in answers for person in (amina, bilal))
    )
    assert sum(one["is_accepted"] for one in await all_of(bilal, lamp)) == 1


async def test_who_asked_and_the_owner_alone_accept_and_answers_alone(
    parley: Instance, amina: Person, bilal: Person, lamp: dict[str, Any]
) -> None:
    asked = await ask(bilal, lamp)
    answered = await say(amina, "answer", asked)
    carim = await parley.person("carim")
    replied = await say(carim, "reply", answered)
    assert (await refused(carim, "faq:accept", faq_id=answered["faq_id"]))["code"] == "forbidden"
    for one in (asked, replied):
        assert list((await refused(bilal, "faq:accept", faq_id=one["faq_id"]))["fields"]) == ["faq_id"]


@pytest.mark.parametrize("is_owner", [True, False])
async def test_nobody_asks_or_replies_across_a_block(
    parley: Instance, amina: Person, bilal: Person, lamp: dict[str, Any], is_owner: bool
) -> None:
    asked = await ask(bilal, lamp)
    by, whom = (amina, bilal) if is_owner else (bilal, amina)
    await by.post("user:block", user_id=whom.user_id)
    more = {"text": "?", "client_id": "a"}
    for command, about in {
        "faq:ask": {"listing_id": lamp["listing_id"]},
        "faq:reply": {"parent_id": asked["faq_id"]},
    }.items():
        error = await refused(bilal, command, **about, **more)
        assert (error["code"], error["reason"]) == ("conflict", "blocked")
    assert await say(amina, "answer", asked)
    assert len(await all_of(bilal, lamp)) == 2


async def test_the_newest_question_comes_first_with_all_that_was_said_to_it(
    parley: Instance, amina: Person, bilal: Person, lamp: dict[str, Any]
) -> None:
    first, second = await ask(bilal, lamp, "1"), await ask(bilal, lamp, "2")
    answered = await say(amina, "answer", first, "1.1")
    replied = await say(bilal, "reply", answered, "1.1.1")
    await say(amina, "answer", second, "2.1")
    await say(amina, "reply", replied, "1.1.1.1")
    await say(amina, "reply", first, "1.2")
    await ask(bilal, lamp, "3")
    whole = await all_of(bilal, lamp)
    assert [one["text"] for one in whole] == ["3", "2", "2.1", "1", "1.1", "1.1.1", "1.1.1.1", "1.2"]
    known: set[str | None] = {None}
    for one in whole:
        assert one["parent_id"] in known
        known.add(one["faq_id"])
    for limit in (1, 2, 3, 7):
        assert await all_of(await parley.person("anybody"), lamp, limit) == whole


async def test_a_page_ends_at_its_bytes(amina: Person, bilal: Person, lamp: dict[str, Any]) -> None:
    for n in range(9):
        await ask(bilal, lamp, str(n) * 10_000 if n % 2 else "ع" * 10_000)
    page = await bilal.post("faq:list", listing_id=lamp["listing_id"], limit=100)
    assert page["next"] is None
    texts = [await ask(amina, lamp, "ع" * 10_000) for _ in range(10)]
    page = await bilal.post("faq:list", listing_id=lamp["listing_id"], limit=100)
    assert 1 < len(page["faqs"]) < 19
    assert len(await all_of(bilal, lamp)) == 9 + len(texts)


async def test_what_hangs_on_a_listing_that_is_gone_is_gone(
    parley: Instance, amina: Person, bilal: Person, lamp: dict[str, Any]
) -> None:
    asked = await ask(bilal, lamp)
    answered = await say(amina, "answer", asked)
    await set_(parley, "update listings set deleted_at = now() where listing_id = $1", lamp["listing_id"])
    for faq_id, other in ((asked["faq_id"], answered["faq_id"]), (str(uuid4()), str(uuid4()))):
        for command, payload in {
            "faq:answer": {"parent_id": faq_id, "text": "x", "client_id": "a"},
            "faq:reply": {"parent_id": faq_id, "text": "x", "client_id": "a"},
            "faq:accept": {"faq_id": other},
        }.items():
            assert (await refused(amina, command, **payload))["code"] == "not_found"
    error = await refused(bilal, "faq:ask", listing_id=lamp["listing_id"], text="Does it glow?", client_id="x")
    assert error["code"] == "not_found"


@pytest.mark.parametrize(
    ("command", "payload", "path"),
    [
        ("faq:ask", {"text": ""}, "text"),
        ("faq:ask", {"text": "a\0b"}, "text"),
        ("faq:ask", {"client_id": ""}, "client_id"),
        ("faq:ask", {"parent_id": "x"}, "parent_id"),
        ("faq:list", {"before": "garbage!"}, "before"),
        ("faq:list", {"before": "WyI3Il0="}, "before"),
        ("faq:list", {"limit": 0}, "limit"),
    ],
)
async def test_what_is_of_no_valid_form_is_refused(
    bilal: Person, lamp: dict[str, Any], command: str, payload: dict[str, Any], path: str
) -> None:
    whole = {"text": "?", "client_id": "a"} if command == "faq:ask" else {}
    error = await refused(bilal, command, **{"listing_id": lamp["listing_id"], **whole, **payload})
    assert (error["code"], list(error["fields"])) == ("invalid", [path])


async def test_a_text_has_a_bound(bilal: Person, lamp: dict[str, Any]) -> None:
    error = await refused(bilal, "faq:ask", listing_id=lamp["listing_id"], text="ع" * 10_001, client_id="a")
    assert (error["code"], error["limit"]) == ("too_large", 10_000)
