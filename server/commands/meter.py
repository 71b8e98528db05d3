"""How often each command was called, with what outcome and how long it took, for Prometheus.

Plain counters behind a collector: the client library's own cost several microseconds a call, a tenth of a persisted
send.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Meter(Collector):
    """Counts of outcomes and histograms of seconds by command."""

    def __init__(self) -> None:
        self._outcomes: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(BOUNDS_S) + 1))
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def count(self, command: str, outcome: str, seconds: float) -> None:
        """Count one answered call; `outcome` is ok or the error's code."""
        self._outcomes[command, outcome] += 1
        self._counts[command][bisect_left(BOUNDS_S, seconds)] += 1
        self._seconds[command] += seconds

    def collect(self) -> Iterator[Metric]:
        """What the registry asks at every scrape."""
        outcomes = CounterMetricFamily(
            "parley_commands", "Commands answered, by outcome.", labels=("command", "outcome")
        )
        for labels, count in self._outcomes.items():
            outcomes.add_metric(labels, count)
        yield outcomes
        times = HistogramMetricFamily(
            "parley_command_seconds", "From a command's arrival to its answer.", labels=("command",)
        )
        for command, counts in self._counts.items():
            total, buckets = 0, []
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), counts, strict=True):
                total += count
                buckets.append((bound, total))
            times.add_metric((command,), buckets, sum_value=self._seconds[command])
        yield times
