"""Accounts: registering, signing in, renewing, and what ends a session."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import structlog

from server.commands import passwords as passwords_module
from server.rooms.bus import LocalBus, LocalHub
from tests.people import PATIENCE_S, ConnectRefused, Instance, Person, Refusal, unwrap

PASSWORD = "correct horse كلمة"
USER = {
    "user_id", "username", "email", "full_name", "full_name_ar", "phone", "whatsapp_number", "profile_picture_url",
    "locale", "roles", "status", "verified", "seller_rating", "total_sales", "preferences", "notification_channels",
    "at",
}  # fmt: skip


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own: everybody has a name of their own."""
    return shared_database


def a_name(start: str = "dalia") -> str:
    return f"{start}.{uuid4().hex[:12]}"


async def register(parley: Instance, username: str | None = None, **fields: Any) -> dict[str, Any]:
    """Register somebody; the data of the answer. Raises `Refusal`."""
    name = username or a_name()
    payload = {"username": name, "email": f"{uuid4().hex}@example.org", "password": PASSWORD, **fields}
    _, answer = await parley.post("account:register", payload)
    data: dict[str, Any] = unwrap(answer)
    return data


async def refusal(parley: Instance, command: str, **payload: Any) -> tuple[int, dict[str, Any]]:
    """The status and the error of a command that is refused."""
    status, answer = await parley.post(command, payload)
    assert not answer["ok"], answer
    return status, answer["error"]


async def dalia(parley: Instance, signed_in: dict[str, Any]) -> Person:
    """Whoever has signed in, as a person with devices."""
    claims = json.loads(unpadded(signed_in["access_token"].split(".")[1]))
    user = signed_in["user"]
    person = Person(parley, user["username"], user["user_id"], claims["sid"], signed_in["access_token"])
    parley.people.append(person)
    return person


def unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def fetch(parley: Instance, sql: str, *arguments: Any) -> Any:
    async with parley.parley.database.connection() as db:
        return await db.fetchval(sql, *arguments)


# registering


async def test_whoever_registers_is_signed_in(parley: Instance) -> None:
    name = a_name()
    before = datetime.now(UTC).timestamp()
    signed_in = await register(
        parley, name, full_name="Dalia", full_name_ar="داليا", phone="+20 " + str(uuid4().int)[:12], locale="ar"
    )
    assert signed_in.keys() == {"user", "access_token", "refresh_token", "expires_at"}
    assert signed_in["user"].keys() == USER
    assert signed_in["user"] | {"username": name, "full_name_ar": "داليا", "locale": "ar"} == signed_in["user"]
    assert (signed_in["user"]["status"], signed_in["user"]["roles"]) == ("active", [])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", signed_in["expires_at"])
    assert 895 < datetime.fromisoformat(signed_in["expires_at"]).timestamp() - before < 905
    person = await dalia(parley, signed_in)
    assert await person.post("account:me") == signed_in["user"]
    device = await person.connect()
    assert await device.call("account:me") == signed_in["user"]
    assert device.hello["rooms"] == {f"user:{person.user_id}": 0}


async def test_a_password_is_stored_as_argon2id_and_a_refresh_token_as_its_hash(
    new_instance: Callable[..., Any],
) -> None:
    parley = await new_instance(has_strong_passwords=True)
    signed_in = await register(parley)
    user_id = signed_in["user"]["user_id"]
    stored = await fetch(parley, "select password_hash from users where user_id = $1", user_id)
    assert stored.startswith("$argon2id$v=19$m=65536,")
    hashed = hashlib.sha256(signed_in["refresh_token"].encode()).digest()
    assert await fetch(parley, "select count(*) from auth_tokens where hash = $1 and status = 'active'", hashed) == 1


@pytest.mark.parametrize(
    ("first", "second"), [("dalia", "DALIA"), ("Dalia", "dalia"), ("ámbar", "Ámbar"), ("ümit", "ÜMIT"), ("жук", "Жук")]
)
async def test_a_name_is_taken_in_whatever_case(parley: Instance, first: str, second: str) -> None:
    end = str(uuid4().int)[:12]  # without letters, which would be of another script than some of these
    await register(parley, f"{first}.{end}")
    status, error = await refusal(
        parley,
        "account:register",
        username=f"{second}.{end}",
        email=f"{uuid4().hex}@example.org",
        password=PASSWORD,
    )
    assert (status, error["code"], error["reason"]) == (409, "conflict", "taken")


