"""A load that is held: `python -m bench.held`.

Two instances of Parley with everything on, their PostgreSQL, their Redis and the load generator together on two cores.
2,000 sockets, half of them in pairs, half in groups of 10, each connected to one of the instances. Messages are sent at
a rate by everybody in turn, whatever comes back: a latency is counted from when its message was due. Checked: every
message acknowledged and delivered to each member once, in the room's order, without a gap; the rate; p99 of acks and
deliveries; and that no instance grows by more than 5 % after minute 2.
"""

from __future__ import annotations

import argparse

from bench.crowds import Crowd
from bench.machine import Cores
from bench.seeding import jwt, write_people
from bench.stage import DEFAULT_RATES, Verdict, Watch, conclude, run, some, staged

CROWDS = (Crowd("held-pairs", 1_000, 2, 1, 500), Crowd("held-groups", 1_000, 10, 1, 100))
SETTLED_S, OVER_S = 120.0, 15.0  # memory is compared from minute 2 on, as medians of so many seconds
LEAST_RATE, ACK_MS, DELIVERY_MS, GROWTH = 500, 100.0, 250.0, 0.05


def main() -> int:
    """Hold it; 0 where everything did."""
    options = _options()
    cores = Cores.shared()
    seconds = options.minutes * 60
    with staged(cores, secs=seconds) as stage:
        site = stage.parley(CROWDS)
        people = stage.folder / "held.people"
        write_people(CROWDS, 2, jwt(stage.secret), people, everybody=True)
        servers = stage.serve(site, DEFAULT_RATES, instances=2)
        watch = Watch([server.pid for server in servers])
        asked = {"--bus": stage.redis.pid, "--hello-rooms": 1, "--secs": seconds, "--warm": 2, "--rate": options.rate}
        figures = stage.load.drive(people, servers, asked, meanwhile=watch.look)
        errors = site.errors()
    growth = watch.growth(SETTLED_S, OVER_S)
    counts = f"{figures['acks']:,} acks, {figures['delivered']:,} deliveries"
    return conclude(
        [
            Verdict("nothing lost, doubled, out of order", counts, "0 wrong", bool(figures["ok"])),
            Verdict("errors logged", some(errors), "0", not errors),
            _least("committed sends a second", figures["sends_per_s"], LEAST_RATE),
            _most("ack p99", figures["ack_p99_ms"], ACK_MS),
            _most("delivery p99", figures["delivery_p99_ms"], DELIVERY_MS),
            Verdict(
                "memory, from minute 2 to the end",
                "too short to tell" if growth is None else f"{growth:+.1%}",
                f"≤ {GROWTH:.0%}",
                None if growth is None else growth <= GROWTH,
            ),
            Verdict(
                "beside it: ack p50, delivery p50, servers' CPU, generator's CPU",
                f"{figures['ack_p50_ms']:.1f} ms, {figures['delivery_p50_ms']:.1f} ms,"
                f" {figures['server_cpu_percent']:.0f} %, {figures['load_cpu_percent']:.0f} %",
                "-",
                None,
            ),
        ],
        "Load held",
        "held" if options.write else None,
        f"python -m bench.held --minutes {options.minutes:g} --rate {options.rate:g} --write",
        "Two instances, PostgreSQL, Redis and the load generator on two cores; 2,000 sockets, half in pairs, half in"
        f" groups of 10; {options.rate:g} messages a second by everybody in turn, whatever comes back; latencies are"
        " counted from when a message was due. Rate limits are as by default.",
    )


def _least(measure: str, figure: float, must: float) -> Verdict:
    return Verdict(measure, f"{figure:,.0f}", f"≥ {must:,.0f}", figure >= must)


def _most(measure: str, ms: float, must: float) -> Verdict:
    return Verdict(measure, f"{ms:.1f} ms", f"≤ {must:g} ms", ms <= must)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.held", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--rate", type=float, default=550.0, help="messages a second (550)")
    parser.add_argument("--quick", action="store_true", help="ten seconds: does it work?")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    if options.quick:
        options.minutes = 1 / 6
    if not (0.05 <= options.minutes <= 60 and 1 <= options.rate <= 20_000):
        parser.error("--minutes is 0.05 to 60, --rate 1 to 20,000")
    if options.write and options.minutes < 10:
        parser.error("--write is for a run of 10 minutes or more")
    return options


if __name__ == "__main__":
    run(main)
