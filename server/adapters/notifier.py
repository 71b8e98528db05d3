"""What people are told outside of Parley: so far, how to choose another password."""

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


class Notifier(Protocol):
    """Reaches a person where they are when they are not connected."""

    async def password_reset(self, email: str, username: str, token: str, locale: str) -> None:
        """Send the token that resets a password. Raises `Unavailable` where that can't be done now."""


class LogNotifier:
    """Writes the token to the log: for a server on one's own machine, where whoever reads that is whoever runs it."""

    def __init__(self) -> None:
        self._logger = structlog.get_logger("parley.notifier")

    async def password_reset(self, email: str, username: str, token: str, locale: str) -> None:
        self._logger.warning("password_reset", username=username, reset_token=token)


class NoNotifier:
    """Sends nothing, and says what is missing for it."""

    def __init__(self) -> None:
        self._logger = structlog.get_logger("parley.notifier")

    async def password_reset(self, email: str, username: str, token: str, locale: str) -> None:
        self._logger.warning("password_reset_not_sent", missing="PARLEY_MAIL")


class MailNotifier:
    """Sends mail. A password is never given to a mail server in the clear, and a token not where TLS is to be had."""

    def __init__(self, mail: Mail) -> None:
        self._mail = mail

    async def password_reset(self, email: str, username: str, token: str, locale: str) -> None:
        subject, text = RESET.get(locale.partition("-")[0].lower(), RESET["en"])
        mail = self._mail
        try:
            message = EmailMessage(policy=SMTP)
            message["From"] = Address(addr_spec=mail.sender)
            message["To"] = Address(addr_spec=email)
            message["Subject"] = subject
            message.set_content(text.format(username=username, token=token))
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
        except (aiosmtplib.SMTPException, MessageError, OSError, ValueError) as error:
            # What it says may hold the address.
            raise Unavailable(f"The mail could not be sent: {type(error).__name__}.") from None
