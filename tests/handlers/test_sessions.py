"""Sessions: seen, ended by their owner or for want of renewal, and sockets that outlive their first token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from handlers import sessions
from rules.users import Scope
from server.commands.tokens import hash_stored_token
from server.rooms.bus import LocalBus, LocalHub
from storage import Connection
from storage import sessions as stored
from tests.people import PATIENCE_S, ConnectRefused, Device, Instance, Person, Refusal

NewInstance = Callable[..., Awaitable[Instance]]
SESSION = {"session_id", "device", "address", "started_at", "last_seen_at", "current"}


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def execute(parley: Instance, sql: str, *arguments: Any) -> None:
    async with parley.parley.database.connection() as db:
        await db.execute(sql, *arguments)


async def waiting_for(db: Connection) -> None:
    """Wait until somebody waits for the transaction of this connection."""
    async with asyncio.timeout(PATIENCE_S):
        while not await db.fetchval(
            "select exists (select from pg_locks where not granted and transactionid = pg_current_xact_id()::xid)"
        ):
            await asyncio.sleep(0)


async def is_out(person: Person) -> None:
    """Neither an access token nor a refresh token of that session lets anybody in."""
    with pytest.raises(Refusal, match="unauthenticated"):
        await person.post("account:me")
    with pytest.raises(ConnectRefused, match="unauthenticated"):
        await person.connect()
    status, _ = await person.instance.post("account:refresh", {"refresh_token": person.refresh_token})
    assert status == 401


def reasons(device: Device) -> dict[str, str]:
    """Why sessions have ended, as a device heard it."""
    return {push.payload["session_id"]: push.payload["reason"] for push in device.heard if "revoked" in push.name}


# seen and ended


async def test_one_sees_the_devices_that_are_signed_in(parley: Instance, bilal: Person) -> None:
    first = await parley.register("dalia")
    phone = await parley.log_in(first.username, device="phone")
    gone = await parley.log_in(first.username)
    await gone.post("account:logout")
    listed = (await phone.post("session:list"))["sessions"]
    assert all(session.keys() == SESSION for session in listed)
    assert [(session["session_id"], session["current"]) for session in listed] == [
        (phone.session_id, True),
        (first.session_id, False),
    ]
    assert (listed[0]["device"], listed[0]["address"]) == ("phone", "127.0.0.1")
    assert listed[1]["device"].startswith("Python/")  # by what it says of itself
    seen = {session["session_id"]: session["current"] for session in (await first.post("session:list"))["sessions"]}
    assert seen == {first.session_id: True, phone.session_id: False}


async def test_a_session_is_ended_everywhere_and_the_others_go_on(new_instance: NewInstance) -> None:
    hub = LocalHub()
    one, two = [await new_instance(bus=LocalBus(hub)) for _ in range(2)]
    keeper = await one.register("dalia")
    lost = await two.log_in(keeper.username)
    kept, ended = await keeper.connect(), [await lost.connect(to=instance) for instance in (one, two)]
    for _ in range(2):  # a repeat is no second end
        assert await kept.call("session:revoke", session_id=lost.session_id) == {}
    async with asyncio.timeout(2):
        await asyncio.gather(*(device.gone() for device in ended))
    assert all(reasons(device) == {lost.session_id: "revoked"} for device in ended)
    await is_out(lost)
    assert (await kept.call("account:me"))["user_id"] == keeper.user_id
    await kept.hearing("session:revoked")
    assert len([push for push in kept.heard if push.name == "session:revoked"]) == 1


async def test_another_persons_session_is_not_found(parley: Instance, amina: Person, bilal: Person) -> None:
    answers = [
        await parley.post("session:revoke", {"session_id": session_id}, token=amina.token)
        for session_id in (bilal.session_id, str(uuid4()))
    ]
    assert answers[0] == answers[1]
    assert (answers[0][0], answers[0][1]["error"]["code"]) == (404, "not_found")
    assert (await bilal.post("account:me"))["user_id"] == bilal.user_id


@pytest.mark.parametrize("everywhere", [False, True])
async def test_logging_out_is_answered_before_the_socket_closes(parley: Instance, everywhere: bool) -> None:
    phone = await parley.register("dalia")
    laptop = await parley.log_in(phone.username)
    device, other = await phone.connect(), await laptop.connect()
    assert await device.call("account:logout", **({"all": True} if everywhere else {})) == {}
    await device.gone()
    assert reasons(device)[phone.session_id] == "logout"
    await is_out(phone)
    if everywhere:
        await other.gone()
        assert reasons(other)[laptop.session_id] == "logout"
        await is_out(laptop)
    else:
        await other.hearing("session:revoked", session_id=phone.session_id)
        assert (await other.call("account:me"))["user_id"] == phone.user_id


async def test_a_token_that_makes_no_account_changes_ends_its_own_session_alone(parley: Instance) -> None:
    limited = await parley.person("dalia", scope=Scope.LIMITED)
    for command, payload in (
        ("account:logout", {"all": True}),
        ("session:revoke", {"session_id": limited.session_id}),
    ):
        with pytest.raises(Refusal, match="forbidden"):
            await limited.post(command, **payload)
    assert await limited.post("account:logout") == {}
    with pytest.raises(Refusal, match="unauthenticated"):
        await limited.post("account:me")


# swept


@pytest.mark.both_postgres
async def test_a_session_that_nobody_can_renew_any_more_is_ended(
    parley: Instance, amina: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "EXPIRED_BATCH", 1)
    people = [await parley.register("dalia") for _ in range(3)]
    left, renewed, lost = people
    for person in people:
        status, _ = await parley.post("account:refresh", {"refresh_token": person.refresh_token})
        assert status == 200
    expire = "update auth_tokens set expires_at = now() where session_id = $1 and status = $2"
    await execute(parley, expire, renewed.session_id, "revoked")  # spent ones expire, and nobody minds
    for person in (left, lost):
        await execute(parley, expire, person.session_id, "active")
        await execute(parley, "update user_sessions set ends_at = now() where session_id = $1", person.session_id)
    device = await left.connect()
    await parley.parley.jobs.sweep_sessions()
    await device.gone()
    assert reasons(device) == {left.session_id: "expired"}
    for person in (left, lost):
        with pytest.raises(Refusal, match="unauthenticated"):
            await person.post("account:me")
    for person in (renewed, amina):  # hers was opened without a refresh token, for an hour
        assert (await person.post("account:me"))["user_id"] == person.user_id
    assert await parley.parley.jobs.sweep_sessions() == 0


async def ends_in(parley: Instance, person: Person) -> float:
    """Seconds until a session's end."""
    async with parley.parley.database.connection() as db:
        left = "select extract(epoch from ends_at - now())::float8 from user_sessions where session_id = $1"
        seconds: float = await db.fetchval(left, person.session_id)
        return seconds


