"""Conversations: opened once, listed by activity, counted."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from server.rooms.bus import LocalBus, LocalHub
from tests.market import listed
from tests.people import Instance, Person, Refusal

FIELDS = {
    *("conversation_id", "kind", "title", "listing_id", "thread_id", "participants", "participant_count"),
    *("last_message", "unread_count", "read_seq", "delivered_seq", "head_seq", "muted_until", "archived", "pinned"),
    *("version", "at"),
}


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def change(instance: Instance, sql: str, *arguments: object) -> None:
    """Write to the database what no command can."""
    connection = await asyncpg.connect(instance.dsn)
    try:
        await connection.execute(sql, *arguments)
    finally:
        await connection.close()


async def create(person: Person, *others: Person, **fields: Any) -> Any:
    """Open a conversation, private unless said otherwise."""
    payload = {"kind": "private", "user_ids": [other.user_id for other in others], "client_id": uuid4().hex, **fields}
    return await person.post("conversation:create", **payload)


async def refusal(person: Person, command: str, **payload: Any) -> dict[str, Any]:
    """The error that a command is answered with."""
    with pytest.raises(Refusal) as refused:
        await person.post(command, **payload)
    return dict(refused.value.error)


async def titles(person: Person, **asked: Any) -> list[str]:
    """The titles of a page of the person's conversations."""
    return [one["title"] for one in (await person.post("conversation:list", **asked))["conversations"]]


# opened


async def test_a_group_is_what_the_contract_says(amina: Person, bilal: Person) -> None:
    group = await create(amina, bilal, kind="group", title="Book club")
    assert set(group) == FIELDS
    assert (group["kind"], group["title"], group["participant_count"], group["version"]) == ("group", "Book club", 2, 1)
    assert (group["head_seq"], group["unread_count"], group["last_message"]) == (0, 0, None)
    assert {(p["user_id"], p["role"]) for p in group["participants"]} == {
        (amina.user_id, "owner"),
        (bilal.user_id, "member"),
    }
    for part in group["participants"]:
        assert set(part) == {"user_id", "role", "joined_at", "joined_seq", "read_seq", "delivered_seq"}
        assert (part["joined_seq"], part["read_seq"], part["delivered_seq"]) == (0, 0, 0)


async def test_everybody_hears_of_a_new_conversation_on_every_device_and_stands_in_it(
    amina: Person, bilal: Person
) -> None:
    devices = [await amina.connect(), await bilal.connect(), await bilal.connect()]
    made = await create(amina, bilal)
    for device in devices:
        push = await device.hearing("conversation:created")
        assert push.room == f"user:{device.hello['user_id']}"
        assert push.payload == {name: value for name, value in made.items() if name != "last_message"}
    await devices[0].send(made["conversation_id"], "hello")
    for device in devices:
        await device.hearing("message:created", text="hello")
        assert [push.seq for push in device.of(f"conversation:{made['conversation_id']}")] == [1]


async def test_a_message_right_behind_the_creation_is_not_missed(amina: Person, bilal: Person) -> None:
    phone, other = await amina.connect(), await bilal.connect()
    for _ in range(5):
        payload = {"kind": "group", "user_ids": [bilal.user_id], "client_id": uuid4().hex}
        chat = (await phone.call("conversation:create", **payload))["conversation_id"]
        await asyncio.gather(*(phone.send(chat, str(n)) for n in range(5)))
        for device in (phone, other):
            await device.hearing_up_to(f"conversation:{chat}", 5)
            assert device.texts(chat) == list("01234")


async def test_sockets_on_another_instance_are_joined_too(
    new_instance: Callable[..., Any], amina: Person, bilal: Person
) -> None:
    hub = LocalHub()
    near, far = [await new_instance(bus=LocalBus(hub)) for _ in range(2)]
    alone = await new_instance()  # it hears by the log: nobody trusts the bus
    phone = await amina.connect(near)
    others = [await bilal.connect(far), await bilal.connect(alone)]
    payload = {"kind": "private", "user_ids": [bilal.user_id], "client_id": "c"}
    chat = (await phone.call("conversation:create", **payload))["conversation_id"]
    await phone.send(chat, "hello")
    for other in others:
        await other.hearing("message:created", text="hello")


