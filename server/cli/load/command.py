"""`parley load` as it is typed, and what it prints."""

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from server.config import Config, load
from server.errors import Invalid

if TYPE_CHECKING:
    from server.cli.load.measure import Span
    from server.cli.load.options import Options
    from server.cli.load.result import Result

EVERY_IPV4 = "0.0.0.0"  # noqa: S104 # nosec B104 # recognised here, never bound
UNLIMITED = ("MESSAGE_SEND", "OFFER_MOVES", "WRITES", "CONNECTS", "HANDSHAKES")  # of the rates, in a server for tests

# A paragraph is a line: typer fills those, and leaves what is set in.
HELP = "\n\n".join(
    (
        "Simulate people who chat and haggle, and check that nothing was lost, doubled or out of order.",
        (
            "Without --tokens it makes people (load.<run>.<number>) and conversations in the database that `parley "
            "serve` would use here, whose schema it brings up to date, and leaves them there: use one that you can "
            "throw away. URL may be given several times, for several instances."
        ),
        (
            "Each closed loop sends again when it was answered, as fast as the server lets it; --rate sends so many a "
            "second in all, each to its time. The rate limits of a person slow such a test down, and are counted; "
            "start a server for tests with"
        ),
        "\n".join(f"  PARLEY_RATE_{name}=off \\" for name in UNLIMITED) + "\n  parley serve",
        "The exit code is 0 only where every check held. docs/load.md says what the figures mean.",
    )
)


def load_test(
    url: Annotated[
        list[str] | None, typer.Argument(help="The server; without it the one of PARLEY_HOST and PORT.")
    ] = None,
    sockets: Annotated[int, typer.Option(help="How many sockets are held, each by a person of its own.")] = 200,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="People talk two by two (so it is where nothing is said).")
    ] = False,
    groups: Annotated[int, typer.Option(metavar="N", help="People talk in groups of N.")] = 0,
    negotiate: Annotated[bool, typer.Option("--negotiate", help="People haggle: one sells, three want it.")] = False,
    senders: Annotated[int, typer.Option(help="How many of a conversation send; 0: all.")] = 0,
    rate: Annotated[
        float | None, typer.Option(help="Sends and moves a second in all; without it a closed loop.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long.")] = 30.0,
    sends: Annotated[int, typer.Option(help="How many sends and moves at most.")] = 1_000_000,
    drain: Annotated[float, typer.Option(help="Seconds at most to wait then for what is on its way.")] = 10.0,
    text: Annotated[int, typer.Option(help="Characters of a message.")] = 64,
    workers: Annotated[int, typer.Option(help="Processes that hold the sockets; 0: one a core.")] = 0,
    tokens: Annotated[Path | None, typer.Option(help="Access tokens, one a line, each of another person.")] = None,
    yes_remote: Annotated[
        bool, typer.Option("--yes-remote", help="The server is another machine, and it is mine.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write the result here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report with plots here, for a browser.")] = None,
) -> None:
    """See `HELP`. Raises `Invalid` for options that don't go together, `LoadFailed` where the test can't be made."""
    from server.cli.load.options import Options, check, is_local

    config = load(os.environ)
    options = Options(
        urls=[each.rstrip("/") for each in url or [_own(config)]],
        sockets=sockets,
        rate=rate,
        pairs=pairs or not (groups or negotiate),
        group=groups,
        negotiate=negotiate,
        senders=senders,
        text=text,
        seconds=seconds,
        sends=sends,
        drain=drain,
        workers=workers or len(os.sched_getaffinity(0)),
    )
    check(options, yes_remote=yes_remote)
    if tokens is None and config.database_url is None and not all(map(is_local, options.urls)):
        raise Invalid({}, "The people of another machine's server are not made here: give their --tokens.")
    for path in (json, html):
        if path is not None:
            _check_writable(path)
    result = _run(config, options, tokens)
    _show(result, Console(soft_wrap=True))
    if json is not None:
        _write(json, _encoded(result))
    if html is not None:
        from server.cli.load.page import page

        _write(html, page(result).encode())
    if not result.ok:
        raise SystemExit(1)


