"""The way from PostgreSQL's errors to ours."""

from collections.abc import Callable, Mapping
from typing import NoReturn

import asyncpg

from server.errors import Conflict, NotFound, Overtaken, ParleyError, Unavailable

_RETRYABLE = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    Overtaken,
)
# Two instances may insert one (sender, client_id) at the same moment; the next try finds the other's row and answers
# from it.
_RACES = frozenset({"messages_client_id_key"})
# What passes, or what an operator sees to, each class of SQLSTATEs whole. Not class XX: that is a bug of PostgreSQL's,
# or a file that is spoilt, and has to be heard of.
DOWN = (
    asyncpg.PostgresConnectionError,  # 08
    asyncpg.InsufficientResourcesError,  # 53: no disk, memory or connection is left
    asyncpg.OperatorInterventionError,  # 57: it ends, it starts, it has taken too long
    asyncpg.PostgresSystemError,  # 58: what it runs on has failed it, the disk mostly
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,  # said of a connection that dies just as it is used
    OSError,
    TimeoutError,
)
TAKEN: Mapping[str, Callable[[], ParleyError]] = {
    "users_username_key": lambda: Conflict("taken", "This username is taken: choose another."),
    "users_email_key": lambda: Conflict("taken", "This e-mail address has an account already: sign in."),
    "users_phone_key": lambda: Conflict("taken", "This phone number has an account already."),
    "users_whatsapp_number_key": lambda: Conflict("taken", "This WhatsApp number has an account already."),
}
_CONSTRAINTS = {**TAKEN, "wishlists_listing_id_fkey": NotFound}  # the latter: deleted while somebody liked it


def is_retryable(error: BaseException) -> bool:
    """Whether the whole transaction may be run again: nothing of it was kept, and the next try may pass."""
    if isinstance(error, asyncpg.UniqueViolationError):
        return error.constraint_name in _RACES
    return isinstance(error, _RETRYABLE)


def translate(error: BaseException) -> ParleyError | None:
    """The answer for an error of the database, None where it can only be a bug of ours."""
    if isinstance(error, ParleyError):
        return error
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        known = _CONSTRAINTS.get(error.constraint_name or "")
        if known is not None:
            return known()
    if is_retryable(error) or isinstance(error, DOWN) or _is_closed(error):
        return Unavailable()
    return None


def _is_closed(error: BaseException) -> bool:
    # asyncpg says InterfaceError of a closed connection and of a caller's mistake alike.
    return isinstance(error, asyncpg.InterfaceError) and "clos" in str(error) and not isinstance(error, ValueError)


class QueryFailed(Exception):
    """A statement failed for a reason that nobody foresaw. Says what and where, without the values that were in it."""


def leave(error: Exception) -> NoReturn:
    """Raise what leaves storage for an error: its answer where there is one, and never the text of a message.

    PostgreSQL's own errors show the row they are about, and asyncpg's the argument.
    """
    answer = translate(error)
    if answer is error:
        raise answer
    if answer is not None:
        raise answer from error
    if not isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
        raise error
    about = [getattr(error, name, None) for name in ("sqlstate", "table_name", "column_name", "constraint_name")]
    told = QueryFailed(" ".join([type(error).__name__, *filter(None, about)]))
    raise told.with_traceback(error.__traceback__) from None
