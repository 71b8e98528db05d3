"""Groups change: their title, whose they are, who leaves."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.people import Instance, Person, Refusal


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


@pytest.fixture
async def group(parley: Instance, amina: Person, bilal: Person, carim: Person) -> str:
    """Amina's group, with Bilal and Carim."""
    return await parley.chat(amina, bilal, carim, kind="group", title="Before")


async def refusal(person: Person, command: str, **payload: Any) -> dict[str, Any]:
    with pytest.raises(Refusal) as refused:
        await person.post(command, **payload)
    return dict(refused.value.error)


async def roles(person: Person, group: str) -> dict[str, str]:
    found = await person.post("conversation:get", conversation_id=group)
    return {one["user_id"]: one["role"] for one in found["participants"]}


async def test_a_new_title_is_heard_by_all_and_answered_again(amina: Person, bilal: Person, group: str) -> None:
    phone = await bilal.connect()
    change = {"conversation_id": group, "version": 1, "title": "After"}
    changed = await amina.post("conversation:update", **change)
    assert (changed["title"], changed["version"]) == ("After", 2)
    heard = await phone.hearing("conversation:updated")
    assert (heard.payload["title"], heard.payload["version"], heard.payload["head_seq"]) == ("After", 2, heard.seq)
    own = {"unread_count", "read_seq", "delivered_seq", "muted_until", "archived", "pinned", "last_message"}
    assert not own & heard.payload.keys()
    assert (await amina.post("conversation:update", **change))["version"] == 2
    error = await refusal(amina, "conversation:update", **{**change, "title": "Other"})
    assert (error["reason"], error["current"]["title"]) == ("version", "After")
    assert (await refusal(bilal, "conversation:update", **change))["code"] == "forbidden"
    assert list((await refusal(amina, "conversation:update", conversation_id=group, title="x"))["fields"]) == [
        "version"
    ]
    cleared = await amina.post("conversation:update", conversation_id=group, version=2, title=None)
    assert cleared["title"] is None


async def test_a_title_repeated_after_later_ones_is_answered_to_whoever_gave_it(
    amina: Person, bilal: Person, group: str
) -> None:
    await amina.post("participant:promote", conversation_id=group, user_id=bilal.user_id, role="admin")
    phone = await bilal.connect()
    changes = [{"conversation_id": group, "version": n, "title": title} for n, title in enumerate(("B", None, "D"), 1)]
    for change, person in zip(changes, (amina, amina, bilal), strict=True):
        await person.post("conversation:update", **change)
    for change in changes[:2]:
        again = await amina.post("conversation:update", **change)
        assert (again["title"], again["version"]) == ("D", 4)
    for person, change in (
        (bilal, changes[0]),
        (bilal, changes[1]),
        (amina, changes[2]),
        (amina, {**changes[0], "title": "b"}),
        (amina, {**changes[0], "title": None}),
        (amina, {**changes[0], "version": 2}),
        (amina, {**changes[0], "version": 2**62}),
    ):
        error = await refusal(person, "conversation:update", **change)
        assert (error["code"], error["reason"], error["current"]["title"]) == ("conflict", "version", "D")
    await amina.post("message:send", conversation_id=group, client_id="last", text="last")
    await phone.hearing("message:created", text="last")
    assert [push.payload["title"] for push in phone.heard if push.name == "conversation:updated"] == ["B", None, "D"]


async def test_one_of_two_titles_at_once_wins(amina: Person, bilal: Person, group: str) -> None:
    await amina.post("participant:promote", conversation_id=group, user_id=bilal.user_id, role="admin")
    answers = await asyncio.gather(
        *(
            person.instance.post(
                "conversation:update", {"conversation_id": group, "version": 1, "title": "New"}, token=person.token
            )
            for person in (amina, bilal)
        )
    )
    assert sorted(status for status, _ in answers) == [200, 409]


