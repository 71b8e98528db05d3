"""What is measured of a history, what is kept of a round, and what the page says of all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest

from tests.faults import __main__ as program
from tests.faults.__main__ import _in_turn
from tests.faults.control import control_of, held_against
from tests.faults.history import Away, History, Invocation, Outcome, Seen
from tests.faults.ledger import ROOT, Entry, add, read
from tests.faults.measures import Measures, Moments, measure, p99
from tests.faults.mutations import MUTATIONS
from tests.faults.page import PAGE, written
from tests.faults.registry import Fault, Finding, Must, signed
from tests.faults.rounds import CONTROL, Load, Round, faults, logged_errors
from tests.faults.stage import Stage

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


def test_a_line_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with pytest.raises(msgspec.ValidationError):
        add(path, entry(findings=[Finding("never", inf, 1.0, "s")]))
    assert not path.exists()


def test_a_line_does_not_say_where_this_copy_lies(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    add(path, entry(breaches=[f"error: in {ROOT}/server/app.py"]))
    (again,) = read(path)
    assert again.breaches == ["error: in server/app.py"]


def test_times_are_those_of_the_history() -> None:
    history = History()
    for n, (began, ended) in enumerate([(1.0, 1.25), (9.5, 10.5), (11.0, 13.0), (20.0, 20.5)], start=1):
        history.invocations.append(Invocation("amina", "c", f"{n}", began, ended, Outcome.OK, f"m{n}", n))
    history.invocations.append(Invocation("amina", "c", "5", 20.6, 20.7, Outcome.UNKNOWN))
    heard = {"amina": [1.3, 10.6, 13.1, 20.6], "bilal": [1.3, 12.5, 15.5, 20.6], "carim": [1.3, 16.0, 17.0, 20.6]}
    for client, times in heard.items():
        history.view(client, "conversation:c").seen += [Seen(n + 1, 0, at) for n, at in enumerate(times)]
    history.aways["carim"] = [Away(10.0, 15.75), Away(21.0)]
    history.aways["bilal"] = [Away(22.5)]  # when all was judged
    found = measure(history, Moments(struck=10.0, mended=14.0, over=22.0))
    assert (found.acked, found.unknown, found.cuts, found.events) == (4, 1, 2, 12)
    assert found.ack_before_ms == pytest.approx(250)
    assert found.ack_during_ms == found.ack_slowest_ms == pytest.approx(2_000)
    assert found.first_ack_s == pytest.approx(6.5)
    assert found.caught_up_s == pytest.approx(3.0)
    assert found.lag_s == pytest.approx(2.5)  # bilal's; carim was cut
    assert found.away_s == pytest.approx(5.75)


def test_an_error_that_was_logged_is_told_unless_it_is_excused() -> None:
    errors = {"command_failed": 2, "presence_failed": 1}
    told = logged_errors(errors, set())
    assert told == ["error: command_failed, 2 times in the logs", "error: presence_failed, 1 times in the logs"]
    assert logged_errors(errors, {"internal"}) == told[1:]


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
    ]
    assert must.missed(replace(GOOD, ack_during_ms=50.0), control_ms=25.0) == []
    assert must.missed(replace(GOOD, ack_before_ms=400.0, ack_during_ms=50.0), control_ms=10.0) == [
        "ack p99 0.05 s, where 0.04 s was asked"
    ]
    assert must.said == "away ≤ 5 s, lag ≤ 2 s, ack p99 as without a fault"


def test_a_standstill_of_everybody_is_late_though_it_is_one_sample_each() -> None:
    history, people, clock = History(), 48, 10.0
    for n in range(150):
        took_s = 4.0 if n == 75 else 0.02
        for person in range(people):
            name = f"p{person}"
            history.invocations.append(Invocation(name, "c", f"{name}-{n}", clock, clock + took_s, Outcome.OK, "m", n))
        clock += took_s
    measures = measure(history, Moments(struck=10.0, mended=clock, over=clock))
    assert measures.ack_during_ms == pytest.approx(20)
    fault = faults["redis_killed"]
    calm = Round(CONTROL, replace(GOOD, ack_during_ms=20.0, ack_stall_ms=60.0), [], 1.0)
    (late,) = held_against(Round(replace(fault, must=Must(is_ack_steady=True)), measures, [], 1.0), calm).late
    assert late.startswith("slowest ack, beyond the slowest without a fault 3.94 s")
    assert held_against(calm, calm).late == []


def test_medians_are_of_what_was_begun_while_the_fault_lasted() -> None:
    history = History()
    for sender, waits in (("amina", (0.1, 0.1, 0.1, 0.1)), ("bilal", (0.5, 0.7, 0.6))):
        for n, wait in enumerate(waits):
            invocation = Invocation(sender, "c", f"{n}", 10.0 + n, 10.0 + n + wait, Outcome.OK, f"m{n}", n)
            history.invocations += [invocation] * (2 if n == 0 else 1)
    history.invocations.append(Invocation("bilal", "c", "early", 1.0, 9.0, Outcome.OK, "m", 9))
    found = measure(history, Moments(struck=10.0, mended=14.0, over=22.0), {"amina"})
    assert (found.ack_median_ms, found.ack_worst_ms) == (pytest.approx(100), pytest.approx(600))
    assert found.ack_stall_ms == pytest.approx(100)
    assert (found.acked, found.repeats) == (8, 2)


def test_a_round_without_the_fault_is_like_it_in_all_else() -> None:
    deaf = faults["clients_deaf"]
    control = control_of(deaf)
    assert (control.name, control.must) == (CONTROL.name, Must(is_ack_steady=True))
    names = ("environ", "module", "pause_s", "words", "is_rough")
    assert [getattr(control, name) for name in names] == [getattr(deaf, name) for name in names]


def test_a_fault_of_which_a_sign_is_missing_was_not_felt() -> None:
    fault = next(fault for fault in faults.values() if fault.shows is signed)
    shown, missing = Finding("deadlocks", 2.0, None, "", 1.0), Finding("deadlocks", 0.0, None, "", 1.0)
    assert Round(fault, GOOD, [], 1.0, findings=[shown]).is_felt
    assert not Round(fault, GOOD, [], 1.0, findings=[shown, missing]).is_felt
    assert not Round(fault, GOOD, [], 1.0).is_felt
    assert not missing.is_over


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
        entry(
            "nothing",
            breaches=["error: presence_failed, 2 times in the logs"],
            findings=[Finding("tasks left", 2.0, 0.0, "")],
        ),
        entry("disk_full", notes=["a limit"]),
        entry(broken="repair_of_gaps", breaches=["view: bilal saw nothing"], is_caught=True),
        entry(broken="repair_of_gaps", breaches=["law: of something else"]),
    ]
    page = written(entries)
    assert "| rounds that broke the promise | 2 |" in page
    assert "| rounds in which an instance logged an error | 1 |" in page
    assert "instance killed: nobody felt it" in page
    assert "| acknowledged messages | 400 |" in page
    assert "| acknowledged messages of those | 100 |" in page
    assert "| of them by how many instances | 2: 4 |" in page
    assert "| injections | 4 |" in page
    assert "| rounds without a fault, for comparison | 1 |" in page
    assert "| after faults | tasks left | 1 | 2.00 | ≤ 0 | 1 of 1 |" in page
    assert "| nothing | a limit: 1 |" in page
    assert "| rounds whose fault nobody felt (not counted) | 1 |" in page
    assert re.search(r"\| redis killed \|.+\| 2 \| 1-4 \| 200 \| 10 \| 6 \| nothing \| - \|", page)
    assert re.search(r"\| redis killed \|.+\| 1 of 2 \|", page)
    assert "2026-01-02T03:04:05+00:00, instance killed: lost: one of amina's" in page
    assert "| repair of gaps | redis killed | 1 of 2 | 1 | view |" in page
    assert "These are short runs" in page
    assert "power loss" in page


def test_a_whole_ledger_is_no_short_run() -> None:
    many = [entry(name, measures=replace(GOOD, acked=5_000)) for name in list(faults)[:20] for _ in range(10)]
    assert "short runs" not in written(many)
    assert "short runs" in written(many[:-1])
    calm = entry("nothing", measures=replace(GOOD, acked=5_000))
    assert "short runs" in written([*many[:-1], entry(many[-1].fault), calm])


def test_a_ledger_of_nothing_but_mutations_has_a_page() -> None:
    page = written([entry(broken="repair_of_gaps", breaches=["view: none"], is_caught=True)])
    assert "| repair of gaps | redis killed | 1 of 1 | 1 | view |" in page


def test_a_line_that_was_not_written_to_its_end_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ledger.jsonl"
    for each in (entry(), entry("instance_killed")):
        add(path, each)
    path.write_bytes(path.read_bytes()[:-20])
    assert list(read(path)) == [entry()]
    assert "not written to the end" in capsys.readouterr().err
    add(path, entry("disk_full"))
    assert list(read(path)) == [entry(), entry("disk_full")]


class NoStage:
    """A stage on which nothing stands."""

    stations = (None, None)
    settings: Mapping[str, str] = MappingProxyType({})

    def errors(self) -> Counter[str]:
        return Counter()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> program.Run:
    """A run whose rounds are played by `play` of the program."""

    async def no_footprints(_: program.Footprints) -> list[Finding]:
        return []

    monkeypatch.setattr(program.Footprints, "look", no_footprints)
    monkeypatch.setattr(program.Footprints, "settled", no_footprints)
    options = program._options(["--times", "1", "--ledger", str(tmp_path / "ledger.jsonl"), "--seed", "7"])
    return program.Run(NoStage(), options, "a run")  # type: ignore[arg-type]


def plays(monkeypatch: pytest.MonkeyPatch, **by_name: Round | Exception) -> None:
    """Let rounds end so, by the names of their faults, and all others well."""

    async def play(_: Stage, fault: Fault, load: Load) -> Round:
        end = by_name.get(fault.name, Round(fault, GOOD, [], 1.0))
        if isinstance(end, Exception):
            raise end
        return end

    monkeypatch.setattr(program, "play", play)


async def test_a_round_that_the_harness_does_not_survive_is_written_down_and_the_last(
    run: program.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plays(monkeypatch, all_instances_killed=TimeoutError("it does not start again"))
    await run.play([faults["all_instances_killed"]] * 2, 0.0)
    assert not run.is_well
    first, last = read(tmp_path / "ledger.jsonl")
    assert (first.fault, last.fault) == ("nothing", "all_instances_killed")
    assert last.breaches == ["round: TimeoutError: it does not start again"]
    assert not last.has_shown
    assert last.seed == 7
    assert "it does not start again" in written([first, last])


@pytest.mark.parametrize(
    ("ends", "is_well", "unfelt"),
    [
        ({}, True, set()),
        ({"breaches": ["lost: one"]}, False, set()),
        ({"measures": replace(GOOD, away_s=9.0)}, False, set()),
        ({"findings": [Finding("held", 2.0, 1.0, "MiB")]}, False, set()),
        ({"measures": replace(GOOD, cuts=0)}, True, {"instance_killed"}),
    ],
    ids=["nothing", "a breach", "late", "over its limit", "never felt"],
)
async def test_a_run_is_not_well_of(
    ends: dict[str, object], is_well: bool, unfelt: set[str], run: program.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = faults["instance_killed"]
    plays(monkeypatch, instance_killed=replace(Round(fault, GOOD, [], 1.0), **ends))
    await run.play([fault], 0.0)
    assert (run.is_well, run.unfelt) == (is_well, unfelt)


def test_the_page_that_is_kept_is_written_of_the_ledger_that_is_kept() -> None:
    entries = list(read(program.LEDGER))
    assert any(not each.broken for each in entries)
    assert PAGE.read_text() == written(entries)


def test_the_page_that_is_kept_is_of_real_runs() -> None:
    text = PAGE.read_text()
    assert re.search(r"\| runs, from and to \| \d+, 20\d\d-", text)
    assert re.search(r"\| Parley \| commit \w{7}", text)
