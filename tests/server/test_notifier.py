"""How people are reached who are not connected: by mail, by the log of one's own machine, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import structlog

from server import logs
from server.adapters.notifier import LogNotifier, MailNotifier, NoNotifier
from server.app import _notifier
from server.config import SettingsError, load
from server.config_kinds import Mail
from server.errors import Unavailable
from tests.mail import Mailbox
from tests.people import SECRET

MAIL = "smtps://parley:p%40ss%20word@mail.example.org:465?from=no-reply@example.org"
ELSEWHERE = {"DATABASE_URL": "postgresql://db/parley", "PARLEY_SECRET": SECRET}


def test_the_setting_decides() -> None:
    assert isinstance(_notifier(load({})), LogNotifier)
    assert isinstance(_notifier(load(ELSEWHERE)), NoNotifier)
    for settings in ({}, ELSEWHERE):
        assert isinstance(_notifier(load({**settings, "PARLEY_MAIL": MAIL})), MailNotifier)


def test_a_mail_server_is_read_from_its_url_and_its_password_is_not_shown() -> None:
    config = load({"PARLEY_MAIL": MAIL})
    assert config.mail == Mail("mail.example.org", 465, True, "parley", "p@ss word", "no-reply@example.org")
    assert config.shown()["PARLEY_MAIL"] == "smtps://parley:***@mail.example.org:465?from=no-reply@example.org"
    for shown in (repr(config), repr(config.mail)):
        assert "p@ss" not in shown
        assert "p%40ss" not in shown
    plain = load({"PARLEY_MAIL": "smtp://localhost:25?from=a@b.org"})
    assert plain.mail == Mail("localhost", 25, False, None, None, "a@b.org")
    assert plain.shown()["PARLEY_MAIL"] == "smtp://localhost:25?from=a@b.org"


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "imap://mail:25?from=a@b.org",
        "smtp://mail?from=a@b.org",
        "smtp://mail:x?from=a@b.org",
        "smtp://mail:25",
        "smtp://mail:25?from=hunter2",
        "smtp://mail:25?from=a@b.org&to=c@d.org",
        "smtp://mail:25/hunter2?from=a@b.org",
        "smtp://hunter2@mail:25?from=a@b.org",
        "smtp://x:hunter2 y@mail:25?from=a@b.org",
        "smtp://mail:25?from=a@b.org%0aBcc:c@d.org",
    ],
)
def test_what_is_no_mail_server_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({"PARLEY_MAIL": url})
    [problem] = refused.value.problems
    assert problem.startswith("PARLEY_MAIL ")
    assert "hunter2" not in problem


async def test_the_log_of_ones_own_machine_has_the_token() -> None:
    with structlog.testing.capture_logs() as logged:
        await LogNotifier().password_reset("dalia@example.org", "dalia", "the token", "en")
    [line] = logged
    assert line | {"username": "dalia", "reset_token": "the token"} == logs._hide(None, "", dict(line))


async def test_a_password_is_not_given_to_a_mail_server_in_the_clear() -> None:
    mailbox = await Mailbox().start()
    notifier = MailNotifier(Mail("127.0.0.1", mailbox.port, False, "parley", "hunter2", "parley@example.org"))
    with pytest.raises(Unavailable):
        await notifier.password_reset("dalia@example.org", "dalia", "the token", "en")
    assert not [line for line in mailbox.said if "AUTH" in line.upper() or "MAIL" in line.upper()]
    await mailbox.stop()


@pytest.mark.parametrize("address", ["a,b@example.org", "a>,<c@example.org", "a@b@example.org"])
async def test_an_address_is_one_recipient_or_none(address: str) -> None:
    mailbox = await Mailbox().start()
    notifier = MailNotifier(Mail("127.0.0.1", mailbox.port, False, None, None, "parley@example.org"))
    with pytest.raises(Unavailable):
        await notifier.password_reset(address, "dalia", "the token", "en")
    assert mailbox.said == []
    await mailbox.stop()


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    box = await Mailbox().start()
    yield box
    await box.stop()


@pytest.fixture
def notifier(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> MailNotifier:
    """Sends to the mailbox, and does not pause."""
    monkeypatch.setattr("server.adapters.notifier.PAUSES_S", (0.0, 0.0))
    return MailNotifier(Mail("127.0.0.1", mailbox.port, False, None, None, "parley@example.org"))


async def test_a_mail_is_tried_again_where_later_may_be_better(mailbox: Mailbox, notifier: MailNotifier) -> None:
    mailbox.refusals = [b"450 later\r\n", b"451 later\r\n"]
    await notifier.password_reset("dalia@example.org", "dalia", "the token", "en")
    assert [message["To"] for message in mailbox.messages] == ["dalia@example.org"]


@pytest.mark.parametrize(("answer", "tries"), [(b"450 later\r\n", 3), (b"550 never\r\n", 1)])
async def test_a_mail_is_given_up_after_some_tries_or_when_it_never_will_be_taken(
    mailbox: Mailbox, notifier: MailNotifier, answer: bytes, tries: int
) -> None:
    mailbox.refusals = [answer] * 9
    with pytest.raises(Unavailable):
        await notifier.password_reset("dalia@example.org", "dalia", "the token", "en")
    assert len(mailbox.refusals) == 9 - tries


async def test_a_changed_address_is_told_without_saying_to_what(mailbox: Mailbox, notifier: MailNotifier) -> None:
    for locale, word in (("en-GB", "another e-mail address"), ("ar", "عنوان")):
        await notifier.email_changed("dalia@example.org", "dalia", locale)
        text = (await mailbox.message("dalia@example.org")).get_content()
        assert word in text
        assert "dalia" in text
    with structlog.testing.capture_logs() as logged:
        await LogNotifier().email_changed("dalia@example.org", "dalia", "en")
        await NoNotifier().email_changed("dalia@example.org", "dalia", "en")
    assert [line["event"] for line in logged] == ["email_changed", "email_changed_not_sent"]
    assert "dalia@" not in str(logged)