async def test_what_is_ones_own_reaches_ones_other_devices_and_nobody_else(
    amina: Person, bilal: Person, their_chat: str
) -> None:
    phone, laptop, other = await amina.connect(), await amina.connect(), await bilal.connect()
    until = "2036-01-01T00:00:00.000Z"
    changed = await phone.call("conversation:update", conversation_id=their_chat, pinned=True, muted_until=until)
    assert (changed["pinned"], changed["muted_until"], changed["archived"]) == (True, until, False)
    for device in (phone, laptop):
        heard = (await device.hearing("conversation:mine")).payload
        assert (heard["pinned"], heard["muted_until"], heard["unread_count"]) == (True, until, 0)
    await phone.call("conversation:update", conversation_id=their_chat, pinned=True)  # as it is already
    await phone.call("conversation:update", conversation_id=their_chat, muted_until=None)
    await laptop.hearing("conversation:mine", muted_until=None)
    assert len([push for push in laptop.heard if push.name == "conversation:mine"]) == 2
    await amina.post("message:send", conversation_id=their_chat, client_id="last", text="last")
    await other.hearing("message:created", text="last")
    assert not [push for push in other.heard if push.name == "conversation:mine"]


async def test_a_message_brings_an_archived_conversation_back_with_all_that_follows(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    await amina.post("conversation:update", conversation_id=their_chat, archived=True)
    listed = await amina.post("conversation:list")
    assert their_chat not in [one["conversation_id"] for one in listed["conversations"]]
    phone = await amina.connect()
    assert f"conversation:{their_chat}" not in phone.hello["rooms"]
    sent = await bilal.post("message:send", conversation_id=their_chat, client_id=uuid4().hex, text="still there?")
    back = (await phone.hearing("conversation:mine")).payload
    assert (back["archived"], back["unread_count"], back["head_seq"]) == (False, 1, sent["seq"] - 1)
    assert (await phone.hearing("message:created", text="still there?")).seq == sent["seq"]
    await bilal.post("message:send", conversation_id=their_chat, client_id=uuid4().hex, text="hello?")
    await phone.hearing("message:created", text="hello?")
    assert phone.texts(their_chat) == ["still there?", "hello?"]
    listed = await amina.post("conversation:list")
    assert listed["conversations"][0]["conversation_id"] == their_chat


async def test_what_is_muted_stays_in_the_archive_until_it_is_taken_out(
    amina: Person, bilal: Person, their_chat: str
) -> None:
    await amina.post(
        "conversation:update", conversation_id=their_chat, archived=True, muted_until="2036-01-01T00:00:00.000Z"
    )
    phone = await amina.connect()
    sent = await bilal.post("message:send", conversation_id=their_chat, client_id=uuid4().hex, text="psst")
    seen = await amina.post("conversation:get", conversation_id=their_chat)
    assert (seen["archived"], seen["unread_count"]) == (True, 1)
    await phone.call("conversation:update", conversation_id=their_chat, archived=False)
    assert (await phone.hearing("conversation:mine", archived=False)).payload["head_seq"] == sent["seq"]
    await bilal.post("message:send", conversation_id=their_chat, client_id=uuid4().hex, text="and now?")
    await phone.hearing("message:created", text="and now?")


async def test_sends_race_with_archiving_and_nothing_is_lost(amina: Person, bilal: Person, their_chat: str) -> None:
    """Whatever comes first: in the end the archive's word or the message's holds, and the head says which was last."""
    phone = await amina.connect()
    sender = await bilal.connect()
    for n in range(10):
        await asyncio.gather(
            phone.call("conversation:update", conversation_id=their_chat, archived=True),
            *(sender.send(their_chat, f"{n} {m}") for m in range(3)),
        )
    last = await sender.send(their_chat, "last")
    await phone.hearing("message:created", text="last")
    seen = await amina.post("conversation:get", conversation_id=their_chat)
    assert (seen["archived"], seen["head_seq"]) == (False, last["seq"])
    assert phone.texts(their_chat) == [f"{n} {m}" for n in range(10) for m in range(3)] + ["last"]
    mine = [push for push in phone.heard if push.name == "conversation:mine"]
    assert [push.seq for push in mine] == list(range(mine[0].seq, mine[0].seq + len(mine)))
    assert mine[-1].payload["archived"] is False


async def test_an_owner_who_leaves_hands_over_to_the_longest_standing_admin_then_member(
    parley: Instance, amina: Person, bilal: Person, carim: Person, group: str
) -> None:
    await amina.post("participant:promote", conversation_id=group, user_id=carim.user_id, role="admin")
    phone, own = await bilal.connect(), await amina.connect()
    assert await amina.post("conversation:leave", conversation_id=group) == {}
    assert await amina.post("conversation:leave", conversation_id=group) == {}
    assert await roles(bilal, group) == {carim.user_id: "owner", bilal.user_id: "member"}
    removed = await phone.hearing("participant:removed")
    assert (removed.payload["user_id"], removed.payload["by"]) == (amina.user_id, amina.user_id)
    assert (await phone.hearing("participant:changed")).payload["participant"]["role"] == "owner"
    updated = (await phone.hearing("conversation:updated")).payload
    assert (updated["participant_count"], updated["head_seq"]) == (2, removed.seq + 2)
    await own.hearing("participant:removed", user_id=amina.user_id)
    await carim.post("conversation:leave", conversation_id=group)
    assert await roles(bilal, group) == {bilal.user_id: "owner"}
    await bilal.post("conversation:leave", conversation_id=group)
    assert (await refusal(bilal, "conversation:get", conversation_id=group))["code"] == "not_found"
    await amina.instance.people[0].post("account:me")
    assert not [push for push in own.of(f"conversation:{group}") if push.seq > removed.seq]


async def test_nobody_leaves_a_private_conversation_or_one_that_is_not_theirs(
    parley: Instance, amina: Person, carim: Person, their_chat: str
) -> None:
    assert (await refusal(amina, "conversation:leave", conversation_id=their_chat))["code"] == "forbidden"
    nowhere = await refusal(carim, "conversation:leave", conversation_id=their_chat)
    assert nowhere == await refusal(carim, "conversation:leave", conversation_id=str(uuid4()))
    assert nowhere["code"] == "not_found"


async def test_the_owner_alone_gives_roles_and_may_give_the_group_away(
    amina: Person, bilal: Person, carim: Person, group: str
) -> None:
    promote = {"conversation_id": group, "user_id": carim.user_id, "role": "admin"}
    assert (await refusal(bilal, "participant:promote", **promote))["code"] == "forbidden"
    for _ in range(2):
        await amina.post("participant:promote", **promote)
    assert (await refusal(carim, "participant:promote", **{**promote, "user_id": bilal.user_id}))["code"] == "forbidden"
    assert (await refusal(carim, "participant:promote", **{**promote, "user_id": amina.user_id}))["code"] == "forbidden"
    await amina.post("participant:promote", **{**promote, "role": "member"})
    await amina.post("participant:promote", **{**promote, "role": "owner"})
    assert await roles(bilal, group) == {
        amina.user_id: "admin",
        bilal.user_id: "member",
        carim.user_id: "owner",
    }
    assert (await refusal(amina, "participant:promote", **promote))["code"] == "forbidden"


async def test_who_has_given_the_group_away_may_ask_again(amina: Person, bilal: Person, group: str) -> None:
    give = {"conversation_id": group, "user_id": bilal.user_id, "role": "owner"}
    once, again = [await amina.post("participant:promote", **give) for _ in range(2)]
    assert again["participants"] == once["participants"]
    found = await roles(bilal, group)
    assert (found[amina.user_id], found[bilal.user_id]) == ("admin", "owner")


async def test_an_admin_steps_down_and_is_heard_once(amina: Person, bilal: Person, group: str) -> None:
    device = await amina.connect()
    await amina.post("participant:promote", conversation_id=group, user_id=bilal.user_id, role="admin")
    for _ in range(2):
        await bilal.post("participant:promote", conversation_id=group, user_id=bilal.user_id, role="member")
    found = await roles(amina, group)
    assert (found[amina.user_id], found[bilal.user_id]) == ("owner", "member")
    stay = {"conversation_id": group, "user_id": amina.user_id, "role": "member"}
    assert (await refusal(amina, "participant:promote", **stay))["code"] == "forbidden"  # somebody owns it
    await device.call("account:me")
    heard = [push.payload["participant"]["role"] for push in device.heard if push.name == "participant:changed"]
    assert heard == ["admin", "member"]


async def test_no_interleaving_leaves_a_group_without_its_one_owner(parley: Instance) -> None:
    people = [await parley.person(f"p{n}") for n in range(5)]
    group = await parley.chat(*people, kind="group")
    answers = await asyncio.gather(
        *(
            person.instance.post("conversation:leave", {"conversation_id": group}, token=person.token)
            for person in people[:4]
        )
    )
    assert [status for status, _ in answers] == [200] * 4
    assert await roles(people[4], group) == {people[4].user_id: "owner"}