async def test_a_private_conversation_is_unique_for_the_pair(amina: Person, bilal: Person) -> None:
    device = await bilal.connect()
    first = await create(amina, bilal)
    await amina.post("message:send", conversation_id=first["conversation_id"], client_id="a", text="hello")
    for person, other in ((amina, bilal), (bilal, amina)):
        again = await create(person, other)
        assert again["conversation_id"] == first["conversation_id"]
        assert again["last_message"]["text"] == "hello"
    assert {part["role"] for part in first["participants"]} == {"member"}
    await device.hearing("message:created", text="hello")
    assert [push.name for push in device.heard].count("conversation:created") == 1


async def test_a_private_conversation_is_unique_for_each_listing(amina: Person, bilal: Person) -> None:
    listings = [None, *[(await listed(amina))["listing_id"] for _ in range(2)]]
    ids = [(await create(amina, bilal, listing_id=listing))["conversation_id"] for listing in listings]
    assert len(set(ids)) == 3
    assert [(await create(bilal, amina, listing_id=listing))["conversation_id"] for listing in listings] == ids


async def test_two_phones_that_open_a_conversation_at_the_same_moment_open_the_same(parley: Instance) -> None:
    for is_about_a_listing in (False, True):
        amina, bilal = await parley.person("amina"), await parley.person("bilal")
        listing = (await listed(amina))["listing_id"] if is_about_a_listing else None
        device = await amina.connect()
        made = await asyncio.gather(
            *(create(*pair, listing_id=listing) for pair in ((amina, bilal), (bilal, amina)) for _ in range(4))
        )
        assert len({one["conversation_id"] for one in made}) == 1
        assert all(one["participant_count"] == 2 for one in made)
        await create(amina, kind="group", title="last")
        await device.hearing("conversation:created", title="last")
        assert [push.name for push in device.heard].count("conversation:created") == 2


async def test_groups_of_the_same_people_are_as_many_as_are_made(amina: Person, bilal: Person) -> None:
    made = [await create(amina, bilal, kind="group") for _ in range(2)]
    assert made[0]["conversation_id"] != made[1]["conversation_id"]


async def test_people_named_twice_and_oneself_count_once(amina: Person, bilal: Person) -> None:
    group = await create(amina, bilal, bilal, amina, kind="group")
    assert group["participant_count"] == 2
    private = await create(amina, bilal, amina, bilal)
    assert private["participant_count"] == 2


async def test_a_private_conversation_is_with_exactly_one_other(parley: Instance, amina: Person, bilal: Person) -> None:
    carim = await parley.person("carim")
    for others in ([], [amina], [bilal, carim]):
        ids = [person.user_id for person in others]
        error = await refusal(amina, "conversation:create", kind="private", user_ids=ids, client_id="a")
        assert (error["code"], list(error["fields"])) == ("invalid", ["user_ids"])


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"title": "of a private one"}, "title"),
        ({"kind": "thread"}, "kind"),
        ({"kind": "party"}, "kind"),
        ({"kind": "group", "title": ""}, "title"),
        ({"client_id": ""}, "client_id"),
        ({"client_id": "naïve"}, "client_id"),
        ({"user_ids": ["nobody"]}, "user_ids[0]"),
        ({"listing_id": "7"}, "listing_id"),
        ({"color": "red"}, "color"),
    ],
)
async def test_a_conversation_of_no_valid_form_is_refused(
    amina: Person, bilal: Person, fields: dict[str, Any], path: str
) -> None:
    payload = {"kind": "private", "user_ids": [bilal.user_id], "client_id": "a", **fields}
    error = await refusal(amina, "conversation:create", **payload)
    assert (error["code"], list(error["fields"])) == ("invalid", [path])


