"""One room that somebody holds in the database: it stalls nobody but itself, and loses and doubles nothing."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from server.commands import batches
from tests.locks import holding
from tests.people import Device, Instance, Person

pytestmark = pytest.mark.both_postgres

UNSTALLED_S = 1.0


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


def send_all(device: Device, chat: str, *texts: str) -> list[asyncio.Task[dict[str, Any]]]:
    """Send messages one behind the other, without waiting for an answer; each one's text is its client_id too."""
    return [
        asyncio.create_task(device.answer("message:send", conversation_id=chat, client_id=text, text=text))
        for text in texts
    ]


async def texts_of(person: Person, chat: str) -> list[str]:
    """The conversation's messages as they are stored."""
    history = await person.post("message:history", conversation_id=chat)
    return [message["text"] for message in history["messages"]]


async def test_sends_to_other_rooms_are_acknowledged_while_one_is_held(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    phone, other = await amina.connect(), await bilal.connect()
    cold = [await parley.chat(bilal, await parley.person(f"p{n}")) for n in range(5)]
    async with holding(parley.dsn, their_chat) as holder:
        hot = send_all(phone, their_chat, "a", "b")
        async with asyncio.timeout(UNSTALLED_S):
            await asyncio.gather(*(other.send(chat, "hello") for chat in cold))
            await holder.stands_in_the_way_of()
            hot += send_all(phone, their_chat, "c", "d")
            await asyncio.gather(*(other.send(chat, "hello again") for chat in cold))
        assert not any(answer.done() for answer in hot)
    answers = await asyncio.gather(*hot)
    assert [answer["ok"] for answer in answers] == [True] * 4
    seqs = [answer["data"]["seq"] for answer in answers]
    assert seqs == [1, 2, 3, 4]
    await other.hearing("message:created", text="d")
    assert other.texts(their_chat) == await texts_of(amina, their_chat) == ["a", "b", "c", "d"]


async def test_one_sender_is_not_stalled_by_a_held_room_of_their_own(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    phone = await amina.connect()
    cold = await parley.chat(amina, await parley.person("carim"))
    async with holding(parley.dsn, their_chat):
        async with asyncio.timeout(UNSTALLED_S):
            hot = send_all(phone, their_chat, "held")
            await asyncio.gather(*send_all(phone, cold, "free", "free too"))
        assert not hot[0].done()
    assert (await hot[0])["ok"]


async def test_more_held_rooms_than_are_waited_for_stall_nobody_else(parley: Instance, bilal: Person) -> None:
    people = [await parley.person(f"p{n}") for n in range(batches.WAITERS + 2)]
    hot = [await parley.chat(person, bilal) for person in people]
    cold = await parley.chat(bilal, await parley.person("carim"))
    phones, other = [await person.connect() for person in people], await bilal.connect()
    async with holding(parley.dsn, *hot) as holder:
        waiting = [send_all(phone, chat, f"held {chat}")[0] for phone, chat in zip(phones, hot, strict=True)]
        async with asyncio.timeout(UNSTALLED_S):
            await holder.stands_in_the_way_of(batches.WAITERS)
            for n in range(5):
                await other.send(cold, str(n))
        assert not any(answer.done() for answer in waiting)
    assert all(answer["ok"] for answer in await asyncio.gather(*waiting))


async def test_a_room_held_too_long_is_unavailable_and_sending_again_makes_no_double(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    phone, other = await amina.connect(), await bilal.connect()
    async with holding(parley.dsn, their_chat):
        answers = await asyncio.gather(*send_all(phone, their_chat, "a", "b"))
        assert [answer["error"]["code"] for answer in answers] == ["unavailable"] * 2
    for _ in range(2):
        again = await asyncio.gather(*send_all(phone, their_chat, "a", "b"))
        assert [answer["data"]["seq"] for answer in again] == [1, 2]
    await phone.send(their_chat, "c")
    await other.hearing("message:created", text="c")
    assert other.texts(their_chat) == await texts_of(bilal, their_chat) == ["a", "b", "c"]


async def test_a_command_that_needs_a_held_room_is_done_once_it_is_free(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    carim = await parley.person("carim")
    chat = await parley.chat(amina, bilal, kind="group")
    phone = await amina.connect()
    async with holding(parley.dsn, chat) as holder:
        adding = asyncio.create_task(phone.call("participant:add", conversation_id=chat, user_id=carim.user_id))
        await holder.stands_in_the_way_of()
    assert (await adding)["participant_count"] == 3
    assert await texts_of(carim, chat) == []


async def test_a_repeat_that_overtook_its_bad_first_try_does_not_turn_the_order(
    amina: Person, bilal: Person, their_chat: str
) -> None:
    phone = await amina.connect()
    key = uuid4().hex
    send = {"conversation_id": their_chat, "client_id": key, "text": "first"}
    answers = await asyncio.gather(
        phone.answer("message:send", **send, reply_to_id=bilal.user_id),  # there is no such message
        phone.answer("message:send", **send),
        phone.answer("message:send", conversation_id=their_chat, client_id=uuid4().hex, text="second"),
    )
    assert [answer["ok"] for answer in answers] == [False, True, True]
    assert await texts_of(amina, their_chat) == ["first", "second"]
