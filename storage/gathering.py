"""Reads that many ask for at the same time, in one statement."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from storage._db import Connection, Database

K = TypeVar("K")
V = TypeVar("V")


class Gathering(Generic[K, V]):
    """Answers each of its callers from one statement for all that ask in the same turn of the event loop.

    `read` takes at most `most` keys and gives their values in the same order. At most `flights` statements are under
    way, each on a connection of its own; who asks meanwhile shares the next one. What a read raises, all of its
    callers get.
    """

    def __init__(
        self,
        database: Database,
        read: Callable[[Connection, Sequence[K]], Awaitable[Sequence[V]]],
        *,
        most: int,
        flights: int,
    ) -> None:
        self._database = database
        self._read = read
        self._most = most
        self._free = flights
        self._waiting: deque[tuple[K, asyncio.Future[V]]] = deque()
        self._is_due = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, key: K) -> V:
        """What is read for this key. Raises what the read raises, and `Unavailable`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[V] = loop.create_future()
        self._waiting.append((key, answer))
        if self._free and not self._is_due:
            self._is_due = True
            loop.call_soon(self._go)
        return await answer

    def _go(self) -> None:
        self._is_due = False
        while self._free and (asked := self._next()):
            self._free -= 1
            task = asyncio.create_task(self._answer(asked))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> list[tuple[K, asyncio.Future[V]]]:
        """Those whose turn it is, without who waits no more."""
        asked: list[tuple[K, asyncio.Future[V]]] = []
        while self._waiting and len(asked) < self._most:
            key, answer = self._waiting.popleft()
            if not answer.done():
                asked.append((key, answer))
        return asked

    async def _answer(self, asked: Sequence[tuple[K, asyncio.Future[V]]]) -> None:
        try:
            async with self._database.connection() as db:
                values = await self._read(db, [key for key, _ in asked])
            for (_, answer), value in zip(asked, values, strict=True):
                if not answer.done():
                    answer.set_result(value)
        except Exception as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
        finally:
            self._free += 1
            self._go()
