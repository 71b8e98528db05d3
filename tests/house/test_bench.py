"""The benchmarks' own parts: what they make of figures, and what they write. None of them is run here."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from aiohttp.test_utils import TestClient, TestServer

from bench import __main__ as comparison
from bench import (
    bus,
    cases,
    conformance,
    disk,
    growth,
    held,
    hostile,
    machine,
    matches,
    offers,
    pages,
    races,
    soak,
    stage,
    storm,
)
from bench.asking import Answer, fit, spread
from bench.cases import Case, Timing
from bench.channels import WAYS, Subscribed
from bench.comers import Comer, text_frame
from bench.crowds import Crowd
from bench.drawing import draw_report
from bench.haggling import MOVES, Taken
from bench.load import Figures
from bench.measuring import Outcome, in_turn
from bench.plots import Panel, draw
from bench.report import Report
from bench.scenarios import SCENARIOS, Scenario
from bench.seeding import names_of_rooms, write_people
from bench.stage import Verdict, Watch
from tests.faults.racers import Tally
from tests.wire.hostile import Tally as Siege

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
WHOLE_RUNS = [bus, disk, growth, held, hostile, offers, races, soak, storm]
COSTS = {"cpu_us_per_send": 80.0, "cpu_us_per_delivery": 8.0, "cpu_us_per_connect": 300.0, "rss_kb_per_connection": 4.0}
LATENCIES = {"ack_p50_ms": 3.0, "ack_p99_ms": 9.0, "delivery_p50_ms": 4.0, "delivery_p99_ms": 12.0}
FOUND: Figures = {"ok": 1.0, **COSTS, **LATENCIES}


def channels(way: int, instances: int) -> bus.Found:
    """One channel costs a publisher nothing, and each subscriber 10 µs more than a channel a room does."""
    cost = bus.Cost(30.0 * way, [5.0 + 5.0 * (2 - way)] * instances, 10.0)
    joined = [Subscribed(0.5, 0.25, 2048)] * instances
    return bus.Found(100_000, instances, WAYS[way], joined, 0.125, 1024.0, dict.fromkeys(bus.TURNS, cost))


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page of one's own, as a first whole run leaves it."""
    monkeypatch.setattr(pages, "PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(pages, "commit", lambda: "commit abc1234")
    pages.write_frame((ROOT / "bench" / "page.md").read_text())
    return pages.PAGE


def outcome(scenario: Scenario, *, times_cheaper: float) -> Outcome:
    """Three measurements of each server, with a spread, of which the middle one counts."""
    key = scenario.measure.key
    node: list[Figures] = [{**FOUND, key: FOUND[key] * times_cheaper * share} for share in (1.0, 0.9, 1.2)]
    return Outcome(scenario, {"Node.js": node, "Parley": [FOUND] * 3})


def report(times_cheaper: float = 2.5) -> Report:
    outcomes = [outcome(scenario, times_cheaper=times_cheaper) for scenario in SCENARIOS]
    return Report(outcomes, {"Parley": "commit abc1234"}, "a machine", "2026-01-02", "python -m bench", 3, 3.0, 4.3)


def part_of(page: Path, name: str) -> str:
    (text,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", page.read_text(), re.DOTALL)
    return str(text)


def row_of(text: str, begins: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {begins}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def parsed(svg: str) -> Any:
    return ElementTree.fromstring(svg)


@pytest.mark.parametrize("program", WHOLE_RUNS, ids=lambda program: program.__name__)
def test_a_quick_run_is_not_written_down(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--quick"])
    assert program._options().quick
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--write"])
    with pytest.raises(SystemExit, match="2"):
        program._options()
    assert "--write is for" in capsys.readouterr().err


def test_a_share_of_what_is_asked_is_not_written_down(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--cases", "rare", "--write"])
    with pytest.raises(SystemExit, match="2"):
        cases.parse_options("bench.history", None, 300)
    monkeypatch.setattr(sys, "argv", ["bench", "--scenario", "sends", "--write"])
    assert comparison.main() == 2
    assert capsys.readouterr().err.count("--write is for a whole run") == 2


def test_every_scenario_has_a_name_of_its_own_and_every_engines_an_aim() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    assert [scenario.name for scenario in SCENARIOS if scenario.bare and not (scenario.aim or scenario.most)] == []


def test_none_comes_first_in_every_repetition() -> None:
    sites: Any = ["node", "parley"]
    firsts: list[Any] = [in_turn(sites, rep)[0] for rep in range(4)]
    assert firsts == ["node", "parley", "node", "parley"]


def test_the_page_says_which_aims_are_reached() -> None:
    text = report(1.85).markdown()
    assert row_of(text, "bare-room:")[4:] == ["1.85", "1.8", "yes", "hold"]
    assert row_of(text, "bare-groups:")[4:] == ["1.85", "1.9", "NO", "hold"]
    assert row_of(text, "bare-memory:")[4:] == ["1.85", "≤ 8 KB", "yes", "hold"]
    assert row_of(text, "single:")[4:] == ["1.85", "-", "-", "hold"]
    assert "2026-01-02 with Parley commit abc1234 (a machine)" in text


def test_a_run_as_json_says_how_it_was_made_and_what_the_floor_is() -> None:
    raw = json.loads(json.dumps(report().raw()))
    assert (raw["command"], raw["floor_us"]) == ("python -m bench", 4.3)
    assert raw["scenarios"].keys() == {scenario.name for scenario in SCENARIOS}


def test_a_whole_run_draws_every_plot_that_its_page_shows() -> None:
    drawn = draw_report(report())
    assert set(re.findall(r"\]\(benchmarks/([\w-]+)\.svg\)", report().markdown())) == drawn.keys()
    for name, scenarios in (("cost-bare", SCENARIOS[:8]), ("cost-whole", SCENARIOS[8:])):
        root = parsed(drawn[name])
        words = [text.text for text in root.iter(f"{SVG}text")]
        assert [scenario.name for scenario in scenarios if scenario.name not in words] == []
        bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("height") == "11"]
        assert len(bars) == len(root.findall(f".//{SVG}path[@class='whisker']")) == 2 * len(scenarios)
    assert "send() in C: 4.3" in drawn["cost-bare"]
    spans = parsed(drawn["latency"]).findall(f".//{SVG}circle")
    assert len(spans) == 2 * 2 * 2 * sum(scenario.talks for scenario in SCENARIOS)


def test_a_bar_is_as_long_as_what_it_stands_for() -> None:
    root = parsed(draw_report(report(2.0))["cost-bare"])
    node, parley = [float(bar.get("width")) for bar in root.iter(f"{SVG}rect") if bar.get("height") == "11"][:2]
    assert node == pytest.approx(2 * parley, rel=0.01)


def test_a_plot_of_growth_has_its_points() -> None:
    points = [(10.0, 5.0), (10_000.0, 80_000.0)]
    panels = [
        Panel("a < b", "x", "ms", points, points, is_log_y=True),
        Panel("straight", "x", "ms", [(0.0, 3.0), (8.0, 9.0)], is_log_x=False),
    ]
    root = parsed(draw(panels))
    assert len(root.findall(f".//{SVG}circle")) == 4
    titles = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "title"]
    assert titles == ["a < b, ms", "straight, ms"]


def test_every_plot_is_read_in_light_and_dark() -> None:
    for svg in [*draw_report(report()).values(), draw([Panel("a", "x", "ms", [(1.0, 5.0)])])]:
        assert "prefers-color-scheme: dark" in svg
        assert parsed(svg).find(f"{SVG}rect").get("class") == "paper"  # its own, whatever the page's is


def test_every_program_writes_a_part_that_says_when_and_of_what_it_is(page: Path) -> None:
    timing = Timing(Case("a rare word", "message/search", dict, 20), 300, 0, 4.0, 7.0, 20)
    slow = Timing(Case("a phrase", "message/search", dict, 400), 300, 0, 4.0, 27.0, 50)
    taken = Taken({move: [1.0, 2.0, 3.0] for move in MOVES})
    matched = matches.Timing("wtb", [9.0, 60.0], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [40, 50], [4, 5])
    answer = Answer("A send", ("size", "µs"), [("10", "5")], "Flat.", Panel("a", "x", "µs", [(1.0, 5.0)]), True, True)
    tally = Tally(offers=10_000, moves=50_000, rounds=2_500, ends=Counter(accepted=4_000))
    cases.write("history", "python -m bench.history", [timing, slow], "messages", 300)
    cases.write("listings", "python -m bench.listings", [timing, slow], "listings", 200, most=1)
    offers.write([offers.Figures("all", taken, 3.0, 2_000.0, 5_000.0)], 32, "python -m bench.offers")
    matches.write([matched], "python -m bench.matches")
    growth.write([answer], "python -m bench.growth")
    bus.write([channels(way, instances) for instances in (2, 8) for way in range(3)], "python -m bench.bus")
    stored = {"messages": 1_000, "command_keys": 500, "rooms": 99, "reports": 0, "room_events": 700}
    disk.write(disk.Taken(10, stored, 2_345), "python -m bench.disk")
    stage.conclude(races.judge(tally, [], 10_000), "Races", "races", "python -m bench.races", "Two processes.")
    verdicts = hostile.judge(Siege(frames=100_000), {"lag_p99_ms": 51.0}, [], 100_000)
    stage.conclude(verdicts, "Bad input", "hostile", "python -m bench.hostile", "Broken frames.")
    for name in ("held", "soak", "storm"):
        stage.conclude([Verdict("lost", "0", "0", True)], name, name, f"python -m bench.{name}", "What it is.")
    for name in pages.PARTS:
        begins = rf"Measured on \d{{4}}-\d\d-\d\d with Parley commit abc1234 \(.+\) by `python -m bench\.{name}`\.\n\n"
        assert re.match(begins, part_of(page, name)), name
    assert row_of(part_of(page, "history"), "a phrase")[4:] == ["27.0", "20", "NO"]
    assert "a rare word" not in part_of(page, "listings")
    assert row_of(part_of(page, "matches"), "wtb: candidates |")[-1] == "NO"
    assert row_of(part_of(page, "races"), "offers fought for")[1:] == ["10,000", "≥ 10,000", "yes"]
    assert [row_of(part_of(page, "hostile"), row)[-1] for row in ("frames", "loop lag")] == ["yes", "NO"]
    assert [row_of(part_of(page, "disk"), row)[1] for row in ("for good", "for as", "WAL")] == ["150", "70", "234"]
    assert "reports" not in part_of(page, "disk")
    assert "benchmarks/growth.svg" in part_of(page, "growth")
    assert parsed((page.parent / "benchmarks" / "growth.svg").read_text()) is not None


def test_what_was_wrong_is_not_written_down(page: Path) -> None:
    before = page.read_text()
    verdicts = races.judge(Tally(offers=10_000), ["two winners"], 10_000)
    assert stage.conclude(verdicts, "Races", "races", "python -m bench.races", "") == 1
    assert page.read_text() == before


def test_a_part_of_the_page_stands_when_the_rest_is_written_anew(page: Path) -> None:
    pages.write_part("soak", "python -m bench.soak", "the soak's figures")
    pages.write_frame((ROOT / "bench" / "page.md").read_text().replace("# Benchmarks", "# Anew", 1))
    assert page.read_text().startswith("# Anew\n")
    assert part_of(page, "soak").endswith("\n\nthe soak's figures\n")
    assert part_of(page, "held").startswith("Not measured yet")
    with pytest.raises(ValueError, match="no place"):
        pages.write_part("elsewhere", "python", "x")


def test_the_page_that_is_kept_says_of_every_part_when_and_of_what_it_is() -> None:
    for name in pages.PARTS:
        text = part_of(pages.PAGE, name)
        assert re.match(r"Not measured yet|Measured on \d{4}-\d\d-\d\d .*?commit \w{7}", text, re.DOTALL), name


def test_the_page_that_is_kept_shows_plots_that_are_there() -> None:
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", pages.PAGE.read_text())
    assert shown
    for name in shown:
        assert parsed((pages.PAGE.parent / name).read_text()).tag == f"{SVG}svg"


@pytest.mark.parametrize("folder", ["server", "rules", "bench"])
def test_a_change_of_what_is_measured_is_told_beside_the_commit(folder: str, tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=amina", "-c", "user.email=amina@example.invalid"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    assert machine.commit_of(tmp_path) == "not committed"
    git("init")
    git("commit", "--allow-empty", "--message", "begin")
    (tmp_path / "docs").mkdir()  # the figures themselves are no change
    (tmp_path / "docs" / "page.md").write_text("figures")
    assert re.fullmatch(r"commit \w+", machine.commit_of(tmp_path))
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "new.py").write_text("")
    assert re.fullmatch(r"commit \w+ and uncommitted changes", machine.commit_of(tmp_path))


def test_the_channels_cost_the_same_where_their_lines_cross() -> None:
    found = [channels(way, instances) for instances in (2, 8) for way in range(3)]
    assert bus.spread_rows(found, 16)[0][2:] == ("0.0", "15.0", "30.0", "10.0", "40.0")
    assert bus.turning(found, 16) == "at 6 instances"  # 60 µs of the publisher's against 10 of each subscriber


async def test_what_the_official_suites_ask_of_a_server_is_answered() -> None:
    async with TestServer(conformance.build(25_000, 20_000)) as server:
        for namespace in ("", "/custom,"):
            comer = Comer(*await asyncio.open_connection("127.0.0.1", server.port))
            await comer.upgrade()
            comer.send(text_frame(f'40{namespace}{{"token":"abc"}}'))
            await comer.hear(f"40{namespace}{{")
            assert await comer.hear("42") == f'42{namespace}["auth",{{"token":"abc"}}]'
            comer.send(text_frame(f'42{namespace}["message",1,"2",{{"3":[true]}}]'))
            assert await comer.hear("42") == f'42{namespace}["message-back",1,"2",{{"3":[true]}}]'
            comer.send(text_frame(f'42{namespace}456["message-with-ack",1,"2"]'))
            assert await comer.hear("43") == f'43{namespace}456[1,"2"]'
            comer.cut(reset=True)


async def test_the_echo_that_the_official_suites_ask_for_sends_back_what_it_hears() -> None:
    server = TestServer(conformance.build(25_000, 20_000))
    async with TestClient(server) as http, http.ws_connect("/engine.io/?EIO=4&transport=websocket") as ws:
        assert (await ws.receive_str()).startswith("0{")
        await ws.send_str("4hello")
        assert await ws.receive_str() == "4hello"
        await ws.send_bytes(b"\x01\x02")
        assert await ws.receive_bytes() == b"\x01\x02"


def test_the_bare_servers_are_told_the_rooms_by_the_token(tmp_path: Path) -> None:
    crowd = Crowd("two-rooms", people=4, size=2, rooms_each=2, senders=1)
    write_people([crowd, crowd], 2, names_of_rooms, tmp_path / "people")
    lines = [line.split() for line in (tmp_path / "people").read_text().splitlines()]
    first, second, third, fourth = (str(room) for room in crowd.conversation_ids)
    assert [line[0] for line in lines[:4]] == [f"{first},{second}"] * 2 + [f"{third},{fourth}"] * 2
    assert lines[0][1:] == [first, "0", "1", "0"]
    assert lines[3][1:] == [third, "2", "0", "1"]
    assert [line[2] for line in lines] == ["0", "0", "2", "2", "4", "4", "6", "6"]


def test_a_line_is_found_where_the_large_sizes_dwarf_the_small_ones() -> None:
    line = fit([(size, 400 + 7.5 * size) for size in (10.0, 100.0, 1_000.0, 10_000.0)])
    assert line.base == pytest.approx(400)
    assert line.slope == pytest.approx(7.5)
    assert line.at(10) == pytest.approx(475)


def test_a_spread_is_the_distance_from_the_middle() -> None:
    assert spread([100.0, 100.0]) == 0
    assert spread([80.0, 100.0, 120.0]) == pytest.approx(0.2)


def test_memory_grows_between_two_medians_of_the_worst_process(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {1: 100, 2: 100}
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("bench.stage.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr("bench.stage.resident_kb", sizes.__getitem__)
    watch = Watch([1, 2], begun=0.0)
    for second in range(200):
        clock.now = float(second)
        sizes[2] = 110 if second > 150 else 100
        sizes[1] = 900 if second in (125, 190) else 100  # a moment's peak is no growth
        watch.look()
    assert watch.growth(120, 15) == pytest.approx(0.1)
    assert watch.growth(180, 15) is None
