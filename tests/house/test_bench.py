"""The benchmarks' own parts: what they say they measure, and what they make of figures. None of them is run here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import growth, held, pages, soak, storm
from bench.asking import fit, spread
from bench.crowds import Crowd
from bench.plots import Panel, draw
from bench.scenarios import SCENARIOS
from bench.seeding import names_of_rooms, write_people
from bench.stage import Watch

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("program", [growth, held, soak, storm], ids=lambda program: program.__name__)
def test_every_program_says_what_it_measures_and_has_a_quick_run(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(*words: str) -> Any:
        monkeypatch.setattr(sys, "argv", [program.__name__, *words])
        return program._options()

    assert ask("--quick").quick
    with pytest.raises(SystemExit, match="0"):
        ask("--help")
    assert "Checked" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        ask("--quick", "--write")
    assert "--write is for" in capsys.readouterr().err


def test_every_speed_has_an_aim_and_a_name_of_its_own() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    bare = [scenario for scenario in SCENARIOS if scenario.bare]
    assert len(bare) == 8
    assert all(scenario.aim or scenario.most for scenario in bare)


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


def test_a_part_of_the_page_stands_when_the_rest_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE", tmp_path / "page.md")
    places = "".join(f"<!-- {name} -->\nnothing yet\n<!-- /{name} -->\n" for name in pages.PARTS)
    pages.write_frame(f"# One\n{places}")
    pages.write_part("soak", "the soak's figures")
    pages.write_frame(f"# Two\n{places}")
    text = pages.PAGE.read_text()
    assert text.startswith("# Two\n")
    assert "<!-- soak -->\nthe soak's figures\n<!-- /soak -->" in text
    assert text.count("nothing yet") == len(pages.PARTS) - 1
    with pytest.raises(ValueError, match="no place"):
        pages.write_part("elsewhere", "x")


@pytest.mark.parametrize("page", [pages.PAGE, ROOT / "bench" / "page.md"], ids=["written", "to be written"])
def test_the_page_has_a_place_for_every_part(page: Path) -> None:
    assert [name for name in pages.PARTS if f"<!-- {name} -->" not in page.read_text()] == []


def test_a_plot_is_a_picture_with_its_points(tmp_path: Path) -> None:
    points = [(10.0, 5.0), (10_000.0, 80_000.0)]
    panels = [
        Panel("a < b", "x", "ms", points, points, is_log_y=True),
        Panel("straight", "x", "ms", [(0.0, 3.0), (8.0, 9.0)], is_log_x=False),
    ]
    root: Any = ElementTree.fromstring(draw(panels))
    namespace = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f".//{namespace}circle")) == 4
    assert [text.text for text in root.iter(f"{namespace}text") if text.get("class") == "title"] == [
        "a < b, ms",
        "straight, ms",
    ]
