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

from server.cli.load.faults import Fault
from server.cli.load.haggle import Table
from server.cli.load.line import Server
from server.cli.load.measure import Buckets, add
from server.cli.load.options import CONNECT_S
from server.cli.load.person import Person
from server.cli.load.stage import Stage
from server.cli.load.talk import CannotBegin, Talk
from server.cli.load.words import BEGIN, Beat, Done, Failed, Progress, Ready, Task, Word

CONNECTING = 64  # at once
PACE_S = 0.004  # between two looks at what is due, at a rate
LAG_S = 0.05  # between two looks at how late this process is
LOOK_S = 0.02  # between two looks at whether all has come
OF_ONE_ADDRESS = "; PARLEY_SOCKETS_PER_ADDRESS (10,000 unless it is set) bounds those of one machine"
LINGER_S = 0.5  # when all has come, for what should not come


class Play(Protocol):
    """What a circle of people does; `waiting` is how much of it is due and not done."""

    talkers: Sequence[Person]

    @property
    def waiting(self) -> int: ...
    async def prepare(self) -> None: ...
    def begin(self) -> None: ...
    def tend(self) -> None: ...
    def take_turn(self, person: Person, at: float) -> None: ...


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
            refused = next((person.refusal.why for person in self._people if person.refusal.why), "")
            _tell(Failed(f"{self._connected} of {len(self._people)} sockets were ready in {CONNECT_S:g} s. {refused}"))
            return
        except (_Refused, CannotBegin) as error:
            _tell(Failed(str(error)))
            return
        gc.collect()
        gc.freeze()
        _tell(Ready())
        if await self._orders.readline() == BEGIN:
            await self._play()

    async def _connect(self) -> None:
        turns = asyncio.Semaphore(CONNECTING)

        async def connect(person: Person) -> None:
            async with turns:
                try:
                    while not await person.connect():
                        why = person.refusal.why
                        if person.refusal.retry_after_s is None:
                            hint = OF_ONE_ADDRESS if " 429 " in why else ""
                            raise _Refused(f"the server did not let a socket in: {why}{hint}")
                        await asyncio.sleep(person.refusal.retry_after_s)
                except OSError as error:
                    raise _Refused(f"a socket could not be opened: {error}") from None
                self._connected += 1
                if self._connected % 50 == 0:
                    _tell(Progress(self._connected))

        await asyncio.gather(*(connect(person) for person in self._people))
        _tell(Progress(self._connected))

    async def _play(self) -> None:
        stage, options = self._stage, self._task.options
        stopped = asyncio.ensure_future(self._orders.readline())
        ended = asyncio.ensure_future(stage.ended.wait())
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
            await asyncio.wait([stopped, ended], timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
            if stopped.done() or perf_counter() - began >= options.seconds:
                stage.end()
            _tell(Beat(second - 1, stage.span_of(second - 1)))
            stage.turn_second()
            for play in self._plays:
                play.tend()
        spent_s = time.process_time() - cpu_s
        for task in (pacing, lagging):
            if task is not None:
                task.cancel()
        await self._drain()
        stopped.cancel()
        self._close()
        _tell(self._done(spent_s))
        for person in self._people:
            person.leave()

    async def _pace(self, began: float) -> None:
        """Give everybody their turns at a rate, each to its time: what comes late is late, and is not left out."""
        interval = 1 / (self._task.rate or 1)
        turns = [(play, person) for play in self._plays for person in play.talkers]
        self._stage.random.shuffle(turns)  # or all of a shape would have their turns at once
        due, at = began, 0
        while True:
            while due <= perf_counter() and self._stage.spend():
                play, person = turns[at]
                play.take_turn(person, due)
                at = (at + 1) % len(turns)
                due += interval
            await asyncio.sleep(PACE_S)

    async def _look_at_lag(self) -> None:
        while True:
            due = perf_counter() + LAG_S
            await asyncio.sleep(LAG_S)
            add(self._late, max(0.0, perf_counter() - due))

    async def _drain(self) -> None:
        """Wait for what is on its way, as long as it comes, and a while for what should not."""
        deadline, tending = perf_counter() + self._task.options.drain, perf_counter() + 1
        while perf_counter() < deadline:
            if self._is_settled():
                await asyncio.sleep(LINGER_S)
                if self._is_settled():
                    break
            await asyncio.sleep(LOOK_S)
            if perf_counter() > tending:
                tending += 1
                for play in self._plays:
                    play.tend()

    def _is_settled(self) -> bool:
        stage = self._stage
        is_answered = not any(person.asked or not person.is_ready for person in self._people)
        is_made = not any(play.waiting for play in self._plays)
        return is_answered and is_made and stage.ledger.is_settled and stage.deals.is_settled

    def _close(self) -> None:
        stage = self._stage
        stage.is_over = True
        stage.ledger.close()
        stage.deals.close()
        for person in self._people:
            if not person.is_ready:
                why = person.refusal.why or "cut"
                stage.faults.note(Fault.ABSENT, f"{person.name} was not there at the end: {why}")
            for asked in person.asked.values():
                if not asked.is_message:  # the ledger has told of those
                    stage.faults.note(Fault.UNANSWERED, f"{person.name}: {asked.frame[:60].decode(errors='replace')}")

    def _done(self, spent_s: float) -> Done:
        stage = self._stage
        return Done(
            spans=stage.spans,
            after=stage.after,
            faults=stage.faults.found,
            ran_s=stage.ran_s,
            cpu_s=spent_s,
            late_s=self._late,
            reconnects=stage.reconnects,
            held_back=sum(play.waiting for play in self._plays),
            agreed=stage.deals.agreed,
            tried=stage.tried,
        )


class _Refused(Exception):
    """A socket was not let in."""


def _server(url: str) -> Server:
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    return Server(parts.hostname or "", parts.port or (443 if is_tls else 80), is_tls)


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
