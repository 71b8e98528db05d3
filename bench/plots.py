"""Plots as SVG, small enough to be kept beside the page that shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 440, 260  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 70, 34, 34, 44  # around its axes
COLUMNS = 2
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.axis { stroke: #57606a; fill: none }
.grid { stroke: #d0d7de; fill: none }
.dot { fill: #0969da }
.line { stroke: #0969da; fill: none; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .axis { stroke: #8b949e } .grid { stroke: #30363d }
  .dot { fill: #58a6ff } .line { stroke: #58a6ff }
}
"""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: points that were measured, and a line that they should lie on."""

    title: str
    x: str
    y: str
    points: Sequence[Point]
    line: Sequence[Point] = ()
    is_log_x: bool = True
    is_log_y: bool = False


class _Axis:
    """From a value to a place between `begin` and `end`."""

    def __init__(self, values: Sequence[float], begin: float, end: float, *, is_log: bool) -> None:
        self._is_log = is_log
        self._begin, self._end = begin, end
        self._low = 0.0
        most = max(values)
        if is_log:
            self._low = float(math.floor(math.log10(min(values))))
            self._high = max(float(math.ceil(math.log10(most))), self._low + 1)
            self.ticks = [10.0**power for power in range(int(self._low), int(self._high) + 1)]
        else:
            step = _round_step(most / 4)
            self.ticks = [step * n for n in range(math.ceil(most * 1.05 / step) + 1)]
            self._high = self.ticks[-1]

    def at(self, value: float) -> float:
        place = math.log10(value) if self._is_log else value
        return self._begin + (place - self._low) / (self._high - self._low) * (self._end - self._begin)


def _round_step(about: float) -> float:
    power = 10.0 ** math.floor(math.log10(about))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= about)


def draw(panels: Sequence[Panel]) -> str:
    """The panels in a picture, two beside each other."""
    rows = math.ceil(len(panels) / COLUMNS)
    width, height = WIDTH * min(COLUMNS, len(panels)), HEIGHT * rows
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">']
    parts.append(f"<style>{STYLE}</style>")
    for n, panel in enumerate(panels):
        parts.append(f'<g transform="translate({n % COLUMNS * WIDTH} {n // COLUMNS * HEIGHT})">')
        parts += _panel(panel)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel) -> list[str]:
    everything = [*panel.points, *panel.line]
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    x = _Axis([point[0] for point in everything], LEFT, right, is_log=panel.is_log_x)
    y = _Axis([point[1] for point in everything], bottom, TOP, is_log=panel.is_log_y)
    parts = [_text(LEFT, 18, f"{panel.title}, {panel.y}", "title")]
    for tick in y.ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y.at(tick):.1f}H{right}"/>')
        parts.append(_text(LEFT - 6, y.at(tick) + 4, _number(tick), anchor="end"))
    for tick in x.ticks:
        parts.append(f'<path class="axis" d="M{x.at(tick):.1f} {bottom}v4"/>')
        parts.append(_text(x.at(tick), bottom + 17, _number(tick), anchor="middle"))
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    parts.append(_text((LEFT + right) / 2, HEIGHT - 8, panel.x, anchor="middle"))
    if panel.line:
        path = "L".join(f"{x.at(a):.1f} {y.at(b):.1f}" for a, b in panel.line)
        parts.append(f'<path class="line" d="M{path}"/>')
    parts += [f'<circle class="dot" r="4" cx="{x.at(a):.1f}" cy="{y.at(b):.1f}"/>' for a, b in panel.points]
    return parts


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
