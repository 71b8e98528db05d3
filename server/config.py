"""Every setting of a server, read from the environment once, at start.

The fields of `Config` are the table: name, default, unit and meaning stand beside the type, and
`parley settings`, docs/reference.md and the checks below are made of it. Nothing else reads the environment.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from server.config_kinds import (
    FOLDER,
    HOST,
    INSTANCE,
    MAIL,
    OPTIONAL_FOLDER,
    ORIGINS,
    POSTGRES,
    RATE,
    REDIS,
    SECRET,
    SECRETS,
    SWITCH,
    URL,
    Kind,
    Mail,
    Rate,
    Refused,
    choice,
    show_rate,
    whole,
)
from server.embedded import CONNECTIONS, SPARE_CONNECTIONS

__all__ = ["RATES", "Config", "Rate", "Setting", "SettingsError", "load", "settings"]

RATE_PREFIX = "PARLEY_RATE_"
UPKEEP_CONNECTIONS = 2  # of an instance beside its pool: it compares, repairs and says that it lives


class SettingsError(Exception):
    """All that is wrong with the environment, at once: `problems` holds one readable line for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        count = "One setting is" if len(problems) == 1 else f"{len(problems)} settings are"
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{count} not usable:{lines}\n`parley settings` lists them all, with units and defaults.")


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table: what a name means, its unit, its default, and what is allowed."""

    name: str
    default: str  # as it would be written in the environment; empty: not set
    unit: str
    about: str
    kind: Kind
    default_about: str = ""  # what stands for an empty default, e.g. <hostname>-<pid>

    @property
    def allowed(self) -> str:
        """What the value may be, in words."""
        return self.kind.allowed

    @property
    def shown_default(self) -> str:
        """The default as a person should read it."""
        return self.default or self.default_about or "not set"


# What each bucket covers is said in the wire contract.
RATES = tuple(
    Setting(RATE_PREFIX + name, default, "per second/burst", about, RATE)
    for name, default, about in (
        ("MESSAGE_SEND", "50/200", "messages a user sends"),
        ("OFFER_MOVES", "20/100", "offers a user makes, counters and answers"),
        ("WRITES", "10/100", "every other change by a user"),
        ("READS", "50/200", "what a user asks for"),
        ("CONNECTS", "10/100", "sockets a user connects"),
        ("HANDSHAKES", "1000/5000", "sockets that everybody together opens"),
        ("LOGIN", "0.16667/10", "logins from one address: 10 a minute; where it is set, to one account too"),
        ("LOGIN_ACCOUNT", "0.08333/5", "logins to one account: 5 a minute"),
    )
)


def _env(name: str, kind: Kind, default: str, unit: str, about: str, default_about: str = "") -> Any:
    """A field of `Config` that carries its line of the table (Any: the value comes from `load`)."""
    return field(metadata={"setting": Setting(name, default, unit, about, kind, default_about)})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Config:
    """The settings of one server, checked. Its repr shows no secret and no password."""

    # fmt: off
    data: Path                      = _env("PARLEY_DATA", FOLDER, ".parley/", "folder", "its own files")
    database_url: str | None        = _env("DATABASE_URL", POSTGRES, "", "URL", "PostgreSQL 15 to 18",
            "the server starts its own PostgreSQL")
    redis_url: str | None           = _env("REDIS_URL", REDIS, "", "URL", "the bus between instances",
            "one instance, no bus; with several workers, a Valkey of the server's own")
    mail: Mail | None               = _env("PARLEY_MAIL", MAIL, "", "URL", "the server that sends mail",
            "not sent; without DATABASE_URL reset tokens are logged")
    host: str                       = _env("PARLEY_HOST", HOST, "127.0.0.1", "address", "where it listens")
    port: int                       = _env("PARLEY_PORT", whole(0, 65_535), "8080", "port", "0: any free one")
    workers: int                    = _env("PARLEY_WORKERS", whole(1, 64), "1", "processes",
            "that share the port; several serve WebSocket clients alone")
    metrics_port: int               = _env("PARLEY_METRICS_PORT", whole(0, 65_000), "0", "port",
            "where a worker's own /metrics, /healthz and /readyz are, the next ones' at the ports behind; 0: nowhere")
    metrics_host: str               = _env("PARLEY_METRICS_HOST", HOST, "127.0.0.1", "address", "where these listen")
    secrets: tuple[str, ...] | None = _env("PARLEY_SECRET", SECRETS, "", "text",
            "keys of the access tokens: the first signs, all verify",
            "made and kept in the data folder; required with DATABASE_URL")
    instance: str                   = _env("PARLEY_INSTANCE", INSTANCE, "", "name", "its name in logs",
            "<hostname>-<pid>")
    origins: tuple[str, ...]        = _env("PARLEY_ORIGINS", ORIGINS, "", "origins", "pages that may connect",
            "the same origin only")
    log: str                        = _env("PARLEY_LOG", choice("auto", "json", "console"), "auto", "form",
            "auto: console on a terminal, else json")
    log_level: str                  = _env("PARLEY_LOG_LEVEL", choice("debug", "info", "warning", "error"),
            "info", "level", "the least that is logged")
    frame_bytes: int                = _env("PARLEY_FRAME_BYTES", whole(1024, 2**24), "131072", "bytes",
            "a frame or an HTTP body")
    deflate: bool                   = _env("PARLEY_DEFLATE", SWITCH, "0", "0 or 1",
            "compress frames where a client offers it: smaller, at ten times the memory a socket")
    sockets_per_address: int        = _env("PARLEY_SOCKETS_PER_ADDRESS", whole(1, 10**6), "10000", "sockets",
            "open from one address to one instance")
    sockets_per_user: int           = _env("PARLEY_SOCKETS_PER_USER", whole(1, 10**6), "100", "sockets",
            "of one person on one instance")
    commands_in_flight: int         = _env("PARLEY_COMMANDS_IN_FLIGHT", whole(1, 10_000), "64", "commands",
            "of one socket; it is not read while as many wait")
    tail_bytes: int                 = _env("PARLEY_TAIL_BYTES", whole(0, 2**40), "6291456", "bytes",
            "the rooms' latest events in memory; who comes back for older ones is served from PostgreSQL")
    text_chars: int                 = _env("PARLEY_TEXT_CHARS", whole(1, 10**6), "10000", "code points",
            "a message's text")
    nesting: int                    = _env("PARLEY_NESTING", whole(2, 100), "16", "levels", "depth of JSON")
    group_people: int               = _env("PARLEY_GROUP_PEOPLE", whole(2, 9999), "500", "people", "a group")
    attachments: int                = _env("PARLEY_ATTACHMENTS", whole(1, 100), "20", "attachments", "a message")
    attachment_bytes: int           = _env("PARLEY_ATTACHMENT_BYTES", whole(1, 2**40), "52428800", "bytes",
            "an attachment")
    unsent_bytes: int               = _env("PARLEY_UNSENT_BYTES", whole(1, 2**50), "1073741824", "bytes",
            "one person's attachments that are in no message")
    attachments_folder: Path | None = _env("PARLEY_ATTACHMENTS_FOLDER", OPTIONAL_FOLDER, "", "folder",
            "where attachments are kept; instances share it", "attachments in PARLEY_DATA")
    upload_ttl_s: int               = _env("PARLEY_UPLOAD_TTL_S", whole(1, 86_400), "3600", "seconds",
            "a link to upload an attachment's life")
    download_ttl_s: int             = _env("PARLEY_DOWNLOAD_TTL_S", whole(1, 86_400), "300", "seconds",
            "a link to download an attachment's life")
    pool_min: int                   = _env("PARLEY_POOL_MIN", whole(1, 1000), "5", "connections",
            "kept open to PostgreSQL")
    pool_max: int                   = _env("PARLEY_POOL_MAX", whole(1, 1000), "25", "connections",
            "open to PostgreSQL at most, beside two of the instance's own")
    access_ttl_s: int               = _env("PARLEY_ACCESS_TTL_S", whole(1, 86_400), "900", "seconds",
            "an access token's life")
    refresh_ttl_s: int              = _env("PARLEY_REFRESH_TTL_S", whole(1, 31_536_000), "2592000", "seconds",
            "a refresh token's life")
    retention_days: int             = _env("PARLEY_RETENTION_DAYS", whole(1, 3650), "30", "days",
            "the room log's life")
    ping_interval_ms: int           = _env("PARLEY_PING_INTERVAL_MS", whole(100, 300_000), "25000",
            "milliseconds", "between two heartbeats")
    ping_timeout_ms: int            = _env("PARLEY_PING_TIMEOUT_MS", whole(100, 300_000), "20000",
            "milliseconds", "for a heartbeat's answer")
    connect_timeout_ms: int         = _env("PARLEY_CONNECT_TIMEOUT_MS", whole(100, 300_000), "10000",
            "milliseconds", "for a new socket's CONNECT")
    presence_debounce_ms: int       = _env("PARLEY_PRESENCE_DEBOUNCE_MS", whole(0, 300_000), "10000",
            "milliseconds", "between two things told of somebody's presence")
    drain_ms: int                   = _env("PARLEY_DRAIN_MS", whole(0, 300_000), "2500", "milliseconds",
            "within it the clients of a stopping server return, each at random")
    listing_days: int               = _env("PARLEY_LISTING_DAYS", whole(1, 365), "30", "days",
            "a listing's life, where its owner says nothing")
    offer_rounds: int               = _env("PARLEY_OFFER_ROUNDS", whole(1, 100), "10", "offers",
            "a negotiation, counter-offers among them")
    payments: str                   = _env("PARLEY_PAYMENTS", choice("manual", "stripe"), "manual", "provider",
            "who moves the money: the two among themselves, or Stripe")
    fee_bps: int                    = _env("PARLEY_FEE_BPS", whole(0, 10_000), "500", "1/100 %",
            "the platform's share of a deal")
    pay_manual_s: int               = _env("PARLEY_PAY_MANUAL_S", whole(60, 31_536_000), "259200", "seconds",
            "to pay a deal among themselves")
    pay_stripe_s: int               = _env("PARLEY_PAY_STRIPE_S", whole(60, 31_536_000), "900", "seconds",
            "to pay a deal by Stripe")
    stripe_key: str | None          = _env("PARLEY_STRIPE_KEY", SECRET, "", "text", "Stripe's secret key",
            "no payments by Stripe; required with PARLEY_PAYMENTS=stripe")
    stripe_webhook_secret: str | None = _env("PARLEY_STRIPE_WEBHOOK_SECRET", SECRET, "", "text",
            "what Stripe signs its webhooks with", "required with PARLEY_STRIPE_KEY")
    stripe_url: str | None          = _env("PARLEY_STRIPE_URL", URL, "", "URL", "the base of Stripe's API",
            "Stripe's own")
    trusted_proxy: bool             = _env("PARLEY_TRUSTED_PROXY", SWITCH, "0", "0 or 1",
            "believe the last address of X-Forwarded-For")
    # fmt: on
    rates: Mapping[str, Rate | None]  # by lower-case name, such as "message_send"; None: no limit

    def shown(self) -> dict[str, str]:
        """Every setting by its name, as text that may be seen: secrets and passwords are hidden."""
        own = {s.name: s.kind.show(getattr(self, attribute)) for attribute, s in _declared().items()}
        return own | {s.name: show_rate(self.rates[_bucket(s)]) for s in RATES}

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value!r}' for name, value in self.shown().items())})"


def _declared() -> dict[str, Setting]:
    return {f.name: f.metadata["setting"] for f in fields(Config) if "setting" in f.metadata}


def _bucket(rate: Setting) -> str:
    return rate.name.removeprefix(RATE_PREFIX).lower()


def settings() -> tuple[Setting, ...]:
    """The whole table, in the order in which it should be read."""
    return (*_declared().values(), *RATES)


def load(environ: Mapping[str, str]) -> Config:
    """Read the settings, or raise one `SettingsError` that names every bad and every unknown one.

    A variable that is empty counts as not set. Without PARLEY_ only DATABASE_URL and REDIS_URL are read.
    """
    problems = _unknown(environ)
    values = {attribute: _value(setting, environ, problems) for attribute, setting in _declared().items()}
    rates = {_bucket(setting): _value(setting, environ, problems) for setting in RATES}
    if environ.get("PARLEY_RATE_LOGIN", "").strip() and not environ.get("PARLEY_RATE_LOGIN_ACCOUNT", "").strip():
        rates["login_account"] = rates["login"]
    problems += _disagreements(environ, values)
    if problems:
        raise SettingsError(problems)
    return Config(**values, rates=MappingProxyType(rates))


def _value(setting: Setting, environ: Mapping[str, str], problems: list[str]) -> Any:
    """The setting's value; where it is refused, None and one more problem."""
    text = environ.get(setting.name, "").strip()
    try:
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise Refused("is not UTF-8 text")
        return setting.kind.parse(text or setting.default)
    except Refused as refused:
        shown = setting.name if setting.kind.secret else f"{setting.name}={text[:80]!r}"
        problems.append(f"{shown} {refused}; allowed: {setting.allowed} (default: {setting.shown_default})")
        return None