@pytest.mark.parametrize(
    ("field", "first", "second"),
    [
        ("email", "Dalia@Example.org", "dalia@example.ORG"),
        ("phone", "+20100", "+20100"),
        ("whatsapp_number", "+20", "+20"),
    ],
)
async def test_an_address_is_taken_too(parley: Instance, field: str, first: str, second: str) -> None:
    number = str(uuid4().int)[:10]
    before, after = (number, "") if field == "email" else ("", number)
    await register(parley, **{field: before + first + after})
    with pytest.raises(Refusal) as refused:
        await register(parley, **{field: before + second + after})
    assert refused.value.error["reason"] == "taken"


async def test_of_two_who_register_one_name_at_once_one_has_it(parley: Instance) -> None:
    name = a_name()
    answers = await asyncio.gather(*(register(parley, name) for _ in range(4)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    assert len(refused) == 3
    assert {answer.error["reason"] for answer in refused} == {"taken"}


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("username", "d", "invalid"),
        ("username", "dalia@home", "invalid"),
        ("username", "dalia\n", "invalid"),
        ("username", "d" * 65, "too_large"),
        ("username", ".dalia", "invalid"),
        ("username", "d\u0430lia", "invalid"),
        ("username", "\uff44\uff41\uff4c\uff49\uff41", "invalid"),
        ("email", "nowhere", "invalid"),
        ("email", "a@b@c", "invalid"),
        ("email", "a" * 250 + "@b.org", "too_large"),
        ("password", "seven77", "invalid"),
        ("password", "x" * 1_001, "too_large"),
        ("password", None, "invalid"),
        ("phone", "call me", "invalid"),
        ("phone", "(((", "invalid"),
        ("whatsapp_number", "0100", "invalid"),
        ("locale", "x_y", "invalid"),
        ("full_name", "", "invalid"),
        ("full_name", "x" * 201, "too_large"),
        ("full_name", "  ", "invalid"),
        ("full_name_ar", "\u202eailad", "invalid"),
        ("roles", ["admin"], "invalid"),
    ],
)
async def test_what_an_account_may_be_is_bounded(parley: Instance, field: str, value: Any, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        await register(parley, **{field: value})
    assert refused.value.code == code
    assert refused.value.error.get("fields", {field: 1}).keys() == {field}


# signing in


async def test_one_signs_in_by_name_or_address_in_whatever_case(parley: Instance) -> None:
    name = a_name("Dalia")
    user = (await register(parley, name))["user"]
    sessions = set()
    for login in (name, name.upper(), user["email"], user["email"].title()):
        _, answer = await parley.post("account:login", {"login": login, "password": PASSWORD, "device": "phone"})
        signed_in = unwrap(answer)
        assert signed_in["user"] == user
        sessions.add((await dalia(parley, signed_in)).session_id)
    assert len(sessions) == 4


async def test_a_wrong_password_and_an_unknown_person_get_the_same_answer(
    parley: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = a_name()
    await register(parley, name)
    operators = await parley.person("made.by.an.operator")  # without a password
    passwords, looks = parley.parley.services.passwords, []
    original = passwords._verify
    monkeypatch.setattr(passwords, "_verify", lambda *of: (looks.append(1), original(*of))[1])
    answers = [
        await parley.post("account:login", {"login": login, "password": password})
        for login, password in ((name, "wrong horse"), (a_name(), PASSWORD), (operators.username, PASSWORD))
    ]
    assert answers[0][0] == 401
    assert answers[0][1]["error"]["code"] == "unauthenticated"
    assert all(answer == answers[0] for answer in answers)
    assert len(looks) == 3  # and as long a look for each


async def test_whoever_is_suspended_is_out(parley: Instance) -> None:
    name = a_name()
    signed_in = await register(parley, name)
    person = await dalia(parley, signed_in)
    wrong = await parley.post("account:login", {"login": name, "password": "wrong horse"})
    await fetch(parley, "update users set status = 'suspended' where user_id = $1", person.user_id)
    assert await parley.post("account:login", {"login": name, "password": PASSWORD}) == wrong
    with pytest.raises(ConnectRefused) as refused:
        await person.connect()
    assert refused.value.said["data"]["code"] == "unauthenticated"
    for command, payload in (("account:me", {}), ("account:refresh", {"refresh_token": signed_in["refresh_token"]})):
        status, answer = await parley.post(command, payload, token=person.token)
        assert (status, answer["error"]["code"]) == (401, "unauthenticated")
    await fetch(parley, "update users set status = 'active' where user_id = $1", person.user_id)
    assert (await person.post("account:me"))["username"] == name


async def test_logins_to_one_account_are_throttled_whatever_its_case(parley: Instance) -> None:
    name = a_name()
    answers = await asyncio.gather(
        *(
            refusal(parley, "account:login", login=name.swapcase() if n % 2 else name, password="wrong")
            for n in range(6)
        )
    )
    *others, (status, error) = sorted(answers, key=lambda answer: answer[0])
    assert [answer[0] for answer in others] == [401] * 5
    assert (status, error["code"]) == (429, "rate_limited")
    assert 1_000 < error["retry_after_ms"] <= 12_100  # five a minute, less what the tries took
    assert (await refusal(parley, "account:login", login=a_name(), password="wrong"))[0] == 401


async def statuses(parley: Instance, *logins: str) -> list[int]:
    return [(await refusal(parley, "account:login", login=login, password="wrong"))[0] for login in logins]


async def test_how_often_one_may_try_tells_nothing_of_who_has_an_account(new_instance: Callable[..., Any]) -> None:
    parley = await new_instance(PARLEY_RATE_LOGIN="off", PARLEY_RATE_LOGIN_ACCOUNT="0.001/5")
    name, stranger = a_name(), a_name()
    email = (await register(parley, name))["user"]["email"]
    for known, other in ((name, email), (stranger, f"{stranger}@example.org")):
        assert await statuses(parley, *[known] * 5, other, known) == [401] * 6 + [429]
        # asking for another password is counted apart, for whoever it is
        assert [(await parley.post("account:forgot", {"email": other}))[0] for _ in range(6)] == [200] * 5 + [429]
    for known in (email, f"{stranger}@example.org"):
        assert await statuses(parley, *[known] * 5) == [401] * 4 + [429]


async def test_an_account_has_five_tries_a_minute_under_whichever_of_its_names(
    new_instance: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    parley = await new_instance(PARLEY_RATE_LOGIN="off", PARLEY_RATE_LOGIN_ACCOUNT="0.001/5")
    name = a_name()
    email = (await register(parley, name))["user"]["email"]
    passwords, looks = parley.parley.services.passwords, []
    original = passwords._verify
    monkeypatch.setattr(passwords, "_verify", lambda *of: (looks.append(1), original(*of))[1])
    await statuses(parley, *[name, email] * 2, name)
    status, error = await refusal(parley, "account:login", login=email, password=PASSWORD)
    assert (status, error["message"]) == (401, "Username or password is wrong.")
    assert len(looks) == 6  # looked at as long as any other


async def test_who_signs_in_does_not_stand_behind_those_who_register(
    new_instance: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    parley = await new_instance(PARLEY_TRUSTED_PROXY="1")
    name = a_name()
    await register(parley, name)
    passwords = parley.parley.services.passwords
    goes_on, done = threading.Event(), list[str]()

    class Slow:
        def hash(self, password: str) -> str:
            assert goes_on.wait(PATIENCE_S)
            done.append("registered")
            return passwords._nobody

        def verify(self, stored: str, password: str) -> bool:
            done.append("signed in")
            return True

    monkeypatch.setattr(passwords, "_hasher", Slow())

    async def post(command: str, address: str, **payload: Any) -> int:
        path, headers = f"{parley.url}/api/{command.replace(':', '/')}", {"X-Forwarded-For": address}
        async with parley.http.post(path, json=payload, headers=headers) as response:
            return response.status

    registering = [
        asyncio.create_task(
            post("account:register", "10.1.1.1", username=a_name(), email=f"{uuid4().hex}@x.org", password=PASSWORD)
        )
        for _ in range(75)
    ]
    line = passwords_module._Line("hash", "10.1.1.1")
    async with asyncio.timeout(PATIENCE_S):
        while sum(task.done() for task in registering) < 75 - 66:  # two at work, 64 that wait
            await asyncio.sleep(0)
        signing_in = asyncio.create_task(post("account:login", "10.2.2.2", login=name, password=PASSWORD))
        while len(passwords._lines) < 2:
            await asyncio.sleep(0)
    assert len(passwords._lines[line]) == 64
    goes_on.set()
    assert await signing_in == 200
    assert done.index("signed in") < 6
    assert sorted(await asyncio.gather(*registering)) == [200] * 66 + [429] * 9


async def test_a_name_that_is_taken_costs_no_hash(parley: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    number = str(uuid4().int)[:12]
    fields = {"phone": f"+20{number}", "whatsapp_number": f"+20{number}", "email": f"{number}@example.org"}
    name = a_name()
    await register(parley, name, **fields)

    async def nobody(*_: Any) -> str:
        raise AssertionError("hashed")

    monkeypatch.setattr(parley.parley.services.passwords, "hash", nobody)
    for field, value in ({"username": name} | fields).items():
        with pytest.raises(Refusal) as refused:
            await register(parley, **{field: value.upper()})
        assert refused.value.error["reason"] == "taken"


async def test_logins_from_one_address_are_throttled(parley: Instance) -> None:
    # At once: on a slow machine ten one after the other take as long as the bucket takes to fill again.
    async def log_in() -> tuple[int, str | None, Any]:
        path = f"{parley.url}/api/account/login"
        async with parley.http.post(path, json={"login": a_name(), "password": "wrong"}) as response:
            return response.status, response.headers.get("Retry-After"), (await response.json())["error"]

    *others, (status, retry_after, error) = sorted(
        await asyncio.gather(*(log_in() for _ in range(11))), key=lambda answer: answer[0]
    )
    assert [answer[0] for answer in others] == [401] * 10
    assert (status, error["code"]) == (429, "rate_limited")
    assert int(retry_after or 0) == -(-error["retry_after_ms"] // 1000) <= 7  # ten a minute


async def test_registering_counts_as_a_write_of_its_address(new_instance: Callable[..., Any]) -> None:
    parley = await new_instance(PARLEY_RATE_WRITES="0.01/2")
    for _ in range(2):
        await register(parley)
    with pytest.raises(Refusal) as refused:
        await register(parley)
    assert refused.value.code == "rate_limited"


async def test_a_device_has_a_name_that_shows(parley: Instance) -> None:
    name = a_name()
    await register(parley, name)
    for device in ("  ", "\u2066phone\u2069", "phone\x1b[2J"):
        status, error = await refusal(parley, "account:login", login=name, password=PASSWORD, device=device)
        assert (status, error["code"], error["fields"].keys()) == (400, "invalid", {"device"})


async def test_a_client_that_says_of_itself_what_is_no_text_is_let_in_without_it(parley: Instance) -> None:
    name = a_name()
    body = json.dumps({"username": name, "email": f"{name}@example.org", "password": PASSWORD}).encode()
    host, _, port = parley.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /api/account/register HTTP/1.1\r\nHost: localhost\r\nUser-Agent: \xff\xfe\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    assert (await reader.readline()).split()[1] == b"200"
    writer.close()
    asked = "select device from user_sessions join users using (user_id) where username = $1"
    assert await fetch(parley, asked, name) is None


# renewing


async def test_a_refresh_token_is_spent_by_its_use(parley: Instance) -> None:
    first = await register(parley)
    session = (await dalia(parley, first)).session_id
    tokens = [first["refresh_token"]]
    for _ in range(3):
        _, answer = await parley.post("account:refresh", {"refresh_token": tokens[-1]})
        renewed = unwrap(answer)
        assert renewed.keys() == first.keys()
        assert renewed["user"] == first["user"]
        person = await dalia(parley, renewed)
        assert person.session_id == session
        assert (await person.post("account:me"))["user_id"] == person.user_id
        tokens.append(renewed["refresh_token"])
    assert len(set(tokens)) == 4


async def test_using_a_spent_token_again_ends_the_session_everywhere(new_instance: Callable[..., Any]) -> None:
    hub = LocalHub()
    one, two = instances = [await new_instance(bus=LocalBus(hub)) for _ in range(2)]
    first = await register(one)
    person = await dalia(one, first)
    other = unwrap((await one.post("account:login", {"login": person.username, "password": PASSWORD}))[1])
    phones = [await person.connect(to=instance) for instance in instances]
    elsewhere = [await (await dalia(instance, other)).connect() for instance in instances]
    gone = [asyncio.Event() for _ in phones]
    for phone, event in zip(phones, gone, strict=True):
        phone.client.on("disconnect", event.set)
    _, answer = await two.post("account:refresh", {"refresh_token": first["refresh_token"]})
    second = unwrap(answer)
    status, error = await refusal(one, "account:refresh", refresh_token=first["refresh_token"])
    assert (status, error["code"]) == (401, "unauthenticated")
    for phone in phones:
        revoked = await phone.hearing("session:revoked", session_id=person.session_id)
        assert revoked.payload["reason"]
    await asyncio.wait_for(asyncio.gather(*(event.wait() for event in gone)), 2)
    for instance in instances:
        assert (await refusal(instance, "account:refresh", refresh_token=second["refresh_token"]))[0] == 401
        for token in (first["access_token"], second["access_token"]):
            assert (await instance.post("account:me", {}, token=token))[0] == 401
            with pytest.raises(ConnectRefused) as refused:
                await person.connect(to=instance, token=token)
            assert refused.value.said["data"]["code"] == "unauthenticated"
    for device in elsewhere:  # another session is another family
        assert (await device.call("account:me"))["username"] == person.username


async def test_of_two_uses_at_once_one_is_the_second(parley: Instance) -> None:
    token = (await register(parley))["refresh_token"]
    answers = await asyncio.gather(*(parley.post("account:refresh", {"refresh_token": token}) for _ in range(2)))
    assert sorted(status for status, _ in answers) == [200, 401]
    [renewed] = [answer["data"]["refresh_token"] for status, answer in answers if status == 200]
    assert (await refusal(parley, "account:refresh", refresh_token=renewed))[0] == 401


async def test_what_is_no_refresh_token_renews_nothing(parley: Instance) -> None:
    signed_in = await register(parley)
    for token in ("x", signed_in["access_token"][:200], signed_in["refresh_token"][:-1]):
        status, error = await refusal(parley, "account:refresh", refresh_token=token)
        assert (status, error["code"]) == (401, "unauthenticated")
    hashed = hashlib.sha256(signed_in["refresh_token"].encode()).digest()
    await fetch(parley, "update auth_tokens set expires_at = now() where hash = $1", hashed)
    assert (await refusal(parley, "account:refresh", refresh_token=signed_in["refresh_token"]))[0] == 401
    assert (await parley.post("account:me", {}, token=signed_in["access_token"]))[0] == 200  # too late is no theft


async def test_the_lives_of_tokens_are_settings(new_instance: Callable[..., Any]) -> None:
    parley = await new_instance(PARLEY_ACCESS_TTL_S="60", PARLEY_REFRESH_TTL_S="120")
    signed_in = await register(parley)
    left = datetime.fromisoformat(signed_in["expires_at"]).timestamp() - datetime.now(UTC).timestamp()
    assert 50 < left <= 60
    hashed = hashlib.sha256(signed_in["refresh_token"].encode()).digest()
    life = await fetch(
        parley, "select extract(epoch from expires_at - at)::float8 from auth_tokens where hash = $1", hashed
    )
    assert 119 < life < 121


async def test_no_password_and_no_token_is_ever_logged(
    parley: Instance, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logged:
        name = a_name()
        signed_in = await register(parley, name)
        person = await dalia(parley, signed_in)
        await refusal(parley, "account:login", login=name, password="a wrong horse")
        renewed = unwrap((await parley.post("account:refresh", {"refresh_token": signed_in["refresh_token"]}))[1])
        device = await person.connect()
        chat = await parley.chat(person, await parley.person("bilal"))
        await device.send(chat, "between us")
        await device.client.emit("message:send", {"text": "between us"})  # an error that nobody hears is logged
        await device.answer("account:me")

        async def break_down(*_: Any) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr("storage.users.find_login", break_down)
        _, error = await refusal(parley, "account:login", login=name, password="a wrong horse")
        assert error["code"] == "internal"
        await refusal(parley, "account:refresh", refresh_token=signed_in["refresh_token"])
        await device.hearing("session:revoked")
    text = "\n".join(map(str, logged)) + caplog.text
    assert error["error_id"] in text
    assert "unheard_error" in text
    for secret in (PASSWORD, "a wrong horse", "between us", *_tokens(signed_in), *_tokens(renewed)):
        assert secret not in text


def _tokens(signed_in: dict[str, Any]) -> tuple[str, str]:
    return signed_in["access_token"], signed_in["refresh_token"]
