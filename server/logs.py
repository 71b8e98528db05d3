"""Structured logs: JSON for machines, readable on a terminal; never a token, a password or a message's text."""

import logging
import sys
from typing import Any

import structlog
from aiohttp.http_exceptions import HttpProcessingError

HIDDEN = frozenset({"token", "access_token", "refresh_token", "password", "secret", "authorization", "text", "payload"})


def _hide(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    """The last line of defence: nobody logs these, and if somebody does, it does not show."""
    for key in event.keys() & HIDDEN:
        event[key] = "(hidden)"
    return event


def _printable(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    """What a client has named itself moves no cursor and begins no line on a terminal; JSON escapes by itself."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "".join(char if char.isprintable() else repr(char)[1:-1] for char in value)
    return event


class BadRequests(logging.Filter):
    """Passes over requests that are no HTTP: each would be an error with a traceback, which shows what was sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


def configure(form: str = "auto", level: str = "info") -> None:
    """Set up logging for the process. `form` is json, console, or auto: console on a terminal."""
    number = logging.getLevelNamesMapping()[level.upper()]
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _hide,
    ]
    if console:
        shared.append(_printable)
    # Frames' locals would show what is being worked on: tracebacks come without them.
    rendered: list[Any] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.INFO), force=True)
    logging.getLogger("aiohttp.server").addFilter(BadRequests())
    # These say what travels through them.
    for name in ("engineio", "socketio", "aiohttp.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
