"""The process that hands out the people, lets all workers begin together, and gathers what they saw."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from server.cli.load.circles import Circle
from server.cli.load.measure import Span
from server.cli.load.options import CONNECT_S, Options
from server.cli.load.result import Result, put_together
from server.cli.load.servers import LoadFailed, Spent, measure_servers, spent_between
from server.cli.load.words import BEGIN, STOP, Beat, Done, Failed, Progress, Ready, Task, Word

LINE_BYTES = 2**26  # of what a worker says
GRACE_S = 20.0  # for a worker to start, and to sum up

Shown = Callable[[str, int, Span | None], None]
"""(phase, sockets connected or seconds played, the last second) → shows it."""


def share_of(sends: int, workers: int, number: int) -> int:
    """How many of so many sends a worker makes, by its number from 0."""
    return sends // workers + (number < sends % workers)


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
        self._playing = len(self._shares)
        self._all_ready = asyncio.Event()
        self._is_begun = False
        self._is_stopped = False
        self._is_given_up = False

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
        return put_together(
            self._options,
            self._people,
            done,
            started_at=self._started_at,
            stopped_early=self._is_stopped,
            servers=spent_between(before, after),
        )

    async def _gather(self) -> tuple[Spent | None, list[Done]]:
        workers = [asyncio.create_task(self._work(n, share)) for n, share in enumerate(self._shares)]
        began = asyncio.create_task(self._begin())
        try:
            async with asyncio.timeout(CONNECT_S + self._options.seconds + self._options.drain + GRACE_S):
                done = await asyncio.gather(*workers)
                # Who has told all ends by itself: a kill just then would take its exit code from asyncio's watcher.
                await asyncio.gather(*(process.wait() for process in self._processes))
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

    async def _begin(self) -> Spent | None:
        """Let all begin at once, when the last is ready."""
        await self._all_ready.wait()
        before = await measure_servers(self._options.urls)
        if not self._is_given_up:
            self._started_at, self._is_begun = time.time(), True
            self._say(BEGIN)
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
        task = Task(number, options, circles, rate, share_of(options.sends, count, number))
        process.stdin.write(msgspec.json.encode(task) + b"\n")
        with suppress(ConnectionError):
            await process.stdin.drain()
        while line := await process.stdout.readline():
            word = msgspec.json.decode(line, type=Word)
            match word:
                case Done():
                    self._playing -= 1
                    self._show_seconds()
                    return word
                case Failed():
                    raise LoadFailed(f"Could not begin: {word.why}")
                case _:
                    self._hear(number, word)
        if self._is_given_up:
            raise LoadFailed("Stopped at once: nothing is known." if self._is_begun else "Stopped before it began.")
        raise LoadFailed("A worker has ended by itself: see above.")

    def _hear(self, number: int, word: Progress | Ready | Beat) -> None:
        match word:
            case Progress():
                self._connected[number] = word.connected
                self._shown("connecting", sum(self._connected.values()), None)
            case Ready():
                self._ready += 1
                if self._ready == len(self._shares):
                    self._all_ready.set()
            case Beat():
                self._spans.setdefault(word.second, []).append(word.span)
                self._show_seconds()

    def _show_seconds(self) -> None:
        """Show the seconds of which all have told who are playing still."""
        for second in [second for second, spans in self._spans.items() if len(spans) >= self._playing]:
            self._shown("playing", second + 1, Span.of(self._spans.pop(second)))

    def _stop(self) -> None:
        """End the play now, and report all the same; what has not begun, or is stopped again, ends at once."""
        if self._is_stopped or not self._is_begun:
            self._is_given_up = True
            for process in self._processes:
                with suppress(ProcessLookupError):
                    process.kill()
        self._is_stopped = True
        self._say(STOP)

    def _say(self, order: bytes) -> None:
        for process in self._processes:
            if process.stdin is not None and not process.stdin.is_closing():
                process.stdin.write(order)
