"""Which threads are hot: those whose hundredth-latest event is younger than a day, looked at by a job."""

from functools import partial
from uuid import UUID

import structlog

from handlers.threads import tell_changed
from server.commands.context import Services, Work, work
from server.errors import ParleyError
from server.rooms.names import thread_room
from storage import heat, threads

LOOKED_AT = 500  # threads of one statement

logger = structlog.get_logger("parley.threads")


async def turn_threads(services: Services) -> int:
    """Let threads turn hot, and cold again, and tell their rooms; how many have turned."""
    turned, after = 0, None
    while True:
        async with services.database.connection() as db:
            turning, after = await heat.list_turning(db, after, LOOKED_AT)
        for thread_id in turning:
            try:
                turned += await work(services, partial(_turn, thread_id))
            except ParleyError as error:  # the others are not made to wait for it; it comes again
                logger.warning("turning_failed", thread_id=str(thread_id), error=error.message)
        if after is None:
            return turned


async def _turn(thread_id: UUID, at_work: Work) -> bool:
    """Turn a thread by what holds behind the locks; False where another instance has done it."""
    thread = await threads.lock_thread(at_work.db, thread_id)
    await at_work.lock(thread_room(thread_id))
    is_hot = await heat.is_hot(at_work.db, thread_id)
    if thread is None or thread.is_deleted or thread.is_hot == is_hot:
        return False
    await heat.set_hot(at_work.db, thread_id, is_hot=is_hot)
    await tell_changed(at_work, thread_id)
    return True
