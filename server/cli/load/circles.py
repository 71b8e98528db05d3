"""Who takes part, in circles: those who talk or haggle with one another are held by one process."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from server.cli.load.options import Options
from server.errors import Invalid


class Someone(msgspec.Struct, frozen=True):
    """Who holds a socket: by which token, and to which of the servers."""

    token: str
    server: int


class Circle(msgspec.Struct, frozen=True):
    """People who talk or haggle with one another; without a conversation those who talk make one."""

    shape: str
    people: list[Someone]
    conversation_id: str | None = None


def circles_of(options: Options) -> Iterator[tuple[str, int]]:
    """Each circle's shape and size, in turn, while there are sockets left."""
    sizes = options.sizes
    share = options.sockets // len(sizes)
    for shape, size in sizes:
        for _ in range(share // size):
            yield shape, size


def read_tokens(path: Path, options: Options) -> list[Circle]:
    """Circles of those whose tokens a file holds: one a line, but for empty lines and those that begin with #.

    Raises `Invalid` where it can't be read, there are too few, or one is no token, is there twice, or will not last.
    """
    try:
        tokens = [line.strip() for line in path.read_text().splitlines()]
    except OSError as error:
        raise Invalid({}, f"{path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise Invalid({}, f"{path} is no file of tokens: one a line, as `parley token` prints them.") from None
    tokens = [line for line in tokens if line and not line.startswith("#")]
    holders: dict[str, int] = {}
    for number, token in enumerate(tokens, 1):
        claims = _claims(token, path, number)
        if claims.exp < time.time() + options.seconds:
            raise Invalid({}, f"{path}: token {number} ends before the test would: mint it with a longer --ttl.")
        before = holders.setdefault(claims.sub, number)
        if before != number:
            raise Invalid({}, f"{path}: tokens {before} and {number} are one person's: give each socket its own.")
    needed = sum(size for _, size in circles_of(options))
    if len(tokens) < needed:
        raise Invalid({}, f"{path} has {len(tokens)} tokens, and {needed} are needed: mint more, or give --sockets.")
    people = iter([Someone(token, number % len(options.urls)) for number, token in enumerate(tokens)])
    return [Circle(shape, [next(people) for _ in range(size)]) for shape, size in circles_of(options)]


class _Claims(msgspec.Struct):
    sub: str
    exp: float


def _claims(token: str, path: Path, number: int) -> _Claims:
    """Whose token it is, and until when. It is not verified: that is for the server."""
    try:
        body = token.split(".")[1]
        return msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=_Claims)
    except (IndexError, ValueError, msgspec.MsgspecError):
        raise Invalid({}, f"{path}: token {number} is none: one a line, as `parley token` prints them.") from None
