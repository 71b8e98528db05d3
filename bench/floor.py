"""What a delivery can't be cheaper than: a `send()` in C. The program is bench/load/floor.c."""

from __future__ import annotations

import json
import statistics
import subprocess

from bench.machine import BenchError, Cores, floor_program

BYTES = 200  # of a frame, as a message of 64 characters has with its room and seq
LONGEST_S = 90.0


def measure_floor(cores: Cores, reps: int) -> float | None:
    """CPU µs of a `send()` of a frame, the median; None on one core, where there is no such floor."""
    if cores.server == cores.load:
        return None
    command = [str(floor_program()), cores.server, cores.load, str(BYTES)]
    found = []
    for _ in range(reps):
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
        if done.returncode != 0:
            raise BenchError(f"The floor could not be measured: {done.stderr.strip()[-500:]}")
        found.append(float(json.loads(done.stdout)["send_us"]))
    return statistics.median(found)
