"""Counts and durations, second by second, so that workers can tell them while they run. Pure."""

from collections.abc import Iterable

import msgspec

FINE = 5  # bits of a duration that are kept: a bucket is at most 1/32 wide, which is 3 %

Buckets = dict[int, int]
"""How many durations fell into each bucket; only those are there that hold one."""


def bucket_of(seconds: float) -> int:
    """The bucket of a duration: microseconds to the first six bits, so that buckets widen as what they hold does."""
    us = int(seconds * 1_000_000)
    coarse = us.bit_length() - FINE - 1
    return max(0, us) if coarse <= 0 else (coarse << FINE) + (us >> coarse)


def floor_of(bucket: int) -> float:
    """The shortest duration of a bucket, in seconds."""
    coarse = (bucket >> FINE) - 1
    return (bucket if coarse <= 0 else (bucket - (coarse << FINE)) << coarse) / 1_000_000


def add(buckets: Buckets, seconds: float) -> None:
    """Count a duration."""
    bucket = bucket_of(seconds)
    buckets[bucket] = buckets.get(bucket, 0) + 1


def merged(many: Iterable[Buckets]) -> Buckets:
    """All of them together."""
    total: Buckets = {}
    for each in many:
        for bucket, count in each.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def percentile(buckets: Buckets, share: float) -> float | None:
    """The duration in seconds that this share of them does not exceed, to a bucket's width; None of none."""
    total = sum(buckets.values())
    if not total:
        return None
    left = share * total
    bucket = 0
    for bucket in sorted(buckets):
        left -= buckets[bucket]
        if left <= 0:
            break
    return floor_of(bucket + 1)


class Span(msgspec.Struct):
    """What happened in a span of time. Durations: `ack` of a send, `delivery` of it to each member, `move` of a haggler
    until its answer, `told` of it until each side heard."""

    sent: int = 0
    acked: int = 0
    delivered: int = 0
    moved: int = 0
    told: int = 0
    ack_s: Buckets = {}
    delivery_s: Buckets = {}
    move_s: Buckets = {}
    told_s: Buckets = {}
    errors: dict[str, int] = {}

    def failed(self, code: str) -> None:
        """A command was answered with an error."""
        self.errors[code] = self.errors.get(code, 0) + 1

    @classmethod
    def of(cls, many: Iterable["Span"]) -> "Span":
        """All of them together."""
        all_ = list(many)
        total = cls(errors=merged_errors(each.errors for each in all_))
        for name in ("sent", "acked", "delivered", "moved", "told"):
            setattr(total, name, sum(getattr(each, name) for each in all_))
        for name in ("ack_s", "delivery_s", "move_s", "told_s"):
            setattr(total, name, merged(getattr(each, name) for each in all_))
        return total


def merged_errors(many: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts by name, all together, the most frequent first."""
    total: dict[str, int] = {}
    for each in many:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return dict(sorted(total.items(), key=lambda item: -item[1]))
