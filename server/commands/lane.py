"""One client's commands, in order."""

from collections import deque
from collections.abc import Callable
from typing import Any

from server.commands import answers
from server.commands.context import Call
from server.commands.registry import Command
from server.errors import Unavailable

GOING = "The server is shutting down: reconnect, and send again with the same client_id."


class Lane:
    """One client's commands, in order. When `most` wait, `hold` is called, and `go_on` when there is room again."""

    __slots__ = ("_batched", "_go_on", "_hold", "_is_held", "_most", "_queue", "_running", "_start")

    def __init__(
        self, start: Callable[[Call[Any]], None], most: int, hold: Callable[[], None], go_on: Callable[[], None]
    ) -> None:
        self._start = start
        self._most = most
        self._hold = hold
        self._go_on = go_on
        self._is_held = False
        self._queue: deque[Call[Any]] = deque()
        self._running = 0
        self._batched: Command | None = None

    def add(self, call: Call[Any]) -> None:
        """Start the call, now or when it is its turn."""
        if self._running and (self._queue or self._batched is not call.command):
            self._queue.append(call)
        else:
            self._begin(call)
        if len(self._queue) + self._running >= self._most:
            self._is_held = True
            self._hold()

    def finished(self) -> None:
        """A call has been answered."""
        self._running -= 1
        while self._queue and (not self._running or self._batched is self._queue[0].command):
            self._begin(self._queue.popleft())
        if self._is_held and len(self._queue) + self._running < self._most:
            self._is_held = False
            self._go_on()

    def leave(self) -> None:
        """The client is gone: what it asked for last and has not been started is not done.

        It was never acknowledged.
        """
        self._queue.clear()

    def refuse(self) -> None:
        """The server goes: what has not been started is answered so, and is not done."""
        waiting = [*self._queue]
        self._queue.clear()
        self._running += len(waiting)  # each is over with its answer
        for call in waiting:
            call.done(answers.error(Unavailable(GOING), call.command.name))

    def _begin(self, call: Call[Any]) -> None:
        self._running += 1
        self._batched = call.command if call.command.batch else None
        self._start(call)