def _check_writable(path: Path) -> None:
    """Raises `Invalid` before the test, rather than have its report lost behind it."""
    try:
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise Invalid({}, f"{path} can't be written: {error.strerror}.") from None


def _write(path: Path, report: bytes) -> None:
    try:
        path.write_bytes(report)
    except OSError as error:
        raise Invalid({}, f"{path} could not be written: {error.strerror}. The figures are above.") from None


def _own(config: Config) -> str:
    if not config.port:
        raise Invalid({}, "PARLEY_PORT=0 is any port: give the URL.")
    host = {EVERY_IPV4: "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    return f"http://[{host}]:{config.port}" if ":" in host else f"http://{host}:{config.port}"


def _run(config: Config, options: "Options", tokens: Path | None) -> "Result":
    from server.cli.load.circles import read_tokens
    from server.cli.load.running import Running
    from server.cli.load.seeding import seed
    from server.cli.load.servers import find_servers

    circles = read_tokens(tokens, options) if tokens is not None else []
    asyncio.run(find_servers(options.urls))
    console = Console(stderr=True)
    if tokens is None:
        with console.status("Making people and conversations …"):
            circles = seed(config, options)
    with _Shown(console, options, sum(len(circle.people) for circle in circles)) as shown:
        return asyncio.run(Running(options, circles, shown).run())


class _Shown:
    """How it goes: a bar on a terminal, elsewhere nothing."""

    def __init__(self, console: Console, options: "Options", people: int) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._totals = {"connecting": float(people), "playing": options.seconds}
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "_Shown":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, phase: str, done: int, span: "Span | None") -> None:
        """Show how far a phase has come, and the last second's figures."""
        if phase not in self._tasks:
            self._tasks[phase] = self._progress.add_task(phase, total=self._totals[phase], figures="")
        figures = f"{done}/{self._totals[phase]:g}" if span is None else _line(span)
        self._progress.update(self._tasks[phase], completed=done, figures=figures)


def _line(span: "Span") -> str:
    from server.cli.load.measure import percentile

    parts = []
    if span.acked:
        p99 = (percentile(span.ack_s, 0.99) or 0) * 1000
        parts.append(f"{span.acked} sends/s, {span.delivered} deliveries/s, ack p99 {p99:.1f} ms")
    if span.move_s:
        parts.append(f"{sum(span.move_s.values())} moves/s, p99 {(percentile(span.move_s, 0.99) or 0) * 1000:.1f} ms")
    others = {name: count for name, count in span.errors.items() if not name.startswith("conflict")}
    parts += [f"{name} {count}" for name, count in others.items()]
    return ", ".join(parts)


def _encoded(result: "Result") -> bytes:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(result), indent=1)


def _show(result: "Result", console: Console) -> None:
    """The figures, what went wrong, and whether all held."""
    from server.cli.load.summary import remarks

    table = Table(
        Column(), *(Column(name, justify="right") for name in ("a second", "p50 ms", "p95 ms", "p99 ms")), box=None
    )
    for name, rate, latency in (
        ("acked sends", result.sends_per_s, result.ack),
        ("deliveries", result.deliveries_per_s, result.delivery),
        ("haggling moves", result.moves_per_s, result.move),
        ("until a side is told", result.told_per_s, result.told_after),
    ):
        if latency.count:
            points = (latency.p50_ms, latency.p95_ms, latency.p99_ms)
            table.add_row(name, f"{rate:,.0f}", *("" if point is None else f"{point:,.2f}" for point in points))
    console.print(table)
    for remark in remarks(result):
        console.print(remark, markup=False, highlight=False)
    broken = [check for check in result.checks if not check.held]
    for check in broken:
        console.print(f"[red]BROKEN[/red], {check.broken} times: {check.promise}", highlight=False)
        for example in check.examples:
            console.print(f"  {example}", markup=False, highlight=False)
    held = len(result.checks) - len(broken)
    console.print(f"{held} of {len(result.checks)} checks held.", highlight=False, style="" if broken else "green")
    if broken:
        print("parley: not every check held.", file=sys.stderr)
