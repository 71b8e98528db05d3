"""Plots as SVG, drawn by hand and coloured by the page's style sheet. Pure."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

WIDTH, WIDE, HEIGHT = 760, 1540, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 34
MOST_POINTS = 240  # of a line: more than that are told apart by nobody
MOST_BARS = 60


class Line(NamedTuple):
    """A series: its name and a value for each x, None where there is none."""

    name: str
    values: Sequence[float | None]


def lines(series: Sequence[Line], *, unit: str, name: str, width: int = WIDTH) -> str:
    """Lines over seconds, each in a colour of its own, with a legend and what each point says."""
    count = max((len(each.values) for each in series), default=0)
    step = max(1, math.ceil(count / MOST_POINTS))
    thinned = [Line(each.name, _thinned(each.values, step)) for each in series]
    most = max((value for each in thinned for value in each.values if value is not None), default=0)
    ticks = _ticks(most)
    across = _scale(0, max(1, (count - 1)), LEFT, width - RIGHT)
    up = _scale(0, ticks[-1], HEIGHT - BOTTOM, TOP)
    drawn = [_grid(ticks, up, width), _seconds(count, across, width)]
    for number, each in enumerate(thinned):
        path, is_drawn = "", False  # a line is broken where there was nothing; a point alone is a dot
        for n, value in enumerate(each.values):
            if value is not None:
                path += f"{'L' if is_drawn else 'M'}{across(n * step):.1f} {up(value):.1f}{'' if is_drawn else 'h0'}"
            is_drawn = value is not None
        drawn.append(f'<path class="line s{number + 1}" d="{path}"/>')
        for n, value in enumerate(each.values):
            if value is not None:
                said = f"{each.name}, second {n * step + 1}: {_short(value)} {unit}"
                drawn.append(_point(across(n * step), up(value), number, said))
    legend = "".join(
        f'<span><i class="s{number + 1}"></i>{escape(each.name)}</span>' for number, each in enumerate(series)
    )
    return f'<div class="legend">{legend}<span class="unit">{escape(unit)}</span></div>{_svg(name, drawn, width)}'


def histogram(buckets: Sequence[tuple[float, int]], *, unit: str, name: str, number: int = 0) -> str:
    """How often each duration was seen; both ends on a logarithmic axis, for most are short and a few are long."""
    if not buckets:
        return ""
    low, high = max(buckets[0][0], 0.01), max(buckets[-1][0], 0.02) * 1.04
    width = math.log(high / low) / MOST_BARS or 1.0
    bars = [0] * (MOST_BARS + 1)
    for value, count in buckets:
        bars[min(MOST_BARS, max(0, int(math.log(max(value, low) / low) / width)))] += count
    ticks = _ticks(max(bars))
    across = _scale(0, len(bars), LEFT, WIDTH - RIGHT)
    up = _scale(0, ticks[-1], HEIGHT - BOTTOM, TOP)
    drawn = [_grid(ticks, up, WIDTH)]
    for n, count in enumerate(bars):
        if count:
            said = f"{_short(low * math.exp(n * width))} to {_short(low * math.exp((n + 1) * width))} {unit}: {count:,}"
            x, y = across(n), up(count)
            drawn.append(
                f'<rect class="bar s{number + 1}" x="{x:.1f}" y="{y:.1f}" width="{across(1) - across(0) - 1:.1f}" '
                f'height="{max(0.5, HEIGHT - BOTTOM - y):.1f}"><title>{escape(said)}</title></rect>'
            )
    for value in _decades(low, high):
        x = across(math.log(value / low) / width)
        drawn.append(_text(x, HEIGHT - BOTTOM + 18, _short(value), "middle"))
    return f'<div class="legend"><span class="unit">{escape(unit)}, by count</span></div>{_svg(name, drawn, WIDTH)}'


def _svg(name: str, drawn: Sequence[str], width: int) -> str:
    return (
        f'<svg viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{escape(name)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(drawn)}</svg>'
    )


def _thinned(values: Sequence[float | None], step: int) -> list[float | None]:
    """One of every `step` values: the highest, so that no peak is hidden."""
    groups = (values[at : at + step] for at in range(0, len(values), step))
    return [max((value for value in group if value is not None), default=None) for group in groups]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / ((high - low) or 1) * (end - start)


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 to what is not less than the most."""
    rough = (most or 1) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    return [step * n for n in range(math.ceil((most or 1) / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every power of ten between two values."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [value for value in found if low <= value <= high]


def _grid(ticks: Sequence[float], up: Callable[[float], float], width: int) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>'
        + _text(LEFT - 8, up(tick) + 4, _short(tick), "end")
        for tick in ticks
    )


def _seconds(count: int, across: Callable[[float], float], width: int) -> str:
    step = next((each for each in (1, 2, 5, 10, 30, 60, 120, 300, 600) if count / each <= 10), 1200)
    marks = [n for n in range(count) if (n + 1) % step == 0]
    named = "".join(_text(across(n), HEIGHT - BOTTOM + 18, str(n + 1), "middle") for n in marks)
    return named + _text(width - RIGHT, HEIGHT - 2, "seconds", "end")


def _point(x: float, y: float, number: int, said: str) -> str:
    return f'<circle class="point s{number + 1}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(said)}</title></circle>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
