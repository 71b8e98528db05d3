"""What a message takes on the disk, and in the WAL: `python -m bench.disk`.

Pairs of people say ten words each time, of a vocabulary in which few are frequent, over HTTP and 64 at once, to a
server whose database is fresh. Then PostgreSQL is asked for the size of each table with its indexes, after a vacuum,
less what it was before; and for the WAL that was written meanwhile, with `full_page_writes` off: how many pages are
written whole depends on how often checkpoints come. The sizes of tables of which a send only changes rows are left out:
what grows there is taken again.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import aiohttp
import asyncpg
from rich.console import Console
from rich.table import Table

from bench import pages
from bench.crowds import Crowd, pairs
from bench.machine import BenchError, Cores, describe
from bench.seeding import jwt
from bench.stage import run, some, staged

SENDS, WORDS, AT_ONCE = 19_200, 10, 64
VOCABULARY = 20_000  # words of one to four syllables, of two letters each
SYLLABLES = [c + v for c in "bdfghklmnprstvwz" for v in "aeiou"]
CHANGED = {"rooms", "participants"}  # a send changes rows here, and adds none
LOG = "room_events"
LEAST_B = 1.0  # a message; what takes less is left out
PEOPLE = pairs(1_000, senders=256)

SIZES = """
select relname, pg_total_relation_size(oid) from pg_class
 where relkind = 'r' and relnamespace = 'public'::regnamespace
"""


@dataclass(frozen=True)
class Taken:
    """What so many sends took: bytes by table, and of WAL."""

    sends: int
    tables: Mapping[str, int]
    wal: int

    @property
    def rows(self) -> list[tuple[str, str]]:
        """What a message takes, in bytes: of the log, of the rest, and by table."""
        each = {name: size / self.sends for name, size in self.tables.items() if name not in CHANGED}
        log = each.pop(LOG)
        parts = sorted(((size, name) for name, size in each.items() if size >= LEAST_B), reverse=True)
        return [
            ("for good", f"{sum(each.values()):,.0f}"),
            *((f"of it `{name}`", f"{size:,.0f}") for size, name in parts),
            ("for as long as the log is kept", f"{log:,.0f}"),
            ("WAL, without whole pages", f"{self.wal / self.sends:,.0f}"),
        ]


def texts(seed: int) -> Iterator[str]:
    """Ten words each, the second as frequent as half the first, and so on."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(VOCABULARY)]
    weights = list(itertools.accumulate(1 / (n + 1) for n in range(VOCABULARY)))
    while True:
        yield " ".join(rng.choices(words, cum_weights=weights, k=WORDS))


async def talk(url: str, secret: str, crowd: Crowd, sends: int) -> None:
    """Send so many messages, by everybody who sends in turn."""
    mint, said, numbers = jwt(secret), texts(1), iter(range(sends))
    senders = [n for n in range(crowd.people) if crowd.sends(n)]
    tokens = {n: mint(crowd, n) for n in senders}

    async def worker(http: aiohttp.ClientSession) -> None:
        for number in numbers:
            who = senders[number % len(senders)]
            room = crowd.conversation_ids[crowd.talks_in(who)]
            asked = {"conversation_id": str(room), "client_id": f"disk-{number:032}", "text": next(said)}
            headers = {"Authorization": f"Bearer {tokens[who]}"}
            async with http.post(f"{url}/api/message/send", json=asked, headers=headers) as response:
                if response.status != 200:
                    raise BenchError(f"A message was refused: {await response.text()}")

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        await asyncio.gather(*(worker(http) for _ in range(AT_ONCE)))


async def measure(dsn: str, url: str, secret: str, crowd: Crowd, sends: int) -> Taken:
    """Talk, between two looks at the tables and the WAL."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("alter system set full_page_writes = off")
        await connection.execute("select pg_reload_conf()")
        await connection.execute("vacuum")
        before = await _sizes(connection)
        began = await connection.fetchval("select pg_current_wal_insert_lsn()")
        await talk(url, secret, crowd, sends)
        wal = await connection.fetchval("select pg_current_wal_insert_lsn() - $1::pg_lsn", began)
        await connection.execute("vacuum")
        after = await _sizes(connection)
    finally:
        await connection.close()
    return Taken(sends, {name: size - before[name] for name, size in after.items()}, int(wal))


async def _sizes(connection: asyncpg.Connection) -> dict[str, int]:
    return {row["relname"]: row["pg_total_relation_size"] for row in await connection.fetch(SIZES)}


def write(taken: Taken, command: str) -> None:
    """The part of the page."""
    pages.write_part("disk", command, f"{_how(taken)}\n\n{pages.table(('a message takes', 'bytes'), taken.rows)}")


def _how(taken: Taken) -> str:
    return (
        f"{taken.sends:,} sends of ten words, {AT_ONCE} at once, into a fresh database; indexes included, and without"
        " what only changes (`rooms`, `participants`)."
    )


def main() -> int:
    """Send, and show what it took."""
    options = _options()
    with staged(Cores.of_this_machine(), tools=("taskset",)) as stage:
        stage.step_aside()
        site = stage.parley([PEOPLE])
        (server,) = stage.serve(site)
        url = f"http://127.0.0.1:{server.port}"
        taken = asyncio.run(measure(site.dsn, url, stage.secret, PEOPLE, options.sends))
        if errors := site.errors():
            raise BenchError(f"The server logged errors: {some(errors)}")
    table = Table("a message takes", "bytes")
    for row in taken.rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    console.print(f"{_how(taken)} {describe()}.")
    if options.write:
        write(taken, "python -m bench.disk --write")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.disk", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of it: does it work?")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    options.sends = SENDS // 10 if options.quick else SENDS
    if options.write and options.quick:
        parser.error("--write is for a whole run: leave out --quick")
    return options


if __name__ == "__main__":
    run(main)
