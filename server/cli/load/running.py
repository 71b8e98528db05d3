"""The process that hands out the people, lets all workers begin together, and gathers what they saw."""

import asyncio
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import aiohttp
import msgspec

from server.cli.load.circles import Circle
from server.cli.load.measure import Span
from server.cli.load.options import CONNECT_S, DRAIN_S, Options
from server.cli.load.result import Result, put_together
from server.cli.load.worker import Beat, Done, Failed, Progress, Ready, Task, Word
from server.errors import Unavailable

ANSWER_S = 5.0
LINE_BYTES = 2**26  # of what a worker says
CPU = re.compile(rb"^process_cpu_seconds_total ([\d.e+]+)", re.MULTILINE)
MEMORY = re.compile(rb"^process_resident_memory_bytes ([\d.e+]+)", re.MULTILINE)

Shown = Callable[[str, int, Span | None], None]
"""(phase, sockets connected or seconds played, the last second) → shows it."""


class LoadFailed(Unavailable):
    """The test could not be made."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message


async def find_servers(urls: Sequence[str]) -> None:
    """Raises `LoadFailed` where one of them is not there, or not ready."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_S)) as http:
        for url in urls:
            try:
                async with http.get(f"{url.rstrip('/')}/readyz") as answer:
                    if answer.status != 200:
                        raise LoadFailed(f"{url} answers, but is not ready ({answer.status} to GET /readyz).")
            except (aiohttp.ClientError, TimeoutError):
                raise LoadFailed(f"Nobody answers on {url}: start a server with `parley serve`.") from None


async def measure_servers(urls: Sequence[str]) -> tuple[float, float] | None:
    """The CPU seconds of the servers so far, and their memory in MB; None where one does not say."""
    cpu_s = rss_mb = 0.0
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_S)) as http:
            for url in urls:
                async with http.get(f"{url.rstrip('/')}/metrics") as answer:
                    text = await answer.read()
                ran, holds = CPU.search(text), MEMORY.search(text)
                if ran is None or holds is None:
                    return None
                cpu_s, rss_mb = cpu_s + float(ran[1]), rss_mb + float(holds[1]) / 2**20
    except (aiohttp.ClientError, TimeoutError):
        return None
    return cpu_s, rss_mb


class Running:
    """A load test with its workers."""

    def __init__(self, options: Options, circles: Sequence[Circle], shown: Shown) -> None:
        self._options = options
        self._shown = shown
        self._people = sum(len(circle.people) for circle in circles)
        # By turns, so that each worker has its share of every shape.
        shares = [list(circles[n :: options.workers]) for n in range(options.workers)]
        self._shares = [share for share in shares if share]
        self._processes: list[asyncio.subprocess.Process] = []
        self._connected: dict[int, int] = {}
        self._spans: dict[int, list[Span]] = {}
        self._ready = 0
        self._begun = asyncio.Event()
        self._is_stopped = False

    async def run(self) -> Result:
        """Make it. Raises `LoadFailed`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        try:
            words = await self._gather()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        before, done = words
        after = await measure_servers(self._options.urls)
        # Of a server that was started anew meanwhile nothing is known.
        servers = (after[0] - before[0], after[1]) if before and after and after[0] >= before[0] else None
        return put_together(
            self._options,
            self._people,
            done,
            started_at=self._started_at,
            stopped_early=self._is_stopped,
            servers=servers,
        )

    async def _gather(self) -> tuple[tuple[float, float] | None, list[Done]]:
        workers = [asyncio.create_task(self._work(n, share)) for n, share in enumerate(self._shares)]
        began = asyncio.create_task(self._begin())
        try:
            async with asyncio.timeout(CONNECT_S + self._options.seconds + 3 * DRAIN_S):
                done = await asyncio.gather(*workers)
            return await began, done
        except TimeoutError:
            raise LoadFailed("The workers did not come to an end.") from None
        finally:
            for task in (began, *workers):
                task.cancel()
            for process in self._processes:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _begin(self) -> tuple[float, float] | None:
        """Let all begin at once, when the last is ready."""
        await self._begun.wait()
        before = await measure_servers(self._options.urls)
        self._started_at = time.time()
        self._say(b"begin\n")
        return before

    async def _work(self, number: int, circles: list[Circle]) -> Done:
        """One worker, until it is done. Raises `LoadFailed`."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server.cli.load.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            start_new_session=True,  # a terminal's Ctrl-C is for this process alone
        )
        self._processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        options, count = self._options, len(self._shares)
        rate = None if options.rate is None else options.rate * sum(len(c.people) for c in circles) / self._people
        task = Task(number, options, circles, rate, max(1, options.sends // count))
        process.stdin.write(msgspec.json.encode(task) + b"\n")
        with suppress(ConnectionError):
            await process.stdin.drain()
        while line := await process.stdout.readline():
            word = msgspec.json.decode(line, type=Word)
            match word:
                case Done():
                    return word
                case Failed():
                    raise LoadFailed(f"Could not begin: {word.why}")
                case _:
                    self._hear(number, word)
        raise LoadFailed("Stopped before it began." if self._is_stopped else "A worker has ended by itself: see above.")

    def _hear(self, number: int, word: Progress | Ready | Beat) -> None:
        match word:
            case Progress():
                self._connected[number] = word.connected
                self._shown("connecting", sum(self._connected.values()), None)
            case Ready():
                self._ready += 1
                if self._ready == len(self._shares):
                    self._begun.set()
            case Beat():
                spans = self._spans.setdefault(word.second, [])
                spans.append(word.span)
                if len(spans) == len(self._shares):
                    self._shown("playing", word.second + 1, Span.of(self._spans.pop(word.second)))

    def _stop(self) -> None:
        """End it now, and report all the same; before it has begun there is nothing to report."""
        if self._is_stopped or not self._begun.is_set():
            for process in self._processes:
                with suppress(ProcessLookupError):
                    process.kill()
        self._is_stopped = True
        self._say(b"stop\n")

    def _say(self, order: bytes) -> None:
        for process in self._processes:
            if process.stdin is not None and not process.stdin.is_closing():
                process.stdin.write(order)
