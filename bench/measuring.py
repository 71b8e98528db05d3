"""One run: the servers in turn, A B A B …, so that whatever the machine does meanwhile hits both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.load import Figures, Load
from bench.machine import Cores
from bench.peers import Site
from bench.scenarios import Scenario
from bench.seeding import jwt, names_of_rooms, write_people
from bench.services import Postgres, Process, Redis, wait_until_quiet

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the repetitions."""

    median: float
    least: float
    most: float


@dataclass(slots=True)
class Outcome:
    """All measurements of a scenario, by peer, in the order in which they were made."""

    scenario: Scenario
    figures: dict[str, list[Figures]] = field(default_factory=dict)

    def spread(self, peer: str, key: str) -> Spread:
        """One figure of one peer."""
        values = [float(figures.get(key, 0)) for figures in self.figures[peer]]
        return Spread(statistics.median(values), min(values), max(values))

    def ratio(self, of: str, to: str) -> float:
        """How many times cheaper `of` is than `to`, by medians of the scenario's own measure."""
        key = self.scenario.measure.key
        cost = self.spread(of, key).median
        return self.spread(to, key).median / cost if cost else 0.0

    @property
    def is_right(self) -> bool:
        """Whether nothing was lost, doubled, out of order or wrongly acknowledged."""
        return all(figures["ok"] for measured in self.figures.values() for figures in measured)


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that the scenarios of one run share."""

    sites: Sequence[Site]
    postgres: Postgres
    redis: Redis
    cores: Cores
    load: Load
    folder: Path
    secret: str
    reps: int
    tell: Told

    def measure(self, scenario: Scenario) -> Outcome:
        """Measure every site in turn, `reps` times, after one round that does not count."""
        people = self.folder / f"{scenario.name}.people"
        write_people(
            [scenario.crowd], scenario.instances, names_of_rooms if scenario.bare else jwt(self.secret), people
        )
        sites = [site for site in self.sites if site.peer.bare == scenario.bare]
        outcome = Outcome(scenario, {site.peer.name: [] for site in sites})
        with ExitStack() as stack:
            living: dict[str, list[Process]] = {}
            if not scenario.fresh:
                for site in sites:
                    living[site.peer.name] = self._start(site, scenario, stack)
                for site in sites:
                    self._once(replace(self.load, secs=1.0), scenario, people, living[site.peer.name])
            for rep in range(self.reps):
                for site in sites:
                    with ExitStack() as once:
                        servers = living.get(site.peer.name) or self._start(site, scenario, once)
                        figures = self._once(self.load, scenario, people, servers)
                    outcome.figures[site.peer.name].append(figures)
                    self.tell(_line(scenario, site.peer.name, rep, figures))
        return outcome

    def _start(self, site: Site, scenario: Scenario, stack: ExitStack) -> list[Process]:
        redis_url = self.redis.url if scenario.instances > 1 else None
        servers = site.start(scenario.instances, self.cores.server, redis_url)
        for server in servers:
            stack.callback(server.stop)
        return servers

    def _once(self, load: Load, scenario: Scenario, people: Path, servers: Sequence[Process]) -> Figures:
        self.postgres.checkpoint()
        wait_until_quiet([server.pid for server in servers])
        return load.run(scenario, people, servers)


def _line(scenario: Scenario, peer: str, rep: int, figures: Figures) -> str:
    measure = scenario.measure
    return (
        f"{scenario.name:14} {rep + 1}  {peer:8} {figures[measure.key]:9.2f} {measure.unit}"
        f"{'' if figures['ok'] else '   WRONG: see its counts with --json'}"
    )
