"""Plots as SVG, small enough to be kept beside the page that shows them, and to be read on light paper and on dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 440, 260  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 70, 34, 34, 44  # around its axes
COLUMNS = 2
# A paper of its own: who sees the picture may have told their browser otherwise than the page that shows it.
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.detail { font-size: 11px; fill: #57606a }
.axis { stroke: #57606a }
.grid { stroke: #d8dee4 }
.limit, .whisker { stroke: #24292f }
.s1 { fill: #c4570a; stroke: #c4570a }
.s2 { fill: #0969da; stroke: #0969da }
.paper { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .detail { fill: #9198a1 } .axis { stroke: #9198a1 } .grid { stroke: #30363d }
  .limit, .whisker { stroke: #e6edf3 }
  .s1 { fill: #e8873a; stroke: #e8873a } .s2 { fill: #58a6ff; stroke: #58a6ff }
  .paper { fill: #0d1117 }
}
.axis, .grid, .limit, .whisker, .line, .span { fill: none }
.line, .limit { stroke-dasharray: 4 3 }
.span { stroke-width: 4; stroke-opacity: 0.45 }
.end { stroke-width: 2 }
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


class Axis:
    """From a value to a place between `begin` and `end`; `ticks` are round values along it.

    A straight axis begins at 0, a logarithmic one at a power of ten that is no more than the least of the values.
    """

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
        """The place of a value."""
        place = math.log10(value) if self._is_log else value
        return self._begin + (place - self._low) / (self._high - self._low) * (self._end - self._begin)


def _round_step(about: float) -> float:
    power = 10.0 ** math.floor(math.log10(about))
    return next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= about)


def draw(panels: Sequence[Panel]) -> str:
    """The panels in a picture, two beside each other."""
    parts = []
    for n, panel in enumerate(panels):
        parts.append(f'<g transform="translate({n % COLUMNS * WIDTH} {n // COLUMNS * HEIGHT})">')
        parts += _panel(panel)
        parts.append("</g>")
    return picture(WIDTH * min(COLUMNS, len(panels)), HEIGHT * math.ceil(len(panels) / COLUMNS), parts)


def _panel(panel: Panel) -> list[str]:
    everything = [*panel.points, *panel.line]
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    x = Axis([point[0] for point in everything], LEFT, right, is_log=panel.is_log_x)
    y = Axis([point[1] for point in everything], bottom, TOP, is_log=panel.is_log_y)
    parts = [text(LEFT, 18, f"{panel.title}, {panel.y}", "title")]
    for tick in y.ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y.at(tick):.1f}H{right}"/>')
        parts.append(text(LEFT - 6, y.at(tick) + 4, number(tick), anchor="end"))
    for tick in x.ticks:
        parts.append(f'<path class="axis" d="M{x.at(tick):.1f} {bottom}v4"/>')
        parts.append(text(x.at(tick), bottom + 17, number(tick), anchor="middle"))
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    parts.append(text((LEFT + right) / 2, HEIGHT - 8, panel.x, anchor="middle"))
    if panel.line:
        path = "L".join(f"{x.at(a):.1f} {y.at(b):.1f}" for a, b in panel.line)
        parts.append(f'<path class="s2 line" d="M{path}"/>')
    parts += [f'<circle class="s2" r="4" cx="{x.at(a):.1f}" cy="{y.at(b):.1f}"/>' for a, b in panel.points]
    return parts


def picture(width: int, height: int, parts: Sequence[str]) -> str:
    """A whole SVG of these parts."""
    paper = f'<rect class="paper" width="{width}" height="{height}" rx="6"/>'
    begin = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">'
    return "\n".join([begin, f"<style>{STYLE}</style>", paper, *parts, "</svg>", ""])


def number(value: float) -> str:
    """A round value, as it stands at an axis."""
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Words, which begin, end or have their middle at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'
