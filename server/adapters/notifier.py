"""What people are told outside of Parley: how to choose another password, and that their address is another."""

import asyncio
from collections.abc import Mapping
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from typing import Protocol

import aiosmtplib
import structlog

from server.config_kinds import Mail
from server.errors import Unavailable

TIMEOUT_S = 20.0  # of each step with the mail server; nobody waits for it
PAUSES_S = (0.5, 2.0)  # before a mail is tried again

ENGLISH = """\
Hello {username},

somebody, we hope you, asked for another password. Within an hour, this code lets you choose one:

{token}

If it was not you, you need do nothing.
"""
ARABIC = """\
مرحبًا {username}،

طلب أحدهم، ونرجو أن تكون أنت، كلمة مرور جديدة. يتيح لك هذا الرمز اختيارها خلال ساعة:

{token}

إن لم تكن أنت من طلب ذلك فلا يلزمك شيء.
"""
RESET = {"en": ("Choose another password", ENGLISH), "ar": ("اختيار كلمة مرور جديدة", ARABIC)}  # subject and text

MOVED_ENGLISH = """\
Hello {username},

your account has another e-mail address from now on: nothing more about it is sent here.

If it was not you, somebody else is signed in to your account: tell whoever runs this service at once.
"""
MOVED_ARABIC = """\
مرحبًا {username}،

أصبح لحسابك عنوان بريد إلكتروني آخر، ولن يُرسَل إلى هذا العنوان شيء بشأنه بعد الآن.

إن لم تكن أنت من فعل ذلك فقد دخل شخص آخر إلى حسابك: أبلغ القائمين على هذه الخدمة فورًا.
"""
MOVED = {
    "en": ("Your e-mail address was changed", MOVED_ENGLISH),
    "ar": ("تم تغيير عنوان بريدك الإلكتروني", MOVED_ARABIC),
}


class Notifier(Protocol):
    """Reaches a person where they are when they are not connected."""

    async def password_reset(self, email: str, username: str, token: str, locale: str) -> None:
        """Send the token that resets a password. Raises `Unavailable` where that can't be done now."""

    async def email_changed(self, email: str, username: str, locale: str) -> None:
        """Tell somebody, at the address they had until now, that they have another. Raises `Unavailable` too."""


class LogNotifier:
    """Writes the token to the log: for a server on one's own machine, where whoever reads that is whoever runs it."""

    def __init__(self) -> None:
        self._logger = structlog.get_logger("parley.notifier")

    async def password_reset(self, email: str, username: str, token: str, locale: str) -> None:
        self._logger.warning("password_reset", username=username, reset_token=token)

    async def email_changed(self, email: str, username: str, locale: str) -> None:
        self._logger.warning("email_changed", username=username)


class NoNotifier:
    """Sends nothing, and says what is missing for it."""

    def __init__(self) -> None:
        self._logger = structlog.get_logger("parley.notifier")

    async def password_reset(self, email: str, username: str, token: str, locale: str) -> None:
        self._logger.warning("password_reset_not_sent", missing="PARLEY_MAIL")

    async def email_changed(self, email: str, username: str, locale: str) -> None:
        self._logger.warning("email_changed_not_sent", missing="PARLEY_MAIL")


class MailNotifier:
    """Sends mail. A password is never given to a mail server in the clear, and a token not where TLS is to be had."""

    def __init__(self, mail: Mail) -> None:
        self._mail = mail

    async def password_reset(self, email: str, username: str, token: str, locale: str) -> None:
        subject, text = _in_language(RESET, locale)
        await self._send(email, subject, text.format(username=username, token=token))

    async def email_changed(self, email: str, username: str, locale: str) -> None:
        subject, text = _in_language(MOVED, locale)
        await self._send(email, subject, text.format(username=username))

    async def _send(self, email: str, subject: str, text: str) -> None:
        for pause_s in (*PAUSES_S, None):
            try:
                await self._try(email, subject, text)
                return
            except (aiosmtplib.SMTPException, MessageError, OSError, ValueError) as error:
                if pause_s is None or not _may_pass(error):
                    # What it says may hold the address.
                    raise Unavailable(f"The mail could not be sent: {type(error).__name__}.") from None
            await asyncio.sleep(pause_s)

    async def _try(self, email: str, subject: str, text: str) -> None:
        mail = self._mail
        message = EmailMessage(policy=SMTP)
        message["From"] = Address(addr_spec=mail.sender)
        message["To"] = Address(addr_spec=email)
        message["Subject"] = subject
        message.set_content(text)
        await aiosmtplib.send(
            message,
            sender=mail.sender,
            recipients=[email],
            hostname=mail.host,
            port=mail.port,
            username=mail.user,
            password=mail.password,
            use_tls=mail.is_tls,
            start_tls=True if mail.password and not mail.is_tls else None,
            timeout=TIMEOUT_S,
        )


def _in_language(texts: Mapping[str, tuple[str, str]], locale: str) -> tuple[str, str]:
    return texts.get(locale.partition("-")[0].lower(), texts["en"])


def _may_pass(error: Exception) -> bool:
    """Whether another try may go better: nobody was reached, or the answer was "later" (4xx: RFC 5321, 4.2.1)."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return all(refused.code < 500 for refused in error.recipients)
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return error.code < 500
    return isinstance(error, OSError)
