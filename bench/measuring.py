"""One run: the servers in turn, A B B A …, so that whatever the machine does meanwhile hits both alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.load import Figures, Load
from bench.peers import Site
from bench.scenarios import Scenario
from bench.seeding import jwt, names_of_rooms, write_people
from bench.services import Process, wait_until_quiet
from bench.stage import Stage

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

    def reached(self, of: str, to: str) -> bool | None:
        """Whether `of` has what the scenario means it to have beside `to`; None where nothing is meant."""
        if self.scenario.aim is not None:
            return self.ratio(of, to) >= self.scenario.aim
        if self.scenario.most is not None:
            return self.spread(of, self.scenario.measure.key).median <= self.scenario.most
        return None

    @property
    def is_right(self) -> bool:
        """Whether nothing was lost, doubled, out of order or wrongly acknowledged."""
        return all(figures["ok"] for measured in self.figures.values() for figures in measured)


@dataclass(frozen=True, slots=True)
class Run:
    """What the scenarios of one run share."""

    sites: Sequence[Site]
    stage: Stage
    reps: int
    tell: Told

    def measure(self, scenario: Scenario) -> Outcome:
        """Measure every site in turn, `reps` times, after one round that does not count."""
        people = self.stage.folder / f"{scenario.name}.people"
        mint = names_of_rooms if scenario.bare else jwt(self.stage.secret)
        write_people([scenario.crowd], scenario.instances, mint, people)
        sites = [site for site in self.sites if site.peer.bare == scenario.bare]
        outcome = Outcome(scenario, {site.peer.name: [] for site in sites})
        with ExitStack() as stack:
            living: dict[str, list[Process]] = {}
            if not scenario.fresh:
                for site in sites:
                    living[site.peer.name] = self._start(site, scenario, stack)
                for site in sites:
                    self._once(replace(self.stage.load, secs=1.0), scenario, people, living[site.peer.name])
            for rep in range(self.reps):
                for site in in_turn(sites, rep):
                    with ExitStack() as once:
                        servers = living.get(site.peer.name) or self._start(site, scenario, once)
                        figures = self._once(self.stage.load, scenario, people, servers)
                    outcome.figures[site.peer.name].append(figures)
                    self.tell(_line(scenario, site.peer.name, rep, figures))
        return outcome

    def _start(self, site: Site, scenario: Scenario, stack: ExitStack) -> list[Process]:
        redis_url = self.stage.redis.url if scenario.instances > 1 else None
        servers = site.start(scenario.instances, self.stage.cores.server, redis_url)
        for server in servers:
            stack.callback(server.stop)
        return servers

    def _once(self, load: Load, scenario: Scenario, people: Path, servers: Sequence[Process]) -> Figures:
        self.stage.postgres.checkpoint()
        wait_until_quiet([server.pid for server in servers])
        return load.run(scenario, people, servers)


def in_turn(sites: Sequence[Site], rep: int) -> list[Site]:
    """The order of a repetition: who came last in the one before comes first, as warm as the other was then."""
    return list(reversed(sites)) if rep % 2 else list(sites)


def _line(scenario: Scenario, peer: str, rep: int, figures: Figures) -> str:
    measure = scenario.measure
    return (
        f"{scenario.name:14} {rep + 1}  {peer:8} {figures[measure.key]:9.2f} {measure.unit}"
        f"{'' if figures['ok'] else '   WRONG: see its counts with --json'}"
    )
