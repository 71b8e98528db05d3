"""Reading from the log what rooms are missing: after the time of a plain reorder, one statement for all of them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from server.rooms import log
from server.rooms.local import LocalRoom
from server.rooms.log import Event
from server.rooms.names import Room
from storage import Database

REORDER_S = 0.05  # the plain reorder of two publishers settles within this
RETRY_S = 1.0
ROOM_ROWS, ROWS, BYTES = 500, 2_000, 4 * 1024 * 1024  # of one statement; what is beyond comes with the next

logger = structlog.get_logger("parley.rooms")

Mend = Callable[[LocalRoom, Sequence[Event]], bool]
"""Delivers what was read and what waited for it; whether that brought the room on."""


class Repair:
    """What rooms are missing, until they are not. `rooms` are those watched here."""

    def __init__(self, database: Database, rooms: Mapping[Room, LocalRoom], mend: Mend) -> None:
        self._database = database
        self._rooms = rooms
        self._mend = mend
        self._behind: dict[LocalRoom, int] = {}
        self.task: asyncio.Task[None] | None = None

    def expect(self, local: LocalRoom, seq: int) -> None:
        """Read what is missing up to `seq`, unless it comes by itself within the time of a plain reorder."""
        asyncio.get_running_loop().call_later(REORDER_S, self._begin, local, seq)

    async def stop(self) -> None:
        """Stop reading."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    def _begin(self, local: LocalRoom, seq: int) -> None:
        if not self._is_behind(local, seq):
            return
        self._behind[local] = max(seq, self._behind.get(local, 0))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._run(), name="repair rooms")

    async def _run(self) -> None:
        """Read what the rooms that are behind miss, until none is behind."""
        while self._behind:
            targets, self._behind = self._behind, {}
            heads = {local.room: local.head for local in targets if local.head is not None}
            try:
                async with self._database.connection() as db:
                    found = await log.read(db, heads, room_rows=ROOM_ROWS, rows=ROWS, bytes_=BYTES)
            except Exception as error:
                logger.warning("repair_failed", rooms=len(heads), error=str(error))
                self._behind = {**targets, **self._behind}
                await asyncio.sleep(RETRY_S)
                continue
            moved = [self._mend(local, found.get(local.room, [])) for local in targets]
            behind = {local: seq for local, seq in targets.items() if self._is_behind(local, seq)}
            if any(moved):  # the rest is what the bounds cut off
                self._behind = behind | self._behind
            elif behind:
                # The log has not what was announced, or a hole before it: asked again it would say the same.
                logger.error("log_has_a_hole", rooms=[str(local.room) for local in behind])

    def _is_behind(self, local: LocalRoom, seq: int) -> bool:
        return self._rooms.get(local.room) is local and local.head is not None and local.head < seq
