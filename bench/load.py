"""Run the load generator against a server, and read what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine import BenchError
from bench.scenarios import Scenario
from bench.services import Process

LONGEST_S = 900.0

Figures = Mapping[str, float]
"""What the load generator measured and counted, by its names; `ok` is 1 where every check held."""


@dataclass(frozen=True, slots=True)
class Load:
    """How hard and how long; `database` and `bus` are process ids whose CPU is counted apart."""

    binary: Path
    cores: str
    secs: float
    warm_s: float
    database: int
    bus: int

    def run(self, scenario: Scenario, people: Path, servers: Sequence[Process]) -> Figures:
        """One measurement. Raises `BenchError` where it could not be made; what it found wrong is in the figures."""
        options = {
            "--people": people,
            "--ports": ",".join(str(server.port) for server in servers),
            "--servers": ",".join(str(server.pid) for server in servers),
            "--database": self.database,
            "--bus": self.bus if scenario.instances > 1 else 0,
            "--hello-rooms": scenario.crowd.rooms_each,
            "--secs": 2.0 if scenario.idle else self.secs,
            "--warm": self.warm_s,
        }
        words = [str(word) for option in options.items() for word in option]
        command = ["taskset", "-c", self.cores, str(self.binary), *words]
        command += ["--full"] * scenario.full + ["--idle"] * scenario.idle
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
        if done.stderr:
            print(done.stderr.rstrip(), file=sys.stderr)
        if done.returncode not in {0, 4}:
            raise BenchError(f"The load generator gave up ({done.returncode}): {done.stderr.strip()[-500:]}")
        figures: dict[str, float] = json.loads(done.stdout)
        return figures
