"""What clients asked, were told and heard, with the times: the history that is held against the database."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic
from typing import NamedTuple


class Outcome(StrEnum):
    """How one try to send ended, as Jepsen counts them."""

    OK = "ok"  # acknowledged
    FAIL = "fail"  # refused for good: nothing was done
    UNKNOWN = "unknown"  # no answer, or one that says so: it was done or it was not


@dataclass(slots=True)
class Invocation:
    """One try to send a message. Who sends it again does so under the same `client_id`, in another invocation."""

    sender_id: str
    conversation_id: str
    client_id: str
    began: float
    ended: float = 0.0
    outcome: Outcome = Outcome.UNKNOWN
    message_id: str = ""
    seq: int = 0
    why: str = ""
    text: str = ""

    def end(self, outcome: Outcome, why: str = "") -> None:
        """Say how it ended; what is acknowledged later than it was given up is acknowledged all the same."""
        self.ended, self.outcome, self.why = monotonic(), outcome, why


class Seen(NamedTuple):
    """An event as a client took it: its place, a digest of its name and payload, and when."""

    seq: int
    digest: int
    at: float


@dataclass
class Away:
    """A time that a client was not connected: from the cut to the next hello, 0 where that has not come."""

    began: float
    ended: float = 0.0


@dataclass(frozen=True)
class Return:
    """A connect: how far the client had each of its rooms, in its order, how far they were, and what it was told."""

    client: str
    afters: Mapping[str, int]
    heads: Mapping[str, int]
    reset: Sequence[str]
    epoch: str


@dataclass
class View:
    """What one client has seen of a room, in the order in which it took it."""

    client: str
    room: str
    seen: list[Seen] = field(default_factory=list)

    @property
    def position(self) -> int:
        return self.seen[-1].seq if self.seen else 0


@dataclass
class History:
    """A round's: what everybody did and heard. `strange` is what a server must never do, said in words."""

    invocations: list[Invocation] = field(default_factory=list)
    views: dict[tuple[str, str], View] = field(default_factory=dict)
    aways: dict[str, list[Away]] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    returns: list[Return] = field(default_factory=list)

    def view(self, client: str, room: str) -> View:
        """A client's view of a room, which begins empty."""
        return self.views.setdefault((client, room), View(client, room))

    def of(self, outcome: Outcome) -> Iterator[Invocation]:
        """The invocations that ended so."""
        return (each for each in self.invocations if each.outcome is outcome)

    @property
    def cuts(self) -> int:
        """How often a client lost its connection."""
        return sum(map(len, self.aways.values()))


def digest(name: str, payload: bytes) -> int:
    """What two events have in common if they are the same."""
    return zlib.crc32(payload, zlib.crc32(name.encode()))
