"""Finding messages by their words."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.people import Instance, Person, Refusal


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def say(person: Person, chat: str, *texts: str) -> None:
    for text in texts:
        await person.post("message:send", conversation_id=chat, client_id=uuid4().hex, text=text)


async def found(person: Person, query: str, **more: Any) -> list[str]:
    page = await person.post("message:search", query=query, **more)
    return [message["text"] for message in page["messages"]]


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        (
            "The bookshelves were selling well",
            ["bookshelves", "sell", "SELLING bookshelves", "elephant or sells"],
        ),
        ("السعر المطلوب للكتب القديمة ألف ليرة", ["سعر", "الكتب", "قديمه", "القديمه", "الف", "لِيرَة"]),
        ("هل المدرسة قريبة من البيت؟", ["مدرسه", "بيت", "قريبة"]),
        ("Le café coûte 3 €", ["café", "coûte"]),
        ("обмен или продажа", ["обмен", "продажа -покупка"]),
        ("السعر 250 dollars", ["250", "dollar سعر"]),
    ],
)
async def test_words_are_found_in_english_arabic_and_others_alike(
    amina: Person, their_chat: str, text: str, queries: list[str]
) -> None:
    await say(amina, their_chat, "something else", text)
    for query in queries:
        assert await found(amina, query) == [text], query
    assert await found(amina, "elephant") == []


@pytest.mark.parametrize(
    "query", ["'", '"', "&", "a & | b", "!", "\\", ":*", "%", "')); drop table messages; --", "()", "٪"]
)
async def test_no_query_is_an_error(amina: Person, their_chat: str, query: str) -> None:
    await say(amina, their_chat, "anything")
    assert await found(amina, query) == []


async def test_one_finds_what_one_may_see_and_nothing_else(parley: Instance, amina: Person, bilal: Person) -> None:
    carim = await parley.person("carim")
    group = await parley.chat(amina, bilal, kind="group")
    chat = await parley.chat(amina, carim)
    await say(amina, group, "apples for all")
    await say(amina, chat, "apples for carim")
    await amina.post("participant:add", conversation_id=group, user_id=carim.user_id)
    await say(bilal, group, "apples for the newcomer")
    assert await found(amina, "apples") == ["apples for the newcomer", "apples for carim", "apples for all"]
    assert await found(bilal, "apples") == ["apples for the newcomer", "apples for all"]
    assert await found(carim, "apples") == ["apples for the newcomer", "apples for carim"]
    assert await found(carim, "apples", conversation_id=chat) == ["apples for carim"]
    await amina.post("participant:remove", conversation_id=group, user_id=bilal.user_id)
    assert await found(bilal, "apples") == []
    for conversation_id in (group, str(uuid4())):
        with pytest.raises(Refusal, match="not_found"):
            await bilal.post("message:search", query="apples", conversation_id=conversation_id)


async def test_the_names_of_conversations_are_no_words(amina: Person, their_chat: str) -> None:
    await say(amina, their_chat, "hello")
    assert await found(amina, their_chat) == []


async def test_pages_meet_without_a_gap(amina: Person, their_chat: str) -> None:
    await say(amina, their_chat, *(f"pear {n}" for n in range(7)))
    texts, before = [], None
    for _ in range(4):
        page = await amina.post(
            "message:search",
            query="pear",
            conversation_id=their_chat,
            limit=2,
            **({"before": before} if before else {}),
        )
        texts += [message["text"] for message in page["messages"]]
        before = page["next"]
    assert texts == [f"pear {n}" for n in reversed(range(7))]
    assert before is None
    with pytest.raises(Refusal, match="invalid"):
        await amina.post("message:search", query="pear", before="nowhere")


async def test_an_edited_message_is_found_by_what_it_says_now(amina: Person, their_chat: str) -> None:
    await say(amina, their_chat, "first words")
    [message] = (await amina.post("message:search", query="first"))["messages"]
    await amina.post("message:edit", message_id=message["message_id"], text="second words", version=1)
    assert (await found(amina, "first"), await found(amina, "second")) == ([], ["second words"])
