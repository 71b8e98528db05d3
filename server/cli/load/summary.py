"""What a person should know of a result beside its figures. Pure."""

from collections.abc import Iterator

from server.cli.load.result import Result

BUSY = 0.85  # of a core: above it a worker's own waiting shows in what it measures


def title(result: Result) -> str:
    """What was simulated, in a line."""
    options = result.options
    shapes = {"pairs": "in pairs", "groups": f"in groups of {options.group}", "tables": "haggling"}
    how = "in closed loops" if options.rate is None else f"at {options.rate:g} a second"
    return f"{result.people:,} people, {', '.join(shapes[shape] for shape, _ in options.sizes)}, {how}"


def remarks(result: Result) -> Iterator[str]:
    """A sentence each."""
    counted = [f"{result.acked:,} sends acked", f"{result.delivered:,} deliveries"] if result.sent else []
    if result.moved:
        counted += [f"{result.moved:,} moves", f"{result.agreed:,} deals"]
    early = ", stopped early" if result.stopped_early else ""
    if result.held_back:
        yield (
            f"The rate was not held: {result.held_back:,} of what was due was never sent. So the percentiles are too "
            "low. Give a lower --rate, more --sockets, or a longer --drain."
        )
    yield f"{title(result)}, for {result.ran_s:.1f} s{early}: {', '.join(counted)}."
    cost = result.cost
    if cost.each_us is not None:
        theirs = (
            f"the server's {cost.servers_each_us:,.0f} µs"
            if cost.servers_each_us is not None
            else "the server's unknown"
        )
        memory = f"; it holds {cost.servers_rss_mb:,.0f} MB" if cost.servers_rss_mb is not None else ""
        yield f"CPU a send or move: {theirs}, this program's {cost.each_us:,.0f} µs{memory}."
    if cost.busiest > BUSY:
        yield (
            f"A worker took {cost.busiest:.0%} of a core: its own queue is in these latencies. Give more --workers, "
            "fewer sockets or a --rate."
        )
    if result.rate_limited:
        yield (
            f"Rate limits were hit {result.rate_limited:,} times: people waited and sent again, so this is not what "
            "the server can do. `parley load --help` says how to turn them off."
        )
    if result.people < result.options.sockets:
        yield f"{result.options.sockets - result.people} of {result.options.sockets:,} sockets were left over."
    if result.tried:
        yield f"Moves that are not theirs to make were tried {result.tried:,} times."
    if result.reconnects:
        yield f"{result.reconnects:,} times a socket was cut, and came back."
    if result.conflicts:
        lost = ", ".join(f"{count:,} {name}" for name, count in result.conflicts.items())
        yield f"Somebody else was faster (no fault): {lost}."
    if result.errors:
        yield f"Errors: {', '.join(f'{count:,} {name}' for name, count in result.errors.items())}."
