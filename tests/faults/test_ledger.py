"""What is measured of a history, what is kept of a round, and what the page says of all of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.__main__ import _in_turn
from tests.faults.history import Away, History, Invocation, Outcome, Seen
from tests.faults.ledger import Entry, add, read
from tests.faults.measures import Measures, Moments, measure, p99
from tests.faults.mutations import MUTATIONS
from tests.faults.page import PAGE, written
from tests.faults.registry import Finding, Must
from tests.faults.rounds import Load, faults

LOAD = Load(people=8, chats=4, pause_s=0.0, before_s=1.0, during_s=1.0, after_s=1.0, patience_s=9.0)
GOOD = Measures(
    acked=100,
    unknown=5,
    refused=0,
    cuts=3,
    events=800,
    ack_before_ms=10.0,
    ack_during_ms=12.0,
    ack_slowest_ms=30.0,
    away_s=1.0,
    first_ack_s=0.1,
    caught_up_s=0.2,
    lag_s=0.3,
)


def entry(fault: str = "redis_killed", **fields: object) -> Entry:
    made = Entry(
        at="2026-01-02T03:04:05+00:00",
        run="2026-01-02T03:00:00+00:00",
        fault=fault,
        seconds=4.0,
        instances=2,
        load=LOAD,
        measures=GOOD,
        breaches=[],
        late=[],
        has_shown=True,
        machine="a machine",
        commit="commit abc1234",
    )
    return replace_struct(made, fields)


def replace_struct(made: Entry, fields: dict[str, object]) -> Entry:
    return Entry(**{**{name: getattr(made, name) for name in made.__struct_fields__}, **fields})


def test_a_ledger_gives_back_what_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.jsonl"
    assert list(read(path)) == []
    entries = [entry(), entry("instance_killed", breaches=["lost: all of it"]), entry(broken="repair_of_gaps")]
    for each in entries:
        add(path, each)
    assert list(read(path)) == entries


def test_times_are_those_of_the_history() -> None:
    history = History()
    for n, (began, ended) in enumerate([(1.0, 1.25), (9.5, 10.5), (11.0, 13.0), (20.0, 20.5)], start=1):
        history.invocations.append(Invocation("amina", "c", f"{n}", began, ended, Outcome.OK, f"m{n}", n))
    history.invocations.append(Invocation("amina", "c", "5", 20.6, 20.7, Outcome.UNKNOWN))
    heard = {"amina": [1.3, 10.6, 13.1, 20.6], "bilal": [1.3, 12.5, 15.5, 20.6], "carim": [1.3, 16.0, 17.0, 20.6]}
    for client, times in heard.items():
        history.view(client, "conversation:c").seen += [Seen(n + 1, 0, at) for n, at in enumerate(times)]
    history.aways["carim"] = [Away(10.0, 15.75), Away(21.0)]
    found = measure(history, Moments(struck=10.0, mended=14.0, over=22.0))
    assert (found.acked, found.unknown, found.cuts, found.events) == (4, 1, 2, 12)
    assert found.ack_before_ms == pytest.approx(250)
    assert found.ack_during_ms == found.ack_slowest_ms == pytest.approx(2_000)
    assert found.first_ack_s == pytest.approx(6.5)
    assert found.caught_up_s == pytest.approx(3.0)
    assert found.lag_s == pytest.approx(2.5)  # bilal's; carim was cut
    assert found.away_s == pytest.approx(5.75)


def test_what_was_never_heard_or_never_acked_counts_to_the_end() -> None:
    history = History()
    history.invocations.append(Invocation("amina", "c", "1", 1.0, 11.0, Outcome.OK, "m1", 1))
    history.view("bilal", "conversation:c")
    found = measure(history, Moments(struck=10.0, mended=14.0, over=22.0))
    assert (found.first_ack_s, found.caught_up_s, found.lag_s) == (8.0, 8.0, 11.0)


def test_a_p99_is_what_99_of_100_are_not_above() -> None:
    assert p99([]) == 0
    assert p99([float(n) for n in range(1, 101)]) == 100
    assert p99([float(n) for n in range(1, 201)]) == 199


def test_what_took_longer_than_asked_is_named() -> None:
    must = Must(away_s=5.0, lag_s=2.0, is_ack_steady=True)
    assert must.missed(GOOD) == []
    assert must.missed(replace(GOOD, away_s=5.5, ack_during_ms=50.0)) == [
        "away 5.50 s, where 5.00 s was asked",
        "ack p99 0.05 s, where 0.04 s was asked",
    ]
    assert must.missed(replace(GOOD, ack_during_ms=50.0), control_ms=25.0) == []
    assert must.said == "away ≤ 5 s, lag ≤ 2 s, ack p99 as without a fault"


def test_every_fault_says_what_it_is() -> None:
    assert len(faults) >= 20
    assert [fault.name for fault in faults.values() if not re.match(r"[A-Z`].+\.$", fault.about)] == []
    assert [mutation.fault for mutation in MUTATIONS.values() if mutation.fault not in faults] == []


def test_every_fault_has_its_turn_before_one_has_another() -> None:
    turns = [fault.name for fault in _in_turn(list(faults.values()), 2)]
    assert sorted(turns[: len(faults)]) == sorted(turns[len(faults) :]) == sorted(faults)


def test_the_page_says_what_was_played_and_what_was_found() -> None:
    entries = [
        entry(),
        entry(seconds=1.0, measures=replace(GOOD, lag_s=3.0)),
        entry("instance_killed", breaches=["lost: one of amina's"]),
        entry("instance_killed", has_shown=False, breaches=["nobody felt it"]),
        entry("nothing", findings=[Finding("tasks left", 2.0, 0.0, "")]),
        entry("disk_full", notes=["a limit"]),
        entry(broken="repair_of_gaps", breaches=["view: bilal saw nothing"]),
    ]
    page = written(entries)
    assert "| rounds that broke the promise | 1 |" in page
    assert "| acknowledged messages | 500 |" in page
    assert "| injections | 4 |" in page
    assert "| rounds without a fault, for comparison | 1 |" in page
    assert "| after all faults | tasks left | 1 | 2.00 | ≤ 0 | 1 of 1 |" in page
    assert "| nothing | a limit: 1 |" in page
    assert "| rounds whose fault nobody felt (not counted) | 1 |" in page
    assert re.search(r"\| redis killed \|.+\| 2 \| 1-4 \| 200 \| 10 \| 6 \| nothing \| - \|", page)
    assert re.search(r"\| redis killed \|.+\| 1 of 2 \|", page)
    assert "2026-01-02T03:04:05+00:00, instance killed: lost: one of amina's" in page
    assert "| repair of gaps | redis killed | 1 of 1 | 1 | view |" in page
    assert "These are short runs" in page
    assert "power loss" in page


def test_a_whole_ledger_is_no_short_run() -> None:
    many = [entry(name, measures=replace(GOOD, acked=10_000)) for name in list(faults)[:20] for _ in range(10)]
    assert "short runs" not in written(many)
    assert "short runs" in written(many[:-1])


def test_the_page_that_is_kept_is_of_real_runs() -> None:
    text = PAGE.read_text()
    assert re.search(r"\| runs, from and to \| \d+, 20\d\d-", text)
    assert re.search(r"\| Parley \| commit \w{7}", text)
