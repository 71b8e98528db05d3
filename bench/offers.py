"""Offer moves a second, and how long each takes: `python -m bench.offers`.

A closed loop of workers, each with a seller and a buyer who haggle to the end: the buyer makes an offer, the seller
counters, the buyer counters, the seller accepts; then the worker goes on with the next buyer. Twice: all on one
listing, whose seller, stock and rooms they share, and each pair on one of 10,000 listings of a hundred sellers. One
server process on a core of its own; over HTTP, so that each move's session is looked up too. CPU is that of the
server's and PostgreSQL's processes by the scheduler's books, for each move.

`--profile` counts instead, of one server inside this process, the statements of each command and the time in them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import secrets
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch
from uuid import uuid4

import aiohttp
import asyncpg
from rich.console import Console
from rich.table import Table

from bench.crowds import Crowd
from bench.machine import Cores, describe
from bench.peers import PARLEY, RATES_OFF, Site
from bench.seeding import TOKEN_TTL_S
from bench.services import Postgres, Process
from server.app import Parley
from server.commands.tokens import Tokens
from server.config import load
from storage import _db

LISTINGS = 10_000
SELLERS = 100
BUYERS = 8_000
WORKERS = 32
WARM_S = 2.0
PROFILED = 20  # pairs
CROWD = Crowd("offers", people=SELLERS + BUYERS, size=2, rooms_each=0, senders=0)
MOVES = ("offer/make", "offer/counter", "offer/accept")

# The first is the hot one, with stock for everybody.
ROWS = """
insert into listings (
    listing_id, user_id, kind, title, description, price_amount, price_currency, category, quantity, expires_at)
select uuidv7(), ($1::uuid[])[1 + n % cardinality($1::uuid[])], 'for_sale', 'A lamp', 'Glows.', 10000, 'EUR', 'other',
       case n when 0 then 1000000 else 1 end, now() + interval '1 day'
  from generate_series(0, $2::int) as n
"""


class Pair(NamedTuple):
    """A listing, its seller and somebody who wants it."""

    listing_id: str
    seller: int
    buyer: int


@dataclass
class Taken:
    """How long moves took, in milliseconds, by command; and what was refused."""

    of: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    unavailable: int = 0

    @property
    def all(self) -> list[float]:
        """Of all commands."""
        return [each for taken in self.of.values() for each in taken]


@dataclass(frozen=True)
class Figures:
    """What a measurement says: CPU in microseconds a move."""

    title: str
    taken: Taken
    seconds: float
    server_us: float
    postgres_us: float


async def fill(dsn: str) -> list[str]:
    """The listings; their ids, the hot one first."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(ROWS, CROWD.user_ids[:SELLERS], LISTINGS)
        await connection.execute("insert into rooms (room_id, kind) select listing_id, 'listing' from listings")
        await connection.execute("vacuum analyze")
        return [str(row[0]) for row in await connection.fetch("select listing_id from listings order by listing_id")]
    finally:
        await connection.close()


