"""Comparing this instance's heads with the log, every second: what nobody announced is found here.

It reads which rooms have rows of transactions that were not finished at the last look (`room_events.xid`, against that
look's snapshot). A cursor on ids or times misses what commits out of order; this misses nothing, reads nothing twice,
and does not mind a long transaction. A row that has been blanked is one of the transaction that did it, so that what it
said is forgotten here too.

Ids of transactions that ended in a crash of PostgreSQL may be given out again, below what the last look asks for. Every
connection has broken by then: over a new one all heads are compared.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

import structlog

from server.outages import Outage
from server.rooms.local import LocalRoom
from server.rooms.names import Room
from storage import Connection, Database
from storage import rooms as table
from storage.rooms import Head

BEFORE_ALL = "3:3:"  # a snapshot in which nothing has happened yet
COMPARE_S = 1.0
CHUNK = 5_000  # rooms of one statement when all heads are compared
FAILURES = 2  # then all heads are compared: what has piled up may be too much for one statement's time

logger = structlog.get_logger("parley.rooms")


class Comparison:
    """Finds the rooms that are behind, and those that are blanked.

    `expect` is told of each that is behind, with the seq that the log has, and before it `forget` of each in which
    something may have been blanked, with the seq up to which.
    """

    def __init__(
        self,
        database: Database,
        rooms: Mapping[Room, LocalRoom],
        expect: Callable[[LocalRoom, int], None],
        forget: Callable[[Room, int], None],
        on_new_epoch: Callable[[], None],
    ) -> None:
        self._database = database
        self._rooms = rooms
        self._expect = expect
        self._forget = forget
        self._on_new_epoch = on_new_epoch
        self._snapshot = BEFORE_ALL
        self._opened = 0
        self._task: asyncio.Task[None] | None = None
        self.fresh: set[Room] = set()
        self.epoch: UUID | None = None

    async def start(self) -> None:
        """Begin. Raises `Unavailable` where PostgreSQL does not answer."""
        async with self._database.connection() as db:
            self.epoch = (await table.find_deployment(db)).epoch
            self._opened = self._database.opened
            self._snapshot = await table.find_snapshot(db)
        self._task = asyncio.create_task(self._run(), name="compare heads")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def watch(self, room: Room) -> None:
        """Compare this room's own head once, at the next look.

        What was committed between the snapshot of its head and the bus's subscription is announced by neither, and may
        lie before what the next look asks for.
        """
        self.fresh.add(room)

    def note_epoch(self, epoch: UUID) -> None:
        """Say what epoch the database has now; of another one than before `on_new_epoch` is told."""
        if epoch != self.epoch:
            logger.warning("epoch_changed", was=str(self.epoch), now=str(epoch))
            self.epoch = epoch
            self._on_new_epoch()

    async def compare(self) -> None:
        """Find the rooms that moved since the last look, or have been watched only since, and are behind here."""
        fresh, self.fresh = self.fresh, set()
        was = self.epoch
        try:
            async with self._database.connection() as db:
                if self._database.opened != self._opened:
                    await self._compare_all(db)
                    return
                moved = await table.list_moved(db, self._snapshot)
                heads = await table.list_heads(db, [room.id for room in fresh]) if fresh else []
        except BaseException:
            self.fresh |= fresh
            raise
        if self.epoch != was:  # somebody has seen a newer one while we asked
            self.fresh |= fresh
            return
        self._snapshot = moved.snapshot
        self.note_epoch(moved.epoch)
        self._note_blanked(moved.blanked)
        self._note_heads(moved.heads)
        self._note_heads(heads)

    async def compare_all(self) -> None:
        """Compare every head, and forget what is remembered: what has been blanked shows in none."""
        async with self._database.connection() as db:
            await self._compare_all(db)

    async def _compare_all(self, db: Connection) -> None:
        opened = self._database.opened
        was, deployment = self.epoch, await table.find_deployment(db)
        if self.epoch == was:
            self.note_epoch(deployment.epoch)
        snapshot = await table.find_snapshot(db)
        ids = [room.id for room in self._rooms]
        for start in range(0, len(ids), CHUNK):
            heads = await table.list_heads(db, ids[start : start + CHUNK])
            self._note_blanked(heads)
            self._note_heads(heads)
        self._opened, self._snapshot = opened, snapshot

    async def _run(self) -> None:
        failures, outage = 0, Outage("compare_failed")
        while True:
            await asyncio.sleep(COMPARE_S)
            try:
                await (self.compare() if failures < FAILURES else self.compare_all())
                failures = 0
                outage.over()
            except Exception as error:
                failures += 1
                outage.failed(error)

    def _note_blanked(self, heads: Iterable[Head]) -> None:
        for head in heads:
            self._forget(Room(head.kind, head.room_id), head.last_seq)

    def _note_heads(self, heads: Iterable[Head]) -> None:
        for head in heads:
            local = self._rooms.get(Room(head.kind, head.room_id))
            if local is not None and local.head is not None and local.head < head.last_seq:
                self._expect(local, head.last_seq)
