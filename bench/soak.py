"""Memory over a soak: `python -m bench.soak`.

People come and go as fast as they can: connect, say hello and leave in every way there is; are refused; send a message
and are gone before its ack; cut the connection within the handshake, within a frame, before they connect, while their
connect is judged; poll and never come back. Checked: each acked message is in the database once; no error in the log;
afterwards sessions, tasks and descriptors are what they were before; and memory grows by no more than 5 % from minute 2
to the end.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import asyncpg

from bench.comers import Comers
from bench.crowds import pairs
from bench.machine import Cores
from bench.seeding import jwt
from bench.services import Process
from bench.stage import DEFAULT_RATES, Verdict, Watch, conclude, descriptors, run, some, staged

CROWD = pairs(200, senders=0)
AT_ONCE = 32
WARM_S = 10.0  # of the same, before what there is counts as what there was
SETTLED_S, OVER_S = 120.0, 15.0  # memory is compared from minute 2 on, as medians of so many seconds
BACK_S = 60.0
GROWTH = 0.05
SETTINGS = {
    # Polling clients that never come back are given up soon, and the pool has one size: what is left can be told.
    "PARLEY_PING_INTERVAL_MS": "2000",
    "PARLEY_PING_TIMEOUT_MS": "2000",
    "PARLEY_CONNECT_TIMEOUT_MS": "2000",
    "PARLEY_POOL_MIN": "10",
    "PARLEY_POOL_MAX": "10",
    "PARLEY_TAIL_BYTES": "1000000",  # full within a minute, however busy the machine
    "PARLEY_RATE_HANDSHAKES": "off",  # they come faster than any server should be asked for
}

Held = dict[str, int]
"""What the server holds: sessions, tasks, descriptors."""


async def come_and_go(comers: Comers, seconds: float, watch: Watch | None) -> None:
    """Let so many at once come and go for so long."""
    ends = time.monotonic() + seconds

    async def one_after_the_other(seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() < ends:
            await comers.one(draw)

    async def look() -> None:
        while watch is not None and time.monotonic() < ends:
            watch.look()
            await asyncio.sleep(1)

    await asyncio.gather(look(), *(one_after_the_other(seed) for seed in range(AT_ONCE)))


async def held_by(server: Process) -> Held:
    """What the server holds now, while it is asked."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    gauges = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("parley_"))
    return {
        "sessions": int(float(gauges["parley_sessions"])),
        "tasks": int(float(gauges["parley_tasks"])),
        "descriptors": descriptors(server.pid),
    }


async def settled(server: Process, wanted: Held | None) -> tuple[Held, float]:
    """What is held when everybody has gone, or all that was held before is reached, and how long that took."""
    begun = time.monotonic()
    before: Held = {}
    while True:
        now = await held_by(server)
        is_back = now == before and not now["sessions"] if wanted is None else _is_within(now, wanted)
        if is_back or time.monotonic() - begun > BACK_S:
            return now, time.monotonic() - begun
        before = now
        await asyncio.sleep(1)


def _is_within(now: Held, wanted: Held) -> bool:
    return all(now[name] <= count for name, count in wanted.items())


async def count_stored(dsn: str, acked: set[str]) -> Counter[str]:
    """How often each message is stored, of those that were acked."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("select client_id from messages")
    finally:
        await connection.close()
    return Counter(row[0] for row in rows if row[0] in acked)


async def soak(
    server: Process, dsn: str, comers: Comers, seconds: float, warm_s: float
) -> tuple[Held, Held, float, Watch, int]:
    """What was held before and after, how long it took to come back, the memory, and how many are not stored once."""
    await come_and_go(comers, warm_s, None)
    before, _ = await settled(server, None)
    watch = Watch([server.pid])
    await come_and_go(comers, seconds, watch)
    after, back_s = await settled(server, before)
    stored = await count_stored(dsn, comers.acked)
    wrong = sum(stored[client_id] != 1 for client_id in comers.acked)
    return before, after, back_s, watch, wrong


def main() -> int:
    """Soak; 0 where everything came back."""
    options = _options()
    with staged(Cores.of_this_machine(), tools=("taskset",)) as stage:
        site = stage.parley([CROWD])
        (server,) = stage.serve(site, DEFAULT_RATES | SETTINGS)
        mint = jwt(stage.secret)
        talks = [str(CROWD.conversation_ids[CROWD.talks_in(n)]) for n in range(CROWD.people)]
        comers = Comers(server.port, [(mint(CROWD, n), talks[n]) for n in range(CROWD.people)])
        work = soak(server, site.dsn, comers, options.minutes * 60, 2.0 if options.quick else WARM_S)
        before, after, back_s, watch, wrong = asyncio.run(work)
        errors = site.errors()
        _keep(options.log, site.log)
    growth = watch.growth(SETTLED_S, OVER_S)
    counts = ", ".join(f"{name} {count:,}" for name, count in sorted(comers.done.items()))
    return conclude(
        [
            Verdict(
                "acked messages stored once",
                f"{len(comers.acked) - wrong:,} of {len(comers.acked):,}",
                "all",
                not wrong,
            ),
            Verdict("turned out otherwise than they should", some(comers.wrong), "0", not comers.wrong),
            Verdict("errors logged", some(errors), "0", not errors),
            *(
                Verdict(
                    f"{name}, before and after",
                    f"{before[name]}, {after[name]}",
                    "no more",
                    after[name] <= before[name],
                )
                for name in before
            ),
            Verdict("back after", f"{back_s:.0f} s", f"≤ {BACK_S:g} s", back_s <= BACK_S),
            Verdict(
                "memory, from minute 2 to the end",
                f"{watch.seen[-1][1][0] / 1024:.0f} MB"
                + (", too short to tell" if growth is None else f", {growth:+.1%}"),
                f"≤ {GROWTH:.0%}",
                None if growth is None else growth <= GROWTH,
            ),
            Verdict("who came", f"{sum(comers.done.values()):,}: {counts}", "-", None),
        ],
        f"Soak, {options.minutes:g} minutes",
        "soak" if options.write else None,
        f"python -m bench.soak --minutes {options.minutes:g} --write",
        f"{AT_ONCE} at once connect, are refused, talk, leave, and cut the connection wherever it can be cut, as fast"
        " as they can.",
    )


def _keep(into: Path | None, log: Path) -> None:
    if into is not None:
        into.write_bytes(log.read_bytes())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--quick", action="store_true", help="five seconds: does it work?")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the server's log there")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    if options.quick:
        options.minutes = 1 / 12
    if not 0.05 <= options.minutes <= 120:
        parser.error("--minutes is 0.05 to 120")
    if options.write and options.minutes < 10:
        parser.error("--write is for a run of 10 minutes or more")
    return options


if __name__ == "__main__":
    run(main)
