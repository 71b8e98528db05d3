"""Offers that five move at the same instant, while something else is done to what they go through.

The races of `racers`, by people who don't give up: whatever has no answer, or one that says to try again, is sent again
through the next door. A move that is acknowledged in the end has to be the one that won, as it is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

import aiohttp
import asyncpg

from tests.faults.lines import Door
from tests.faults.racers import BUYERS, Answer, Asked, Race, Tally, people
from tests.negotiation_checker import breaches

ANSWER_S = 2.0  # what has no answer by then is asked again
ANSWERED_S = 90.0  # and in the end there is one
PAUSE_S = 0.2
LAWFUL_S = 10.0  # what ends by the clock is written within two seconds, where nothing is in its way
LOOK_S = 0.2
NOT_ASKED = frozenset({"user:block"})  # one that is done late, by an instance that hung, would be there for good


class PatientDatabase:
    """The database past all proxies, asked again whenever it is away."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        """The rows of a query."""
        return await self._ask("fetch", query, *arguments)  # type: ignore[no-any-return]

    async def fetchval(self, query: str, *arguments: object) -> Any:
        """The first value of a query."""
        return await self._ask("fetchval", query, *arguments)

    async def _ask(self, how: str, *arguments: object) -> Any:
        async with asyncio.timeout(ANSWERED_S):
            while True:
                try:
                    connection = await asyncpg.connect(self._dsn)
                    try:
                        return await getattr(connection, how)(*arguments)
                    finally:
                        await connection.close()
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await asyncio.sleep(PAUSE_S)


class StubbornRace(Race):
    """Rounds between a seller and their buyers who all ask until they have an answer."""

    settled_s = ANSWERED_S  # the database itself may be away: failed over, it is elsewhere until its disk is back
    excused: set[str]
    """Codes that count as no answer."""

    async def _ask(self, asked: Asked) -> Answer:
        async with asyncio.timeout(ANSWERED_S):
            while True:
                try:
                    async with asyncio.timeout(ANSWER_S):
                        answer = await self._post(asked)
                    if answer["ok"] or answer["error"]["code"] not in {"unavailable", *self.excused}:
                        return answer
                except (aiohttp.ClientError, OSError, TimeoutError):
                    pass  # done or not: to be asked again
                self._tally.unavailable += 1
                await asyncio.sleep(PAUSE_S)

    async def _set_clocks(self, offers: Sequence[Answer]) -> None:
        """Nobody's time is over: a clock that has no database is late."""

    def _beside(self, listing: Answer, offers: Sequence[Answer]) -> Iterator[Asked]:
        return (asked for asked in super()._beside(listing, offers) if asked.command not in NOT_ASKED)


class Hagglers:
    """A seller and their buyers, who race from `start` to `finish`."""

    def __init__(self, dsn: str, secret: str, doors: Sequence[Door], excused: set[str]) -> None:
        self._dsn, self._secret, self._excused = dsn, secret, excused
        self._urls = [f"http://{host}:{port}" for host, port in doors]
        self._is_over = False
        self._task: asyncio.Task[None] | None = None
        self.tally = Tally()

    async def start(self) -> None:
        """Begin."""
        self._cast = await people(self._dsn, self._secret, BUYERS + 4)
        self._task = asyncio.create_task(self._race())

    async def finish(self) -> list[str]:
        """Finish what has been begun; in words what is not as it must be: answers, and the laws of the market."""
        self._is_over = True
        if self._task is not None:
            await self._task
        found = [f"offer: {line}" for line in self.tally.wrong]
        until = monotonic() + LAWFUL_S
        while (broken := await breaches(self._dsn)) and monotonic() < until:
            await asyncio.sleep(LOOK_S)
        return [*found, *(f"law: {line}" for line in broken)]

    async def leave(self) -> None:
        """Stop, wherever they are."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _race(self) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            database = PatientDatabase(self._dsn)
            race = StubbornRace(self._urls, http, database, self.tally, self._cast)
            race.excused = self._excused
            while not self._is_over:
                try:
                    await race.round()
                except (AssertionError, TimeoutError) as error:
                    self.tally.wrong.append(f"{type(error).__name__}: {error}")
                    return
