"""Messages as a client sends, hears and reads them."""

from __future__ import annotations

import asyncio

import pytest

from tests.people import Instance, Person, Refusal


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def test_a_message_is_acknowledged_and_heard_by_both(amina: Person, bilal: Person, their_chat: str) -> None:
    phone, other = await amina.connect(), await bilal.connect(transports=("polling", "websocket"))
    sent = await phone.send(their_chat, "as-salamu alaykum · السلام عليكم")
    for device in (phone, other):
        push = await device.hearing("message:created", message_id=sent["message_id"])
        assert push.payload["text"] == "as-salamu alaykum · السلام عليكم"
        assert push.payload["sender_id"] == amina.user_id
        assert push.meta == {"room": f"conversation:{their_chat}", "seq": sent["seq"], "at": sent["at"]}
        assert push.payload["seq"] == sent["seq"]


async def test_a_push_and_the_history_show_the_same_message(amina: Person, bilal: Person, their_chat: str) -> None:
    phone = await amina.connect()
    first = await phone.send(their_chat, "one")
    answer = await phone.call(
        "message:send", conversation_id=their_chat, client_id="r", text="two", reply_to_id=first["message_id"]
    )
    push = await phone.hearing("message:created", message_id=answer["message_id"])
    history = await bilal.post("message:history", conversation_id=their_chat)
    assert history["messages"][-1] == push.payload
    synced = await bilal.post("room:sync", room=f"conversation:{their_chat}", after=0)
    assert [event["payload"] for event in synced["events"]] == history["messages"]


async def test_the_same_client_id_is_the_same_message(amina: Person, their_chat: str) -> None:
    phone = await amina.connect()
    first = await phone.send(their_chat, "once", "key")
    assert await phone.send(their_chat, "once", "key") == first
    assert await amina.post("message:send", conversation_id=their_chat, client_id="key", text="once") == first
    with pytest.raises(Refusal) as refused:
        await phone.send(their_chat, "another", "key")
    assert (refused.value.error["reason"], refused.value.error["current"]) == ("key_reuse", first)
    await phone.send(their_chat, "last")
    await phone.hearing("message:created", text="last")
    assert phone.texts(their_chat) == ["once", "last"]


async def test_the_same_client_id_many_times_at_once_is_one_message(amina: Person, their_chat: str) -> None:
    phone, tablet = await amina.connect(), await amina.connect()
    answers = await asyncio.gather(
        *(
            device.answer("message:send", conversation_id=their_chat, client_id="same", text="once")
            for device in (phone, tablet)
            for _ in range(20)
        )
    )
    assert all(answer == answers[0] and answer["ok"] for answer in answers)
    history = await amina.post("message:history", conversation_id=their_chat)
    assert len(history["messages"]) == 1


async def test_one_bad_call_does_not_fail_its_batch(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    phone = await amina.connect()
    strangers = await parley.chat(bilal, await parley.person("carim"))
    good = [phone.answer("message:send", conversation_id=their_chat, client_id=f"g{n}", text="ok") for n in range(8)]
    bad = [
        phone.answer("message:send", conversation_id=strangers, client_id="b1", text="not mine"),
        phone.answer("message:send", conversation_id=their_chat, client_id="b2", text=""),
        phone.answer("message:send", conversation_id=their_chat, client_id="b3", text="?", reply_to_id=strangers),
    ]
    answers = await asyncio.gather(*good[:4], *bad, *good[4:])
    assert [a["ok"] for a in answers] == [True] * 4 + [False] * 3 + [True] * 4
    assert [a["error"]["code"] for a in answers[4:7]] == ["not_found", "invalid", "not_found"]


async def test_a_stranger_and_a_missing_conversation_get_the_same_answer(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    theirs = await parley.chat(bilal, await parley.person("carim"))
    phone = await amina.connect()
    nowhere = amina.user_id  # an id that is no conversation's
    for command in ("message:history", "conversation:get"):
        a = await phone.answer(command, conversation_id=theirs)
        b = await phone.answer(command, conversation_id=nowhere)
        assert a == b
        assert a["error"]["code"] == "not_found"


async def test_history_pages_both_ways_without_a_hole_or_a_repeat(amina: Person, their_chat: str) -> None:
    phone = await amina.connect()
    for n in range(7):
        await phone.send(their_chat, str(n))
    read = []
    page = await phone.call("message:history", conversation_id=their_chat, limit=3)
    while True:
        read = page["messages"] + read
        if not page["more"]:
            break
        page = await phone.call(
            "message:history", conversation_id=their_chat, limit=3, before_seq=page["messages"][0]["seq"]
        )
    assert [message["text"] for message in read] == list("0123456")
    after = await phone.call("message:history", conversation_id=their_chat, limit=4, after_seq=read[1]["seq"])
    assert [message["text"] for message in after["messages"]] == list("2345")
    assert after["more"]


async def test_a_page_of_history_ends_at_its_bytes(amina: Person, their_chat: str) -> None:
    phone = await amina.connect()
    for n in range(15):
        await phone.send(their_chat, "ع" * 10_000, f"long{n}")
    page = await phone.call("message:history", conversation_id=their_chat, limit=200)
    assert page["more"]
    assert 256 * 1024 - 2 * 21_000 < sum(len(m["text"].encode()) for m in page["messages"]) < 256 * 1024
    older = await phone.call(
        "message:history", conversation_id=their_chat, limit=200, before_seq=page["messages"][0]["seq"]
    )
    assert [m["client_id"] for m in older["messages"] + page["messages"]] == [f"long{n}" for n in range(15)]


async def test_many_senders_see_one_order(parley: Instance) -> None:
    people = [await parley.person(f"p{n}") for n in range(6)]
    chat = await parley.chat(*people, kind="group")
    devices = [await person.connect() for person in people]
    await asyncio.gather(*(device.send(chat, f"{n}.{m}") for n, device in enumerate(devices) for m in range(20)))
    room = f"conversation:{chat}"
    heard = [await device.hearing_up_to(room, 120) for device in devices]
    assert all([p.seq for p in one] == list(range(1, 121)) for one in heard)
    assert all([p.payload for p in one] == [p.payload for p in heard[0]] for one in heard)
    for n in range(6):  # and each sender's own messages in the order in which they were sent
        own = [p.payload["text"] for p in heard[0] if p.payload["text"].startswith(f"{n}.")]
        assert own == [f"{n}.{m}" for m in range(20)]
