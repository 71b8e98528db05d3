"""What a load test came to, as its JSON file has it. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from server.cli.load.faults import DEALS, TALK, Fault, Found, gathered
from server.cli.load.measure import Buckets, Span, floor_of, merged, merged_errors, percentile
from server.cli.load.options import Options
from server.cli.load.words import Done

FORMAT = 1


class Latency(msgspec.Struct, frozen=True):
    """Durations in milliseconds: a percentile, and how many fell into each bucket, by its lower end."""

    count: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    buckets: list[tuple[float, int]] = []

    @classmethod
    def of(cls, buckets: Buckets, *, whole: bool = True) -> "Latency":
        """Of durations; without the buckets where not the `whole` is wanted."""
        p50, p95, p99, longest = (_ms(percentile(buckets, share)) for share in (0.5, 0.95, 0.99, 1.0))
        shown = [(round(floor_of(bucket) * 1000, 3), buckets[bucket]) for bucket in sorted(buckets)] if whole else []
        return cls(sum(buckets.values()), p50, p95, p99, longest, shown)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


class Second(msgspec.Struct, frozen=True):
    """A second of the play; `lost` are the moves that somebody else was faster at."""

    second: int
    sent: int
    acked: int
    delivered: int
    moved: int
    rate_limited: int
    lost: int
    errors: int
    ack: Latency
    delivery: Latency
    move: Latency
    told: Latency

    @classmethod
    def of(cls, second: int, span: Span) -> "Second":
        """As a span of a second was counted."""
        durations = (span.ack_s, span.delivery_s, span.move_s, span.told_s)
        shown = (Latency.of(each, whole=False) for each in durations)
        conflicts, limited, others = _sorted(span.errors)
        failed = (limited, sum(conflicts.values()), sum(others.values()))
        return cls(second, span.sent, span.acked, span.delivered, span.moved, *failed, *shown)


def _sorted(errors: dict[str, int]) -> tuple[dict[str, int], int, dict[str, int]]:
    """The conflicts by reason, how often a limit was hit, and all other errors."""
    conflicts = {name.removeprefix("conflict: "): n for name, n in errors.items() if name.startswith("conflict")}
    others = {name: n for name, n in errors.items() if name != "rate_limited" and not name.startswith("conflict")}
    return conflicts, errors.get("rate_limited", 0), others


class Check(msgspec.Struct, frozen=True):
    """A promise, and how often it was broken."""

    promise: str
    held: bool
    broken: int
    examples: list[str]


class Cost(msgspec.Struct, frozen=True):
    """CPU: this program's and the servers', where they say (`GET /metrics`), in microseconds a send or move.

    `busiest` is the share of a core that the busiest worker took; `late_p99_ms` how late workers came to their work.
    """

    workers: int
    cpu_s: float
    busiest: float
    late_p99_ms: float | None
    each_us: float | None
    servers_cpu_s: float | None
    servers_each_us: float | None
    servers_rss_mb: float | None


class Result(msgspec.Struct, frozen=True):
    """All of it; `ok` where every check held.

    What is so much a second is of the play alone; counts and latencies are of what came behind it as well.
    """

    format: int
    ok: bool
    started_at: str
    options: Options
    people: int
    stopped_early: bool
    ran_s: float
    sent: int
    acked: int
    delivered: int
    moved: int
    told: int
    agreed: int
    sends_per_s: float
    deliveries_per_s: float
    moves_per_s: float
    told_per_s: float
    ack: Latency
    delivery: Latency
    move: Latency
    told_after: Latency
    rate_limited: int
    conflicts: dict[str, int]
    errors: dict[str, int]
    reconnects: int
    held_back: int
    tried: int
    checks: list[Check]
    cost: Cost
    seconds: list[Second]


def put_together(
    options: Options,
    people: int,
    done: Sequence[Done],
    *,
    started_at: float,
    stopped_early: bool,
    servers: tuple[float, float] | None,
) -> Result:
    """The result of what each worker has seen; `servers` are their CPU seconds and their memory in MB."""
    seconds = sorted({second for each in done for second in each.spans})
    spans = {second: Span.of(each.spans[second] for each in done if second in each.spans) for second in seconds}
    play = Span.of(spans.values())
    total = Span.of([play, *(each.after for each in done)])
    held_back = sum(each.held_back for each in done)
    checks = _checks(options, gathered(each.faults for each in done), total, held_back)
    ran_s = max(each.ran_s for each in done) or 1e-9
    conflicts, limited, others = _sorted(total.errors)
    return Result(
        format=FORMAT,
        ok=all(check.held for check in checks),
        started_at=datetime.fromtimestamp(started_at, UTC).isoformat(timespec="seconds"),
        options=options,
        people=people,
        stopped_early=stopped_early,
        ran_s=round(ran_s, 3),
        sent=total.sent,
        acked=total.acked,
        delivered=total.delivered,
        moved=total.moved,
        told=total.told,
        agreed=sum(each.agreed for each in done),
        sends_per_s=round(play.acked / ran_s, 1),
        deliveries_per_s=round(play.delivered / ran_s, 1),
        moves_per_s=round(sum(play.move_s.values()) / ran_s, 1),
        told_per_s=round(play.told / ran_s, 1),
        ack=Latency.of(total.ack_s),
        delivery=Latency.of(total.delivery_s),
        move=Latency.of(total.move_s),
        told_after=Latency.of(total.told_s),
        rate_limited=limited,
        conflicts=conflicts,
        errors=merged_errors([others]),
        reconnects=sum(each.reconnects for each in done),
        held_back=held_back,
        tried=sum(each.tried for each in done),
        checks=checks,
        cost=_cost(done, play, total, servers),
        seconds=[Second.of(second, span) for second, span in spans.items()],
    )


def _checks(options: Options, found: dict[Fault, Found], total: Span, held_back: int) -> list[Check]:
    asked = (*TALK, *(DEALS if options.negotiate else ()))
    checks = [
        Check(fault.value, False, found[fault].count, found[fault].examples)
        if fault in found
        else Check(fault.value, True, 0, [])
        for fault in asked
    ]
    # A check that nothing was asked of proves nothing.
    for shape, something in (("talked", total.acked), ("haggled", sum(total.move_s.values()))):
        is_asked = options.negotiate if shape == "haggled" else bool(options.pairs or options.group)
        if is_asked:
            checks.append(Check(f"people {shape}", something > 0, int(not something), []))
    if options.rate is not None:
        checks.append(Check("the rate was held", not held_back, held_back, []))
    return checks


def _cost(done: Sequence[Done], play: Span, total: Span, servers: tuple[float, float] | None) -> Cost:
    """Workers tell what the play took them alone, servers what all of it did."""
    cpu_s, ours, theirs = sum(each.cpu_s for each in done), _acts(play), _acts(total)
    servers_cpu_s, servers_rss_mb = servers or (None, None)
    return Cost(
        workers=len(done),
        cpu_s=round(cpu_s, 2),
        busiest=round(max(each.cpu_s / (each.ran_s or 1e-9) for each in done), 3),
        late_p99_ms=_ms(percentile(merged(each.late_s for each in done), 0.99)),
        each_us=round(cpu_s / ours * 1e6, 1) if ours else None,
        servers_cpu_s=None if servers_cpu_s is None else round(servers_cpu_s, 2),
        servers_each_us=round(servers_cpu_s / theirs * 1e6, 1) if theirs and servers_cpu_s is not None else None,
        servers_rss_mb=None if servers_rss_mb is None else round(servers_rss_mb, 1),
    )


def _acts(span: Span) -> int:
    return span.acked + sum(span.move_s.values())
