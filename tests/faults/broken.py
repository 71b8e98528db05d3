"""Parley with one of its guarantees taken out or a fault put in, to show what the tests would notice.

`python -m tests.faults.broken <what>` serves so. Taken out are `ack_after_commit`, `repair_of_gaps`,
`comparison_with_postgresql`, `resuming` and `one_epoch`; with `stock_redis_manager` events go between instances as
python-socketio sends them; at `die_before_publish` the process kills itself when it has committed a message whose text
is "die", before anybody hears of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from uuid import uuid4

import handlers  # noqa: F401  (declares the commands, before the command line is set up)
from handlers import connections
from server.cli.main import main
from server.rooms.comparison import Comparison
from server.rooms.delivery import Delivery
from server.rooms.joining import Joining
from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.repair import Repair
from storage import Connection, Database
from tests.faults.stock import never, stock_redis_manager


def without_ack_after_commit() -> None:
    """Answer a batch before it is committed, as a server does that confirms first and writes later."""

    async def statement(self: Database, work: Callable[[Connection], Awaitable[Any]]) -> Any:
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def hold() -> None:
            async with self.connection() as db, db.transaction():
                answered.set_result(await work(db))
                await asyncio.sleep(0.05)  # what a busy disk takes

        _held.add(task := asyncio.create_task(hold()))
        task.add_done_callback(_held.discard)
        done, _ = await asyncio.wait({task, answered}, return_when=asyncio.FIRST_COMPLETED)
        if task in done and not answered.done():
            task.result()
        return await answered

    Database.statement = statement  # type: ignore[method-assign]


_held: set[asyncio.Task[None]] = set()


def without_repair_of_gaps() -> None:
    """Never read what a room is missing."""
    Repair._run = never  # type: ignore[method-assign]


def without_comparison_with_postgresql() -> None:
    """Never ask PostgreSQL which rooms have moved: what the bus does not say is not known."""
    Comparison._run = never  # type: ignore[method-assign]


def without_resuming() -> None:
    """Let everybody who comes back load all rooms afresh."""

    async def resumable(*_: Any) -> dict[Room, int]:
        return {}

    Joining.resumable = resumable  # type: ignore[method-assign]


def without_one_epoch() -> None:
    """Tell of an epoch that the other instances do not know."""
    own, said = uuid4(), connections.Hello

    def hello(**fields: Any) -> connections.Hello:
        return said(**fields | {"epoch": own})

    connections.Hello = hello  # type: ignore[assignment,misc]


def die_before_publish() -> None:
    """Crash between the commit and the fan-out."""
    publish = Delivery.publish

    def publish_or_die(self: Delivery, events: Iterable[Event]) -> None:
        events = list(events)
        if any('"text":"die"' in event.payload for event in events):
            os.kill(os.getpid(), signal.SIGKILL)
        publish(self, events)

    Delivery.publish = publish_or_die  # type: ignore[method-assign]


BROKEN = {
    "ack_after_commit": without_ack_after_commit,
    "repair_of_gaps": without_repair_of_gaps,
    "comparison_with_postgresql": without_comparison_with_postgresql,
    "resuming": without_resuming,
    "one_epoch": without_one_epoch,
    "stock_redis_manager": stock_redis_manager,
    "die_before_publish": die_before_publish,
}

if __name__ == "__main__":
    BROKEN[sys.argv.pop(1)]()
    sys.argv.append("serve")
    main()
