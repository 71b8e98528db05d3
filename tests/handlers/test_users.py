"""People: looked at, found, changed by themselves, kept out and let in again by administrators."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from rules.users import Scope
from server.rooms.bus import LocalBus, LocalHub
from tests.people import PASSWORD, ConnectRefused, Device, Instance, Person, Push, Refusal

PUBLIC = {
    "user_id", "username", "full_name", "full_name_ar", "profile_picture_url", "roles", "verified", "seller_rating",
    "total_sales",
}  # fmt: skip
NewInstance = Callable[..., Awaitable[Instance]]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


@pytest.fixture
async def root(parley: Instance) -> Person:
    """An administrator."""
    person = await parley.person("root")
    await execute(parley, "update users set roles = '{admin}' where user_id = $1", person.user_id)
    return person


async def execute(parley: Instance, sql: str, *arguments: Any) -> None:
    async with parley.parley.database.connection() as db:
        await db.execute(sql, *arguments)


async def refused(person: Person, command: str, **payload: Any) -> dict[str, Any]:
    """The error of a command that is refused."""
    with pytest.raises(Refusal) as refusal:
        await person.post(command, **payload)
    error: dict[str, Any] = refusal.value.error
    return error


async def head(person: Person) -> int:
    """The seq of the last push to somebody's own room."""
    synced = await person.post("room:sync", room=f"user:{person.user_id}", after=0)
    return int(synced["head_seq"])


async def found(person: Person, query: str, **fields: Any) -> list[str]:
    """The usernames, without their random ends, that a search finds."""
    answer = await person.post("user:search", query=query, **fields)
    return [user["username"].partition(".")[0] for user in answer["users"]]


# looked at


async def test_a_profile_has_what_others_may_see_and_no_more(parley: Instance, amina: Person) -> None:
    bilal = await parley.register("bilal", full_name="Bilal", full_name_ar="بلال", phone="+20 " + str(uuid4().int)[:12])
    profile = await amina.post("user:get", user_id=bilal.user_id)
    assert profile.keys() == PUBLIC
    own = await bilal.post("account:me")
    assert profile == {name: own[name] for name in PUBLIC}
    assert (profile["full_name"], profile["full_name_ar"]) == ("Bilal", "بلال")


