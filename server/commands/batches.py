"""Group commit: the calls that arrive while a batch is in flight make the next one, answered in one transaction.

One sender's order in a room never turns, and one hot room stalls nobody:

- a batch skips rooms that somebody holds; their calls stand at the front of the next batch;
- a room skipped twice is waited for, apart from the others, and what arrives for it meanwhile queues behind;
- when a batch fails for a reason that will not pass, it is halved, by whole rooms, until the bad call stands alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from server.commands import answers
from server.commands.answers import Answer
from server.commands.context import Batch, Call, Services
from server.commands.registry import Busy, Command
from server.errors import ParleyError
from server.rooms.log import Event
from server.rooms.names import Room
from storage import Connection

MOST = 64  # calls of one batch: PostgreSQL's cost a message is lowest here (35 µs, against 41 at 256 and 190 alone)
# Batches in flight at once, over different rooms: PostgreSQL works on the one while Python works on the other (6,700 ->
# 9,900 sends a second).
FLIGHTS = 2
LOOKED_AT = 4 * MOST  # queued calls that are looked at for those whose rooms are not in flight
SKIPS = 2
WAITERS = 4  # rooms waited for at the same time, each with a connection of its own

Finish = Callable[[Sequence[tuple[Call[Any], Answer]], Sequence[Event]], None]
"""Told of each batch's answers, and of the events to be published behind them."""


class Batcher:
    """The batches of one command."""

    def __init__(self, command: Command, services: Services, finish: Finish) -> None:
        self._command = command
        self._services = services
        self._finish = finish
        self._queue: deque[Call[Any]] = deque()
        self._held: dict[Room, deque[Call[Any]]] = {}
        self._waiters = asyncio.Semaphore(WAITERS)
        self._flying: set[Room | None] = set()
        self._flights = 0
        self._is_due = False
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, call: Call[Any]) -> None:
        """Queue a call for the next batch."""
        held = self._held.get(call.room) if call.room is not None else None
        if held is not None:
            held.append(call)
            return
        self._queue.append(call)
        if self._flights < FLIGHTS and not self._is_due:
            # Not at once: what arrives in the same turn of the loop shares the batch.
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._go)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued or in flight."""
        return not self._queue and not self._tasks

    def _go(self) -> None:
        self._is_due = False
        while self._flights < FLIGHTS and (calls := self._next()):
            rooms = {call.room for call in calls}
            self._flights += 1
            self._flying |= rooms
            self._spawn(self._run(calls, rooms))

    def _next(self) -> list[Call[Any]]:
        """Take the next batch off the queue: calls in order, but those whose rooms are in flight keep their places."""
        calls: list[Call[Any]] = []
        passed: list[Call[Any]] = []
        while self._queue and len(calls) < MOST and len(passed) < LOOKED_AT:
            call = self._queue.popleft()
            (passed if call.room in self._flying else calls).append(call)
        self._queue.extendleft(reversed(passed))
        return calls

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, calls: list[Call[Any]], rooms: set[Room | None]) -> None:
        busy: list[Call[Any]] = []
        try:
            busy = await self._answer(calls, wait=False)
        finally:
            self._flights -= 1
            self._flying -= rooms
            self._defer(busy)
            self._go()

    def _defer(self, busy: Sequence[Call[Any]]) -> None:
        """Put the calls of held rooms in front again, or, at the second time, apart with all that follows them."""
        for call in busy:
            call.skipped += 1
        for room in {call.room for call in busy if call.skipped >= SKIPS and call.room is not None}:
            behind = [call for call in (*busy, *self._queue) if call.room == room]
            self._held[room] = deque()
            self._spawn(self._wait_for(room, behind))
        self._queue = deque(call for call in (*busy, *self._queue) if call.room not in self._held)

    async def _wait_for(self, room: Room, calls: list[Call[Any]]) -> None:
        """Answer a hot room's calls, waiting for its lock, until nothing more of it has queued up."""
        try:
            async with self._waiters:
                while calls:
                    again = await self._answer(calls[:MOST], wait=True)  # a key that came twice in one batch comes back
                    arrived = self._held[room]
                    calls = [*again, *calls[MOST:], *arrived]
                    arrived.clear()
        finally:
            del self._held[room]

    async def _answer(self, calls: list[Call[Any]], *, wait: bool) -> list[Call[Any]]:
        """Answer the calls in one transaction, or in halves; returns those that have to come again, in order."""
        try:
            outcomes, events = await self._commit(calls, wait=wait)
        except Exception as error:
            if len(calls) == 1 or isinstance(error, ParleyError):
                # A ParleyError from here is about the database, not about a call: it is the same for every half.
                self._finish([(call, answers.error(error, self._command.name)) for call in calls], ())
                return []
            first, second = self._halves(calls)
            again = await self._answer(first, wait=wait)
            if again and again[0].room == second[0].room:  # halves of one room: what follows must not overtake
                return [*again, *second]
            return [*again, *await self._answer(second, wait=wait)]
        answered, busy = [], []
        for call, outcome in zip(calls, outcomes, strict=True):
            if isinstance(outcome, Busy):
                busy.append(call)
            elif isinstance(outcome, ParleyError):
                answered.append((call, answers.error(outcome, self._command.name)))
            else:
                answered.append((call, answers.result(outcome)))
        self._finish(answered, events)
        return busy

    async def _commit(self, calls: list[Call[Any]], *, wait: bool) -> tuple[list[Any], list[Event]]:
        async def work(db: Connection) -> tuple[list[Any], list[Event]]:
            batch = Batch(self._services, db, wait=wait)
            handler: Callable[[Batch, list[Call[Any]]], Awaitable[list[Any]]] = self._command.handler
            return await handler(batch, calls), batch.events

        return await self._services.database.statement(work)

    @staticmethod
    def _halves(calls: list[Call[Any]]) -> list[list[Call[Any]]]:
        """Two halves in order: by whole rooms, or, where there is but one room, by calls."""
        rooms = list(dict.fromkeys(call.room for call in calls))
        if len(rooms) == 1:
            return [calls[: len(calls) // 2], calls[len(calls) // 2 :]]
        first = set(rooms[: len(rooms) // 2])
        return [
            [call for call in calls if call.room in first],
            [call for call in calls if call.room not in first],
        ]
