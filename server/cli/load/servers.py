"""The servers that are tested, as they answer over HTTP: whether they are there, whom they know, what they spend."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp

from server.errors import Unavailable

ANSWER_S = 5.0
_FIGURES = {
    name: re.compile(rb"^process_%b ([\d.e+]+)" % name, re.MULTILINE)
    for name in (b"cpu_seconds_total", b"resident_memory_bytes", b"start_time_seconds")
}


class LoadFailed(Unavailable):
    """The test could not be made."""


class Spent(NamedTuple):
    """CPU seconds of all servers so far, their memory in MB, and when each of them was started."""

    cpu_s: float
    rss_mb: float
    started: tuple[float, ...]


@asynccontextmanager
async def _http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_S)) as http:
        yield http


async def find_servers(urls: Sequence[str]) -> None:
    """Raises `LoadFailed` where one of them is not there, or not ready."""
    async with _http() as http:
        for url in urls:
            try:
                async with http.get(f"{url}/readyz") as answer:
                    if answer.status != 200:
                        raise LoadFailed(f"{url} answers, but is not ready ({answer.status} to GET /readyz).")
            except aiohttp.ClientSSLError as error:
                raise LoadFailed(f"{url} answers, and TLS with it fails: {error}.") from None
            except (aiohttp.ClientError, TimeoutError):
                raise LoadFailed(f"Nobody answers on {url}: start a server with `parley serve`.") from None


async def check_token(urls: Sequence[str], token: str) -> None:
    """Raises `LoadFailed` where a server does not know somebody who was just made: it has another database or key."""
    async with _http() as http:
        for url in urls:
            try:
                async with http.post(
                    f"{url}/api/account/me", json={}, headers={"Authorization": f"Bearer {token}"}
                ) as answer:
                    if answer.status == 401:
                        raise LoadFailed(
                            f"{url} does not know people who are made here: DATABASE_URL, PARLEY_DATA and "
                            "PARLEY_SECRET have to be those that it was started with."
                        )
            except (aiohttp.ClientError, TimeoutError) as error:
                raise LoadFailed(f"{url} does not answer any more: {error}") from None


async def measure_servers(urls: Sequence[str]) -> Spent | None:
    """What the servers have spent; None where one does not say."""
    cpu_s, rss_mb, started = 0.0, 0.0, []
    try:
        async with _http() as http:
            for url in urls:
                async with http.get(f"{url}/metrics") as answer:
                    text = await answer.read()
                found = [each.search(text) for each in _FIGURES.values()]
                ran, holds, since = (None if each is None else float(each[1]) for each in found)
                if ran is None or holds is None or since is None:
                    return None
                cpu_s, rss_mb = cpu_s + ran, rss_mb + holds / 2**20
                started.append(since)
    except (aiohttp.ClientError, TimeoutError):
        return None
    return Spent(cpu_s, rss_mb, tuple(started))


def spent_between(before: Spent | None, after: Spent | None) -> tuple[float, float] | None:
    """The CPU seconds between, and the memory at the end in MB; None where a server was started anew meanwhile."""
    if before is None or after is None or before.started != after.started:
        return None
    return after.cpu_s - before.cpu_s, after.rss_mb