async def test_the_unknown_and_the_deleted_are_nobody_and_the_suspended_are_somebody(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    unknown = await refused(amina, "user:get", user_id=str(uuid4()))
    assert unknown["code"] == "not_found"
    await execute(parley, "update users set status = 'suspended' where user_id = $1", bilal.user_id)
    assert (await amina.post("user:get", user_id=bilal.user_id))["username"] == bilal.username
    await execute(parley, "update users set status = 'deleted' where user_id = $1", bilal.user_id)
    assert await refused(amina, "user:get", user_id=bilal.user_id) == unknown


# found


@pytest.mark.both_postgres
async def test_usernames_that_begin_so_come_before_names_that_contain_it(parley: Instance, amina: Person) -> None:
    end = uuid4().hex[:8]
    await parley.register(f"x{end}-named", full_name=f"Zed {end} Q")
    await parley.register(f"{end}-second")
    await parley.register(f"{end.upper()}-first")
    await parley.register(f"x{end}-inside", full_name=f"O{end}o")
    await parley.register(f"x{end}-neither", full_name="Nobody")
    assert await found(amina, end) == [f"{end.upper()}-first", f"{end}-second", f"x{end}-named", f"x{end}-inside"]
    assert await found(amina, end.upper(), limit=3) == [f"{end.upper()}-first", f"{end}-second", f"x{end}-named"]


@pytest.mark.both_postgres
@pytest.mark.parametrize(
    ("query", "finds"),
    [("amina fer", True), ("AMINA F", True), ("feroz", True), ("fe", True), ("roz", True), ("er", False), ("أمي", True),
     ("أمينة فيروز", True), ("فيروز", True), ("في", True), ("amina feros", True), ("bilal", False)],
)  # fmt: skip
async def test_a_search_finds_names_in_both_languages_and_forgives_a_slip(
    parley: Instance, amina: Person, query: str, finds: bool
) -> None:
    somebody = await parley.register("u", full_name="Amina Feroz", full_name_ar="أمينة فيروز")
    answer = await amina.post("user:search", query=query, limit=50)
    assert (somebody.user_id in {user["user_id"] for user in answer["users"]}) == finds
    assert all(user.keys() == PUBLIC for user in answer["users"])
    await execute(parley, "update users set full_name = null, full_name_ar = null where user_id = $1", somebody.user_id)


async def test_wildcards_stand_for_themselves(parley: Instance, amina: Person) -> None:
    end = uuid4().hex[:8]
    await parley.register("a-plain", full_name=f"{end} 100 axb c")
    await parley.register("percent", full_name=f"{end} 100% sure")
    await parley.register("underscore", full_name=rf"{end} a_b \ c")
    for query, first in ((f"{end} 100%", "percent"), (f"{end} a_b \\ c", "underscore"), (f"{end} 100 a", "a-plain")):
        assert (await found(amina, query))[0] == first  # what is close to it comes behind
    assert await found(amina, "%%%%") == []
    assert await found(amina, "__") == []


async def test_the_suspended_and_the_deleted_are_not_found(parley: Instance, amina: Person) -> None:
    name = uuid4().hex[:10]
    people = [await parley.register(name, full_name=f"N{name}") for _ in range(3)]
    for person, status in zip(people, ("suspended", "deleted"), strict=False):
        await execute(parley, "update users set status = $2 where user_id = $1", person.user_id, status)
    for query in (name, f"N{name}"):
        answer = await amina.post("user:search", query=query)
        assert [user["user_id"] for user in answer["users"]] == [people[2].user_id]


@pytest.mark.parametrize(
    ("payload", "code"),
    [({"query": "a"}, "invalid"), ({"query": "a" * 101}, "too_large"), ({"query": "aa", "limit": 51}, "too_large"),
     ({"query": "aa", "limit": 0}, "invalid")],
)  # fmt: skip
async def test_a_search_is_bounded(amina: Person, payload: dict[str, Any], code: str) -> None:
    assert (await refused(amina, "user:search", **payload))["code"] == code


# changed by themselves


async def test_an_account_is_changed_field_by_field_and_its_devices_hear_of_it(parley: Instance, amina: Person) -> None:
    device, number = await amina.connect(), str(uuid4().int)[:10]
    before = await amina.post("account:me")
    changes = {
        "username": f"amina.{number}",
        "email": f"{number}@example.org",
        "full_name": "Amina",
        "full_name_ar": "أمينة",
        "phone": f"+20 {number}",
        "whatsapp_number": f"+20{number}",
        "profile_picture_url": "https://example.org/amina.png",
        "locale": "ar-EG",
        "preferences": {"theme": "dark", "sounds": {"on": True, "volume": 0.5}},
        "notification_channels": ["in_app", "email"],
        "roles": ["buyer", "seller"],
    }
    told = before
    for name, value in changes.items():
        after = await amina.post("account:update", **{name: value})
        assert after == told | {name: value}
        told = after
    assert await amina.post("account:me") == told
    pushes = await device.until(lambda heard: _named(heard, "user:updated", len(changes)))
    assert [push.payload for push in pushes][-1] == told
    assert [push.seq for push in pushes] == list(range(1, len(changes) + 1))
    cleared = {"full_name": None, "full_name_ar": None, "phone": None, "whatsapp_number": None}
    cleared["profile_picture_url"] = None
    assert await device.call("account:update", **cleared) == told | cleared


def _named(heard: list[Push], name: str, count: int) -> list[Push] | None:
    """The first pushes of a name, once there are so many."""
    pushes = [push for push in heard if push.name == name]
    return pushes if len(pushes) >= count else None


async def test_an_update_that_changes_nothing_tells_nobody(amina: Person) -> None:
    await amina.post("account:update", full_name="Amina", preferences={"b": 1, "a": True}, roles=["seller", "buyer"])
    before, told = await amina.post("account:me"), await head(amina)
    for nothing in (
        {},
        {"full_name": "Amina", "phone": None, "locale": "en", "username": amina.username},
        {"preferences": {"a": True, "b": 1}, "roles": ["buyer", "seller", "seller"]},
    ):
        assert await amina.post("account:update", **nothing) == before
    assert await head(amina) == told
    await amina.post("account:update", preferences={"a": 1, "b": 1})  # which is not the same as true
    assert await head(amina) == told + 1


async def test_those_in_ones_conversations_hear_of_a_profile_and_of_nothing_else(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    group = await parley.chat(amina, bilal, await parley.person("carim"), kind="group")
    left = await parley.chat(bilal, amina, kind="group")
    await bilal.post("participant:remove", conversation_id=left, user_id=amina.user_id)
    other = await bilal.connect()
    await amina.post("account:update", locale="ar", preferences={"a": 1}, email=f"{uuid4().hex}@example.org")
    await amina.post("account:update", full_name="Amina", locale="en")
    heard = await other.hearing("profile:changed")
    assert heard.payload == await bilal.post("user:get", user_id=amina.user_id)
    assert heard.payload["full_name"] == "Amina"
    assert (heard.room, "seq" in heard.meta) == (f"conversation:{group}", False)
    assert [push.room for push in other.heard if push.name == "profile:changed"] == [heard.room]
    synced = await bilal.post("room:sync", room=f"conversation:{group}", after=0)
    assert "profile:changed" not in {event["name"] for event in synced["events"]}


async def test_of_many_changes_of_a_profile_within_a_second_the_last_is_heard(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    other = await bilal.connect()
    for name in "ABCD":
        await amina.post("account:update", full_name=name)
    await other.hearing("profile:changed", full_name="D")
    names = [push.payload["full_name"] for push in other.heard if push.name == "profile:changed"]
    assert names[0] == "A"
    assert len(names) < 4


@pytest.mark.parametrize("field", ["username", "email", "phone", "whatsapp_number"])
async def test_what_is_somebody_elses_is_taken(parley: Instance, amina: Person, field: str) -> None:
    number = str(uuid4().int)[:12]
    fields = {"phone": f"+20{number}", "whatsapp_number": f"+20{number}"}
    owner = await (await parley.register("bilal", **fields)).post("account:me")
    before, told = await amina.post("account:me"), await head(amina)
    wanted = owner[field].upper()
    error = await refused(amina, "account:update", **{"full_name": "Amina", field: wanted})
    assert (error["code"], error["reason"]) == ("conflict", "taken")
    assert (await amina.post("account:me"), await head(amina)) == (before, told)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("username", None, "invalid"),
        ("username", "a b", "invalid"),
        ("username", "Deleted-1", "invalid"),
        ("email", None, "invalid"),
        ("email", "x@Deleted.invalid", "invalid"),
        ("locale", None, "invalid"),
        ("profile_picture_url", "http://example.org/a.png", "invalid"),
        ("profile_picture_url", "https:///a.png", "invalid"),
        ("profile_picture_url", "https://example.org/a b.png", "invalid"),
        ("profile_picture_url", "https://example.org/" + "a" * 1_981, "too_large"),
        ("preferences", None, "invalid"),
        ("preferences", [], "invalid"),
        ("preferences", {"a": ["x" * 9_000, "y" * 7_372]}, "too_large"),
        ("notification_channels", None, "invalid"),
        ("notification_channels", ["In App"], "invalid"),
        ("notification_channels", ["x"] * 17, "too_large"),
        ("roles", ["admin"], "invalid"),
        ("roles", None, "invalid"),
        ("status", "active", "invalid"),
        ("password", PASSWORD, "invalid"),
    ],
)
async def test_what_an_account_may_become_is_bounded(amina: Person, field: str, value: Any, code: str) -> None:
    assert (await refused(amina, "account:update", **{field: value}))["code"] == code


async def test_preferences_up_to_the_bound_are_kept(amina: Person) -> None:
    preferences = {"a": ["x" * 9_000, "y" * 7_371]}
    assert len(json.dumps(preferences, separators=(",", ":"))) == 16 * 1024
    assert (await amina.post("account:update", preferences=preferences))["preferences"] == preferences


async def test_nobody_becomes_an_administrator_or_ceases_to_be_one_by_an_update(amina: Person, root: Person) -> None:
    assert (await amina.post("account:update", roles=["mentor"]))["roles"] == ["mentor"]
    assert (await root.post("account:update", roles=["seller"]))["roles"] == ["seller", "admin"]
    assert (await root.post("account:update", roles=[]))["roles"] == ["admin"]


async def test_an_account_that_is_closed_is_not_filled_anew_by_a_socket_that_is_about_to_close(
    parley: Instance, amina: Person
) -> None:
    device = await amina.connect()
    await execute(parley, "update users set status = 'deleted' where user_id = $1", amina.user_id)
    answer = await device.answer("account:update", full_name="Amina")
    assert answer["error"]["code"] == "unauthenticated"


async def test_a_limited_token_changes_no_account(parley: Instance) -> None:
    person = await parley.person("amina", scope=Scope.LIMITED)
    assert (await refused(person, "account:update", full_name="Amina"))["code"] == "forbidden"


# kept out


async def test_who_is_suspended_is_out_everywhere_until_restored(new_instance: NewInstance) -> None:
    hub = LocalHub()
    one, two = [await new_instance(bus=LocalBus(hub)) for _ in range(2)]
    root, dalia = await one.person("root"), await one.register("dalia")
    await execute(one, "update users set roles = '{admin}' where user_id = $1", root.user_id)
    devices = [await dalia.connect(to=instance) for instance in (one, two)]
    user = await root.post("user:suspend", user_id=dalia.user_id, reason="spam")
    assert (user["user_id"], user["status"], user["email"]) == (
        dalia.user_id,
        "suspended",
        f"{dalia.username}@example.org",
    )
    for device in devices:
        await device.gone()
        names = [push.name for push in device.heard[1:]]
        assert names == ["user:updated", "session:revoked"]
        assert device.heard[1].payload == user
        assert device.heard[2].payload == {"session_id": dalia.session_id, "reason": "suspended"}
    for attempt in (dalia.connect(), dalia.post("account:me"), one.log_in(dalia.username)):
        with pytest.raises((ConnectRefused, Refusal)) as refusal:
            await attempt
        assert "unauthenticated" in str(refusal.value)
    status, answer = await two.post("account:refresh", {"refresh_token": dalia.refresh_token})
    assert (status, answer) == await two.post("account:refresh", {"refresh_token": "unknown"})
    restored = await root.post("user:restore", user_id=dalia.user_id, reason="a mistake")
    assert restored == user | {"status": "active"}
    with pytest.raises(Refusal, match="unauthenticated"):
        await dalia.post("account:me")  # what has ended stays so
    assert (await (await two.log_in(dalia.username)).post("account:me"))["status"] == "active"


async def test_a_repeat_is_no_second_suspension(parley: Instance, root: Person, bilal: Person) -> None:
    first = await root.post("user:suspend", user_id=bilal.user_id, reason="spam")
    assert await root.post("user:suspend", user_id=bilal.user_id, reason="spam") == first
    assert await root.post("user:suspend", user_id=bilal.user_id, reason="more spam") == first
    async with parley.parley.database.connection() as db:
        told = await db.fetch("select name from room_events where room_id = $1 order by seq", bilal.user_id)
        reason = await db.fetchval("select status_reason from users where user_id = $1", bilal.user_id)
    assert [row["name"] for row in told] == ["user:updated", "session:revoked"]
    assert reason == "more spam"
    restored = await root.post("user:restore", user_id=bilal.user_id, reason="more spam")
    assert restored["status"] == "active"


async def test_administrators_alone_suspend_and_not_themselves(
    parley: Instance, root: Person, amina: Person, bilal: Person
) -> None:
    for command in ("user:suspend", "user:restore"):
        for user_id in (bilal.user_id, str(uuid4()), amina.user_id):
            assert (await refused(amina, command, user_id=user_id, reason="x"))["code"] == "forbidden"
        assert (await refused(root, command, user_id=str(uuid4()), reason="x"))["code"] == "not_found"
        assert (await refused(root, command, user_id=bilal.user_id, reason=""))["code"] == "invalid"
    assert (await refused(root, "user:suspend", user_id=root.user_id, reason="x"))["code"] == "invalid"
    await execute(parley, "update users set status = 'deleted' where user_id = $1", bilal.user_id)
    assert (await refused(root, "user:restore", user_id=bilal.user_id, reason="x"))["code"] == "not_found"


async def test_who_is_an_administrator_is_what_the_database_says_now(
    parley: Instance, root: Person, bilal: Person
) -> None:
    device: Device = await root.connect()
    await execute(parley, "update users set roles = '{}' where user_id = $1", root.user_id)
    answer = await device.answer("user:suspend", user_id=bilal.user_id, reason="spam")
    assert answer["error"]["code"] == "forbidden"


async def test_who_signs_in_while_being_suspended_is_not_in(
    parley: Instance, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    dalia = await parley.register("dalia")
    passwords = parley.parley.services.passwords
    original = passwords.matches

    async def meanwhile(*of: Any) -> bool:
        fits: bool = await original(*of)
        await root.post("user:suspend", user_id=dalia.user_id, reason="spam")
        return fits

    monkeypatch.setattr(passwords, "matches", meanwhile)
    with pytest.raises(Refusal, match="unauthenticated"):
        await parley.log_in(dalia.username)
    connection = await asyncpg.connect(parley.dsn)
    count = await connection.fetchval(
        "select count(*) from user_sessions where user_id = $1 and ended_at is null", dalia.user_id
    )
    await connection.close()
    assert count == 0
