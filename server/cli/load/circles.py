"""Who takes part, in circles: those who talk or haggle with one another are held by one process."""

import base64
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

    Raises `Invalid` where there are too few, or one is no token or is there twice; OSError.
    """
    tokens = [line.strip() for line in path.read_text().splitlines()]
    tokens = [line for line in tokens if line and not line.startswith("#")]
    holders: dict[str, int] = {}
    for number, token in enumerate(tokens, 1):
        before = holders.setdefault(_holder(token, path, number), number)
        if before != number:
            raise Invalid({}, f"{path}: tokens {before} and {number} are one person's: give each socket its own.")
    needed = sum(size for _, size in circles_of(options))
    if len(tokens) < needed:
        raise Invalid({}, f"{path} has {len(tokens)} tokens, and {needed} are needed: mint more, or give --sockets.")
    people = iter([Someone(token, number % len(options.urls)) for number, token in enumerate(tokens)])
    return [Circle(shape, [next(people) for _ in range(size)]) for shape, size in circles_of(options)]


def _holder(token: str, path: Path, number: int) -> str:
    """Whose token it is. It is not verified: that is for the server."""
    try:
        body = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=dict[str, object])
        return str(claims["sub"])
    except (IndexError, KeyError, ValueError, msgspec.MsgspecError):
        raise Invalid({}, f"{path}: token {number} is none: one a line, as `parley token` prints them.") from None