async def test_people_who_do_not_exist_and_people_who_have_left_get_the_same_answer(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    gone = await parley.person("gone")
    await change(parley, "update users set status = 'deleted' where user_id = $1", gone.user_id)
    answers = [
        await refusal(amina, "conversation:create", kind=kind, user_ids=[*ids, stranger], client_id="a")
        for kind, ids in (("private", []), ("group", [bilal.user_id]))
        for stranger in (gone.user_id, str(uuid4()), bilal.session_id)
    ]
    assert answers == [answers[0]] * 6
    assert answers[0]["code"] == "not_found"
    assert await titles(bilal) == []


async def test_a_group_has_a_bound(parley: Instance) -> None:
    small = await Instance(parley.dsn, PARLEY_GROUP_PEOPLE="3").start()
    try:
        people = [await small.person(f"p{n}") for n in range(4)]
        ids = [person.user_id for person in people]
        error = await refusal(people[0], "conversation:create", kind="group", user_ids=ids[1:], client_id="a")
        assert (error["code"], error["limit"]) == ("too_large", 3)
        full = await create(*people[:3], kind="group")
        assert full["participant_count"] == 3
        error = await refusal(
            people[0], "participant:add", conversation_id=full["conversation_id"], user_id=people[3].user_id
        )
        assert (error["code"], error["limit"]) == ("too_large", 3)
        many = [str(uuid4()) for _ in range(1_000)]
        error = await refusal(people[0], "conversation:create", kind="group", user_ids=many, client_id="b")
        assert (error["code"], error["limit"]) == ("too_large", 3)
    finally:
        await small.stop()


async def test_a_title_has_a_bound(amina: Person) -> None:
    payload = {"kind": "group", "user_ids": [], "client_id": "a"}
    error = await refusal(amina, "conversation:create", **payload, title="ع" * 201)
    assert (error["code"], error["limit"]) == ("too_large", 200)
    assert (await amina.post("conversation:create", **payload, title="ع" * 200))["title"] == "ع" * 200


# listed


async def test_conversations_are_listed_by_latest_activity(parley: Instance, amina: Person, bilal: Person) -> None:
    made = {name: await create(amina, bilal, kind="group", title=name) for name in ("a", "b", "c")}
    assert await titles(amina) == ["c", "b", "a"]
    await bilal.post("message:send", conversation_id=made["a"]["conversation_id"], client_id="1", text="…")
    assert await titles(amina) == await titles(bilal) == ["a", "c", "b"]
    carim = await parley.person("carim")
    await amina.post("participant:add", conversation_id=made["b"]["conversation_id"], user_id=carim.user_id)
    assert await titles(amina) == ["b", "a", "c"]
    assert await titles(carim) == ["b"]
    assert await titles(await parley.person("dalia")) == []


async def test_pages_of_conversations_have_no_hole_and_no_repeat(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    made = [(await create(amina, bilal, kind="group", title=str(n)))["conversation_id"] for n in range(7)]
    # Several at one and the same instant, one between two milliseconds: what orders these has to page them too.
    await change(parley, "update rooms set last_at = '2030-01-01T00:00:00.0004Z' where room_id = any ($1)", made[1:5])
    await change(parley, "update rooms set last_at = '2030-01-01T00:00:00.0009Z' where room_id = $1", made[3])
    whole = await amina.post("conversation:list")
    assert whole["next"] is None
    for limit in (1, 2, 3, 7):
        read, asked, page = [], {}, {}
        while not read or page["next"] is not None:
            page = await amina.post("conversation:list", limit=limit, **asked)
            assert len(page["conversations"]) <= limit
            read += page["conversations"]
            asked = {"before": page["next"]}
        assert read == whole["conversations"]
    assert {one["conversation_id"] for one in whole["conversations"]} == set(made)


async def test_archived_conversations_are_listed_apart(parley: Instance, amina: Person, bilal: Person) -> None:
    kept = await create(amina, bilal, kind="group", title="kept")
    gone = await create(amina, bilal, kind="group", title="archived")
    await change(
        parley,
        "update conversation_participants set archived = true where conversation_id = $1 and user_id = $2",
        gone["conversation_id"],
        amina.user_id,
    )
    assert await titles(amina) == await titles(amina, archived=False) == ["kept"]
    assert await titles(amina, archived=True) == ["archived"]
    assert await titles(bilal) == ["archived", "kept"]
    assert (await amina.post("conversation:get", conversation_id=gone["conversation_id"]))["archived"]
    device = await amina.connect()
    assert set(device.hello["rooms"]) == {f"user:{amina.user_id}", f"conversation:{kept['conversation_id']}"}


def place(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


AN_ID = "01a1fa9e-65e2-7a55-a42f-9311a8e79b12"


@pytest.mark.parametrize(
    "before",
    [
        *("", "x", "garbage!", "ÿ", "AAAA", "====", place(""), place(AN_ID), place(f"2026-01-01T00:00:00Z{AN_ID}")),
        *(place("2026-01-01T00:00:00Z"), place("2026-01-01T00:00:00Z 7"), place(f"yesterday {AN_ID}")),
        *(place(f"2026-02-30T00:00:00Z {AN_ID}"), place(f"2026-01-01T00:00:00 {AN_ID}"), place(f"2026-01-01 {AN_ID}")),
        *(place(f"2026-13-01T00:00:00Z {AN_ID}"), place(f"1767225600 {AN_ID}"), "_" * 200),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        7,
    ],
)
async def test_a_place_that_no_page_has_named_is_refused(amina: Person, before: Any) -> None:
    error = await refusal(amina, "conversation:list", before=before)
    assert (error["code"], list(error["fields"])) == ("invalid", ["before"])


@pytest.mark.parametrize("limit", [0, -1, 1.5, "10", True])
async def test_a_page_of_conversations_is_of_one_to_a_hundred(amina: Person, limit: Any) -> None:
    error = await refusal(amina, "conversation:list", limit=limit)
    assert (error["code"], list(error["fields"])) == ("invalid", ["limit"])


async def test_a_page_over_its_bound_is_too_large(amina: Person) -> None:
    error = await refusal(amina, "conversation:list", limit=101)
    assert (error["code"], error["limit"]) == ("too_large", 100)


# looked at


async def test_the_largest_group_is_made_and_looked_at_whole(parley: Instance, amina: Person) -> None:
    async with parley.parley.database.connection() as db:
        crowd = await db.fetch(
            """with made as (
                   insert into users (username, email)
                   select $1 || n, $1 || n || '@example.org' from generate_series(1, 499) n returning user_id
               ), opened as (insert into rooms (room_id, kind) select user_id, 'user' from made)
               select user_id from made""",
            f"crowd.{uuid4().hex[:12]}.",
        )
    ids = [str(row["user_id"]) for row in crowd]
    made = await amina.post("conversation:create", kind="group", user_ids=ids, client_id="a")
    assert (made["participant_count"], len(made["participants"])) == (500, 20)
    whole = await amina.post("conversation:get", conversation_id=made["conversation_id"])
    assert {one["user_id"] for one in whole["participants"]} == {*ids, amina.user_id}


async def test_all_of_a_groups_people_are_seen_where_it_is_looked_at_alone(parley: Instance, amina: Person) -> None:
    people = [await parley.person(f"p{n}") for n in range(24)]
    made = await create(amina, *people, kind="group")
    listed = (await amina.post("conversation:list"))["conversations"][0]
    looked_at = await people[0].post("conversation:get", conversation_id=made["conversation_id"])
    for one, count in ((made, 20), (listed, 20), (looked_at, 25)):
        assert (len(one["participants"]), one["participant_count"]) == (count, 25)
    assert {p["user_id"] for p in looked_at["participants"]} == {p.user_id for p in (amina, *people)}
    assert looked_at["participants"][:20] == made["participants"] == listed["participants"]


async def test_unread_counts_the_messages_of_others(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    carim = await parley.person("carim")
    group = (await create(amina, bilal, carim, kind="group"))["conversation_id"]
    for n, person in enumerate((amina, amina, bilal)):
        await person.post("message:send", conversation_id=group, client_id=f"{n}", text=f"{n}")
    seen = [await person.post("conversation:get", conversation_id=group) for person in (amina, bilal, carim)]
    assert [one["unread_count"] for one in seen] == [1, 2, 3]
    assert all((one["head_seq"], one["last_message"]["text"]) == (3, "2") for one in seen)
    listed = await carim.post("conversation:list")
    assert [one["unread_count"] for one in listed["conversations"]] == [3]
    await change(parley, "update messages set deleted_at = now() where conversation_id = $1 and seq = 1", group)
    await change(
        parley, "update conversation_participants set read_seq = 2 where conversation_id = $1 and user_id = $2",
        *(group, bilal.user_id),
    )  # fmt: skip
    seen = [await person.post("conversation:get", conversation_id=group) for person in (amina, bilal, carim)]
    assert [one["unread_count"] for one in seen] == [1, 0, 2]


async def test_unread_is_counted_to_a_thousand(parley: Instance, amina: Person, bilal: Person, their_chat: str) -> None:
    await change(
        parley,
        """insert into messages (message_id, conversation_id, seq, sender_id, client_id, body_hmac, type, text, at)
           select uuidv7(), $1, n, $2, 'n' || n, '', 'text', '…', now() from generate_series(1, 1005) n""",
        their_chat,
        amina.user_id,
    )
    await change(parley, "update rooms set last_seq = 1005 where room_id = $1", their_chat)
    assert (await bilal.post("conversation:get", conversation_id=their_chat))["unread_count"] == 1_000
    assert (await amina.post("conversation:get", conversation_id=their_chat))["unread_count"] == 0
