"""Deleting one's account: nothing personal stays, nobody comes back to it, and others keep what is theirs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from rules.participants import ParticipantRole
from rules.reports import SubjectKind
from rules.users import Scope
from server.rooms.bus import LocalBus, LocalHub
from storage import Connection, erasure, participants, reports, users
from storage.messages import NewMessage, append_messages
from storage.reports import Subject
from tests.locks import PATIENCE_S, holding
from tests.market import conflict, counter, eur, listed, offer
from tests.people import PASSWORD, ConnectRefused, Instance, Person, Refusal

NewInstance = Callable[..., Awaitable[Instance]]
MARK = "mark"  # stands in everything personal of whoever is deleted here


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def marked(parley: Instance) -> Person:
    """Somebody all of whose personal fields are filled."""
    number = str(uuid4().int)[:12]
    person = await parley.register(MARK, full_name=MARK, full_name_ar=MARK, phone=f"+20{number}", locale="ar-mark")
    await person.post(
        "account:update",
        whatsapp_number=f"+20{number}",
        profile_picture_url=f"https://example.org/{MARK}.png",
        preferences={MARK: MARK},
        notification_channels=[MARK],
        roles=["buyer", "seller"],
    )
    return person


async def rows(parley: Instance, sql: str, *arguments: Any) -> list[dict[str, Any]]:
    async with parley.parley.database.connection() as db:
        return [dict(row) for row in await db.fetch(sql, *arguments)]


async def delete(person: Person, password: str = PASSWORD) -> Any:
    return await person.post("account:delete", password=password)


async def test_nothing_personal_is_left_of_an_account(parley: Instance, bilal: Person) -> None:
    person = await marked(parley)
    await parley.log_in(person.username, device=MARK)
    await bilal.post("user:block", user_id=person.user_id)
    await person.post("user:block", user_id=bilal.user_id)
    subject = {"kind": "user", "id": bilal.user_id}
    await person.post("report:file", subject=subject, reason=MARK, text=MARK, client_id="1")
    await parley.post("account:forgot", {"email": f"{person.username}@example.org"})
    await asyncio.gather(*parley.parley.dispatcher._following)
    assert await delete(person) == {}
    [user] = await rows(parley, "select * from users where user_id = $1", person.user_id)
    code = UUID(person.user_id).hex
    assert (user["username"], user["email"], user["status"]) == (
        f"deleted-{code}",
        f"{code}@deleted.invalid",
        "deleted",
    )
    kept = {"user_id", "username", "email", "status", "at", "updated_at", "erased_at"}
    kept |= {"total_sales", "ratings", "rating_sum"}  # deals are others' too
    empty = {"locale": "en", "roles": [], "notification_channels": [], "names": "  "}
    for name, value in user.items():
        if name == "preferences":
            assert bytes(value) == b"{}"
        elif name not in kept:
            assert value == empty.get(name), name
    sessions = await rows(parley, "select * from user_sessions where user_id = $1", person.user_id)
    assert [(one["device"], one["address"], one["end_reason"]) for one in sessions] == [
        (None, None, "account_deleted")
    ] * 2
    assert all(one["ended_at"] for one in sessions)
    tokens = (
        "select * from auth_tokens t left join user_sessions s using (session_id) where $1 in (t.user_id, s.user_id)"
    )
    assert await rows(parley, tokens, person.user_id) == []
    assert await rows(parley, "select * from user_blocks where $1 in (blocker_id, blocked_id)", person.user_id) == []
    assert await bilal.post("user:blocks") == {"users": []}
    [report] = await rows(parley, "select text, reason from reports where reporter_id = $1", person.user_id)
    assert report == {"text": None, "reason": "erased"}


async def test_what_ones_own_devices_were_told_is_blanked_but_for_the_ends_of_sessions(
    parley: Instance, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "EVENTS_PAGE", 2)
    person = await marked(parley)
    gone = await parley.log_in(person.username)
    await gone.post("account:logout")
    for n in range(4):
        await person.post("account:update", full_name=f"{MARK} {n}")
    chat = await parley.chat(person, bilal)
    others = await rows(parley, "select * from room_events where room_id = $1", bilal.user_id)
    await delete(person)
    logged = await rows(
        parley, "select seq, name, payload::text from room_events where room_id = $1 order by seq", person.user_id
    )
    assert [row["seq"] for row in logged] == list(range(1, len(logged) + 1))
    names = [row["name"] for row in logged]
    assert names == ["event:erased", "session:revoked", *["event:erased"] * 5, "session:revoked"]
    revoked = {"logout": gone, "account_deleted": person}
    for row in logged:
        payload = json.loads(row["payload"])
        if row["name"] == "session:revoked":
            assert payload["session_id"] == revoked.pop(payload["reason"]).session_id
        else:
            assert payload == {}
    assert revoked == {}
    assert await rows(parley, "select * from room_events where room_id = $1", bilal.user_id) == others
    assert (await bilal.post("conversation:get", conversation_id=chat))["participant_count"] >= 1


async def test_nobody_comes_back_to_a_deleted_account(new_instance: NewInstance) -> None:
    hub = LocalHub()
    one, two = [await new_instance(bus=LocalBus(hub)) for _ in range(2)]
    person = await marked(one)
    other = await two.log_in(person.username)
    devices = [await person.connect(to=instance) for instance in (one, two)]
    answer = await devices[0].answer("account:delete", password=PASSWORD)
    assert answer == {"ok": True, "data": {}}  # before its socket closes
    async with asyncio.timeout(2):
        await asyncio.gather(*(device.gone() for device in devices))
    for device in devices:
        await device.hearing("session:revoked", session_id=person.session_id, reason="account_deleted")
    unknown = await two.post("account:login", {"login": f"nobody.{uuid4().hex}", "password": PASSWORD})
    code = UUID(person.user_id).hex
    for login in (person.username, f"{person.username}@example.org", f"deleted-{code}", f"{code}@deleted.invalid"):
        assert await two.post("account:login", {"login": login, "password": PASSWORD}) == unknown
    for token in (person.refresh_token, other.refresh_token):
        spent = await two.post("account:refresh", {"refresh_token": token})
        assert spent == await two.post("account:refresh", {"refresh_token": "unknown"})
    for owner in (person, other):
        with pytest.raises(Refusal, match="unauthenticated"):
            await owner.post("account:me")
        with pytest.raises(ConnectRefused, match="unauthenticated"):
            await owner.connect()
    again = await one.register("again", username=person.username, email=f"{person.username}@example.org")
    assert again.user_id != person.user_id
    with pytest.raises(Refusal, match="not_found"):
        await again.post("user:get", user_id=person.user_id)
    for taken in ({"username": f"deleted-{code}"}, {"email": f"{code}@deleted.invalid"}):
        with pytest.raises(Refusal, match="invalid"):
            await one.register("thief", **taken)


async def test_the_password_decides_and_is_not_guessed(parley: Instance, amina: Person) -> None:
    person = await parley.register("dalia")
    # At once: on a slow machine the bucket would fill again between one and the next.
    refused = await asyncio.gather(*(delete(person, "a wrong horse") for _ in range(6)), return_exceptions=True)
    assert sorted(getattr(each, "code", "") for each in refused) == ["rate_limited"] + ["unauthenticated"] * 5
    assert (await person.post("account:me"))["status"] == "active"
    with pytest.raises(Refusal, match="unauthenticated"):
        await delete(amina)  # who has no password
    limited = await parley.person("limited", scope=Scope.LIMITED)
    with pytest.raises(Refusal, match="forbidden"):
        await delete(limited)


async def test_of_two_deletions_at_once_one_is_done(parley: Instance) -> None:
    person = await parley.register("dalia")
    answers = await asyncio.gather(
        *(parley.post("account:delete", {"password": PASSWORD}, token=person.token) for _ in range(2))
    )
    assert sorted(status for status, _ in answers) == [200, 401]
    ends = "select count(*) from room_events where room_id = $1 and name = 'session:revoked'"
    assert await rows(parley, ends, person.user_id) == [{"count": 1}]


async def test_what_a_deleted_person_said_is_nowhere_and_their_groups_have_an_heir(
    monkeypatch: pytest.MonkeyPatch, parley: Instance, bilal: Person
) -> None:
    monkeypatch.setattr("handlers.erasure.BATCH", 3)
    person, phone = await parley.register("leaver"), await bilal.connect()
    chat = await parley.chat(person, bilal)
    group = await parley.chat(person, bilal, kind="group")
    secret = f"secret{uuid4().hex}"
    for conversation_id in (chat, group):
        for n in range(4):
            sent = await person.post(
                "message:send", conversation_id=conversation_id, client_id=uuid4().hex, text=f"{secret} {n}"
            )
            await person.post("message:edit", message_id=sent["message_id"], text=f"{secret} {n}!", version=1)
    await bilal.post("message:send", conversation_id=chat, client_id="mine", text="mine stays")
    await delete(person)
    for [table] in [list(row.values()) for row in await rows(parley, TABLES)]:
        [found] = await rows(parley, f"select count(*) as n from {table} t where t::text like '%{secret}%'")
        assert found["n"] == 0, table
    for conversation_id in (chat, group):
        page = await bilal.post("message:history", conversation_id=conversation_id)
        said = [message for message in page["messages"] if message["sender_id"] == person.user_id]
        assert [(message["text"], message["deleted_at"] is None) for message in said] == [(None, False)] * 4
        deleted = [push for push in phone.of(f"conversation:{conversation_id}") if push.name == "message:deleted"]
        assert sorted((push.payload for push in deleted), key=lambda message: message["seq"]) == said
    assert (await bilal.post("message:search", query=secret))["messages"] == []
    assert page["messages"][0]["text"] is None
    left = await bilal.post("conversation:get", conversation_id=group)
    assert [(one["user_id"], one["role"]) for one in left["participants"]] == [(bilal.user_id, "owner")]
    kept = await bilal.post("conversation:get", conversation_id=chat)
    assert (kept["participant_count"], kept["last_message"]["text"]) == (2, "mine stays")


async def test_an_erasure_goes_on_where_an_instance_was_stopped(
    monkeypatch: pytest.MonkeyPatch, parley: Instance, bilal: Person
) -> None:
    monkeypatch.setattr("handlers.erasure.BATCH", 1)
    monkeypatch.setattr("handlers.erasure.AT_ONCE", 0)
    is_over = asyncio.Event()
    monkeypatch.setattr("handlers.erasure.partial", lambda *_: is_over.wait)  # stopped right after the answer
    person = await parley.register("leaver")
    chat = await parley.chat(person, bilal)
    for n in range(3):
        await person.post("message:send", conversation_id=chat, client_id=f"{n}", text="still here")
    await delete(person)
    assert (await bilal.post("message:search", query="still", conversation_id=chat))["messages"] != []
    monkeypatch.undo()
    assert await parley.parley.jobs.finish_erasures() >= 1
    assert (await bilal.post("message:search", query="still", conversation_id=chat))["messages"] == []
    assert await parley.parley.jobs.finish_erasures() == 0
    is_over.set()  # or the instance would wait for it on its way out


async def said(parley: Instance, person: Person) -> list[str | None]:
    found = await rows(parley, "select text from messages where sender_id = $1 order by seq", person.user_id)
    return [row["text"] for row in found]


def words(person: Person, conversation_id: str) -> NewMessage:
    return NewMessage(UUID(conversation_id), UUID(person.user_id), uuid4().hex, b"", MARK, None)


async def waiting_for(db: Connection) -> None:
    """Wait until somebody waits for the transaction of this connection."""
    async with asyncio.timeout(PATIENCE_S):
        while not await db.fetchval(
            "select exists (select from pg_locks where not granted and transactionid = pg_current_xact_id()::xid)"
        ):
            await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["private", "group"])
async def test_what_is_just_being_sent_is_erased_too(parley: Instance, bilal: Person, kind: str) -> None:
    person = await parley.register("leaver")
    chat = await parley.chat(person, bilal, kind=kind)
    async with parley.parley.database.unit() as db:
        assert [row.outcome for row in await append_messages(db, [words(person, chat)], wait=True)] == ["sent"]
        deleting = asyncio.create_task(delete(person))
        await waiting_for(db)
    await deleting
    assert await said(parley, person) == [None]
    async with parley.parley.database.connection() as db:  # one that waited in a batch for all that time
        assert [row.outcome for row in await append_messages(db, [words(person, chat)], wait=True)] == ["not_found"]


async def test_who_is_just_being_let_in_is_erased_there_too(parley: Instance, bilal: Person, amina: Person) -> None:
    person = await parley.register("leaver")
    group = await parley.chat(bilal, amina, kind="group")
    async with parley.parley.database.unit() as db:
        assert await users.lock_active(db, [UUID(person.user_id)]) == {UUID(person.user_id)}
        deleting = asyncio.create_task(delete(person))
        await waiting_for(db)
        await participants.create_participants(db, UUID(group), [(UUID(person.user_id), ParticipantRole.MEMBER)])
    await deleting
    left = await bilal.post("conversation:get", conversation_id=group)
    assert person.user_id not in [one["user_id"] for one in left["participants"]]
    for command, payload in (
        ("participant:add", {"conversation_id": group, "user_id": person.user_id}),
        ("conversation:create", {"kind": "group", "user_ids": [person.user_id], "client_id": "again"}),
    ):
        with pytest.raises(Refusal, match="not_found"):
            await bilal.post(command, **payload)


async def test_nothing_is_reported_by_who_has_gone(parley: Instance, bilal: Person) -> None:
    person = await parley.register("leaver")
    await delete(person)
    about = Subject(SubjectKind.USER, UUID(bilal.user_id))
    async with parley.parley.database.connection() as db:  # as a call that had been let in before
        assert not await reports.create_report(db, uuid4(), UUID(person.user_id), about, reason="spam", text=MARK)


async def test_nobody_agrees_with_who_has_gone_or_is_suspended(parley: Instance, bilal: Person) -> None:
    person = await parley.register("leaver")
    made = await counter(person, await offer(bilal, await listed(person)), 9_500)
    for status in ("suspended", "deleted"):
        await rows(parley, "update users set status = $2 where user_id = $1", UUID(person.user_id), status)
        assert await conflict(bilal, "accept", made) == "not_pending"
        assert await conflict(bilal, "counter", made, price=eur(9_000), client_id="1") == "not_pending"


async def test_what_others_delete_meanwhile_is_told_once(
    monkeypatch: pytest.MonkeyPatch, parley: Instance, bilal: Person
) -> None:
    person = await parley.register("leaver")
    group = await parley.chat(bilal, person, kind="group")
    sent = await person.post("message:send", conversation_id=group, client_id="1", text=MARK)
    listed = erasure.list_messages

    async def deleted_meanwhile(*arguments: Any) -> list[erasure.Said]:
        found = await listed(*arguments)
        if found:
            await bilal.post("message:delete", message_id=sent["message_id"])
        return found

    monkeypatch.setattr("storage.erasure.list_messages", deleted_meanwhile)
    await delete(person)
    told = "select count(*) as n from room_events where room_id = $1 and name = 'message:deleted'"
    assert await rows(parley, told, group) == [{"n": 1}]


async def test_a_busy_room_does_not_undo_a_deletion(parley: Instance, bilal: Person) -> None:
    person = await parley.register("leaver")
    chat = await parley.chat(person, bilal)
    await person.post("message:send", conversation_id=chat, client_id="1", text=MARK)
    async with holding(parley.dsn, chat):
        assert await delete(person) == {}
    await parley.parley.jobs.finish_erasures()
    assert await said(parley, person) == [None]


async def test_nothing_is_left_of_what_they_sold_and_asked_and_others_hear_it(parley: Instance, bilal: Person) -> None:
    person, phone = await parley.register("leaver"), await bilal.connect()
    secret = f"secret{uuid4().hex}"
    lamp = await listed(person, title=secret, description=secret, images=[f"https://example.org/{secret}.png"])
    wish = await listed(bilal, kind="wtb", title=f"wanted: {secret}", description="A lamp that glows.")
    theirs = await listed(bilal)
    watched = f"listing:{theirs['listing_id']}"
    await phone.call("room:join", room=watched)
    for listing in (lamp, theirs):
        await person.post("faq:ask", listing_id=listing["listing_id"], text=secret, client_id=listing["listing_id"])
    await person.post("listing:like", listing_id=theirs["listing_id"], on=True)
    await parley.parley.jobs.write_counts()
    assert (await bilal.post("listing:get", listing_id=theirs["listing_id"]))["likes"] == 1
    made = await offer(bilal, lamp)
    mine = await offer(person, theirs, message=secret)
    await bilal.post("user:block", user_id=person.user_id)
    await delete(person)
    await parley.parley.jobs.write_counts()
    assert (await bilal.post("listing:get", listing_id=theirs["listing_id"]))["likes"] == 0
    mark = f"'%{secret}%'"
    for [table] in [list(row.values()) for row in await rows(parley, TABLES)]:
        [found] = await rows(parley, f"select count(*) as n from {table} t where t::text like {mark}")
        if table not in ("listings", "room_events"):  # Bilal wants it under that name, and was told so
            assert found["n"] == 0, table
    assert await rows(
        parley, f"select count(*) as n from listings where words @@ '{secret}' and user_id = $1", person.user_id
    ) == [{"n": 0}]
    told = f"select name from room_events where payload::text like {mark} and payload::text not like '%wanted: %'"
    assert await rows(parley, told) == []
    for command in ("listing:get", "faq:list"):
        with pytest.raises(Refusal, match="not_found"):
            await bilal.post(command, listing_id=lamp["listing_id"])
    assert (await bilal.post("listing:get", listing_id=wish["listing_id"]))["title"] == f"wanted: {secret}"
    assert [faq["text"] for faq in (await bilal.post("faq:list", listing_id=theirs["listing_id"]))["faqs"]] == [None]
    for each in (made, mine):
        ended = await bilal.post("negotiation:get", negotiation_id=each["negotiation"]["negotiation_id"])
        assert (ended["status"], ended["current_offer"]["status"]) == ("closed", "cancelled")
    await phone.hearing("block:changed", user_id=person.user_id, blocked=False)
    assert (await bilal.post("user:blocks"))["users"] == []
    laptop = await bilal.connect()  # served from what the instance remembers, where it remembers it
    await laptop.call("room:join", room=watched, after=0)
    assert (await laptop.hearing("faq:posted")).payload["text"] is None


TABLES = "select tablename from pg_tables where schemaname = 'public'"
