"""Reading from the log what rooms are missing: after the time of a plain reorder, many of them in one statement."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice

import structlog

from server.outages import Outage
from server.rooms import log
from server.rooms.local import LocalRoom
from server.rooms.log import Event
from server.rooms.names import Room
from storage import Database
from storage import rooms as table

REORDER_S = 0.05  # the plain reorder of two publishers settles within this
RETRY_S = 1.0
ROOMS = 200  # of one statement; half as many after one that failed
ROWS, BYTES = 2_000, 4 * 1024 * 1024  # of one statement; what is beyond comes with another

logger = structlog.get_logger("parley.rooms")

Mend = Callable[[LocalRoom, Sequence[Event]], None]
"""Delivers what was read and what waited for it."""

GiveUp = Callable[[LocalRoom], None]
"""Lets everybody in a room start anew: what comes next there is lost."""


class Repair:
    """What rooms are missing, until they are not. `rooms` are those watched here."""

    def __init__(self, database: Database, rooms: Mapping[Room, LocalRoom], mend: Mend, give_up: GiveUp) -> None:
        self._database = database
        self._rooms = rooms
        self._mend = mend
        self._give_up = give_up
        self._behind: dict[LocalRoom, int] = {}
        self._at_once = ROOMS
        self._is_stopped = False
        self._outage = Outage("repair_failed")
        self.task: asyncio.Task[None] | None = None

    def expect(self, local: LocalRoom, seq: int) -> None:
        """Read what is missing up to `seq`, unless it comes by itself within the time of a plain reorder."""
        asyncio.get_running_loop().call_later(REORDER_S, self._begin, local, seq)

    def forget(self) -> None:
        """Read nothing of what is missing now."""
        self._behind.clear()

    async def stop(self) -> None:
        """Stop reading, for good."""
        self._is_stopped = True
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    def _begin(self, local: LocalRoom, seq: int) -> None:
        self._note(local, seq)
        if self._behind and not self._is_stopped and (self.task is None or self.task.done()):
            self.task = asyncio.create_task(self._run(), name="repair rooms")

    def _note(self, local: LocalRoom, seq: int) -> None:
        """Read what a room misses in its turn: behind the others, up to the highest seq that was asked for."""
        if self._is_behind(local, seq):
            self._behind[local] = max(seq, self._behind.get(local, 0))

    def _is_behind(self, local: LocalRoom, seq: int) -> bool:
        return self._rooms.get(local.room) is local and local.head is not None and local.head < seq

    async def _run(self) -> None:
        """Read what the rooms that are behind miss, some of them at a time, until none is behind."""
        while self._behind:
            turn = self._next()
            heads = {local.room: local.head for local in turn if local.head is not None}
            blankings = {local: local.blankings for local in turn}
            try:
                found, logged = await self._read(heads)
            except Exception as error:
                self._outage.failed(error)
                self._at_once = max(1, len(turn) // 2)
                for local, seq in turn.items():
                    self._note(local, seq)
                await asyncio.sleep(RETRY_S)
            else:
                if heads:
                    self._outage.over()
                self._at_once = min(ROOMS, self._at_once * 2)
                misread = {local for local in turn if local.blankings != blankings[local]}
                self._deliver(turn, misread, heads, found, logged)

    def _next(self) -> dict[LocalRoom, int]:
        """The rooms whose turn it is, with the seqs that they miss."""
        turn = {local: self._behind.pop(local) for local in list(islice(self._behind, self._at_once))}
        return {local: seq for local, seq in turn.items() if self._is_behind(local, seq)}

    async def _read(self, heads: Mapping[Room, int]) -> tuple[dict[Room, list[Event]], dict[Room, int]]:
        """What follows the heads; and the log's own heads of the rooms for which that does not begin with the next."""
        if not heads:
            return {}, {}
        async with self._database.connection() as db:
            found = await log.read(db, heads, room_rows=max(1, ROWS // len(heads)), rows=ROWS, bytes_=BYTES)
            lacking = [room.id for room, events in found.items() if not _goes_on(events, heads[room])]
            logged = await table.list_heads(db, lacking) if lacking else []
        return found, {Room(head.kind, head.room_id): head.last_seq for head in logged}

    def _deliver(
        self,
        turn: dict[LocalRoom, int],
        misread: Collection[LocalRoom],
        heads: Mapping[Room, int],
        found: Mapping[Room, Sequence[Event]],
        logged: Mapping[Room, int],
    ) -> None:
        """Deliver what was read, but for what has been blanked meanwhile.

        Rooms that are behind still get another turn, unless their next event is lost.
        """
        # The statement gives room after room until its bounds are reached: up to the last that got something, a room
        # that got nothing has nothing.
        undecided: set[LocalRoom] = set()
        for local in reversed(turn):
            if found[local.room]:
                break
            undecided.add(local)
        if len(undecided) == len(turn):
            undecided.clear()
        for local, seq in turn.items():
            if local in misread:
                self._note(local, seq)
                continue
            self._mend(local, found[local.room])
            if local.head != heads[local.room] or local in undecided:
                self._note(local, seq)
            elif logged.get(local.room, 0) > heads[local.room]:
                logger.error("log_has_a_hole", room=str(local.room), behind=local.head)
                self._give_up(local)
            elif self._is_behind(local, seq):
                logger.error("never_logged", room=str(local.room), seq=seq)  # asked again, it would say the same


def _goes_on(events: Sequence[Event], head: int) -> bool:
    return bool(events) and events[0].seq == head + 1
