"""Forgotten passwords: a token comes by mail, and whoever has it chooses another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
import structlog

from storage import resets
from tests.mail import Mailbox
from tests.people import PASSWORD, Instance, Person, Refusal

NewInstance = Callable[..., Awaitable[Instance]]
ANOTHER = "battery staple بطارية"


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    box = await Mailbox().start()
    yield box
    await box.stop()


@pytest.fixture
async def parley(new_instance: NewInstance, mailbox: Mailbox) -> Instance:
    """An instance that sends mail, and counts no logins."""
    return await new_instance(PARLEY_MAIL=mailbox.url, PARLEY_RATE_LOGIN="off", PARLEY_RATE_LOGIN_ACCOUNT="off")


@pytest.fixture
async def dalia(parley: Instance) -> Person:
    return await parley.register("dalia")


def address(person: Person) -> str:
    return f"{person.username}@example.org"


async def forgot(parley: Instance, email: str) -> None:
    assert await parley.post("account:forgot", {"email": email}) == (200, {"ok": True, "data": {}})


async def mailed(mailbox: Mailbox, person: Person) -> str:
    """The token in the next mail to somebody."""
    text = (await mailbox.message(address(person))).get_content()
    return max(text.split(), key=len)


async def reset(parley: Instance, token: str, password: str = ANOTHER) -> tuple[int, dict[str, Any]]:
    return await parley.post("account:reset", {"reset_token": token, "password": password})


async def all_sent(parley: Instance) -> None:
    """Wait for what goes on behind the answers."""
    await asyncio.gather(*parley.parley.dispatcher._following)


async def execute(parley: Instance, sql: str, *arguments: Any) -> None:
    async with parley.parley.database.connection() as db:
        await db.execute(sql, *arguments)


@pytest.mark.both_postgres
async def test_whoever_has_the_mail_chooses_another_password_and_every_device_is_out(
    parley: Instance, mailbox: Mailbox, dalia: Person
) -> None:
    people = [dalia, await parley.log_in(dalia.username)]
    devices = [await person.connect() for person in people]
    await forgot(parley, address(dalia).upper())
    token = await mailed(mailbox, dalia)
    assert await reset(parley, token) == (200, {"ok": True, "data": {}})
    for person, device in zip(people, devices, strict=True):
        await device.gone()
        await device.hearing("session:revoked", session_id=person.session_id, reason="password_reset")
        with pytest.raises(Refusal, match="unauthenticated"):
            await person.post("account:me")
    with pytest.raises(Refusal, match="unauthenticated"):
        await parley.log_in(dalia.username)
    assert (await parley.log_in(dalia.username, ANOTHER)).user_id == dalia.user_id
    assert (await reset(parley, token, PASSWORD))[0] == 401


async def test_a_mail_names_the_person_in_their_language(parley: Instance, mailbox: Mailbox, dalia: Person) -> None:
    await forgot(parley, address(dalia))
    english = await mailbox.message(address(dalia))
    await dalia.post("account:update", locale="ar-EG")
    await forgot(parley, address(dalia))
    arabic = await mailbox.message(address(dalia))
    assert (english["From"], english["Subject"]) == ("parley@example.org", "Choose another password")
    assert "كلمة مرور" in arabic["Subject"]
    assert all(dalia.username in message.get_content() for message in (english, arabic))


async def test_the_latest_token_alone_is_good(parley: Instance, mailbox: Mailbox, dalia: Person) -> None:
    tokens = []
    for _ in range(3):
        await forgot(parley, address(dalia))
        tokens.append(await mailed(mailbox, dalia))
    for token in tokens[:2]:
        assert (await reset(parley, token))[0] == 401
    assert (await reset(parley, tokens[2]))[0] == 200


async def test_of_many_who_ask_at_once_one_has_a_token(parley: Instance, mailbox: Mailbox, dalia: Person) -> None:
    await asyncio.gather(*(forgot(parley, address(dalia)) for _ in range(5)))
    tokens = [await mailed(mailbox, dalia) for _ in range(5)]
    assert sorted([(await reset(parley, token))[0] for token in tokens]) == [200, 401, 401, 401, 401]


async def test_of_two_uses_at_once_one_is_the_second(parley: Instance, mailbox: Mailbox, dalia: Person) -> None:
    await forgot(parley, address(dalia))
    token = await mailed(mailbox, dalia)
    answers = await asyncio.gather(*(reset(parley, token, f"{ANOTHER} {n}") for n in range(2)))
    assert sorted(status for status, _ in answers) == [200, 401]


async def test_nobody_learns_whose_an_address_is(
    parley: Instance, mailbox: Mailbox, dalia: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspended, deleted = [await parley.register(status) for status in ("suspended", "deleted")]
    for person in (suspended, deleted):
        status = person.username.partition(".")[0]
        await execute(parley, "update users set status = $2 where user_id = $1", person.user_id, status)
    looking, original = asyncio.Event(), resets.lock_person

    async def later(*of: Any) -> Any:
        await looking.wait()
        return await original(*of)

    monkeypatch.setattr(resets, "lock_person", later)
    for email in (f"{uuid4().hex}@example.org", address(suspended), address(deleted), address(dalia)):
        await forgot(parley, email)  # answered before anybody has looked
    looking.set()
    await all_sent(parley)
    assert [message["To"] for message in mailbox.messages] == [address(dalia)]


async def test_a_token_is_good_for_an_hour_and_for_those_who_may_sign_in(
    parley: Instance, mailbox: Mailbox, dalia: Person
) -> None:
    await forgot(parley, address(dalia))
    token = await mailed(mailbox, dalia)
    life = "select extract(epoch from expires_at - at)::float8 from auth_tokens where user_id = $1"
    async with parley.parley.database.connection() as db:
        assert await db.fetchval(life, dalia.user_id) == 3_600
    await execute(parley, "update users set status = 'suspended' where user_id = $1", dalia.user_id)
    assert (await reset(parley, token))[0] == 401
    await execute(parley, "update users set status = 'active' where user_id = $1", dalia.user_id)
    await execute(parley, "update auth_tokens set expires_at = now() where user_id = $1", dalia.user_id)
    assert (await reset(parley, token))[0] == 401
    assert (await parley.log_in(dalia.username)).user_id == dalia.user_id


async def test_tokens_of_one_kind_do_not_serve_for_the_other(parley: Instance, mailbox: Mailbox, dalia: Person) -> None:
    await forgot(parley, address(dalia))
    token = await mailed(mailbox, dalia)
    answers = [await reset(parley, wrong) for wrong in (dalia.refresh_token, dalia.token[:200], "x", token[:-1])]
    assert answers == [answers[0]] * 4
    assert (answers[0][0], answers[0][1]["error"]["code"]) == (401, "unauthenticated")
    assert (await parley.post("account:refresh", {"refresh_token": token}))[0] == 401
    short = await reset(parley, token, "seven77")
    assert (short[0], list(short[1]["error"]["fields"])) == (400, ["password"])
    assert (await reset(parley, token))[0] == 200


async def test_who_signs_in_with_the_old_password_meanwhile_is_not_in(
    parley: Instance, mailbox: Mailbox, dalia: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    await forgot(parley, address(dalia))
    token = await mailed(mailbox, dalia)
    passwords = parley.parley.services.passwords
    original = passwords.matches

    async def meanwhile(*of: Any) -> bool:
        fits: bool = await original(*of)
        assert fits
        assert (await reset(parley, token))[0] == 200
        return fits

    monkeypatch.setattr(passwords, "matches", meanwhile)
    with pytest.raises(Refusal, match="unauthenticated"):
        await parley.log_in(dalia.username)


async def test_a_token_mailed_to_an_address_one_has_given_up_is_spent_and_that_address_is_told(
    parley: Instance, mailbox: Mailbox, dalia: Person
) -> None:
    await forgot(parley, address(dalia))
    token = await mailed(mailbox, dalia)
    await dalia.post("account:update", full_name="Dalia", email=address(dalia))
    another = f"{uuid4().hex}@example.org"
    await dalia.post("account:update", email=another)
    assert (await reset(parley, token))[0] == 401
    told = await mailbox.message(address(dalia))
    assert told["Subject"] == "Your e-mail address was changed"
    assert dalia.username in told.get_content()
    assert another not in told.get_content()
    await all_sent(parley)
    assert mailbox.messages == []
    await forgot(parley, another)
    again = (await mailbox.message(another)).get_content()
    assert (await reset(parley, max(again.split(), key=len)))[0] == 200


@pytest.mark.parametrize("command", ["account:forgot", "account:reset"])
async def test_forgetting_and_resetting_count_as_logins(
    new_instance: NewInstance, mailbox: Mailbox, command: str
) -> None:
    parley = await new_instance(PARLEY_MAIL=mailbox.url, PARLEY_RATE_LOGIN="0.01/2", PARLEY_RATE_LOGIN_ACCOUNT="off")
    payload = {"email": "x@example.org"} if "forgot" in command else {"reset_token": "x", "password": ANOTHER}
    statuses = [(await parley.post(command, payload))[0] for _ in range(3)]
    assert statuses == [200 if "forgot" in command else 401] * 2 + [429]
    with pytest.raises(Refusal, match="rate_limited"):
        await parley.log_in("x")


async def test_one_address_is_mailed_a_few_times_a_minute(new_instance: NewInstance, mailbox: Mailbox) -> None:
    rates = {"PARLEY_RATE_LOGIN": "off", "PARLEY_RATE_LOGIN_ACCOUNT": "0.08333/5"}
    parley = await new_instance(PARLEY_MAIL=mailbox.url, **rates)
    known = address(await parley.register("dalia"))
    for email in (known, f"{uuid4().hex}@example.org"):
        statuses = [
            (await parley.post("account:forgot", {"email": email.upper() if n % 2 else email}))[0] for n in range(5)
        ]
        assert statuses == [200] * 5
        assert (await parley.post("account:forgot", {"email": email}))[0] == 429


async def test_a_mail_that_was_promised_is_sent_before_the_server_goes(
    parley: Instance, mailbox: Mailbox, dalia: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier, may_send = parley.parley.services.notifier, asyncio.Event()
    original = notifier.password_reset

    async def later(*of: str) -> None:
        await may_send.wait()
        await original(*of)

    monkeypatch.setattr(notifier, "password_reset", later)
    await forgot(parley, address(dalia))
    draining = asyncio.create_task(parley.parley.dispatcher.drained())
    await asyncio.sleep(0)
    may_send.set()
    await draining
    assert [message["To"] for message in mailbox.messages] == [address(dalia)]


async def test_a_server_that_goes_does_not_wait_for_ever(
    parley: Instance, dalia: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.commands.dispatch.FOLLOW_S", 0.01)

    async def never(*of: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(parley.parley.services.notifier, "password_reset", never)
    await forgot(parley, address(dalia))
    following = [*parley.parley.dispatcher._following]
    await parley.parley.dispatcher.drained()
    await asyncio.gather(*following, return_exceptions=True)
    assert [task.cancelled() for task in following] == [True]


async def test_nobody_is_mailed_without_end_by_who_gives_their_address_up_again_and_again(
    new_instance: NewInstance, mailbox: Mailbox
) -> None:
    rates = {"PARLEY_RATE_LOGIN": "off", "PARLEY_RATE_LOGIN_ACCOUNT": "0.001/2"}
    parley = await new_instance(PARLEY_MAIL=mailbox.url, **rates)
    dalia = await parley.register("dalia")
    other = f"{uuid4().hex}@example.org"
    for _ in range(2):
        await dalia.post("account:update", email=other)
        await dalia.post("account:update", email=address(dalia).upper())
    with pytest.raises(Refusal, match="rate_limited"):
        await dalia.post("account:update", email=other)
    assert (await dalia.post("account:me"))["email"] == address(dalia).upper()


async def test_no_token_is_logged_where_mail_is_sent_or_could_be(
    new_instance: NewInstance, mailbox: Mailbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.adapters.notifier.PAUSES_S", (0.0,))
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logged:
        sending = await new_instance(PARLEY_MAIL=mailbox.url)
        dalia = await sending.register("dalia")
        await forgot(sending, address(dalia))
        token = await mailed(mailbox, dalia)
        await all_sent(sending)
        assert [line for line in logged if line["log_level"] == "warning"] == []
        silent = await new_instance()
        await forgot(silent, address(dalia))
        await all_sent(silent)
        [warning] = [line for line in logged if line["log_level"] == "warning"]
        assert warning["missing"] == "PARLEY_MAIL"
        broken = await new_instance(PARLEY_MAIL="smtp://127.0.0.1:1?from=parley@example.org")
        await forgot(broken, address(dalia))
        await all_sent(broken)
        assert logged[-1]["event"] == "afterwards_failed"
        assert logged[-1]["log_level"] == "warning"
        text = "\n".join(map(str, logged)) + caplog.text
    for secret in (token, address(dalia), ANOTHER):
        assert secret not in text
