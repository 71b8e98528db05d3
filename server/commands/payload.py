"""From what a client sent to a frozen struct: one set of rules for hostile input, whatever the transport.

Bounds on nesting and text hold for every payload, beside those in the types. Text is kept byte for byte; NUL
(PostgreSQL can't store it) and lone surrogates (no UTF-8 has them) are refused.
"""

import re
from typing import Any, NamedTuple, TypeVar

import msgspec

from server.errors import Invalid, TooLarge

P = TypeVar("P")


class Bounds(NamedTuple):
    """How much one payload may hold: code points of a text, levels of nesting, people of a group.

    And attachments of a message, bytes of one, and bytes of all those that one person has in no message.
    """

    text_chars: int = 10_000
    nesting: int = 16
    group_people: int = 500
    attachments: int = 20
    attachment_bytes: int = 50 * 1024 * 1024
    unsent_bytes: int = 1024 * 1024 * 1024


_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"^Object (?P<how>missing required|contains unknown) field `(?P<field>.*)`$", re.DOTALL)
_PAGE = re.compile(r"^Expected `int` <= (?P<limit>\d+)$")
_LENGTH = re.compile(r"of length <= (?P<limit>\d+)$")


def decode(kind: type[P], value: Any, bounds: Bounds) -> P:
    """Make a `kind` of a decoded JSON or msgpack value; nothing at all counts as an empty object.

    Raises `Invalid`, or `TooLarge` where a text, a list or the nesting is over its bound.
    """
    if value is None:
        value = {}
    _inspect(value, "", bounds.nesting, bounds)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None


def _inspect(value: Any, path: str, levels: int, bounds: Bounds) -> None:
    if isinstance(value, str):
        _inspect_text(value, path, bounds.text_chars)
    elif isinstance(value, dict):
        if levels == 0:
            raise TooLarge(f"Nested deeper than {bounds.nesting} levels.", bounds.nesting)
        for key, inner in value.items():
            if not isinstance(key, str):
                raise Invalid({path or "payload": "names of fields are strings"})
            _inspect_text(key, path or "payload", bounds.text_chars)
            _inspect(inner, f"{path}.{key}" if path else key, levels - 1, bounds)
    elif isinstance(value, list):
        if levels == 0:
            raise TooLarge(f"Nested deeper than {bounds.nesting} levels.", bounds.nesting)
        for n, inner in enumerate(value):
            _inspect(inner, f"{path}[{n}]", levels - 1, bounds)
    elif isinstance(value, bytes):
        raise Invalid({path or "payload": "bytes are not taken: send text"})


def _inspect_text(text: str, path: str, most: int) -> None:
    if len(text) > most:
        raise TooLarge(f"{path}: longer than {most} characters.", most)
    if "\0" in text:
        raise Invalid({_shown(path): "the character NUL can't be stored: leave it out"})
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Invalid({_shown(path): "half of a surrogate pair: send whole characters"}) from None


def _shown(path: str) -> str:
    """A path that can be encoded: it may hold what it is refused for."""
    return path.encode("utf-8", "replace").decode()


def _explain(message: str) -> Invalid | TooLarge:
    """msgspec's sentence, as the contract's error."""
    found = _WHERE.match(message)
    what, path = (found["what"], found["path"] or "") if found else (message, "")
    path = path.removeprefix(".")
    too_long = _LENGTH.search(what) or (_PAGE.match(what) if path == "limit" else None)  # of a page
    if too_long:
        limit = int(too_long["limit"])
        return TooLarge(f"{path}: longer than {limit}.", limit)
    field = _FIELD.match(what)
    if field:
        path = f"{path}.{field['field']}" if path else field["field"]
        what = "required" if field["how"].startswith("missing") else "unknown field"
    return Invalid({path or "payload": what.replace("`", "")})
