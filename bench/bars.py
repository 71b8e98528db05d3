"""Plots of rows: what each server takes for the same, as bars beside each other or as spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.plots import Axis, number, picture, text

WIDTH = 900
RIGHT = 90  # room for the figures behind the marks
EDGE = 14
HEAD, FOOT = 34, 30  # above and below a chart's rows
LEGEND = 30
THICK, GAP = 13, 14  # of a mark, and between two rows
LETTER = 6.9  # how wide one is, at most, as labels are written


class Mark(NamedTuple):
    """A server's figure in a row: a bar to `at` with whiskers from `low` to `high`, or a span from `low` to `high`."""

    low: float
    at: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """What is compared: a mark for each server, in the legend's order. `aim` is what the last of them should have."""

    label: str
    marks: Sequence[Mark]
    detail: str = ""
    aim: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """Rows of bars on a straight axis, or of spans on a logarithmic one; `limit` is a line across them, with a name."""

    title: str
    rows: Sequence[Row]
    spans: bool = False
    limit: tuple[str, float] | None = None


def draw_charts(charts: Sequence[Chart], servers: Sequence[str], notes: Sequence[str] = ()) -> str:
    """The charts in a picture, one below the other, under a legend of the servers and of what else is to be seen."""
    rows = [row for chart in charts for row in chart.rows]
    left = EDGE + 16 + max(max(len(row.label) * LETTER, len(row.detail) * LETTER * 0.86) for row in rows)
    parts, y = _legend(servers, notes), float(LEGEND)
    spans = [value for chart in charts if chart.spans for value in _values(chart)]
    for chart in charts:
        axis = Axis(spans if chart.spans else _values(chart), left, WIDTH - RIGHT, is_log=chart.spans)
        drawn, y = _chart(chart, axis, y)
        parts += drawn
    return picture(WIDTH, round(y), parts)


def _legend(servers: Sequence[str], notes: Sequence[str]) -> list[str]:
    parts, x = [], float(EDGE)
    for n, name in enumerate(servers):
        parts.append(f'<rect class="s{n + 1}" x="{x:.1f}" y="{EDGE}" width="12" height="12"/>')
        parts.append(text(x + 18, EDGE + 11, name, "title"))
        x += 36 + len(name) * LETTER
    return [*parts, text(x, EDGE + 11, "; ".join(notes), "detail")]


def _values(chart: Chart) -> list[float]:
    limit = [chart.limit[1]] if chart.limit else []
    return [value for row in chart.rows for mark in row.marks for value in mark] + limit


def _chart(chart: Chart, axis: Axis, y: float) -> tuple[list[str], float]:
    """Its parts, and where the next one begins."""
    top = y + HEAD
    bottom = top + sum(_height(row) for row in chart.rows)
    parts = [text(EDGE, y + 22, chart.title, "title")]
    for tick in axis.ticks:
        parts.append(f'<path class="grid" d="M{axis.at(tick):.1f} {top - 4:.1f}V{bottom:.1f}"/>')
        parts.append(text(axis.at(tick), bottom + 14, number(tick), "detail", "middle"))
    at = top
    for row in chart.rows:
        parts += _row(row, axis, at, spans=chart.spans)
        at += _height(row)
    if chart.limit:
        name, value = chart.limit
        x = axis.at(value)
        parts.append(f'<path class="limit" d="M{x:.1f} {top - 6:.1f}V{bottom:.1f}"/>')
        parts.append(text(x + 4, top - 8, f"{name}: {_figure(value)}", "detail"))
    return parts, bottom + FOOT


def _height(row: Row) -> float:
    return len(row.marks) * THICK + GAP


def _row(row: Row, axis: Axis, top: float, *, spans: bool) -> list[str]:
    middle = top + len(row.marks) * THICK / 2
    parts = [text(EDGE, middle + (-1 if row.detail else 4), row.label, "title")]
    if row.detail:
        parts.append(text(EDGE, middle + 12, row.detail, "detail"))
    for n, mark in enumerate(row.marks):
        y = top + n * THICK
        if spans:
            parts += _span(mark, n + 1, axis, y)
        else:
            parts += _bar(mark, n + 1, axis, y, row.aim if n + 1 == len(row.marks) else None)
    return parts


def _bar(mark: Mark, server: int, axis: Axis, y: float, aim: float | None) -> list[str]:
    zero, x, low, high, middle = axis.at(0), axis.at(mark.at), axis.at(mark.low), axis.at(mark.high), y + THICK / 2
    goal = axis.at(0 if aim is None else aim)
    aims = [] if aim is None else [f'<path class="limit" d="M{goal:.1f} {y - 1:.1f}v{THICK + 1}"/>']
    return [
        f'<rect class="s{server}" x="{zero:.1f}" y="{y + 0.5:.1f}" width="{x - zero:.1f}" height="{THICK - 2}"/>',
        f'<path class="whisker" d="M{low:.1f} {middle:.1f}H{high:.1f}m0 -3v6M{low:.1f} {middle - 3:.1f}v6"/>',
        *aims,
        text(max(x, high, goal) + 6, middle + 4, _figure(mark.at), "detail"),
    ]


def _span(mark: Mark, server: int, axis: Axis, y: float) -> list[str]:
    low, high, middle = axis.at(mark.low), axis.at(mark.high), y + THICK / 2
    return [
        f'<path class="s{server} span" d="M{low:.1f} {middle:.1f}H{high:.1f}"/>',
        f'<circle class="s{server}" r="4" cx="{low:.1f}" cy="{middle:.1f}"/>',
        f'<circle class="s{server} end paper" r="3.5" cx="{high:.1f}" cy="{middle:.1f}"/>',
        text(high + 9, middle + 4, f"{_figure(mark.low)} · {_figure(mark.high)}", "detail"),
    ]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
