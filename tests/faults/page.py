"""docs/reliability.md, made of the ledger alone: nothing in it that was not played."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.pages import table
from tests.faults.footprints import LEFT, LIVED, SETTLED
from tests.faults.ledger import Entry
from tests.faults.measures import Measures
from tests.faults.mutations import MUTATIONS, TRIES
from tests.faults.racers import ACTORS
from tests.faults.registry import NOISE_S, STALL_S, STEADY, Fault, Finding, faults
from tests.faults.rounds import CONTROL
from tests.faults.stage import SECRET, SETTINGS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
ASKED_ACKED, ASKED_ROUNDS, ASKED_KINDS = 1_000_000, 200, 20
SHOWN = 5
AFTER = "after faults"

_ABOUT = """# Reliability

What Parley promises, attacked: what is acknowledged is never lost, never doubled, and every member of a room sees the
same events in the same order, without a gap. This page is written by `make faults` from the ledger of all its runs
(`reliability.jsonl`, a line a round); no figure in it was written by hand.

## How it is done

PostgreSQL, Valkey and the instances are processes of their own; every connection (client to Parley, Parley to
PostgreSQL, Parley to Redis) goes through a TCP proxy that can delay, throttle, hold, cut and half-close it. Clients
talk in groups, each one message at a time, and do as docs/clients.md says: they send again under the same `client_id`
what was not acknowledged, return when they are cut, and name the last seq that they have. They log every try and its
outcome (ok, fail, unknown) and every event that they take. A round is a few seconds of talk, in which one fault is
put in and taken out; when everybody has caught up, the checker holds the histories against the database:

- what was acknowledged is stored, at the seq that the ack named; a (sender, `client_id`) is stored once;
- what had no answer is there once or not at all; what was refused for good is not there; nothing is there that nobody
  sent;
- the seqs of every room are 1 to n; of one sender, what was sent later stands later;
- every client's view of every room is the log: the same events by their bytes, in the same order, no gap, no double;
- on no connection was an event pushed out of turn, and nobody was turned away, or told anything but to try again;
- offers are haggled over meanwhile, five moves at the same instant on each, each asked again until it is answered: one
  wins, it is the one that is stored, nobody else was told so, and the market's laws hold
  (`tests/negotiation_checker.py`).

