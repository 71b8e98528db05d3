"""A result as a page that needs nothing else: no script, no other file, no network. Pure."""

from collections.abc import Callable, Iterable, Sequence
from html import escape

from server.cli.load.plots import WIDE, Line, histogram, lines
from server.cli.load.result import Latency, Result, Second
from server.cli.load.summary import remarks, title

STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #ffffff; --ink: #1d1f21; --soft: #5f6368; --rule: #e3e3df;
  --s1: #1f6fd6; --s2: #c4650a; --s3: #8a3ea8; --s4: #2a8451; --good: #1f7a45; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15171a; --card: #1d2024; --ink: #e9eaec; --soft: #a2a8b0; --rule: #33383f;
    --s1: #6aa9ff; --s2: #f0a04b; --s3: #cf93e6; --s4: #67c792; --good: #67c792; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 28px 20px 60px; max-width: 1640px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 0 0 8px; }
p { margin: 4px 0; color: var(--soft); max-width: 100ch; }
.verdict { font-weight: 600; } .good { color: var(--good); } .bad { color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin: 20px 0; }
.tile, section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 24px; font-weight: 600; } .tile span { color: var(--soft); font-size: 13px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 16px; }
section { overflow-x: auto; } section.all { grid-column: 1 / -1; } section.wide { margin-top: 16px; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.grid { stroke: var(--rule); stroke-width: 1; } .line { fill: none; stroke-width: 2; stroke-linejoin: round;
  stroke-linecap: round; }
.point { opacity: 0; } .point:hover { opacity: 1; } .bar { opacity: .85; } .bar:hover { opacity: 1; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 13px; color: var(--soft); margin-bottom: 6px; }
.legend i { display: inline-block; width: 14px; height: 3px; margin: 0 6px 4px 0; border-radius: 2px; }
.legend .unit { margin-left: auto; }
.line.s1 { stroke: var(--s1); } .line.s2 { stroke: var(--s2); } .line.s3 { stroke: var(--s3); }
.line.s4 { stroke: var(--s4); }
.bar.s1, .point.s1 { fill: var(--s1); } .bar.s2, .point.s2 { fill: var(--s2); } .bar.s3, .point.s3 { fill: var(--s3); }
.bar.s4, .point.s4 { fill: var(--s4); }
i.s1 { background: var(--s1); } i.s2 { background: var(--s2); } i.s3 { background: var(--s3); }
i.s4 { background: var(--s4); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 500; color: var(--soft); } .n { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: 13px; word-break: break-all; }
"""


def page(result: Result) -> str:
    """The whole page."""
    verdict = "Every check held." if result.ok else "Not every check held."
    body = [
        "<h1>A load test of Parley</h1>",
        f"<p>{escape(title(result))} · {escape(result.started_at)} · {escape(', '.join(result.options.urls))}</p>",
        f'<p class="verdict {"good" if result.ok else "bad"}">{"✓" if result.ok else "✗"} {verdict}</p>',
        _tiles(result),
        f'<div class="plots">{"".join(_plots(result))}</div>',
        _section("Checks", _checks(result)),
        _section("Latency", _latencies(result)),
        _section("Remarks", "".join(f"<p>{escape(each)}</p>" for each in remarks(result))),
        _section("Options", _options(result)),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Parley: {escape(title(result))}</title><style>{STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{"".join(body)}\n</body></html>\n'


def _tiles(result: Result) -> str:
    shown: list[tuple[str, str]] = [("sockets", f"{result.people:,}")]
    if result.sent:
        shown += [
            ("acked sends a second", f"{result.sends_per_s:,.0f}"),
            ("deliveries a second", f"{result.deliveries_per_s:,.0f}"),
            ("ack, p99", _ms(result.ack.p99_ms)),
            ("delivery, p99", _ms(result.delivery.p99_ms)),
        ]
    if result.options.negotiate:
        shown += [
            ("haggling moves a second", f"{result.moves_per_s:,.0f}"),
            ("move, p99", _ms(result.move.p99_ms)),
            ("deals", f"{result.agreed:,}"),
        ]
    shown.append(("rate limits hit", f"{result.rate_limited:,}"))
    shown.append(("other errors", f"{sum(result.errors.values()):,}"))
    tiles = (f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in shown)
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _plots(result: Result) -> Iterable[str]:
    # The last second is seldom whole.
    by_second = {each.second: each for each in result.seconds}
    seconds = [by_second.get(second) for second in range(max(1, int(result.ran_s)))]
    for name, series in _COUNTS:
        counts = [Line(of, _values(seconds, count)) for of, count in series]
        shown = [line for line in counts if any(line.values)]
        if shown:
            drawn = lines(shown, unit="a second", name=f"{name} over time", width=WIDE)
            yield f'<section class="all"><h2>{name}</h2>{drawn}</section>'
    for name, whole, of in _kinds(result):
        if whole.count:
            yield _card(f"{name}, over time", _over_time(seconds, of, name))
            yield _card(f"{name}, all of them", histogram(whole.buckets, unit="ms", name=f"Histogram: {name}"))


_COUNTS: Sequence[tuple[str, Sequence[tuple[str, Callable[[Second], int]]]]] = (
    ("Sends and moves", (("acked sends", lambda each: each.acked), ("moves", lambda each: each.move.count))),
    ("Deliveries", (("deliveries", lambda each: each.delivered),)),
    (
        "What was refused",
        (
            ("rate limits hit", lambda each: each.rate_limited),
            ("somebody else was faster", lambda each: each.lost),
            ("errors", lambda each: each.errors),
        ),
    ),
)
Of = Callable[[Second], Latency]


def _kinds(result: Result) -> Sequence[tuple[str, Latency, Of]]:
    return (
        ("From a send to its ack", result.ack, lambda each: each.ack),
        ("From a send to each member", result.delivery, lambda each: each.delivery),
        ("From a move to its answer", result.move, lambda each: each.move),
        ("From a move to each side", result.told_after, lambda each: each.told),
    )


def _over_time(seconds: Sequence[Second | None], of: Of, name: str) -> str:
    series = [
        Line("p50", _values(seconds, lambda each: of(each).p50_ms)),
        Line("p95", _values(seconds, lambda each: of(each).p95_ms)),
        Line("p99", _values(seconds, lambda each: of(each).p99_ms)),
    ]
    return lines(series, unit="ms", name=f"{name}: percentiles over time")


def _values(seconds: Sequence[Second | None], of: Callable[[Second], float | None]) -> list[float | None]:
    """A value for each second, None for those of which nothing is known."""
    return [None if each is None else of(each) for each in seconds]


def _checks(result: Result) -> str:
    rows = []
    for check in result.checks:
        mark = '<span class="good">✓</span>' if check.held else f'<span class="bad">✗ {check.broken:,}</span>'
        examples = "".join(f"<br><code>{escape(each)}</code>" for each in check.examples)
        rows.append(f"<tr><td>{mark}</td><td>{escape(check.promise)}{examples}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _latencies(result: Result) -> str:
    rows = [
        f"<tr><td>{escape(name)}</td>"
        + "".join(f'<td class="n">{_ms(p)}</td>' for p in (each.p50_ms, each.p95_ms, each.p99_ms, each.max_ms))
        + f'<td class="n">{each.count:,}</td></tr>'
        for name, each, _ in _kinds(result)
        if each.count
    ]
    heads = "".join(f'<th class="n">{name}</th>' for name in ("p50", "p95", "p99", "longest", "count"))
    return f"<table><tr><th></th>{heads}</tr>{''.join(rows)}</table>"


def _options(result: Result) -> str:
    options = result.options
    shown = {name: getattr(options, name) for name in options.__struct_fields__ if name != "urls"}
    shown |= {"workers that ran": result.cost.workers, "busiest worker, of a core": f"{result.cost.busiest:.0%}"}
    shown["workers were late, p99"] = _ms(result.cost.late_p99_ms)
    rows = (f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>" for name, value in shown.items())
    return f"<table>{''.join(rows)}</table>"


def _section(name: str, inner: str) -> str:
    return f'<section class="wide"><h2>{escape(name)}</h2>{inner}</section>'


def _card(name: str, inner: str) -> str:
    return f"<section><h2>{escape(name)}</h2>{inner}</section>"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f} ms" if value >= 1 else f"{value:.2f} ms"
