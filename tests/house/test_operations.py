"""What the operator's documents, dashboard and alerts name is there: measures in a scrape, settings, files, tests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from server.commands.registry import commands
from server.config import settings
from server.errors import ParleyError
from tests.people import Instance, Person

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations.md"
DOCUMENTS = (OPERATIONS, ROOT / "SECURITY.md")
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
NEAR = 0.15  # a figure quoted is rounded, and stands while a new run says much the same
QUOTED = [  # what the benchmarks' page says, how many of the unit quoted that is, and what the document makes of it
    (r"grown by.*?and (\S+) KB a connection", 1, r"\| a connection \| (\S+) KB"),
    (r"10,000 idle sockets take (\S+) % of a core", 1, r"10,000 idle connections \| (\S+) %"),
    (r"\n\| sends: .*?\| .*?\| .*?\| (\S+) µs", 1e-3, r"acknowledged \| (\S+) ms where 256"),
    (r"\n\| single: .*?\| .*?\| .*?\| (\S+) µs", 1e-3, r"at once, (\S+) ms where one does"),
    (r"\n\| sends \| Parley .*?\| (\d+) \| - \|", 1e-3, r"\| the same \| (\S+) ms, and \S+ ms \| CPU of P"),
    (r"\n\| single \| Parley .*?\| (\d+) \| - \|", 1e-3, r"\| the same \| \S+ ms, and (\S+) ms \| CPU of P"),
    (r"\n\| single \| Parley .*?\| (\d+) \| - \|", 1e-3, r"PostgreSQL's CPU at (\S+) ms"),
    (r"\n\| connects: .*?\| .*?\| .*?\| (\S+) µs", 1e-3, r"connect with five rooms \| (\S+) ms"),
    (r"\n\| connects \| Parley \| \S+ \| (\d+) \|", 1e-3, r"missed.*?\| the same \| (\S+) ms"),
    (r"CPU a client: server, PostgreSQL \| (\S+) µs", 1e-3, r"20 missed events (\S+) ms"),
    (r"CPU a client: server, PostgreSQL \| (\S+) µs", 1e-3, r"1,000,000 . (\S+) ms = \S+ s\sof instances"),
    (r"CPU a client: server, PostgreSQL \| \S+ µs, (\S+) µs", 1e-3, r"1,000,000 . (\S+) ms = \S+ s of PostgreSQL"),
    (r"servers' CPU, generator's CPU \| .*?, (\S+) %", 1, r"took (\S+) % of a core for both"),
    (r"\n\| ack p99 \| (\S+) ms", 1, r"acks have a p99 of (\S+) ms"),
    (r"\n\| for good \| (\S+)", 1e-3, r"a message of ten words \| (\S+) KB for good"),
    (r"\n\| for as long as the log is kept \| (\S+)", 1e-3, r"for good, (\S+) KB for the 30 days"),
    (r"\n\| WAL, without whole pages \| (\S+)", 1e-3, r"\| the same \| (\S+) KB, before full pages"),
    (r"one a turn.*?100,000, 8 \| one channel \| \S+ \| (\S+)", 1, r"nearly all in vain: (\S+) µs where one"),
    (r"16 a turn.*?100,000, 8 \| one channel \| \S+ \| (\S+)", 1, r"travels alone, (\S+) µs where sixteen"),
    (r"at (\d+) instances where a turn has 16", 1, r"from (\d+) instances on where sixteen"),
]
BY_PROMETHEUS = {"job", "instance"}  # labels that every sample has once it was scraped
MEASURE = re.compile(r"(?<![\w$/.-])(?:parley|process|python)_[a-z_]+(?![\w/.]*\.\w)")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return dict(json.loads((ROOT / "deploy" / "grafana" / "parley.json").read_text()))


@pytest.fixture(scope="module")
def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((ROOT / "deploy" / "prometheus" / "parley.yml").read_text())["groups"]
    return list(group["rules"])


def queries(dashboard: dict[str, Any], alerts: list[dict[str, Any]]) -> list[str]:
    """Every expression that Prometheus is asked."""
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    return asked + [alert["expr"] for alert in alerts]


async def test_every_measure_that_is_asked_for_or_named_is_in_a_scrape(
    parley: Instance, amina: Person, their_chat: str, dashboard: dict[str, Any], alerts: list[dict[str, Any]]
) -> None:
    phone = await amina.connect()
    await phone.send(their_chat, "hello")
    async with parley.http.get(f"{parley.url}/metrics") as response:
        families = list(text_string_to_metric_families(await response.text()))
    histograms = {family.name for family in families if family.type == "histogram"}  # their samples have longer names
    labels: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            labels.setdefault(sample.name, set(BY_PROMETHEUS)).update(sample.labels)
    for document in DOCUMENTS:
        named = set(MEASURE.findall(document.read_text())) - histograms
        assert named <= set(labels), document
    asked = queries(dashboard, alerts)
    assert len(asked) > 30
    for query in asked:
        assert re.sub(r"\{.*?\}", "", query).count("(") == re.sub(r"\{.*?\}", "", query).count(")"), query
        found = re.findall(r"(\w+)\{(.*?)\}", query)
        measures = set(MEASURE.findall(query)) | {name for name, _ in found}
        assert measures - {"up"} <= set(labels), query
        for name, selector in found:
            by = set(re.findall(r"(\w+)=~?\"", selector))
            assert by <= labels.get(name, BY_PROMETHEUS), query
        known = set().union(*(labels.get(name, BY_PROMETHEUS) for name in measures))
        grouped = {label.strip() for group in re.findall(r"by \((.+?)\)", query) for label in group.split(",")}
        assert grouped <= known, query


def test_every_command_and_outcome_that_is_asked_for_is_one(
    dashboard: dict[str, Any], alerts: list[dict[str, Any]]
) -> None:
    text = "\n".join(queries(dashboard, alerts))
    named = {one for match in re.findall(r"command=~?\"(.+?)\"", text) for one in match.split("|")}
    outcomes = {one for match in re.findall(r"outcome=~?\"(.+?)\"", text) for one in match.split("|")}
    assert named
    assert named <= set(commands)
    assert {"internal", "unavailable", "rate_limited"} <= outcomes <= {"ok", *(e.code for e in _errors(ParleyError))}


def _errors(of: type[ParleyError]) -> list[type[ParleyError]]:
    return [of, *(below for error in of.__subclasses__() for below in _errors(error))]


def test_the_dashboard_is_of_a_current_schema_and_nothing_lies_over_another(dashboard: dict[str, Any]) -> None:
    assert dashboard["schemaVersion"] >= 41
    assert "id" not in dashboard  # it would be one installation's
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["type"] for panel in panels} <= {"timeseries", "stat"}
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, panel["title"]
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (one, other)


def test_each_alert_has_its_reason_in_the_document(alerts: list[dict[str, Any]]) -> None:
    rows = re.findall(r"^\| (Parley\w+) \| .{10,} \| .{10,} \|$", OPERATIONS.read_text(), re.MULTILINE)
    assert rows == [alert["alert"] for alert in alerts]
    for alert in alerts:
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"]["summary"]


def test_the_alerts_that_could_be_silent_speak(alerts: list[dict[str, Any]], tmp_path: Path) -> None:
    """By hand-made series, wherever promtool is installed: it comes with all of Prometheus, which CI does without."""
    cases = ROOT / "tests" / "house" / "alerts.yml"
    tests = yaml.safe_load(cases.read_text())["tests"]
    said = {case["alertname"] for test in tests for case in test["alert_rule_test"]}
    assert {"ParleyDown", "ParleyBug", "ParleyLag", "ParleySocketsLost"} <= said <= {one["alert"] for one in alerts}
    promtool = shutil.which("promtool")
    if promtool is not None:
        for path in (cases, ROOT / "deploy" / "prometheus" / "parley.yml"):
            shutil.copy(path, tmp_path)
        run = [promtool, "test", "rules", "alerts.yml"]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_says_of_which_command_an_outcome_is(dashboard: dict[str, Any]) -> None:
    asked = "\n".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    assert "sum by (command, outcome) (rate(parley_commands_total" in asked


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_file_and_test_that_a_document_names_is_there(document: Path) -> None:
    text = document.read_text()
    known = {setting.name for setting in settings()}
    named = set(re.findall(r"PARLEY_[A-Z_]+", text))
    assert named
    assert named <= known
    for path in re.findall(r"(?:tests|server|docs|deploy)/[\w./-]+\w", text):
        assert (ROOT / path).exists(), path
    for path, test in re.findall(r"(tests/[\w/]+\.py)::(\w+)", text):
        assert f"def {test}(" in (ROOT / path).read_text(), test


@pytest.mark.parametrize(("measured", "unit", "quoted"), QUOTED, ids=[quoted for _, _, quoted in QUOTED])
def test_the_figures_to_plan_by_are_those_of_the_benchmarks(measured: str, unit: float, quoted: str) -> None:
    def figure(pattern: str, path: Path) -> float:
        found = re.search(pattern, path.read_text(), re.DOTALL)
        assert found, (pattern, path.name)
        return float(found[1].replace(",", ""))

    assert figure(quoted, OPERATIONS) == pytest.approx(figure(measured, BENCHMARKS) * unit, rel=NEAR)


def test_the_readme_lists_them() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in ("docs/operations.md", "SECURITY.md"):
        assert name in readme
