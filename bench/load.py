"""Run the load generator against a server, and read what it says."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine import BenchError
from bench.scenarios import Scenario
from bench.services import Process

LONGEST_S = 4000.0

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
            "--bus": self.bus if scenario.instances > 1 else 0,
            "--hello-rooms": scenario.crowd.rooms_each,
            "--secs": 2.0 if scenario.idle else self.secs,
            "--warm": self.warm_s,
        }
        return self.drive(people, servers, options, ["--full"] * scenario.full + ["--idle"] * scenario.idle)

    def drive(
        self,
        people: Path,
        servers: Sequence[Process],
        options: Mapping[str, object],
        flags: Sequence[str] = (),
        meanwhile: Callable[[], None] | None = None,
    ) -> Figures:
        """The same with the load generator's own options; `meanwhile` is called once a second."""
        given = {
            "--people": people,
            "--ports": ",".join(str(server.port) for server in servers),
            "--servers": ",".join(str(server.pid) for server in servers),
            "--database": self.database,
            **options,
        }
        words = [str(word) for option in given.items() for word in option]
        command = ["taskset", "-c", self.cores, str(self.binary), *words, *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            ends = time.monotonic() + LONGEST_S
            while process.poll() is None:
                if time.monotonic() > ends:
                    raise BenchError("The load generator does not end.")
                if meanwhile is not None:
                    meanwhile()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1)
            out, err = process.communicate()  # a line each: no pipe was ever full
        finally:
            process.kill()
            process.wait()
        if err:
            print(err.rstrip(), file=sys.stderr)
        if process.returncode not in {0, 4}:
            raise BenchError(f"The load generator gave up ({process.returncode}): {err.strip()[-500:]}")
        figures: dict[str, float] = json.loads(out)
        return figures
