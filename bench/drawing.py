"""The plots of a comparison: what each server takes, and how long acks and deliveries take."""

from __future__ import annotations

from collections.abc import Sequence

from bench.bars import Chart, Mark, Row, draw_charts
from bench.measuring import Outcome
from bench.peers import NODE, PARLEY
from bench.report import Report
from bench.scenarios import DELIVERY

SERVERS = (NODE.name, PARLEY.name)
LATENCIES = {"ack": "An ack", "delivery": "A delivery"}


def draw_report(report: Report) -> dict[str, str]:
    """The pictures that the page shows, by their names."""
    bare = [outcome for outcome in report.outcomes if outcome.scenario.bare]
    whole = [outcome for outcome in report.outcomes if not outcome.scenario.bare]
    return {
        "cost-bare": _costs(bare, report.floor_us),
        "cost-whole": _costs(whole, None),
        "latency": _latencies(bare, whole),
    }


def _costs(outcomes: Sequence[Outcome], floor_us: float | None) -> str:
    """Bars, a chart for each measure: the medians, with the least and the most of the run."""
    charts = []
    for measure in dict.fromkeys(outcome.scenario.measure for outcome in outcomes):
        rows = [_cost(outcome) for outcome in outcomes if outcome.scenario.measure == measure]
        floor = ("send() in C", floor_us) if floor_us is not None and measure == DELIVERY else None
        title = measure.title[0].upper() + measure.title[1:]
        charts.append(Chart(f"{title}, {measure.unit}", rows, limit=floor))
    return draw_charts(charts, SERVERS, ("the median, the least and the most", "dashed: what Parley means to reach"))


def _cost(outcome: Outcome) -> Row:
    scenario = outcome.scenario
    spreads = [outcome.spread(server, scenario.measure.key) for server in SERVERS]
    marks = [Mark(spread.least, spread.median, spread.most) for spread in spreads]
    aim = spreads[0].median / scenario.aim if scenario.aim else scenario.most
    return Row(scenario.name, marks, scenario.title, aim)


def _latencies(bare: Sequence[Outcome], whole: Sequence[Outcome]) -> str:
    """Spans, from the median to the 99th percentile."""
    charts = []
    for key, what in LATENCIES.items():
        for outcomes, where in ((bare, "the socket engines alone"), (whole, "all that a message takes")):
            rows = [_latency(outcome, key) for outcome in outcomes if outcome.scenario.talks]
            charts.append(Chart(f"{what}, ms: {where}", rows, spans=True))
    return draw_charts(charts, SERVERS, ("from the median to the 99th percentile, on a logarithmic axis",))


def _latency(outcome: Outcome, key: str) -> Row:
    marks = []
    for server in SERVERS:
        usual = outcome.spread(server, f"{key}_p50_ms").median
        marks.append(Mark(usual, usual, outcome.spread(server, f"{key}_p99_ms").median))
    return Row(outcome.scenario.name, marks)
