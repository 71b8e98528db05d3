"""What a fault is, and all there are: declared once, run by the tests, by `make faults`, and told by its page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from tests.faults.clients import Client
from tests.faults.measures import Measures
from tests.faults.stage import Stage


@dataclass(frozen=True)
class Finding:
    """A figure that a fault has found beside those of the history, and the most that is allowed."""

    name: str
    value: float
    most: float
    unit: str

    @property
    def is_over(self) -> bool:
        """Whether it is more than is allowed."""
        return self.value > self.most

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f} {self.unit}, where {self.most:g} {self.unit} was asked"


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
        """What has taken longer, in words; `control_ms` is the p99 of acks in a round like this one without a fault."""
        steady_ms = max(measures.ack_before_ms, control_ms)
        asked = {
            "away": (measures.away_s, self.away_s),
            "first ack": (measures.first_ack_s, self.first_ack_s),
            "caught up": (measures.caught_up_s, self.caught_up_s),
            "lag": (measures.lag_s, self.lag_s),
            "away p99": (measures.away_p99_s, self.away_p99_s),
            "ack p99": (
                measures.ack_during_ms / 1000,
                steady_ms / 1000 * STEADY + NOISE_S if self.is_ack_steady else None,
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

Strike = Callable[[Scene, float], Awaitable[None]]
Sign = Callable[[Measures], bool]


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

    @property
    def title(self) -> str:
        """The name as a person reads it."""
        return self.name.replace("_", " ")


faults: dict[str, Fault] = {}
"""By name, in the order in which they are declared."""


def fault(
    *,
    shows: Sign,
    must: Must = Must(),
    short_s: float = 0.6,
    is_rough: bool = False,
    is_long: bool = False,
    environ: Mapping[str, str] = MappingProxyType({}),
    module: Sequence[str] | None = None,
    pause_s: float | None = None,
) -> Callable[[Strike], Strike]:
    """Declare a function as a kind of fault; its name and its docstring are the fault's."""

    def declare(strike: Strike) -> Strike:
        name = strike.__name__  # type: ignore[attr-defined]
        about = (strike.__doc__ or "").strip()
        assert about, f"{name} says not what it is"
        assert name not in faults, f"{name} is there twice"
        faults[name] = Fault(name, about, strike, must, shows, short_s, is_rough, is_long, environ, module, pause_s)
        return strike

    return declare
