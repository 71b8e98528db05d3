"""For how long what an instance says of people holds: 45 s from when it last said that it lives."""

import asyncio
import contextlib
from uuid import UUID, uuid4

from server.errors import ParleyError
from storage import Database, presence

LEASE_S = 45.0
END_S = 5.0  # what is not taken back by then, another instance buries
BURIED = 1_000  # people of one statement: 60 ms at most, measured at 100,000


class Lease:
    """The lease of one instance. One that another instance has closed is never renewed: the next has another id."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._renewing = asyncio.Lock()
        self._opened = 0
        self.instance_id = uuid4()

    @property
    def is_in_doubt(self) -> bool:
        """Whether connections have been made since it was renewed, as after a crash of PostgreSQL."""
        return self._database.opened != self._opened

    async def renew(self) -> bool:
        """Let hold what this instance says; False where there is a new lease, under which nothing is said yet."""
        async with self._renewing:
            async with self._database.connection() as db:
                opened, instance_id = self._database.opened, self.instance_id
                is_known = await presence.renew(db, instance_id, LEASE_S)
                if not is_known:
                    instance_id = uuid4()
                    await presence.create_instance(db, instance_id, LEASE_S)
            self._opened, self.instance_id = opened, instance_id
        return is_known

    async def end(self) -> None:
        """Take back what this instance said; where there is no time for all of it, at least that it lives."""
        with contextlib.suppress(ParleyError, TimeoutError):
            async with asyncio.timeout(END_S):
                await self.bury(self.instance_id)

    async def bury(self, instance_id: UUID | None = None) -> None:
        """Forget what an instance has said, or without one what all have said whose lease is over.

        First they are closed, then they are buried page by page, each page by itself: what one says anew meanwhile it
        says under another id.
        """
        async with self._database.connection() as db:
            closed = await presence.close_instances(db, instance_id)
        for one in closed:
            is_more = True
            while is_more:
                async with self._database.connection() as db:
                    is_more = await presence.bury(db, one, BURIED)
