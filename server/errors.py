"""What a command may answer instead of a result; raised anywhere, mapped to acks and HTTP answers in one place.

The codes, their HTTP statuses and their extra members are the contract of the wire protocol.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class ParleyError(Exception):
    """An answer that is not a result. Subclasses fix `code` and `status`; `extra` are further members of the error."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.message = message
        self.extra: dict[str, Any] = extra

    def body(self) -> dict[str, Any]:
        """The `error` member of the answer."""
        return {"code": self.code, "message": self.message, **self.extra}


class Invalid(ParleyError):
    """The payload does not decode or breaks a rule of form; `fields` maps a path to what is wrong there."""

    code, status = "invalid", 400

    def __init__(self, fields: Mapping[str, str], message: str = "The payload is not valid: see fields.") -> None:
        super().__init__(message, fields=dict(fields))


class Unauthenticated(ParleyError):
    """No token, an expired or revoked one, or a wrong password."""

    code, status = "unauthenticated", 401


class Forbidden(ParleyError):
    """The caller can see the object, but may not do this to it."""

    code, status = "forbidden", 403


class NotFound(ParleyError):
    """The object does not exist, or the caller may not see it: one answer for both, so that ids can't be probed."""

    code, status = "not_found", 404

    def __init__(self) -> None:
        super().__init__("There is no such object, or you may not see it.")


class Conflict(ParleyError):
    """The state moved. `reason` says how; `current`, where given, is the object as it is now."""

    code, status = "conflict", 409

    def __init__(self, reason: str, message: str, current: Any = None) -> None:
        extra = {} if current is None else {"current": current}
        super().__init__(message, reason=reason, **extra)

    def showing(self, current: Any) -> "Conflict":
        """The same, with the object as it is now."""
        self.extra["current"] = current
        return self


class TooLarge(ParleyError):
    """Too long or too many; `limit` is the most that is allowed."""

    code, status = "too_large", 413

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message, limit=limit)


class RateLimited(ParleyError):
    """Too many calls; `retry_after_ms` is when the next one fits."""

    code, status = "rate_limited", 429

    def __init__(self, retry_after_ms: int, what: str = "Too many calls") -> None:
        super().__init__(f"{what}: try again in {retry_after_ms} ms.", retry_after_ms=retry_after_ms)


class UnknownCommand(ParleyError):
    """No such command, or not on this transport."""

    code, status = "unknown_command", 404


class Unavailable(ParleyError):
    """A dependency is down or busy: nothing was done, or the outcome is unknown."""

    code, status = "unavailable", 503

    def __init__(self, message: str = "Not available right now: send again with the same client_id.") -> None:
        super().__init__(message)


class Internal(ParleyError):
    """A bug; `error_id` finds it in the logs."""

    code, status = "internal", 500

    def __init__(self, error_id: str) -> None:
        super().__init__("Something went wrong on our side.", error_id=error_id)


class Overtaken(Exception):
    """What was judged before a lock stands otherwise behind it: the transaction is run again, and judges anew.

    No answer: where it is overtaken again and again, that is `Unavailable`.
    """
