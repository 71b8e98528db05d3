"""What an instance holds and has done, for Prometheus."""

import asyncio
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from server.histogram import Histogram
from server.rooms.bus import Bus
from server.rooms.delivery import Delivery
from server.wire import Server


class Gauges(Collector):
    """Read at each scrape. `waits` are by pool."""

    def __init__(
        self, wire: Server, delivery: Delivery, bus: Bus, *, lag: Histogram, waits: Mapping[str, Histogram]
    ) -> None:
        self._wire = wire
        self._delivery = delivery
        self._bus = bus
        self._lag = lag
        self._waits = waits

    def collect(self) -> Iterator[Metric]:
        wire, delivery = self._wire, self._delivery
        gauges = (
            ("parley_connections", "Sockets connected.", len(wire)),
            ("parley_sessions", "Engine.IO sessions, those that are connecting included.", wire.sessions),
            ("parley_tasks", "Tasks of the event loop, this scrape's own included.", len(asyncio.all_tasks())),
            ("parley_rooms_watched", "Rooms somebody on this instance watches.", delivery.watched),
            ("parley_tail_bytes", "Memory of the rooms' latest events, in bytes.", delivery.tails.bytes),
            ("parley_backlog_bytes", "What waits for clients that take it slowly, in bytes.", wire.eio.backlog),
            ("parley_backlog_most_bytes", "The most of that for one client, in bytes.", wire.eio.backlog_most),
            ("parley_bus_ok", "1 while events travel by the bus, 0 while by the log alone.", self._bus.state == "ok"),
        )
        for name, about, value in gauges:
            yield GaugeMetricFamily(name, about, value=value)
        for name, about, count in (
            ("parley_events_delivered", "Events delivered to rooms of this instance.", delivery.delivered),
            ("parley_events_repaired", "Events that came by the log, not by the bus.", delivery.repaired),
        ):
            yield CounterMetricFamily(name, about, value=count)
        cuts = CounterMetricFamily("parley_clients_cut", "Clients cut that had not left.", labels=("reason",))
        for reason, count in wire.eio.cuts.items():
            cuts.add_metric((reason,), count)
        yield cuts
        yield HistogramMetricFamily(
            "parley_loop_lag_seconds",
            "How late the event loop came to ten looks a second, or would have come.",
            buckets=self._lag.buckets(),
            sum_value=self._lag.seconds,
        )
        waits = HistogramMetricFamily(
            "parley_pool_wait_seconds", "Waiting for a connection to PostgreSQL.", labels=("pool",)
        )
        for pool, taken in self._waits.items():
            waits.add_metric((pool,), taken.buckets(), taken.seconds)
        yield waits
