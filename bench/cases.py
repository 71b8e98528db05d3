"""Questions asked over HTTP, one at a time, and how long each takes: for `bench.history` and `bench.listings`."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from bench import pages
from bench.crowds import Crowd
from bench.machine import Cores, describe
from bench.seeding import jwt
from bench.stage import staged

LIMIT = 50
AIM_MS = 20.0  # of a p95
WARM = 3  # requests of each case that don't count
CASE_S = 10.0  # after which a case has been asked often enough
COLUMNS = ("case", "that fit", "on the page", "p50 ms", "p95 ms", "aim, p95", "reached")


@dataclass(frozen=True)
class Case:
    """A question: its command, its payload anew for each time that it is asked, and how many messages it has in all."""

    title: str
    command: str
    payload: Callable[[], dict[str, Any]]
    found: int | None = None


@dataclass(frozen=True)
class Timing:
    """How long a case took, in milliseconds, how often it was `unavailable`, and how full its pages were."""

    case: Case
    times: int
    refused: int
    p50: float
    p95: float
    page: int

    @property
    def reached(self) -> bool:
        """Whether it has the aim, each time."""
        return self.p95 <= AIM_MS and not self.refused

    @property
    def row(self) -> tuple[str, ...]:
        """Under `COLUMNS`."""
        fits = "-" if self.case.found is None else f"{self.case.found:,}"
        verdict = pages.YES_OR_NO[self.reached]
        if self.refused:
            verdict += f": {self.refused} of {self.times} unavailable"
        return self.case.title, fits, str(self.page), f"{self.p50:.1f}", f"{self.p95:.1f}", f"{AIM_MS:g}", verdict


Ask = Callable[[str, dict[str, Any]], Any]


@asynccontextmanager
async def asking(url: str, secret: str, crowd: Crowd) -> AsyncIterator[Ask]:
    """Ask the server in the name of the first person, on one connection that is kept; None is `unavailable`."""
    token = jwt(secret)(crowd, 0)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:

        async def ask(command: str, payload: dict[str, Any]) -> Any:
            async with http.post(f"{url}/api/{command}", json=payload) as response:
                answer = await response.json()
            if not answer["ok"] and answer["error"]["code"] != "unavailable":
                raise RuntimeError(f"{command} {payload}: {answer['error']}")
            return answer.get("data")

        yield ask


async def measure(ask: Ask, case: Case, times: int) -> Timing:
    """Ask it so many times, one after the other, or for as long as there is time."""
    taken: list[float] = []
    refused = page = 0
    ends = time.perf_counter() + CASE_S
    for n in range(WARM + times):
        payload = case.payload()
        begun = time.perf_counter()
        if n > WARM and begun > ends:
            break
        answer = await ask(case.command, payload)
        if n >= WARM:
            taken.append((time.perf_counter() - begun) * 1000)
            refused += answer is None
        page = len(answer.get("messages", answer.get("listings", ()))) if answer else 0
    p95 = statistics.quantiles(taken, n=20, method="inclusive")[-1] if len(taken) > 1 else taken[0]
    return Timing(case, len(taken), refused, statistics.median(taken), p95, page)


def show(timings: Sequence[Timing], of: str, times: int) -> None:
    """The table, and how it was asked."""
    table = Table(*COLUMNS)
    for timing in timings:
        table.add_row(*timing.row)
    console = Console(width=None if os.isatty(1) else 140)
    console.print(table)
    console.print(f"{of}; {_asked(times)}; {describe()}.")


def write(part: str, command: str, timings: Sequence[Timing], of: str, times: int, *, most: int | None = None) -> None:
    """The part of the page: all cases, or the slowest of them and each that has missed the aim."""
    slowest = sorted(timings, key=lambda timing: timing.p95, reverse=True)
    chosen = list(timings) if most is None else slowest[: max(most, sum(not timing.reached for timing in timings))]
    reached = sum(timing.reached for timing in timings)
    said = f"{of}; {_asked(times)}. Of {len(timings)} cases {reached} reach the aim"
    said += "." if most is None else f"; these are the slowest {len(chosen)}."
    pages.write_part(part, command, f"{said}\n\n{pages.table(COLUMNS, [timing.row for timing in chosen])}")


def _asked(times: int) -> str:
    return f"{times} requests a case, or as many as {CASE_S:g} s had; {LIMIT} a page"


def bench(
    part: str,
    about: str | None,
    crowd: Crowd,
    fill: Callable[[str], Awaitable[None]],
    measure_all: Callable[[str, str, str, int, str], Awaitable[list[Timing]]],
    *,
    of: str,
    times: int,
    most: int | None = None,
) -> int:
    """The whole of such a program: fill a database, ask, and show it; 0 where every case has the aim.

    `fill` is given the database's dsn; `measure_all` a server's URL and secret, the dsn, how many times each case is
    asked, and words that are in the titles of those that are.
    """
    options = parse_options(f"bench.{part}", about, times)
    random.seed(7)
    with staged(Cores.of_this_machine(), tools=("taskset",)) as stage:
        stage.step_aside()
        site = stage.parley([crowd])
        asyncio.run(fill(site.dsn))
        (server,) = stage.serve(site)
        url = f"http://127.0.0.1:{server.port}"
        timings = asyncio.run(measure_all(url, stage.secret, site.dsn, options.times, options.cases))
    show(timings, of, options.times)
    if options.write:
        command = f"python -m bench.{part} --times {options.times} --write"
        write(part, command, timings, of, options.times, most=most)
    return 0 if all(timing.reached for timing in timings) else 1


def parse_options(program: str, about: str | None, times: int) -> argparse.Namespace:
    """What such a program is told."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about)
    parser.add_argument("--times", type=int, default=times, help=f"requests of each case ({times})")
    parser.add_argument("--cases", default="", help="those alone whose titles have these words in them (all)")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    if not 20 <= options.times <= 10_000:
        parser.error("--times is 20 to 10,000")
    if options.write and options.cases:
        parser.error("--write is for a whole run: leave out --cases")
    return options
