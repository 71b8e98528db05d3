"""What a fault is, and all there are: declared once, run by the tests, by `make faults`, and told by its page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from types import MappingProxyType

from tests.faults.clients import Client
from tests.faults.history import Outcome
from tests.faults.measures import Measures
from tests.faults.stage import Stage


@dataclass(frozen=True)
class Finding:
    """A figure that a fault has found beside those of the history, and the most that is allowed.

    With `least` it is a sign: the fault was felt if it is no less than that.
    """

    name: str
    value: float
    most: float | None
    unit: str
    least: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether it is more than is allowed."""
        return self.most is not None and self.value > self.most

    @property
    def is_missing(self) -> bool:
        """Whether it is a sign that did not show."""
        return self.least is not None and self.value < self.least

    @property
    def asked(self) -> str:
        """In words."""
        limits = (("≤", self.most), ("≥", self.least))
        return ", ".join(f"{sign} {limit:g} {self.unit}".rstrip() for sign, limit in limits if limit is not None)

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f} {self.unit}".rstrip() + f", where {self.asked} was asked"


@dataclass(frozen=True)
class Scene:
    """What a fault may do something to; `rough` are the clients that came by a rough door."""

    stage: Stage
    clients: Sequence[Client]
    rough: Sequence[Client]
    excused: set[str] = field(default_factory=set)
    """Codes that a command may be answered with from now on, beside those that say to try again."""
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """How the fault was put in, where there is more than one way."""

    def sign(self, name: str, value: float, least: float = 1.0, unit: str = "") -> None:
        """Say by a figure whether the fault was felt."""
        self.findings.append(Finding(name, value, None, unit, least))

    def at(self, station: int) -> list[Client]:
        """Who is connected to that instance, by whichever door."""
        doors = self.stage.doors[station], self.stage.rough_doors[station]
        return [client for client in self.clients if client.is_ready and client.door in doors]

    async def first_ack(self, since: str, clients: Sequence[Client] | None = None) -> None:
        """Wait for the next ack to one of those, or of all, and keep how long it takes, amid a fault that goes on."""
        begun, ids = monotonic(), {client.who.user_id for client in clients or self.clients}
        history = self.clients[0].history
        while not any(each.ended >= begun and each.sender_id in ids for each in history.of(Outcome.OK)):
            if monotonic() - begun > 2 * FIRST_ACK_S:
                break
            await asyncio.sleep(0.01)
        self.findings.append(Finding(f"first ack since {since}", monotonic() - begun, FIRST_ACK_S, "s"))


@dataclass(frozen=True)
class Must:
    """What is asked of the time until all is well again, None where nothing is; the promise is asked of every fault."""

    away_s: float | None = None
    """Nobody is without a connection for longer."""
    first_ack_s: float | None = None
    """From the end of the fault to the first ack."""
    caught_up_s: float | None = None
    """From the end of the fault until everybody has all that was acknowledged before."""
    lag_s: float | None = None
    """From an ack to whoever hears of it last, during the fault."""
    away_p99_s: float | None = None
    """Of 100 times that somebody is without a connection 99 are not longer."""
    is_ack_steady: bool = False
    """Whether acks take no longer than without a fault."""

    def missed(self, measures: Measures, control_ms: float = 0.0) -> list[str]:
        """What has taken longer, in words; `control_ms` is the p99 of acks in a round like this one without a fault.

        Without such a round nothing is said of acks: those before the fault are of people who begin all at once.
        """
        asked = {
            "away": (measures.away_s, self.away_s),
            "first ack": (measures.first_ack_s, self.first_ack_s),
            "caught up": (measures.caught_up_s, self.caught_up_s),
            "lag": (measures.lag_s, self.lag_s),
            "away p99": (measures.away_p99_s, self.away_p99_s),
            "ack p99": (
                measures.ack_during_ms / 1000,
                control_ms / 1000 * STEADY + NOISE_S if self.is_ack_steady and control_ms else None,
            ),
        }
        return [
            f"{name} {taken:.2f} s, where {most:.2f} s was asked"
            for name, (taken, most) in asked.items()
            if most is not None and taken > most
        ]

    @property
    def said(self) -> str:
        """In words."""
        asked = {
            "away": self.away_s,
            "away p99": self.away_p99_s,
            "first ack": self.first_ack_s,
            "caught up": self.caught_up_s,
            "lag": self.lag_s,
        }
        words = [f"{name} ≤ {most:g} s" for name, most in asked.items() if most is not None]
        return ", ".join([*words, "ack p99 as without a fault"] if self.is_ack_steady else words)


STEADY, NOISE_S = 1.5, 0.02  # what a machine that does other things too may add to a p99
FIRST_ACK_S = 3.0
STALL_S = 1.0  # and to the slowest: 48 people that all wait for seconds are one sample each, which no p99 shows

Strike = Callable[[Scene, float], Awaitable[None]]
Sign = Callable[[Measures], bool]


def signed(_: Measures) -> bool:
    """The measures need show nothing: the strike leaves signs of its own."""
    return True


@dataclass(frozen=True)
class Fault:
    """A kind of fault. `strike` puts it in, waits so many seconds, takes it out, and returns when that is done.

    `shows` is what the measures of a round must show, or nothing was put in. `short_s` is how long it takes to show.
    """

    name: str
    about: str
    strike: Strike
    must: Must
    shows: Sign
    short_s: float
    is_rough: bool
    is_long: bool = False
    """Whether it takes longer than a test of the suite may: only `make faults` plays it."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Settings of the instances for it."""
    module: Sequence[str] | None = None
    """What serves, with its argument, where it is not the command line."""
    pause_s: float | None = None
    """From an ack to the next send, where that may not be what it is for others."""
    words: int = 0
    """How many everybody adds to what they say while it lasts."""
    ends_instances: bool = False
    """Whether instances end of it, and start anew."""

    @property
    def title(self) -> str:
        """The name as a person reads it."""
        return self.name.replace("_", " ")


faults: dict[str, Fault] = {}
"""By name, in the order in which they are declared."""


def fault(
    *,
    shows: Sign = signed,
    must: Must = Must(),
    short_s: float = 0.6,
    is_rough: bool = False,
    is_long: bool = False,
    environ: Mapping[str, str] = MappingProxyType({}),
    module: Sequence[str] | None = None,
    pause_s: float | None = None,
    words: int = 0,
    ends_instances: bool = False,
) -> Callable[[Strike], Strike]:
    """Declare a function as a kind of fault; its name and its docstring are the fault's.

    Without `shows` the strike itself leaves signs in its scene.
    """

    def declare(strike: Strike) -> Strike:
        name = strike.__name__  # type: ignore[attr-defined]
        about = (strike.__doc__ or "").strip()
        assert about, f"{name} says not what it is"
        assert name not in faults, f"{name} is there twice"
        faults[name] = Fault(
            name,
            about,
            strike,
            must,
            shows,
            short_s,
            is_rough,
            is_long,
            environ,
            module,
            pause_s,
            words,
            ends_instances,
        )
        return strike

    return declare