def hot(listings: Sequence[str]) -> Iterator[Pair]:
    """Everybody on the first listing."""
    return (Pair(listings[0], 0, SELLERS + n) for n in range(BUYERS // 2))


def spread(listings: Sequence[str]) -> Iterator[Pair]:
    """Each on a listing of its own; the buyers come round again."""
    buyers = itertools.cycle(range(SELLERS + BUYERS // 2, SELLERS + BUYERS))
    return (Pair(listings[n], n % SELLERS, next(buyers)) for n in range(1, len(listings)))


class Haggling:
    """Pairs that haggle at a server."""

    def __init__(self, http: aiohttp.ClientSession, url: str, secret: str) -> None:
        self._http = http
        self._url = url
        self._tokens = Tokens((secret,), access_ttl_s=TOKEN_TTL_S, refresh_ttl_s=TOKEN_TTL_S)
        self.taken = Taken()

    async def run(self, pairs: Iterator[Pair], ends: float) -> None:
        """Pair after pair, until the time is over or nobody is left."""
        for pair in pairs:
            if time.perf_counter() >= ends:
                return
            await self.haggle(pair)

    async def haggle(self, pair: Pair) -> None:
        """From the first offer to the deal."""
        terms = {"listing_id": pair.listing_id, "listing_version": 1}
        made = await self._move(pair.buyer, "offer/make", **terms, **_price(8_000))
        for person, amount in ((pair.seller, 9_500), (pair.buyer, 9_000)):
            made = await self._move(person, "offer/counter", **_offer(made), **_price(amount))
        await self._move(pair.seller, "offer/accept", **_offer(made))

    async def _move(self, person: int, command: str, **payload: Any) -> Any:
        token, _ = self._tokens.access(CROWD.user_ids[person], CROWD.session_ids[person])
        begun = time.perf_counter()
        while True:
            headers = {"Authorization": f"Bearer {token}"}
            async with self._http.post(f"{self._url}/api/{command}", json=payload, headers=headers) as response:
                answer = await response.json()
            if answer["ok"]:
                self.taken.of[command].append((time.perf_counter() - begun) * 1000)
                return answer["data"]
            if answer["error"]["code"] != "unavailable":
                raise RuntimeError(f"{command} {payload}: {answer['error']}")
            self.taken.unavailable += 1


def _price(amount: int) -> dict[str, Any]:
    return {"price": {"amount": amount, "currency": "EUR"}, "client_id": uuid4().hex}


def _offer(made: Any) -> dict[str, Any]:
    return {"offer_id": made["offer"]["offer_id"], "version": made["offer"]["version"]}


async def measure(
    title: str, pairs: Iterator[Pair], server: Process, postgres: Postgres, secret: str, secs: float, workers: int
) -> Figures:
    """Haggle for so many seconds, after some that don't count."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        haggling = Haggling(http, f"http://127.0.0.1:{server.port}", secret)
        begun = time.perf_counter()
        ends = begun + WARM_S + secs
        running = asyncio.gather(*(haggling.run(pairs, ends) for _ in range(workers)))
        await asyncio.sleep(WARM_S)
        haggling.taken, begun, before = Taken(), time.perf_counter(), (_cpu_s(server.pid), _cpu_s(postgres.pid))
        await running
    seconds, moves = time.perf_counter() - begun, len(haggling.taken.all)
    used = (_cpu_s(server.pid) - before[0], _cpu_s(postgres.pid) - before[1])
    return Figures(title, haggling.taken, seconds, used[0] / moves * 1e6, used[1] / moves * 1e6)


def _cpu_s(pid: int) -> float:
    """What a process, and the processes that it has started and that live, have run, in seconds."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if pid in {parent, int(path.name)}:
                total += (
                    sum(int((task / "schedstat").read_text().split()[0]) for task in (path / "task").iterdir()) / 1e9
                )
        except OSError:
            continue  # it has ended
    return total


def show(measured: Sequence[Figures], workers: int, machine: str) -> None:
    """The table."""
    table = Table("", "moves/s", "p50 ms", "p99 ms", "server µs/move", "PostgreSQL µs/move", "unavailable")
    for each in measured:
        for command in (None, *MOVES):
            taken = each.taken.all if command is None else each.taken.of[command]
            p99 = statistics.quantiles(taken, n=100, method="inclusive")[-1]
            row = [f"{len(taken) / each.seconds:,.0f}", f"{statistics.median(taken):.1f}", f"{p99:.1f}"]
            cpu = [f"{each.server_us:,.0f}", f"{each.postgres_us:,.0f}", f"{each.taken.unavailable}"]
            table.add_row(each.title if command is None else f"  {command}", *row, *(cpu if command is None else []))
    console = Console(width=None if os.isatty(1) else 140)
    console.print(table)
    console.print(f"{workers} in a closed loop, one server process; {machine}.")


@asynccontextmanager
async def counting(dsn: str, secret: str) -> AsyncIterator[tuple[str, list[tuple[str, float]]]]:
    """A server within this process, and what it asks PostgreSQL: each statement, and how long it took, in seconds."""
    asked: list[tuple[str, float]] = []
    prepare = _db.prepare_connection

    async def logged(connection: asyncpg.Connection) -> None:
        await prepare(connection)
        connection.add_query_logger(lambda query: asked.append((query.query, query.elapsed)))

    quiet = ["CLOCK_EVERY_S", "COUNT_EVERY_S", "WARN_EVERY_S", "EMPTY_EVERY_S"]
    rates = {**RATES_OFF, "PARLEY_RATE_OFFER_MOVES": "off"}
    config = load({"DATABASE_URL": dsn, "PARLEY_SECRET": secret, "PARLEY_PORT": "0", "PARLEY_DRAIN_MS": "0", **rates})
    with ExitStack() as stack:
        stack.enter_context(patch.object(_db, "prepare_connection", logged))
        for name in quiet:
            stack.enter_context(patch(f"server.jobs.{name}", 3_600.0))
        stack.enter_context(patch("server.rooms.comparison.COMPARE_S", 3_600.0))
        parley = Parley(config, dsn, (secret,))
        port = await parley.start()
        try:
            yield f"http://127.0.0.1:{port}", asked
        finally:
            await parley.stop()


async def profile(dsn: str, secret: str, pairs: Iterator[Pair]) -> None:
    """Print the statements of each command, with the median of their times."""
    found: dict[str, list[list[tuple[str, float]]]] = defaultdict(list)

    class Counted(Haggling):
        async def _move(self, person: int, command: str, **payload: Any) -> Any:
            asked.clear()
            answer = await super()._move(person, command, **payload)
            found[command].append(list(asked))
            return answer

    async with counting(dsn, secret) as (url, asked), aiohttp.ClientSession() as http:
        haggling = Counted(http, url, secret)
        for pair in itertools.islice(pairs, PROFILED):
            await haggling.haggle(pair)
    console = Console(width=140)
    for command, runs in found.items():
        usual = [run for run in runs if len(run) == statistics.mode(map(len, runs))]
        table = Table(f"{command}: {len(usual[0])} statements", "ms")
        for n, (query, _) in enumerate(usual[0]):
            words = " ".join(query.split())
            table.add_row(words[:110], f"{statistics.median(run[n][1] for run in usual) * 1000:.2f}")
        console.print(table)


def main() -> None:
    """Fill, haggle, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.offers", description=__doc__)
    parser.add_argument("--secs", type=float, default=15.0, help="seconds of each measurement (15)")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"pairs at a time ({WORKERS})")
    parser.add_argument("--profile", action="store_true", help="count statements instead")
    options = parser.parse_args()
    cores, secret, machine = Cores.of_this_machine(), secrets.token_hex(32), describe()
    os.sched_setaffinity(0, {int(cores.load)})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True)))
        folder.chmod(0o711)
        postgres = Postgres(folder, cores.rest)
        stack.callback(postgres.stop)
        site = Site(PARLEY, postgres, [CROWD], secret, folder)
        listings = asyncio.run(fill(site.dsn))
        postgres.checkpoint()
        if options.profile:
            asyncio.run(profile(site.dsn, secret, hot(listings)))
            return
        with patch.dict(RATES_OFF, PARLEY_RATE_OFFER_MOVES="off"):
            (server,) = site.start(1, cores.server, None)
        stack.callback(server.stop)
        cases = (("one hot listing", hot(listings)), (f"{LISTINGS:,} listings", spread(listings)))
        measured = [
            asyncio.run(measure(title, pairs, server, postgres, secret, options.secs, options.workers))
            for title, pairs in cases
        ]
    show(measured, options.workers, machine)


if __name__ == "__main__":
    main()