How long it takes when 5,000 clients come back at once, each of whom has missed 20 events, is measured by
`python -m bench.storm` and told in [benchmarks.md](benchmarks.md#reconnect-storm).

The settings are the defaults (docs/reference.md) but for {settings}. So it is after two seconds, not after 45, that a
connection which hears nothing is given up. Where acks are to take as long as without a fault, that is their p99 times
{steady}, and {noise} ms, and for the slowest of them {stall} s more: the machine does other things too. What the crowd
hears is messages in groups that nobody comes to or leaves; what membership, offers and all other pushes make of a
phone's state is `tests/convergence`, without these faults. That Parley itself is the victim of a deadlock is played in
`tests/handlers/test_offer_locks.py`: here strangers are.

The checker is shown to go red by histories that were tampered with (`tests/faults/test_checker.py`) and by servers
from which a guarantee was taken out (below). A round whose fault nobody has felt counts as not played.

**What this does not prove.** `kill -9` of a process leaves what the kernel holds: a power loss does not. Whether a
commit is on the disk then is PostgreSQL's word (`fsync`, `synchronous_commit`, both on in the rounds counted here) and
the disk's. All processes share one machine and its clock: there is no network in between but the proxies, and they
don't reorder or alter what passes, since TCP does not either.
"""


def written(entries: Sequence[Entry]) -> str:
    """The page of a ledger that has at least one round."""
    whole = [entry for entry in entries if not entry.broken]
    played = [entry for entry in whole if entry.has_shown]
    rounds = [entry for entry in played if entry.fault != CONTROL.name]
    parts = [_ABOUT.format(settings=_settings(), steady=STEADY, noise=f"{NOISE_S * 1000:g}", stall=f"{STALL_S:g}")]
    if whole:
        parts += [_totals(whole, played, rounds), _found(rounds), _times(rounds)]
    if any(entry.findings for entry in whole):
        parts.append(_findings(whole))
    if mutations := [entry for entry in entries if entry.broken]:
        parts.append(_mutations(mutations))
    return "\n".join(parts)


def _settings() -> str:
    """Those that are no secrets, in words."""
    own = {name: value for name, value in SETTINGS.items() if value != SECRET}
    off = [name for name, value in own.items() if value == "off"]
    words = [f"{name} {value}" for name, value in own.items() if name not in off]
    return f"{', '.join(words)}, and without limits ({', '.join(off)})"


def _totals(whole: Sequence[Entry], played: Sequence[Entry], rounds: Sequence[Entry]) -> str:
    """Of all that was played. What is no fault counts neither for an injection nor for its messages; what broke the
    promise counts whether its fault was felt or not.
    """
    acked = _acked(rounds)
    kinds = len({entry.fault for entry in rounds})
    controls = [entry for entry in played if entry.fault == CONTROL.name]
    bad = [entry for entry in whole if _broke(entry)]
    logged = [entry for entry in whole if any(_is_logged(line) for line in entry.breaches)]
    days = sorted(entry.at[:10] for entry in whole)
    machines = ", ".join(sorted({entry.machine for entry in whole}))
    errors = ", ".join(sorted({error for entry in whole for error in entry.errors}))
    commits = sorted({entry.commit for entry in whole})
    instances = sorted(Counter(entry.instances for entry in rounds).items())
    is_short = acked < ASKED_ACKED or len(rounds) < ASKED_ROUNDS or kinds < ASKED_KINDS
    short = (
        f"**These are short runs:** at least {ASKED_ACKED:,} acknowledged messages, {ASKED_ROUNDS} injections and"
        f" {ASKED_KINDS} kinds are asked for.\n\n"
        if is_short
        else ""
    )
    rows = [
        ("runs, from and to", f"{len({entry.run for entry in whole})}, {days[0]} to {days[-1]}"),
        ("kinds of faults", f"{kinds} of {len(faults)}"),
        ("injections", f"{len(rounds):,}"),
        ("of them by how many instances", ", ".join(f"{n}: {times:,}" for n, times in instances) or "-"),
        ("acknowledged messages", f"{acked:,}"),
        ("rounds without a fault, for comparison", f"{len(controls):,}"),
        ("acknowledged messages of those", f"{_acked(controls):,}"),
        ("tries without an answer", f"{sum(entry.measures.unknown for entry in played):,}"),
        ("connections cut", f"{sum(entry.measures.cuts for entry in played):,}"),
        ("events taken by clients", f"{sum(entry.measures.events for entry in played):,}"),
        (f"offers on each of which {ACTORS} moved at once", f"{sum(entry.offers for entry in played):,}"),
        ("rounds that broke the promise", f"{len(bad):,}"),
        ("rounds in which an instance logged an error", f"{len(logged):,}"),
        ("rounds whose fault nobody felt (not counted)", f"{len(whole) - len(played):,}"),
        ("errors that instances have logged, by name", errors or "none"),
        ("machine", machines),
        ("Parley", ", ".join(commits)),
    ]
    text = f"## What came of it\n\n{short}{table(('', ''), rows)}\n"
    if bad:
        lines = [f"- {entry.at}, {_title(entry)}{_seed(entry)}: {'; '.join(_broke(entry)[:SHOWN])}" for entry in bad]
        text += "\nThe rounds that broke the promise:\n\n" + "\n".join(lines) + "\n"
    return text


def _broke(entry: Entry) -> list[str]:
    """What the promise was broken by."""
    return [line for line in entry.breaches if not _is_logged(line)]


def _is_logged(line: str) -> bool:
    return line.startswith("error:")


def _seed(entry: Entry) -> str:
    return f" (--seed {entry.seed})" if entry.seed else ""


def _acked(entries: Sequence[Entry]) -> int:
    return sum(entry.measures.acked for entry in entries)


def _found(rounds: Sequence[Entry]) -> str:
    rows = []
    for fault, entries in _by_fault(rounds):
        found = sum(1 for entry in entries if _broke(entry))
        rows.append(
            (
                fault.title,
                fault.about,
                f"{len(entries)}",
                _span([entry.seconds for entry in entries]),
                f"{sum(entry.measures.acked for entry in entries):,}",
                f"{sum(entry.measures.unknown for entry in entries):,}",
                f"{sum(entry.measures.cuts for entry in entries):,}",
                f"{found} broke the promise" if found else "nothing",
                _notes(entries),
            )
        )
    columns = ("fault", "what happens", "times", "each, s", "acked", "no answer", "cuts", "found", "by")
    return f"## Each fault\n\n{table(columns, rows)}\n"


def _times(rounds: Sequence[Entry]) -> str:
    rows = []
    for fault, entries in _by_fault(rounds):
        late = sum(1 for entry in entries if fault.must.missed(entry.measures, entry.control_ms))
        controls = [entry.control_ms for entry in entries if entry.control_ms]
        rows.append(
            (
                fault.title,
                _away(fault, entries),
                _worst(entries, lambda found: found.first_ack_s) if fault.must.first_ack_s is not None else "-",
                _worst(entries, lambda found: found.caught_up_s),
                _worst(entries, lambda found: found.lag_s),
                _median([entry.measures.ack_before_ms for entry in entries]),
                _median([entry.measures.ack_during_ms for entry in entries]),
                _median(controls),
                fault.must.said or "-",
                f"{late} of {len(entries)}" if late else "none",
            )
        )
    columns = (
        "fault",
        "away, s",
        "first ack, s",
        "caught up, s",
        "lag, s",
        "ack p99 before, ms",
        "during, ms",
        "without a fault, ms",
        "asked",
        "later than asked",
    )
    about = (
        "The longest of all rounds; of the p99s the median. *Away*: a client without a connection, from the cut to the"
        " next `hello`. *First ack* and *caught up* are counted from the end of the fault: until somebody has an ack"
        " (where none comes meanwhile; of faults of a part, or that end before all is put away, it is below),"
        " and until everybody has all that was acknowledged before. *Lag*: from an ack during the fault to the last"
        " client that hears the message, of those that were not cut. An ack is counted from its message's first try."
        " Where acks are to take no longer, a round without a fault is played before, as long and under the same load;"
        " *without a fault* is the p99 of the same seconds of it."
    )
    return f"## How long it was felt\n\n{about}\n\n{table(columns, rows)}\n"


def _findings(whole: Sequence[Entry]) -> str:
    """Of rounds that nobody felt as well: there they say that."""
    found: dict[tuple[str, str], list[Finding]] = {}
    for entry in whole:
        for finding in entry.findings:
            title = AFTER if finding.name in (SETTLED, LIVED, *LEFT) else _title(entry)
            found.setdefault((title, finding.name), []).append(finding)
    rows = [
        (
            title,
            name,
            f"{len(each)}",
            f"{_worst_of(each):.2f} {each[0].unit}".rstrip(),
            each[0].asked or "-",
            f"{amiss} of {len(each)}" if (amiss := sum(map(_is_amiss, each))) else "none",
        )
        for (title, name), each in found.items()
    ]
    return f"## Beside\n\n{table(('fault', 'figure', 'times', 'worst', 'asked', 'not so'), rows)}\n"


def _is_amiss(finding: Finding) -> bool:
    return finding.is_over or finding.is_missing


def _worst_of(findings: Sequence[Finding]) -> float:
    """The most; of signs the least."""
    values = [finding.value for finding in findings]
    return min(values) if findings[0].least is not None else max(values)


def _mutations(entries: Sequence[Entry]) -> str:
    rows = []
    titles = {mutation.name: mutation.title for mutation in MUTATIONS.values()}
    for broken, fault in dict.fromkeys((entry.broken, entry.fault) for entry in entries):
        mine = [entry for entry in entries if (entry.broken, entry.fault) == (broken, fault)]
        caught = [entry for entry in mine if entry.is_caught]
        kinds = sorted({line.partition(":")[0] for entry in caught for line in entry.breaches})
        rows.append(
            (
                titles.get(broken, broken.replace("_", " ")),
                _title(mine[0]),
                f"{len(caught)} of {len(mine)}",
                _span([entry.tries for entry in mine]),
                ", ".join(kinds) or "-",
            )
        )
    about = (
        "Servers from which one guarantee was taken out, under the same rounds; each has to be caught, with one of"
        f" {TRIES} rounds at most: *tries* says which."
    )
    columns = ("taken out", "fault", "caught", "tries", "as")
    return f"## With a guarantee taken out\n\n{about}\n\n{table(columns, rows)}\n"


def _title(entry: Entry) -> str:
    return entry.fault.replace("_", " ")


def _notes(entries: Sequence[Entry]) -> str:
    """In which of several ways the fault was put in, and how often."""
    return ", ".join(f"{note}: {n}" for note, n in Counter(n for entry in entries for n in entry.notes).items()) or "-"


def _away(fault: Fault, entries: Sequence[Entry]) -> str:
    """The longest; where it is what is asked, the p99 of all as well."""
    worst = _worst(entries, lambda found: found.away_s)
    if fault.must.away_p99_s is None:
        return worst
    return f"{worst} (p99 {_worst(entries, lambda found: found.away_p99_s)})"


def _by_fault(rounds: Sequence[Entry]) -> list[tuple[Fault, list[Entry]]]:
    found = [(fault, [entry for entry in rounds if entry.fault == name]) for name, fault in faults.items()]
    return [(fault, entries) for fault, entries in found if entries]


def _worst(entries: Sequence[Entry], figure: Callable[[Measures], float]) -> str:
    worst = max(figure(entry.measures) for entry in entries)
    return f"{worst:.2f}" if worst else "-"


def _median(values: Sequence[float]) -> str:
    """Of those that there is a sample of."""
    sampled = sorted(value for value in values if value)
    return f"{sampled[len(sampled) // 2]:,.0f}" if sampled else "-"


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"
