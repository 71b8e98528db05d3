"""What is asked of a load test, and what is refused before anything is begun."""

import math
from ipaddress import ip_address
from typing import NoReturn
from urllib.parse import urlsplit

import msgspec

from server.errors import Invalid

MOST_SOCKETS = 20_000
MOST_SECONDS = 3_600.0
MOST_GROUP = 500
MOST_TEXT = 8_000
MOST_WORKERS = 64
TABLE = 4  # people who haggle over one listing: its seller and three buyers
CONNECT_S = 120.0


class Options(msgspec.Struct, frozen=True):
    """A load test. `rate` is of all sends and moves together, None for a closed loop: each waits for its answer.

    `pairs`, `group` and `negotiate` are the shapes, of which each gets an equal share of the sockets; `senders` is how
    many people of a conversation talk, 0 for all. It ends after `seconds`, or `sends`, and then waits at most `drain`
    seconds for what is on its way.
    """

    urls: list[str]
    sockets: int = 200
    rate: float | None = None
    pairs: bool = True
    group: int = 0
    negotiate: bool = False
    senders: int = 0
    text: int = 64
    seconds: float = 30.0
    sends: int = 1_000_000
    workers: int = 1
    drain: float = 10.0

    @property
    def sizes(self) -> list[tuple[str, int]]:
        """The shapes that are asked for, and how many people each needs."""
        all_ = (("pairs", 2 * self.pairs), ("groups", self.group), ("tables", TABLE * self.negotiate))
        return [(shape, size) for shape, size in all_ if size]


def check(options: Options, *, yes_remote: bool) -> None:
    """Raises `Invalid` with what a person can mend."""
    for name, value, low, high in (
        ("--sockets", options.sockets, 2, MOST_SOCKETS),
        ("--seconds", options.seconds, 0.1, MOST_SECONDS),
        ("--drain", options.drain, 0.1, MOST_SECONDS),
        ("--sends", options.sends, 1, 10**9),
        ("--text", options.text, 1, MOST_TEXT),
        ("--workers", options.workers, 1, MOST_WORKERS),
        ("--senders", options.senders, 0, MOST_GROUP),
        ("--rate", 1 if options.rate is None else options.rate, 0.01, 10**6),
        ("--groups", options.group or 2, 2, MOST_GROUP),
    ):
        if not (math.isfinite(value) and low <= value <= high):
            _refuse(f"{name} {value:g}: from {low} to {high}.")
    if not options.sizes:
        _refuse("Say what people do: --pairs, --groups N, --negotiate, or several of them.")
    least = sum(size for _, size in options.sizes)
    largest = max(size for _, size in options.sizes)
    if options.sockets < max(least, largest * len(options.sizes)):
        _refuse(
            f"--sockets {options.sockets} are too few: these shapes need {max(least, largest * len(options.sizes))}."
        )
    for url in options.urls:
        _check_url(url, yes_remote=yes_remote)


def _check_url(url: str, *, yes_remote: bool) -> None:
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        _refuse(f"{url}: not an address such as http://127.0.0.1:8080.")
    if "@" in parts.netloc:  # it would stand in the report, and is not told again here
        _refuse("An address is like http://127.0.0.1:8080, without a name and password.")
    if not is_whole or parts.path not in {"", "/"} or parts.query:
        _refuse(f"{url}: an address is like http://127.0.0.1:8080, without a path.")
    if not yes_remote and not is_local(url):
        _refuse(
            f"{url} is not this machine. A load test takes all that a server has, and looks like an attack to whoever "
            "runs it: give --yes-remote if that is you, and nobody else is on it."
        )


def is_local(url: str) -> bool:
    """Whether a server is on this machine, by its name or address."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse(message: str) -> NoReturn:
    raise Invalid({}, message)
