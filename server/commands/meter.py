"""How often each command was called, with what outcome and how long it took, for Prometheus.

Plain counters behind a collector: the client library's own cost several microseconds a call, a tenth of a persisted
send.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from server.errors import Internal
from server.histogram import Histogram


class Meter(Collector):
    """Counts of outcomes and histograms of seconds by command.

    What the commands named have answered as `internal` is shown before there is any: Prometheus sees a rise only
    between two scrapes, so the first bug of a series that is born with it would go unnoticed.
    """

    def __init__(self, commands: Iterable[str]) -> None:
        self._outcomes: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._outcomes.update(((command, Internal.code), 0) for command in commands)
        self._times: defaultdict[str, Histogram] = defaultdict(Histogram)

    def count(self, command: str, outcome: str, seconds: float) -> None:
        """Count one call that has run; `outcome` is ok or the error's code."""
        self._outcomes[command, outcome] += 1
        self._times[command].count(seconds)

    def count_refused(self, command: str, outcome: str) -> None:
        """Count one call that was answered before it ran. Without a time: many would hide what the others take."""
        self._outcomes[command, outcome] += 1

    def collect(self) -> Iterator[Metric]:
        """What the registry asks at every scrape."""
        outcomes = CounterMetricFamily(
            "parley_commands", "Commands answered, by outcome.", labels=("command", "outcome")
        )
        for labels, count in self._outcomes.items():
            outcomes.add_metric(labels, count)
        yield outcomes
        times = HistogramMetricFamily(
            "parley_command_seconds", "From the arrival of a command that ran to its answer.", labels=("command",)
        )
        for command, taken in self._times.items():
            times.add_metric((command,), taken.buckets(), sum_value=taken.seconds)
        yield times
