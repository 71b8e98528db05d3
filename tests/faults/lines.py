"""A client's connection, and what the server says on it that the load generator does not look at."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import msgspec
import orjson

from server.cli.load.frames import Malformed
from server.cli.load.line import Cut, Line, Server

if TYPE_CHECKING:
    from tests.faults.clients import Client

Door = tuple[str, int]
"""Where a client may connect: a host and a port."""


class SyncedEvent(msgspec.Struct, frozen=True):
    """An event that was missed, with its payload as it came."""

    name: str
    payload: msgspec.Raw
    seq: int


class Page(msgspec.Struct, frozen=True):
    """What was missed in a room, or the beginning of it."""

    events: list[SyncedEvent]
    more: bool
    reset: bool
    head_seq: int


class Synced(msgspec.Struct, frozen=True):
    """The answer to room:sync; an error has no data."""

    ok: bool
    data: Page | None = None


class Draining(msgspec.Struct, frozen=True):
    """That the instance is about to end."""

    reconnect_in_ms: float


class _Line(Line):
    """A line that knows when it has heard something: heartbeats are no packets."""

    heard_at = 0.0

    def data_received(self, data: bytes) -> None:
        self.heard_at = monotonic()
        super().data_received(data)


class Wire:
    """One connection of a client's, from the dialling to the cut."""

    def __init__(self, client: Client, door: Door) -> None:
        self.client = client
        self.line = _Line(Server(*door, is_tls=False), self)
        self.line.heard_at = monotonic()
        self.is_greeted = False
        self.retry_after_s = 0.0
        self.afters: dict[str, int] = {}
        self.pushed: dict[str, int] = {}  # of each room, what the next push follows

    def opened(self) -> None:
        if self.client.wire is not self:  # given up meanwhile
            self.line.end(Cut("too late"))
            return
        self.afters = self.client.positions()
        auth = {"token": self.client.who.token, "epoch": self.client.epoch, "rooms": self.afters}
        self.line.send(b"40" + orjson.dumps(auth))

    def heard(self, packet: bytes) -> None:
        if self.client.wire is self:
            self.client.hear(self, packet)

    def misheard(self, error: Malformed) -> None:
        self.client.history.strange.append(f"garbage: {self.client.who.name} heard {error}"[:300])

    def cut(self, cut: Cut) -> None:
        if self.client.wire is self:
            self.client.lost(max(self.retry_after_s, cut.retry_after_s or 0.0))

    @property
    def idle_s(self) -> float:
        return monotonic() - self.line.heard_at