async def test_a_session_ends_with_its_newest_refresh_token_or_with_the_one_token_it_has(
    new_instance: NewInstance,
) -> None:
    parley = await new_instance(PARLEY_REFRESH_TTL_S="5000")
    person = await parley.register("dalia")
    assert 4_900 < await ends_in(parley, person) <= 5_000
    await execute(parley, "update user_sessions set ends_at = now() where session_id = $1", person.session_id)
    assert (await parley.post("account:refresh", {"refresh_token": person.refresh_token}))[0] == 200
    assert 4_900 < await ends_in(parley, person) <= 5_000
    made = await parley.person("amina", ttl_s=77)
    assert 0 < await ends_in(parley, made) <= 77
    await execute(parley, "update user_sessions set ends_at = now() where session_id = $1", made.session_id)
    await parley.parley.jobs.sweep_sessions()
    with pytest.raises(Refusal, match="unauthenticated"):
        await made.post("account:me")
    assert (await person.post("account:me"))["user_id"] == person.user_id


@pytest.mark.both_postgres
async def test_what_is_of_no_use_any_more_is_swept(parley: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.jobs.SWEEP_BATCH", 1)
    person = await parley.register("dalia")
    tokens = [person.refresh_token]
    for _ in range(3):
        renewed = (await parley.post("account:refresh", {"refresh_token": tokens[-1]}))[1]["data"]
        tokens.append(renewed["refresh_token"])
    expire = "update auth_tokens set expires_at = now() where hash = any ($1)"
    await execute(parley, expire, [hash_stored_token(token) for token in tokens[:2]])
    reset = """insert into auth_tokens (user_id, type, hash, status, expires_at)
               values ($1, 'reset', $2, $3, now() - $4::interval)"""
    for n, (status, ago) in enumerate((("active", timedelta(hours=23)), ("revoked", timedelta(hours=25)))):
        await execute(parley, reset, person.user_id, f"{person.user_id} {n}".encode(), status, ago)
    ended = [await parley.log_in(person.username, device="phone") for _ in range(3)]
    for one, days in zip(ended, (31, 31, 29), strict=True):
        await one.post("account:logout")
        ago = "update user_sessions set ended_at = now() - make_interval(days => $2) where session_id = $1"
        await execute(parley, ago, one.session_id, days)
    await parley.parley.jobs.sweep_sessions()
    async with parley.parley.database.connection() as db:
        kept = await db.fetch(
            "select hash, status from auth_tokens where user_id = $1 or session_id = $2 order by token_id",
            *(person.user_id, person.session_id),
        )
        devices = "select device, address from user_sessions where user_id = $1 order by session_id"
        known = [tuple(row) for row in await db.fetch(devices, person.user_id)]
    assert [tuple(row) for row in kept] == [
        (hash_stored_token(tokens[2]), "revoked"),
        (hash_stored_token(tokens[3]), "active"),
        (f"{person.user_id} 0".encode(), "active"),
    ]
    assert [device is None and address is None for device, address in known] == [False, True, True, False]
    # what is spent, and kept, still shows that somebody has a copy
    assert (await parley.post("account:refresh", {"refresh_token": tokens[2]}))[0] == 401
    assert (await parley.post("account:refresh", {"refresh_token": tokens[3]}))[0] == 401


async def test_a_token_is_not_renewed_while_its_session_is_being_ended(parley: Instance) -> None:
    person = await parley.register("dalia")
    async with parley.parley.database.unit() as db:
        assert await stored.end_session(db, UUID(person.session_id), "revoked")
        renewing = asyncio.create_task(parley.post("account:refresh", {"refresh_token": person.refresh_token}))
        await waiting_for(db)
    assert (await renewing)[0] == 401


# renewed


def token_of(person: Person, *, ttl_s: int = 3600, scope: Scope = Scope.FULL, session_id: str | None = None) -> str:
    """Another access token of a person's."""
    tokens = person.instance.parley.services.tokens
    return tokens.access(UUID(person.user_id), UUID(session_id or person.session_id), scope, ttl_s=ttl_s)[0]


async def test_a_socket_ends_with_its_token_unless_another_renews_it(parley: Instance, amina: Person) -> None:
    short = token_of(amina, ttl_s=2)
    ends_at = parley.parley.services.tokens.read(short).expires_at
    dying, renewing = [await amina.connect(token=short) for _ in range(2)]
    fresh = token_of(amina)
    renewed = await renewing.call("account:renew", token=fresh)
    until = parley.parley.services.tokens.read(fresh).expires_at
    assert datetime.fromisoformat(renewed["expires_at"]).timestamp() == until
    await dying.gone()
    assert 0 <= time.time() - ends_at <= 1
    assert (await renewing.call("account:me"))["user_id"] == amina.user_id
    shorter = token_of(amina, ttl_s=2)
    ends_at = parley.parley.services.tokens.read(shorter).expires_at
    await renewing.call("account:renew", token=shorter)
    await renewing.gone()
    assert 0 <= time.time() - ends_at <= 1


async def test_only_a_valid_token_of_the_same_session_renews(parley: Instance, amina: Person, bilal: Person) -> None:
    device = await amina.connect()
    session = await parley.register("dalia")
    tokens = {
        "nonsense": "x",
        "another person's": bilal.token,
        "another session's": token_of(amina, session_id=session.session_id),
        "expired": token_of(amina, ttl_s=-1),
        "no access token": session.refresh_token,
    }
    for what, token in tokens.items():
        answer = await device.answer("account:renew", token=token)
        assert answer["error"]["code"] == "unauthenticated", what
    await device.call("account:renew", token=token_of(amina))


async def test_a_socket_may_do_what_its_last_token_may(amina: Person) -> None:
    device = await amina.connect(token=token_of(amina, scope=Scope.READ))

    async def may_write() -> bool:
        answer = await device.answer("account:update", locale="ar")
        assert answer["ok"] or answer["error"]["code"] == "forbidden"
        return bool(answer["ok"])

    assert not await may_write()
    for scope in (Scope.FULL, Scope.READ, Scope.FULL):
        await device.call("account:renew", token=token_of(amina, scope=scope))
        assert await may_write() == (scope is Scope.FULL)


def expiring(device: Device) -> list[Any]:
    return [push for push in device.heard if push.name == "session:expiring"]


async def test_a_socket_whose_token_has_less_than_a_minute_hears_of_it_right_behind_hello(
    parley: Instance, amina: Person
) -> None:
    token = token_of(amina, ttl_s=50)
    device = await amina.connect(token=token)
    other = await amina.connect()
    push = await device.hearing("session:expiring")
    assert device.heard[0].name == "hello"
    assert push.payload.keys() == {"session_id", "expires_at"}
    assert push.payload["session_id"] == amina.session_id
    ends_at = parley.parley.services.tokens.read(token).expires_at
    assert datetime.fromisoformat(push.payload["expires_at"]).timestamp() == ends_at
    assert (push.room, "seq" in push.meta) == (f"user:{amina.user_id}", False)
    await other.call("account:me")
    assert expiring(other) == []  # of the same session, with a longer token


async def test_a_minute_before_its_end_a_socket_hears_of_it_and_after_renewing_again(
    parley: Instance, amina: Person
) -> None:
    token = token_of(amina, ttl_s=62)
    renewed_in_time, device = [await amina.connect(token=token) for _ in range(2)]
    await renewed_in_time.call("account:renew", token=token_of(amina))
    await device.call("account:me")
    assert expiring(device) == []
    await device.hearing("session:expiring")
    await renewed_in_time.call("account:me")
    assert expiring(renewed_in_time) == []
    left = parley.parley.services.tokens.read(token).expires_at - time.time()
    assert 59 <= left <= 60
    renewed = await device.call("account:renew", token=token_of(amina, ttl_s=61))
    await device.hearing("session:expiring", expires_at=renewed["expires_at"])
    assert len(expiring(device)) == 2


async def test_of_a_life_shorter_than_two_minutes_the_notice_comes_at_half_of_it(new_instance: NewInstance) -> None:
    parley = await new_instance(PARLEY_ACCESS_TTL_S="4")
    person = await parley.register("dalia")
    device = await person.connect()
    for n in range(2):  # and not at once behind a renewal, which it asks for
        await device.call("account:me")
        assert len(expiring(device)) == n
        push = await device.until(
            lambda heard, n=n: [one for one in heard if one.name == "session:expiring"][n : n + 1]
        )
        left = datetime.fromisoformat(push[0].payload["expires_at"]).timestamp() - time.time()
        assert 1 <= left <= 2
        renewed = (await parley.post("account:refresh", {"refresh_token": person.refresh_token}))[1]["data"]
        person.refresh_token = renewed["refresh_token"]
        await device.call("account:renew", token=renewed["access_token"])
