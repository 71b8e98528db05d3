"""What goes back: results and errors as the contract spells them, in the one place that knows how."""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from server.commands.context import Told, encode
from server.errors import Internal, ParleyError, RateLimited
from server.rooms.log import Event
from storage import translate

logger = structlog.get_logger("parley.commands")


class Answer:
    """An answered call: the body of its ack or HTTP response, and what follows once that is on its way."""

    __slots__ = ("after", "body", "code", "events", "retry_after_s", "status", "told")

    def __init__(self, body: str, status: int = 200, code: str = "ok") -> None:
        self.body = body
        self.status = status
        self.code = code
        self.retry_after_s: int | None = None
        self.events: Sequence[Event] = ()
        self.told: Sequence[Told] = ()
        self.after: Sequence[Callable[[], Awaitable[object]]] = ()


def result(data: Any) -> Answer:
    """The answer of a command that did what it was asked."""
    return Answer('{"ok":true,"data":' + encode(data).decode() + "}")


def error(exception: BaseException, command: str) -> Answer:
    """The answer for whatever was raised; what nobody foresaw is logged under an id and answered as `internal`."""
    known = exception if isinstance(exception, ParleyError) else translate(exception)
    if known is None:
        error_id = secrets.token_hex(8)
        logger.error("command_failed", command=command, error_id=error_id, exc_info=exception)
        known = Internal(error_id)
    answer = Answer('{"ok":false,"error":' + encode(known.body()).decode() + "}", known.status, known.code)
    if isinstance(known, RateLimited):
        answer.retry_after_s = -(-int(known.extra["retry_after_ms"]) // 1000)
    return answer
