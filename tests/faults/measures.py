"""How long a round's fault was felt: figures from its history. Times are seconds of the monotonic clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from tests.faults.history import Away, History, Outcome


@dataclass(frozen=True)
class Moments:
    """When a round's fault was put in, when it was taken out, and when the round was over."""

    struck: float
    mended: float
    over: float


@dataclass(frozen=True)
class Measures:
    """What a round's history says in figures. What did not happen counts as the rest of the round."""

    acked: int
    unknown: int
    refused: int
    cuts: int
    events: int
    """That clients took, each for itself."""
    ack_before_ms: float
    """p99 of the time from a message's first try to its ack, of those that were begun before the fault."""
    ack_during_ms: float
    """The same of those that were under way while the fault lasted."""
    ack_slowest_ms: float
    """Of everybody, in the whole round."""
    away_s: float
    first_ack_s: float
    caught_up_s: float
    lag_s: float
    away_p99_s: float = 0.0
    ack_stall_ms: float = 0.0
    """The longest of those under way while the fault lasted, of the people that the p99s are of."""
    ack_median_ms: float = 0.0
    """Of those begun while the fault lasted, of everybody."""
    ack_worst_ms: float = 0.0
    """The same median of the one person who has the longest."""
    repeats: int = 0
    """Acks of messages that were acknowledged already."""


def measure(history: History, moments: Moments, spared: Set[str] | None = None) -> Measures:
    """Look at a round's history. The p99s of acks are of the people `spared` alone, where they are given by id."""
    struck, mended, over = moments.struck, moments.mended, moments.over
    acked = list(history.of(Outcome.OK))
    first: dict[tuple[str, str], float] = {}
    for each in history.invocations:
        first.setdefault((each.sender_id, each.client_id), each.began)
    waits = [(begun := first[each.sender_id, each.client_id], each.ended - begun) for each in acked]
    theirs = [wait for each, wait in zip(acked, waits, strict=True) if spared is None or each.sender_id in spared]
    during = [wait for begun, wait in theirs if begun < mended and begun + wait >= struck]
    begun_then: dict[str, list[float]] = {}
    for each, (begun, wait) in zip(acked, waits, strict=True):
        if struck <= begun < mended:
            begun_then.setdefault(each.sender_id, []).append(wait)
    messages = len({(each.sender_id, each.client_id) for each in acked})
    later = [each.ended - mended for each in acked if each.ended >= mended]
    aways = _aways(history, over)
    gaps = [min(away.ended or over, over) - away.began for each in aways.values() for away in each]
    return Measures(
        acked=messages,
        unknown=sum(1 for _ in history.of(Outcome.UNKNOWN)),
        refused=sum(1 for _ in history.of(Outcome.FAIL)),
        cuts=len(gaps),
        events=sum(len(view.seen) for view in history.views.values()),
        ack_before_ms=p99([wait for begun, wait in theirs if begun < struck and begun + wait < struck]) * 1000,
        ack_during_ms=p99(during) * 1000,
        ack_slowest_ms=max((wait for _, wait in waits), default=0.0) * 1000,
        away_s=max(gaps, default=0.0),
        first_ack_s=min(later, default=over - mended),
        caught_up_s=_caught_up(history, moments),
        lag_s=_lag(history, moments, aways),
        away_p99_s=p99(gaps),
        ack_stall_ms=max(during, default=0.0) * 1000,
        ack_median_ms=_median([wait for waits in begun_then.values() for wait in waits]) * 1000,
        ack_worst_ms=max(map(_median, begun_then.values()), default=0.0) * 1000,
        repeats=len(acked) - messages,
    )


def p99(values: Sequence[float]) -> float:
    """The value that 99 % are not above; 0 of none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))] if ranked else 0.0


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


def _acks(history: History) -> dict[tuple[str, int], float]:
    """When each event was acknowledged first, by room and seq."""
    acks: dict[tuple[str, int], float] = {}
    for each in history.of(Outcome.OK):
        key = f"conversation:{each.conversation_id}", each.seq
        acks[key] = min(acks.get(key, each.ended), each.ended)
    return acks


def _caught_up(history: History, moments: Moments) -> float:
    """How long after the end of the fault the last client had all that was acknowledged until then."""
    heads: dict[str, int] = {}
    for (room, seq), at in _acks(history).items():
        if at <= moments.mended:
            heads[room] = max(heads.get(room, 0), seq)
    last = moments.mended
    for view in history.views.values():
        if (head := heads.get(view.room)) is not None:
            last = max(last, next((seen.at for seen in view.seen if seen.seq >= head), moments.over))
    return last - moments.mended


def _aways(history: History, over: float) -> dict[str, list[Away]]:
    """The times that clients were away, by name; none of those who were cut when all had been judged.

    To judge a long round takes seconds, in which the clients answer no ping.
    """
    aways = {name: [away for away in each if away.began < over] for name, each in history.aways.items()}
    return {name: each for name, each in aways.items() if each}


def _lag(history: History, moments: Moments, aways: Mapping[str, object]) -> float:
    """The longest from an ack during the fault to a client that hears of it; of clients that were never cut."""
    acks: dict[str, list[tuple[int, float]]] = {}
    for (room, seq), at in _acks(history).items():
        if moments.struck <= at <= moments.mended:
            acks.setdefault(room, []).append((seq, at))
    longest = 0.0
    for view in history.views.values():
        if view.client not in aways:
            heard = {seen.seq: seen.at for seen in view.seen}
            for seq, at in acks.get(view.room, ()):
                longest = max(longest, heard.get(seq, moments.over) - at)
    return longest


NOTHING = measure(History(), Moments(0.0, 0.0, 0.0))
"""Of a round that came to no end."""
