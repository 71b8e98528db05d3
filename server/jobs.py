"""What runs beside the commands, at intervals: sweeps of what is old or was never sent or ended, fresh connections."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from handlers.closing import expire_listings
from handlers.emptying import empty_all
from handlers.endings import expire_offers, finish_endings, warn_of_ends
from handlers.erasure import finish_all
from handlers.heat import turn_threads
from handlers.likes import write_counts
from handlers.matching import match_all
from handlers.payments import run_errands
from handlers.sessions import end_expired
from handlers.settling import lapse_deals
from server.adapters.attachments import delete_files
from server.commands.context import Services
from server.errors import ParleyError
from server.outages import Outage
from storage import Connection, attachments, rooms, sessions

SWEEP_EVERY_S = 3600.0
SWEEP_BATCH = 5_000  # rows of one statement: well within its time, and no lock held for long
UNSENT_HOURS = 24  # of an attachment that no message holds, and of a file that no attachment has
UNSENT_BATCH = 500  # each with a file to delete
DEVICE_DAYS = 30  # after its end a session's device and address are forgotten
RESET_DAYS = 1  # a token that resets a password is kept so long after it has expired
EXPIRE_EVERY_S = 3600.0
CLOCK_EVERY_S = 1.0  # what ends by the clock is written within two seconds
WARN_EVERY_S = 5.0
COUNT_EVERY_S = 1.0
EMPTY_EVERY_S = 5.0  # what a deletion of a thread does itself, unless its instance was stopped
HEAT_EVERY_S = 600.0
MATCH_EVERY_S = 5.0  # what is not found behind the answer: an instance was stopped, or it is to be had again
FIRST_AFTER_S = 60.0

logger = structlog.get_logger("parley.jobs")


class Jobs:
    """The jobs of one instance. Each is safe to run on several instances at once."""

    def __init__(self, services: Services, *, retention_days: int) -> None:
        self._services = services
        self._database = services.database
        self._store = services.attachments
        self._retention_days = retention_days
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._tasks = [
            asyncio.create_task(_every(seconds, job, name), name=name)
            for seconds, job, name in (
                (SWEEP_EVERY_S, self.sweep, "sweep events"),
                (SWEEP_EVERY_S, self.sweep_attachments, "sweep attachments"),
                (SWEEP_EVERY_S, self.sweep_sessions, "sweep sessions"),
                (SWEEP_EVERY_S, self.finish_erasures, "finish erasures"),
                (EXPIRE_EVERY_S, self.expire_connections, "expire connections"),
                (CLOCK_EVERY_S, self.expire_offers, "expire offers"),
                (CLOCK_EVERY_S, self.expire_listings, "expire listings"),
                (CLOCK_EVERY_S, self.finish_endings, "finish endings"),
                (CLOCK_EVERY_S, self.lapse_deals, "lapse deals"),
                (CLOCK_EVERY_S, self.run_errands, "run errands"),
                (COUNT_EVERY_S, self.write_counts, "write counts"),
                (WARN_EVERY_S, self.warn_of_ends, "warn of ends"),
                (EMPTY_EVERY_S, self.empty_threads, "empty threads"),
                (HEAT_EVERY_S, self.turn_threads, "turn threads"),
                (MATCH_EVERY_S, self.match_listings, "match listings"),
            )
        ]

    async def stop(self) -> None:
        """End, in the middle of a job if need be: a batch is a transaction. What has been counted is written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self.write_counts()
        except ParleyError as error:
            logger.warning("counts_lost", error=error.message)

    async def sweep(self) -> int:
        """Delete the events that are past their retention, batch by batch; how many went."""
        swept = await self._batches(lambda db: rooms.sweep_events(db, self._retention_days, SWEEP_BATCH))
        if swept:
            logger.info("events_swept", events=swept)
        return swept

    async def expire_connections(self) -> None:
        """Have every connection that commands are done on made anew at its next use.

        Not those of the upkeep, of few statements: there a new one says that PostgreSQL may have crashed, upon which
        all rooms' memory is let go.
        """
        await self._database.expire_connections()

    async def expire_offers(self) -> int:
        """Write the end of the offers whose time is over; how many they were."""
        return await expire_offers(self._services)

    async def expire_listings(self) -> int:
        """Write the end of the listings whose time is over; how many they were."""
        return await expire_listings(self._services)

    async def finish_endings(self) -> int:
        """Write the ends of negotiations that were too many for one transaction; how many they were."""
        return await finish_endings(self._services)

    async def lapse_deals(self) -> int:
        """Write the end of the deals that were not paid in time; how many they were."""
        return await lapse_deals(self._services)

    async def run_errands(self) -> int:
        """Ask the payment provider what is to be asked of it; how many errands were done."""
        return await run_errands(self._services)

    async def write_counts(self) -> int:
        """Write the views and likes that were counted here; how many listings' were written."""
        return await write_counts(self._services)

    async def warn_of_ends(self) -> int:
        """Tell both sides of the offers that end soon; how many they were."""
        return await warn_of_ends(self._services)

    async def empty_threads(self) -> int:
        """Take away what is left of deleted threads; how many they were."""
        left = await empty_all(self._services)
        if left:
            logger.info("threads_emptied", threads=left)
        return left

    async def match_listings(self) -> int:
        """Find the counterparts of listings that nobody has looked for; how many listings they were."""
        return await match_all(self._services)

    async def turn_threads(self) -> int:
        """Let threads turn hot, and cold again; how many have."""
        return await turn_threads(self._services)

    async def sweep_sessions(self) -> int:
        """End the sessions that stand beyond their end, and take away what is of no use any more; how many have ended.

        That is where ended sessions were, and on what, and the tokens that have expired.
        """
        ended = await end_expired(self._services)
        forgotten = await self._batches(lambda db: sessions.forget_devices(db, DEVICE_DAYS, SWEEP_BATCH))
        tokens = await self._batches(lambda db: sessions.sweep_tokens(db, RESET_DAYS, SWEEP_BATCH))
        if ended or forgotten or tokens:
            logger.info("sessions_swept", sessions=ended, devices=forgotten, tokens=tokens)
        return ended

    async def finish_erasures(self) -> int:
        """Erase what is left of people whose erasure an instance did not finish; how many they were."""
        left = await finish_all(self._services)
        if left:
            logger.info("erasures_finished", people=left)
        return left

    async def sweep_attachments(self) -> int:
        """Delete the attachments that were never sent, then the files that no attachment has; how many files went.

        Rows first, each batch committed: a file that could not be deleted is nobody's, and comes again with those.
        """
        swept, batch = 0, UNSENT_BATCH
        while batch == UNSENT_BATCH:
            async with self._database.connection() as db:
                gone = await attachments.sweep_unsent(db, UNSENT_HOURS, UNSENT_BATCH)
            batch = len(gone)
            swept += await delete_files(self._store, [file_id for file_id in gone if file_id is not None])
        async for old in self._store.list_old(UNSENT_HOURS * 3600):
            async with self._database.connection() as db:
                known = await attachments.list_known_files(db, old)
            swept += await delete_files(self._store, [file_id for file_id in old if file_id not in known])
        if swept:
            logger.info("attachments_swept", files=swept)
        return swept

    async def _batches(self, sweep: Callable[[Connection], Awaitable[int]]) -> int:
        """Sweep until a batch is not full; how many rows that were."""
        swept, batch = 0, SWEEP_BATCH
        while batch == SWEEP_BATCH:
            async with self._database.connection() as db:
                batch = await sweep(db)
            swept += batch
        return swept


async def _every(seconds: float, job: Callable[[], Awaitable[object]], name: str) -> None:
    pause = min(seconds, FIRST_AFTER_S)  # soon after the start: an instance may not live for an hour
    outage = Outage("job_failed", job=name)
    while True:
        await asyncio.sleep(pause)
        pause = seconds
        try:
            await job()
        except Exception as error:
            outage.failed(error)
        else:
            outage.over()