def _unknown(environ: Mapping[str, str]) -> list[str]:
    known = [setting.name for setting in settings()]
    problems = []
    for name in sorted(environ):
        if name.startswith("PARLEY_") and name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            hint = f"did you mean {close[0]}?" if close else "take it out of the environment"
            problems.append(f"{name} is not a setting; {hint}")
    return problems


def _disagreements(environ: Mapping[str, str], values: Mapping[str, Any]) -> list[str]:
    """What is wrong between settings that are each right (None: that one is refused or not set)."""
    problems = []
    if environ.get("DATABASE_URL", "").strip() and not environ.get("PARLEY_SECRET", "").strip():
        problems.append(
            "PARLEY_SECRET is missing: with DATABASE_URL every instance needs the same one; "
            "make it once with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )
    if environ.get("PARLEY_STRIPE_KEY", "").strip():
        if not environ.get("PARLEY_STRIPE_WEBHOOK_SECRET", "").strip():
            problems.append("PARLEY_STRIPE_WEBHOOK_SECRET is missing: nobody else can say that a deal is paid")
    elif values["payments"] == "stripe":
        problems.append("PARLEY_STRIPE_KEY is missing, with which PARLEY_PAYMENTS=stripe pays")
    if not environ.get("DATABASE_URL", "").strip() and None not in (values["workers"], values["pool_max"]):
        workers = values["workers"]
        each = (CONNECTIONS - SPARE_CONNECTIONS) // workers - UPKEEP_CONNECTIONS
        if values["pool_max"] > each:
            problems.append(
                f"PARLEY_POOL_MAX={values['pool_max']} is too much for PARLEY_WORKERS={workers}: of the embedded "
                f"PostgreSQL's {CONNECTIONS} connections {SPARE_CONNECTIONS} are for operators; at most {each} a worker"
            )
    if None not in (values["workers"], values["metrics_port"], values["port"]) and values["metrics_port"]:
        last = values["metrics_port"] + values["workers"] - 1
        if values["metrics_port"] <= values["port"] <= last:
            problems.append(
                f"PARLEY_PORT={values['port']} is among the ports of the workers' measures, {values['metrics_port']} to"
                f" {last}: set PARLEY_METRICS_PORT elsewhere"
            )
    for low, high in (
        ("pool_min", "pool_max"),
        ("access_ttl_s", "refresh_ttl_s"),
        ("attachment_bytes", "unsent_bytes"),
    ):
        if None not in (values[low], values[high]) and values[low] > values[high]:
            names = _declared()
            problems.append(f"{names[low].name}={values[low]} is above {names[high].name}={values[high]}")
    return problems
