"""Messages after they were sent: edited, deleted, reacted to."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.market import listed
from tests.people import Instance, Person, Refusal
from tests.servers import execute, fetch


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def sent(person: Person, chat: str, text: str = "hello", **more: Any) -> dict[str, Any]:
    """A message as its sender finds it in the history."""
    done = await person.post("message:send", conversation_id=chat, client_id=uuid4().hex, text=text, **more)
    page = await person.post("message:history", conversation_id=chat, after_seq=done["seq"] - 1, limit=1)
    message: dict[str, Any] = page["messages"][0]
    return message


async def refusal(person: Person, command: str, **payload: Any) -> dict[str, Any]:
    with pytest.raises(Refusal) as refused:
        await person.post(command, **payload)
    return dict(refused.value.error)


async def test_an_edit_is_pushed_kept_and_answered(amina: Person, bilal: Person, their_chat: str) -> None:
    phone = await bilal.connect()
    message = await sent(amina, their_chat, "helo")
    edited = await amina.post("message:edit", message_id=message["message_id"], text="hello", version=1)
    assert (edited["text"], edited["version"], edited["seq"]) == ("hello", 2, message["seq"])
    assert edited["edited_at"] > message["at"]
    heard = await phone.hearing("message:edited")
    assert heard.payload == edited
    assert heard.seq == message["seq"] + 1
    again = await amina.post("message:edit", message_id=message["message_id"], text="hello!", version=2)
    found = await bilal.post("message:revisions", message_id=message["message_id"])
    assert found["revisions"] == [
        {"version": 1, "text": "helo", "at": message["at"]},
        {"version": 2, "text": "hello", "at": edited["edited_at"]},
    ]
    page = await bilal.post("message:history", conversation_id=their_chat)
    assert page["messages"] == [again]


async def test_a_repeated_edit_is_answered_and_heard_once(amina: Person, bilal: Person, their_chat: str) -> None:
    phone = await bilal.connect()
    message = await sent(amina, their_chat)
    edit = {"message_id": message["message_id"], "text": "hi", "version": 1}
    assert await amina.post("message:edit", **edit) == await amina.post("message:edit", **edit)
    error = await refusal(amina, "message:edit", **{**edit, "text": "another"})
    assert (error["code"], error["reason"], error["current"]["text"]) == ("conflict", "version", "hi")
    await amina.post("message:send", conversation_id=their_chat, client_id="last", text="last")
    await phone.hearing("message:created", text="last")
    assert [push.name for push in phone.of(f"conversation:{their_chat}")].count("message:edited") == 1


async def test_an_edit_repeated_after_later_ones_is_answered_with_what_the_message_says_now(
    amina: Person, bilal: Person, their_chat: str
) -> None:
    message = await sent(amina, their_chat, "A")
    edits = [{"message_id": message["message_id"], "text": text, "version": n} for n, text in enumerate("BCD", 1)]
    for edit in edits:
        last = await amina.post("message:edit", **edit)
    assert (last["text"], last["version"]) == ("D", 4)
    for edit in edits:
        assert await amina.post("message:edit", **edit) == last
    found = await bilal.post("message:revisions", message_id=message["message_id"])
    assert [(one["version"], one["text"]) for one in found["revisions"]] == [(1, "A"), (2, "B"), (3, "C")]
    # What has never been asked is none, whoever has said these words in whatever version.
    for text, version in (("B", 2), ("C", 1), ("A", 1), ("A", 0), ("b", 1), ("B", -(2**62)), ("B", 2**62)):
        error = await refusal(amina, "message:edit", message_id=message["message_id"], text=text, version=version)
        assert (error["code"], error["reason"], error["current"]) == ("conflict", "version", last)
    assert (await refusal(bilal, "message:edit", **edits[0]))["code"] == "forbidden"
    gone = await amina.post("message:delete", message_id=message["message_id"])
    for edit in edits:  # nothing is left to know it by
        error = await refusal(amina, "message:edit", **edit)
        assert (error["code"], error["reason"], error["current"]) == ("conflict", "version", gone)


async def test_what_was_done_before_a_block_is_answered_again_and_done_no_more(
    amina: Person, bilal: Person, their_chat: str
) -> None:
    message = await sent(amina, their_chat)
    edit = {"message_id": message["message_id"], "text": "hi", "version": 1}
    react = {"message_id": message["message_id"], "emoji": "👍", "on": True}
    await amina.post("message:edit", **edit)
    await amina.post("message:edit", **{**edit, "text": "hi!", "version": 2})
    said = await amina.post("message:react", **react)
    await bilal.post("user:block", user_id=amina.user_id)
    assert await amina.post("message:edit", **edit) == said
    assert await amina.post("message:react", **react) == said
    for command, payload in (("message:edit", {**edit, "version": 3}), ("message:react", {**react, "emoji": "❤️"})):
        error = await refusal(amina, command, **payload)
        assert (error["code"], error["reason"]) == ("conflict", "blocked")
    [page] = (await bilal.post("message:history", conversation_id=their_chat))["messages"]
    assert page == said


async def test_only_the_sender_edits_and_strangers_find_nothing(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    message = await sent(amina, their_chat)
    stranger = await parley.person("stranger")
    edit = {"message_id": message["message_id"], "text": "mine now", "version": 1}
    assert (await refusal(bilal, "message:edit", **edit))["code"] == "forbidden"
    nowhere = await refusal(amina, "message:edit", **{**edit, "message_id": str(uuid4())})
    for command, payload in (
        ("message:edit", edit),
        ("message:delete", {"message_id": message["message_id"]}),
        ("message:react", {"message_id": message["message_id"], "emoji": "👍", "on": True}),
        ("message:revisions", {"message_id": message["message_id"]}),
    ):
        assert await refusal(stranger, command, **payload) == nowhere
    assert nowhere["code"] == "not_found"


async def test_deleted_text_is_nowhere(parley: Instance, amina: Person, bilal: Person, their_chat: str) -> None:
    phone = await bilal.connect()
    secret = f"secret{uuid4().hex}"
    message = await sent(amina, their_chat, f"{secret} one")
    await amina.post("message:edit", message_id=message["message_id"], text=f"{secret} two", version=1)
    await bilal.post("message:react", message_id=message["message_id"], emoji="👍", on=True)
    gone = await amina.post("message:delete", message_id=message["message_id"])
    assert (gone["text"], gone["reactions"], gone["version"], gone["seq"]) == (None, [], 3, message["seq"])
    assert gone["deleted_at"] is not None
    assert (await phone.hearing("message:deleted")).payload == gone
    assert await amina.post("message:delete", message_id=message["message_id"]) == gone
    # Neither in a table, nor in what a device hears that comes back, by the log or by memory.
    tables = await fetch(
        parley.dsn,
        "select table_name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'",
    )
    for [table] in tables:
        [[found]] = await fetch(parley.dsn, f"select count(*) from {table} t where t::text like '%{secret}%'")
        assert found == 0, table
    room = f"conversation:{their_chat}"
    back = await bilal.connect(rooms={room: 0})
    events = await back.hearing_up_to(room, message["seq"] + 3)
    synced = await bilal.post("room:sync", room=room, after=0)
    assert [event["seq"] for event in synced["events"]] == [push.seq for push in events]
    assert [event["payload"] for event in synced["events"]] == [push.payload for push in events]
    assert secret not in str(events)
    assert (await bilal.post("message:search", query=secret))["messages"] == []
    assert (await bilal.post("message:revisions", message_id=message["message_id"]))["revisions"] == []
    edit = await refusal(amina, "message:edit", message_id=message["message_id"], text="back", version=3)
    assert (edit["code"], edit["reason"]) == ("conflict", "version")


async def test_a_groups_admins_delete_what_others_said_and_its_members_do_not(parley: Instance) -> None:
    owner, admin, member = [await parley.person(name) for name in ("owner", "admin", "member")]
    group = await parley.chat(owner, admin, member, kind="group")
    await owner.post("participant:promote", conversation_id=group, user_id=admin.user_id, role="admin")
    message = await sent(owner, group)
    assert (await refusal(member, "message:delete", message_id=message["message_id"]))["code"] == "forbidden"
    assert (await admin.post("message:delete", message_id=message["message_id"]))["text"] is None


async def test_a_resend_of_a_deleted_message_is_the_same_message(amina: Person, their_chat: str) -> None:
    send = {"conversation_id": their_chat, "client_id": uuid4().hex, "text": "once"}
    first = await amina.post("message:send", **send)
    await amina.post("message:delete", message_id=first["message_id"])
    assert await amina.post("message:send", **send) == first


async def test_reactions_are_counted_by_emoji_and_pushed_whole(amina: Person, bilal: Person, their_chat: str) -> None:
    phone = await amina.connect()
    message = await sent(amina, their_chat)
    react = {"message_id": message["message_id"], "emoji": "👍"}
    await amina.post("message:react", **react, on=True)
    both = await bilal.post("message:react", **react, on=True)
    assert both["reactions"] == [{"emoji": "👍", "count": 2, "user_ids": [amina.user_id, bilal.user_id]}]
    assert await bilal.post("message:react", **react, on=True) == both
    heart = await bilal.post("message:react", message_id=message["message_id"], emoji="❤️", on=True)
    assert [(one["emoji"], one["count"]) for one in heart["reactions"]] == [("👍", 2), ("❤️", 1)]
    one = await amina.post("message:react", **react, on=False)
    assert [(one["emoji"], one["count"]) for one in one["reactions"]] == [("👍", 1), ("❤️", 1)]
    await phone.until(lambda heard: [p for p in heard if p.name == "message:reacted"][3:], "four changes")
    pushed = [push.payload["reactions"] for push in phone.heard if push.name == "message:reacted"]
    assert [len(reactions) for reactions in pushed] == [1, 1, 2, 2]
    assert pushed[-1] == one["reactions"]
    assert one["version"] == 1  # an edit seen before is still the current one


async def test_a_message_has_so_many_different_emoji_and_no_more(
    monkeypatch: pytest.MonkeyPatch, amina: Person, their_chat: str
) -> None:
    monkeypatch.setattr("handlers.reactions.EMOJI", 2)
    message = await sent(amina, their_chat)
    for emoji in "ab":
        await amina.post("message:react", message_id=message["message_id"], emoji=emoji, on=True)
    error = await refusal(amina, "message:react", message_id=message["message_id"], emoji="c", on=True)
    assert (error["code"], error["limit"]) == ("too_large", 2)
    page = await amina.post("message:history", conversation_id=their_chat)
    assert [one["emoji"] for one in page["messages"][0]["reactions"]] == ["a", "b"]


async def test_nobody_reacts_to_what_is_deleted_or_was_before_them(parley: Instance, amina: Person) -> None:
    late = await parley.person("late")
    group = await parley.chat(amina, kind="group")
    message = await sent(amina, group)
    await amina.post("participant:add", conversation_id=group, user_id=late.user_id)
    react = {"message_id": message["message_id"], "emoji": "👍", "on": True}
    assert (await refusal(late, "message:react", **react))["code"] == "not_found"
    await amina.post("message:delete", message_id=message["message_id"])
    assert (await refusal(amina, "message:react", **react))["reason"] == "version"


async def test_a_reaction_to_what_is_deleted_is_taken_back_already(amina: Person, their_chat: str) -> None:
    message = await sent(amina, their_chat)
    react = {"message_id": message["message_id"], "emoji": "👍"}
    for on in (True, False):
        await amina.post("message:react", **react, on=on)
    gone = await amina.post("message:delete", message_id=message["message_id"])
    assert await amina.post("message:react", **react, on=False) == gone
    error = await refusal(amina, "message:react", **react, on=True)
    assert (error["reason"], error["current"]) == ("version", gone)


async def test_newcomers_hear_of_a_change_to_what_was_before_them_without_what_it_says(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    late = await parley.person("late")
    group, early = await parley.chat(amina, bilal, kind="group"), await bilal.connect()
    message = await sent(amina, group, "secret")
    await amina.post("participant:add", conversation_id=group, user_id=late.user_id)
    phone, room = await late.connect(), f"conversation:{group}"
    await bilal.post("message:react", message_id=message["message_id"], emoji="👍", on=True)
    await amina.post("message:edit", message_id=message["message_id"], text="a secret", version=1)
    theirs = await sent(late, group, "mine")
    await bilal.post("message:react", message_id=theirs["message_id"], emoji="👍", on=True)
    await phone.hearing("message:reacted", text="mine")
    back = await late.connect(rooms={room: 0})
    replayed = await back.hearing_up_to(room, phone.position(group))
    synced = (await late.post("room:sync", room=room, after=0))["events"]
    heard = phone.of(room)[-len(synced) :]
    assert [push.payload for push in replayed] == [event["payload"] for event in synced]
    assert [(push.seq, push.payload) for push in heard] == [(event["seq"], event["payload"]) for event in synced]
    assert [event["payload"].get("text") for event in synced if event["name"] != "participant:added"] == [
        None,
        None,
        "mine",
        "mine",
    ]
    assert "secret" not in str([phone.heard, back.heard, synced])
    whole = await early.hearing("message:edited")
    assert (whole.payload["text"], whole.payload["reactions"][0]["count"]) == ("a secret", 1)


async def test_edits_at_once_have_one_winner(amina: Person, their_chat: str) -> None:
    message = await sent(amina, their_chat)
    answers = await asyncio.gather(
        *(
            amina.instance.post(
                "message:edit",
                {"message_id": message["message_id"], "text": f"version {n}", "version": 1},
                token=amina.token,
            )
            for n in range(6)
        )
    )
    assert sorted(status for status, _ in answers) == [200, *[409] * 5]
    [[versions]] = await fetch(
        amina.instance.dsn, f"select count(*) from message_revisions where message_id = '{message['message_id']}'"
    )
    assert versions == 1


async def test_a_blocked_person_sends_nothing_in_private_either_way_and_the_group_goes_on(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    group = await parley.chat(amina, bilal, kind="group")
    await execute(
        parley.dsn, f"insert into user_blocks (blocker_id, blocked_id) values ('{amina.user_id}', '{bilal.user_id}')"
    )
    for person in (amina, bilal):
        error = await refusal(person, "message:send", conversation_id=their_chat, client_id=uuid4().hex, text="hi")
        assert (error["code"], error["reason"]) == ("conflict", "blocked")
        await person.post("message:send", conversation_id=group, client_id=uuid4().hex, text="hi all")
    for kind in ("private", "group"):
        listing = {"listing_id": (await listed(amina))["listing_id"]} if kind == "private" else {}
        error = await refusal(
            bilal, "conversation:create", kind=kind, user_ids=[amina.user_id], client_id=uuid4().hex, **listing
        )
        assert (error["code"], error["reason"]) == ("conflict", "blocked")
