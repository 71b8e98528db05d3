"""One process of a load test: it holds its share of the sockets, and tells what it sees line by line.

It reads a `Task`, then a line to begin, and is over when the play is, or at the next line, or where nobody is there any
more to say one. Ctrl-C is for the process that has started it.
"""

import asyncio
import contextlib
import gc
import resource
import signal
import sys
import time
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
import uvloop

from server.cli.load.circles import Circle
from server.cli.load.faults import Fault, Found
from server.cli.load.haggle import Table
from server.cli.load.measure import Buckets, Span, bucket_of
from server.cli.load.options import CONNECT_S, DRAIN_S, Options
from server.cli.load.person import Person
from server.cli.load.stage import Stage
from server.cli.load.talk import Talk

CONNECTING = 64  # at once
PACE_S = 0.004  # between two looks at what is due, at a rate
LAG_S = 0.05  # between two looks at how late this process is


class Task(msgspec.Struct, frozen=True):
    """What a worker is to do; `rate` and `sends` are its own share."""

    number: int
    options: Options
    circles: list[Circle]
    rate: float | None
    sends: int


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """So many sockets are connected."""

    connected: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """All are, and everybody is where they talk."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It can't begin."""

    why: str


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """A second of the play."""

    second: int
    span: Span


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The play is over: what was found wrong, and what this process has spent on it.

    `ran_s` is how long it was sent for; `late_s` how late this process came to what it had to do.
    """

    spans: dict[int, Span]
    faults: dict[Fault, Found]
    ran_s: float
    cpu_s: float
    late_s: Buckets
    reconnects: int
    held_back: int
    agreed: int


Word = Progress | Ready | Failed | Beat | Done


class Play(Protocol):
    """What a circle of people does."""

    talkers: Sequence[Person]

    async def prepare(self) -> None: ...
    def begin(self) -> None: ...
    def act(self, person: Person, at: float | None = None) -> bool: ...


class Worker:
    """Connects, plays, waits for what is on its way, and looks at what is missing."""

    def __init__(self, task: Task, orders: asyncio.StreamReader) -> None:
        self._task = task
        self._orders = orders
        self._stage = Stage(task.options, task.number, task.sends)
        self._people: list[Person] = []
        self._plays: list[Play] = []
        self._late: Buckets = {}
        self._connected = 0
        servers = [_server(url) for url in task.options.urls]
        for circle in task.circles:
            first = len(self._people)
            people = [
                Person(self._stage, f"{task.number}.{first + n}", each.token, servers[each.server])
                for n, each in enumerate(circle.people)
            ]
            self._people += people
            is_table = circle.shape == "tables"
            self._plays.append(
                Table(self._stage, people) if is_table else Talk(self._stage, people, circle.conversation_id)
            )

    async def run(self) -> None:
        """The whole of it."""
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._connect()
                await asyncio.gather(*(play.prepare() for play in self._plays))
        except TimeoutError:
            refused = next((person.refusal for person in self._people if person.refusal), "")
            _tell(Failed(f"{self._connected} of {len(self._people)} sockets were ready in {CONNECT_S:g} s. {refused}"))
            return
        except _Refused as error:
            _tell(Failed(str(error)))
            return
        gc.collect()
        gc.freeze()
        _tell(Ready())
        if await self._orders.readline():
            await self._play()

    async def _connect(self) -> None:
        turns = asyncio.Semaphore(CONNECTING)

        async def connect(person: Person) -> None:
            async with turns:
                try:
                    let_in = await person.connect()
                except OSError as error:
                    raise _Refused(f"a socket could not be opened: {error}") from None
                if not let_in:
                    raise _Refused(f"the server did not let a socket in: {person.refusal}")
                self._connected += 1
                if self._connected % 50 == 0:
                    _tell(Progress(self._connected))

        await asyncio.gather(*(connect(person) for person in self._people))
        _tell(Progress(self._connected))

    async def _play(self) -> None:
        stage, options = self._stage, self._task.options
        stopped = asyncio.ensure_future(self._orders.readline())
        cpu_s, began = time.process_time(), perf_counter()
        stage.begin()
        if self._task.rate is None:
            for play in self._plays:
                play.begin()
        pacing = asyncio.create_task(self._pace(began)) if self._task.rate is not None else None
        lagging = asyncio.create_task(self._look_at_lag())
        second = 0
        while stage.is_on:
            second += 1
            left = min(began + second, began + options.seconds) - perf_counter()
            await asyncio.wait([stopped], timeout=max(0.0, left))
            if stopped.done() or perf_counter() - began >= options.seconds:
                stage.end()
            self._turn_second(second)
        ran_s, spent_s = stage.ran_s, time.process_time() - cpu_s
        for task in (pacing, lagging):
            if task is not None:
                task.cancel()
        await self._drain(second)
        stopped.cancel()
        self._close()
        _tell(
            Done(
                stage.spans,
                stage.faults.found,
                ran_s,
                spent_s,
                self._late,
                stage.reconnects,
                stage.held_back,
                stage.deals.agreed,
            )
        )
        for person in self._people:
            person.leave()

    def _turn_second(self, second: int) -> None:
        if self._stage.spans:
            _tell(Beat(second - 1, self._stage.span))
        self._stage.turn_second()
        for play in self._plays:
            if isinstance(play, Table):
                play.tend()

    async def _pace(self, began: float) -> None:
        """Send at a rate, each to its time: what comes late is counted as late, not left out."""
        interval = 1 / (self._task.rate or 1)
        turns = [(play, person) for play in self._plays for person in play.talkers]
        self._stage.random.shuffle(turns)  # or all of a shape would have their turns at once
        due, at = began, 0
        while True:
            while due <= perf_counter() and self._stage.is_on:
                for _ in turns:
                    play, person = turns[at]
                    at = (at + 1) % len(turns)
                    if play.act(person, due):
                        break
                else:
                    self._stage.held_back += 1
                due += interval
            await asyncio.sleep(PACE_S)

    async def _look_at_lag(self) -> None:
        while True:
            due = perf_counter() + LAG_S
            await asyncio.sleep(LAG_S)
            bucket = bucket_of(max(0.0, perf_counter() - due))
            self._late[bucket] = self._late.get(bucket, 0) + 1

    async def _drain(self, second: int) -> None:
        """Wait for what is on its way, as long as it comes."""
        deadline, beat = perf_counter() + DRAIN_S, perf_counter() + 1
        while not self._is_settled() and perf_counter() < deadline:
            await asyncio.sleep(0.02)
            if perf_counter() > beat:
                beat, second = beat + 1, second + 1
                self._turn_second(second)

    def _is_settled(self) -> bool:
        stage = self._stage
        is_answered = not any(person.asked for person in self._people)
        return is_answered and stage.ledger.is_settled and stage.deals.is_settled

    def _close(self) -> None:
        stage = self._stage
        stage.is_over = True
        stage.ledger.close()
        stage.deals.close()
        for person in self._people:
            if not person.is_ready:
                stage.faults.note(Fault.ABSENT, f"{person.name} was not there at the end: {person.refusal or 'cut'}")
            for asked in person.asked.values():
                if not asked.is_message:  # the ledger has told of those
                    stage.faults.note(Fault.UNANSWERED, f"{person.name}: {asked.frame[:60].decode(errors='replace')}")


class _Refused(Exception):
    """A socket was not let in."""


def _server(url: str) -> tuple[str, int, bool]:
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    return parts.hostname or "", parts.port or (443 if is_tls else 80), is_tls


def _tell(word: Word) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(word) + b"\n")
    sys.stdout.buffer.flush()


async def _run() -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=2**28)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    task = msgspec.json.decode(await orders.readline(), type=Task)
    await Worker(task, orders).run()


def main() -> None:
    """Do what stdin says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run())


if __name__ == "__main__":
    main()
