"""What runs beside the commands, at intervals: the sweep of old events, and fresh connections."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from server.errors import ParleyError
from storage import Database, rooms

SWEEP_EVERY_S = 3600.0
SWEEP_BATCH = 5_000  # rows of one statement: well within its time, and no lock held for long
EXPIRE_EVERY_S = 3600.0
FIRST_AFTER_S = 60.0

logger = structlog.get_logger("parley.jobs")


class Jobs:
    """The jobs of one instance. Each is safe to run on several instances at once."""

    def __init__(self, database: Database, *, retention_days: int) -> None:
        self._database = database
        self._retention_days = retention_days
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._tasks = [
            asyncio.create_task(_every(SWEEP_EVERY_S, self.sweep), name="sweep events"),
            asyncio.create_task(_every(EXPIRE_EVERY_S, self._database.expire_connections), name="expire connections"),
        ]

    async def stop(self) -> None:
        """End, in the middle of a job if need be: a batch is a transaction."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def sweep(self) -> int:
        """Delete the events that are past their retention, batch by batch; how many went."""
        swept = 0
        while True:
            async with self._database.connection() as db:
                gone = await rooms.sweep_events(db, self._retention_days, SWEEP_BATCH)
            swept += gone
            if gone < SWEEP_BATCH:
                if swept:
                    logger.info("events_swept", events=swept)
                return swept


async def _every(seconds: float, job: Callable[[], Awaitable[object]]) -> None:
    pause = FIRST_AFTER_S  # soon after the start: an instance may not live for an hour
    while True:
        await asyncio.sleep(pause)
        pause = seconds
        try:
            await job()
        except ParleyError as error:
            logger.warning("job_failed", error=error.message)
        except Exception:
            logger.exception("job_failed")
