"""How the text of a setting becomes a value: what is allowed, and why something else is refused."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

SECRET_BYTES = 32  # RFC 7518, 3.2: an HMAC key is at least as long as its hash
INSTANCE_CHARS = 64  # it becomes a Redis channel, a metrics label and a field of `hello`
ORIGIN = r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[^\s/:?#@*\[\]]+)(:[0-9]{1,5})?"  # as browsers send it


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket's measure: `per_second` tokens flow in, and at most `burst` wait in it."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class Mail:
    """The mail server that takes what is sent, and the address that it comes from; `is_tls` from the first byte on."""

    host: str
    port: int
    is_tls: bool
    user: str | None
    password: str | None = field(repr=False)
    sender: str


class Refused(ValueError):
    """Why a value is refused, as a sentence's end. It never repeats the value: that may hold a password."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How text becomes a value, and back into text that is fit to be seen."""

    allowed: str
    parse: Callable[[str], Any]  # raises Refused; gets "" only where "" is the declared default
    show: Callable[[Any], str] = str
    secret: bool = False  # a refused value is not repeated in the problem


def whole(low: int, high: int) -> Kind:
    """A whole number, both bounds included."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text):  # int() would also take "1_000", " 5" and other scripts' digits
            raise Refused("is not a whole number")
        if not low <= int(text) <= high:
            raise Refused("is out of bounds")
        return int(text)

    return Kind(f"{low} to {high}", parse)


def choice(*choices: str) -> Kind:
    """One of a few words, in any case; the value is lower case."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise Refused("is none of them")
        return text.lower()

    return Kind(", ".join(choices), parse)


def _parse_switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise Refused("is neither yes nor no")


def _parse_folder(text: str) -> Path:
    if text.startswith("~"):
        raise Refused("begins with ~, which only a shell expands: write the home folder out")
    return Path(text)


def _parse_optional_folder(text: str) -> Path | None:
    return _parse_folder(text) if text else None


def _parse_host(text: str) -> str:
    if re.search(r"[\s/,]", text):
        raise Refused("is not one address or host name")
    return text


def url(*schemes: str) -> Kind:
    """A URL of one of the schemes, kept as it was written; not set is None."""

    def parse(text: str) -> str | None:
        if not text:
            return None
        scheme, colon, rest = text.partition("://")
        if not colon:
            raise Refused("is not a URL")
        if scheme not in schemes:
            raise Refused(f"begins with {scheme[:20]}://" if scheme.isalnum() else "is not a URL")
        try:
            urlsplit(f"//{rest}")
        except ValueError as error:
            raise Refused("is not a well-formed URL") from error
        if re.search(r"\s", text):
            raise Refused("has a space in it (in a password, write %20)")
        return text

    allowed = "a URL that begins with " + " or ".join(f"{scheme}://" for scheme in schemes)
    return Kind(allowed, parse, lambda url: "" if url is None else masked(url), secret=True)


def masked(url: str) -> str:
    """The URL with every password in it replaced by ***; rather too much is hidden than too little."""
    url = re.sub(r"(://[^:@/?#]*):.*@", r"\1:***@", url)
    return re.sub(r"(password=)[^&#]*", r"\1***", url, flags=re.IGNORECASE)


def _parse_mail(text: str) -> Mail | None:
    if not text:
        return None
    if re.search(r"\s", text):
        raise Refused("has a space in it (in a password, write %20)")
    try:
        parts = urlsplit(text)
        asked = dict(parse_qsl(parts.query, strict_parsing=True))
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Refused("is not a well-formed URL") from error
    if parts.scheme not in ("smtp", "smtps") or not host or port is None or parts.path or parts.fragment:
        raise Refused("is not smtp://host:port or smtps://host:port, with ?from= behind it")
    if asked.keys() != {"from"} or not re.fullmatch(r"[^@\s]+@[^@\s]+", asked["from"]):
        raise Refused("does not say ?from=address, and nothing else")
    if (parts.username is None) != (parts.password is None):
        raise Refused("has a user without a password, or a password without a user")
    user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
    return Mail(host, port, parts.scheme == "smtps", user, password, asked["from"])


def _show_mail(mail: Mail | None) -> str:
    if mail is None:
        return ""
    user = "" if mail.user is None else f"{mail.user}:***@"
    return f"{'smtps' if mail.is_tls else 'smtp'}://{user}{mail.host}:{mail.port}?from={mail.sender}"


def _parse_secrets(text: str) -> tuple[str, ...] | None:
    if not text:
        return None
    secrets = tuple(part.strip() for part in text.split(","))
    for ordinal, secret in enumerate(secrets, start=1):
        if len(secret.encode()) < SECRET_BYTES:
            of = f" of {len(secrets)}" if len(secrets) > 1 else ""
            raise Refused(f"is too short: number {ordinal}{of} has {len(secret.encode())} bytes")
    return secrets


def _parse_secret(text: str) -> str | None:
    if re.search(r"\s", text):
        raise Refused("has a space in it")
    return text or None


def _parse_origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip().lower() for part in text.split(",")) if text else ()
    for origin in origins:
        if origin == "*" and len(origins) > 1:
            raise Refused("has * beside others: it stands alone")
        if origin != "*" and not re.fullmatch(ORIGIN, origin):
            raise Refused("has an entry that is not scheme://host or scheme://host:port, with nothing behind it")
    return origins


def _parse_instance(text: str) -> str:
    if not text:
        end = f"-{os.getpid()}"
        return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[: INSTANCE_CHARS - len(end)] + end
    if not re.fullmatch(rf"[A-Za-z0-9._-]{{1,{INSTANCE_CHARS}}}", text):
        raise Refused("is not a plain name")
    return text


def _parse_rate(text: str) -> Rate | None:
    if text.lower() == "off":
        return None
    if not (match := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)/([0-9]{1,9})", text)):
        raise Refused("is not a rate")
    rate = Rate(float(match[1]), int(match[2]))
    if rate.per_second <= 0 or rate.burst < 1:
        raise Refused("would let nothing through")
    return rate


def show_rate(rate: Rate | None) -> str:
    """The rate as the environment spells it."""
    return "off" if rate is None else f"{rate.per_second:g}/{rate.burst}"


SWITCH = Kind("0 or 1", _parse_switch, lambda on: "1" if on else "0")
FOLDER = Kind("a folder, made when it is missing", _parse_folder)
OPTIONAL_FOLDER = Kind(FOLDER.allowed, _parse_optional_folder, lambda folder: str(folder or ""))
HOST = Kind("an address or host name (0.0.0.0: every interface)", _parse_host)
POSTGRES = url("postgresql", "postgres")
REDIS = url("redis", "rediss", "unix")
MAIL = Kind("smtp:// or smtps://user:password@host:port?from=address", _parse_mail, _show_mail, secret=True)
INSTANCE = Kind(f"1 to {INSTANCE_CHARS} of letters, digits, . _ -", _parse_instance)
ORIGINS = Kind("origins separated by commas, or *", _parse_origins, ",".join)
RATE = Kind("per_second/burst, such as 50/200 or 0.5/10, or off", _parse_rate, show_rate)
URL = url("https", "http")
SECRET = Kind("text without blanks", _parse_secret, lambda secret: "(kept hidden)" if secret else "", secret=True)
SECRETS = Kind(
    f"one or more separated by commas, each at least {SECRET_BYTES} bytes",
    _parse_secrets,
    lambda secrets: f"({len(secrets)} kept hidden)" if secrets else "",
    secret=True,
)
