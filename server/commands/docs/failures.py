"""The answers that are no results: every code with its status, its meaning and its further members."""

from dataclasses import dataclass
from typing import Any, get_args
from uuid import UUID

import msgspec

from server import errors
from server.commands.docs.shapes import Schema
from server.commands.registry import Command, Transport
from server.errors import ParleyError

CONFLICTS = {
    "key_reuse": "the client_id was used for something else",
    "version": "somebody else has changed the object: look at `current`",
    "not_pending": "nothing is waited for any more: the offer is off the table, the deal ended, the attachment complete",
    "expired": "its time is over",
    "sold": "the listing is sold",
    "listing_changed": "the listing has changed since",
    "not_your_turn": "the other side has to move",
    "rounds_spent": "the negotiation has had all of its rounds",
    "taken": "the name or address belongs to somebody else, or one has said it already",
    "blocked": "one of the two has blocked the other",
}
"""The reasons of a conflict, each with its meaning. A test holds them to those that the code gives."""

_MORE: dict[str, dict[str, Schema]] = {
    "invalid": {
        "fields": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "What is wrong, by the path of the field; `payload` where it is all of it.",
        }
    },
    "conflict": {
        "reason": {"type": "string", "enum": [*CONFLICTS]},
        "current": {"description": "The object as it is now, where there is one that the caller may see."},
    },
    "too_large": {"limit": {"type": "integer", "description": "The most that is allowed."}},
    "rate_limited": {
        "retry_after_ms": {"type": "integer", "minimum": 1, "description": "When the next call fits."},
    },
    "internal": {"error_id": {"type": "string", "description": "Finds it in the server's logs."}},
}
_MAY_LACK = frozenset({"current"})
_EXAMPLES: dict[str, dict[str, Any]] = {
    "invalid": {"fields": {"limit": "Expected int, got str"}},
    "conflict": {"reason": "version"},
    "too_large": {"limit": 10_000},
    "rate_limited": {"retry_after_ms": 20},
    "internal": {"error_id": "9f1c2b3a4d5e6f70"},
}


@dataclass(frozen=True)
class Failure:
    """A code; `more` are the members of its error beside `code` and `message`."""

    code: str
    status: int
    doc: str
    name: str
    more: dict[str, Schema]

    @property
    def schema(self) -> Schema:
        """The `error` member of an answer with this code."""
        lacking = [member for member in self.more if member not in _MAY_LACK]
        return {
            "type": "object",
            "description": self.doc,
            "properties": {"code": {"const": self.code}, "message": {"type": "string"}, **self.more},
            "required": ["code", "message", *lacking],
        }

    @property
    def example(self) -> dict[str, Any]:
        """An `error` member."""
        return {"code": self.code, "message": self.doc, **_EXAMPLES.get(self.code, {})}


def failures() -> dict[str, Failure]:
    """Every code, as server/errors.py defines them."""
    found = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, ParleyError)]
    return {
        one.code: Failure(
            one.code, one.status, " ".join((one.__doc__ or "").split()), f"{one.__name__}Error", _MORE.get(one.code, {})
        )
        for one in found
        if one is not ParleyError
    }


def codes_of(command: Command) -> tuple[str, ...]:
    """What a command may answer instead of a result, as far as its declaration tells."""
    may = {"invalid": True, "too_large": True, "unavailable": True, "internal": True}
    # Without a token too: the password or token of the payload may be the wrong one.
    may["unauthenticated"] = not command.allow.public or command.transport is Transport.HTTP
    may["forbidden"] = not command.allow.public
    creates = "client_id" in command.payload.__struct_fields__
    may["not_found"] = creates or _names_something(command)
    may["conflict"] = creates or "version" in command.payload.__struct_fields__
    may["rate_limited"] = command.limit is not None or bool(command.further)
    may.update({error.code: True for error in command.raises})
    return tuple(code for code in failures() if may.get(code))


def _names_something(command: Command) -> bool:
    """Whether the payload names an object that may not be there."""
    fields = msgspec.structs.fields(command.payload)
    return any(field.name.endswith("_id") and UUID in (field.type, *get_args(field.type)) for field in fields)
