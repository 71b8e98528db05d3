"""From a command's name and what was sent with it to its answer: decode, permit, limit, run, answer, then publish.

The same path serves the socket and HTTP. A client's commands start in the order in which they arrive; consecutive
calls of a batched command share batches, everything else waits for what is before it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import structlog

from rules.users import Scope
from server.commands import answers
from server.commands.answers import Answer
from server.commands.batches import Batcher
from server.commands.context import Call, Caller, Context, Services, digest
from server.commands.lane import GOING, Lane
from server.commands.limits import network_of
from server.commands.meter import Meter
from server.commands.payload import decode
from server.commands.registry import Command, Transport, commands
from server.errors import Conflict, Forbidden, NotFound, ParleyError, Unauthenticated, Unavailable, UnknownCommand
from server.rooms.log import Event
from server.rooms.sockets import Socket
from storage import Connection, command_keys

_TOO_NARROW = {
    Scope.READ: "This token may only read.",
    Scope.LIMITED: "This token makes no offers, payments or account changes: sign in for one that does.",
}
UNKNOWN = "unknown"  # what all names that are no command are counted as
DRAIN_STEP_S = 0.005  # between two looks at whether all is answered; what is answered may start what waited for it
# That a server on its way out waits for what it has begun. With all that follows it is gone within the 30 s that
# docker-compose.yml and Kubernetes leave it before they kill.
DRAIN_S = 20.0
FOLLOW_S = 3.0  # that a server on its way out waits for what follows its answers: a mail that has been promised

logger = structlog.get_logger("parley.commands")


class Dispatcher:
    """Runs commands; of one socket at most `in_flight` at once."""

    def __init__(self, services: Services, meter: Meter, *, in_flight: int = 64) -> None:
        self.services = services
        self._in_flight = in_flight
        self._meter = meter
        self._batchers = {
            command.name: Batcher(command, services, self._finish_batch)
            for command in commands.values()
            if command.batch
        }
        self._tasks: set[asyncio.Task[None]] = set()
        self._following: set[asyncio.Task[None]] = set()
        self._clock = asyncio.get_running_loop().time
        self.is_closing = False

    def lane(self, hold: Callable[[], None], go_on: Callable[[], None]) -> Lane:
        """A lane for a client that has just connected."""
        return Lane(self._start, self._in_flight, hold, go_on)

    async def drained(self) -> None:
        """Wait until every command that has been started is answered, and a little while for what follows that.

        What has not ended by then is broken off.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                # Again and again: an event would have to be set at every call, for this once in a lifetime.
                while self._tasks or not all(batcher.is_idle for batcher in self._batchers.values()):  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_STEP_S)
        for task in self._tasks:
            task.cancel()
        if self._following:
            await asyncio.wait(self._following, timeout=FOLLOW_S)
        for task in self._following:
            task.cancel()

    def submit(
        self,
        name: str,
        value: Any,
        done: Callable[[Answer], None],
        *,
        caller: Caller | None,
        socket: Socket | None = None,
        lane: Lane | None = None,
        address: str,
        agent: str = "",
    ) -> None:
        """Run a command; `done` is called once, with its answer, before anything it pushed goes out."""
        started = self._clock()
        command = commands.get(name)
        try:
            if command is None or not _is_on(command, socket):
                raise UnknownCommand(f"There is no command {name[:100]!r} here.")
            if self.is_closing:
                raise Unavailable(GOING)
            call = self._prepare(command, value, caller, socket, address, agent, started)
        except Exception as error:
            self.refuse(name, error, done)
            return

        def answered(answer: Answer) -> None:
            self._meter.count(command.name, answer.code, self._clock() - started)
            done(answer)
            if lane is not None:
                lane.finished()

        call.done = answered
        if lane is None:
            self._start(call)
        else:
            lane.add(call)

    def refuse(self, name: str, error: Exception, done: Callable[[Answer], None]) -> None:
        """Answer a call that ends before it has begun; its outcome is counted like any other's."""
        # A name that is no command is counted as one: labels made by clients would grow without bound.
        known = name if name in commands else UNKNOWN
        answer = answers.error(error, known)
        self._meter.count_refused(known, answer.code)
        done(answer)

    def _prepare(
        self,
        command: Command,
        value: Any,
        caller: Caller | None,
        socket: Socket | None,
        address: str,
        agent: str,
        started: float,
    ) -> Call[Any]:
        """Everything that can be refused without asking anybody. Raises the refusal."""
        if caller is None and not command.allow.public:
            raise Unauthenticated("A token is needed: sign in, and send the access token.")
        if caller is not None and not caller.scope.allows(command.scope):
            raise Forbidden(_TOO_NARROW[caller.scope])
        if command.limit is not None:
            key = network_of(address) if command.allow.public or caller is None else caller.user_id
            self.services.limits.take(command.limit, key)
        payload = decode(command.payload, value, self.services.bounds)
        call = Call(
            command,
            payload,
            caller,
            socket=socket,
            address=address,
            agent=agent,
            started=started,
            done=_nobody,
        )
        if command.keyed or command.batch:
            call.digest = digest(self.services.digest_key, command.name, payload)
        if command.room is not None:
            call.room = command.room(payload)
        return call

    def _start(self, call: Call[Any]) -> None:
        if call.command.batch:
            self._batchers[call.command.name].add(call)
        else:
            task = asyncio.create_task(self._run(call), name=call.command.name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, call: Call[Any]) -> None:
        """Run one command that is not batched, answer, publish, and do what it left for afterwards."""
        try:
            answer = await self._attempt(call)
        except Exception as error:
            answer = answers.error(error, call.command.name)
        call.done(answer)
        self.services.publish(answer.events, answer.told)
        for work in answer.after:
            # In a task of its own: a replay is as slow as its client, and nobody waits for it.
            task = asyncio.create_task(self._follow(work, call.command))
            self._following.add(task)
            task.add_done_callback(self._following.discard)

    async def _follow(self, work: Callable[[], Awaitable[object]], command: Command) -> None:
        try:
            await work()
        except ParleyError as error:
            logger.warning("afterwards_failed", command=command.name, error=error.message)
        except Exception:
            logger.exception("afterwards_failed", command=command.name)

    async def _attempt(self, call: Call[Any]) -> Answer:
        command, database = call.command, self.services.database
        if not command.transaction:
            ctx = Context(self.services, call, None)
            try:
                return await self._handle(ctx)
            except Exception:
                self.services.delivery.publish(ctx.events)  # what it committed before it failed
                raise
        if command.reads:
            async with database.connection() as db:
                return await self._handle(Context(self.services, call, db))

        async def unit(db: Connection) -> Answer:
            return await self._handle_keyed(call, db)

        return await database.transaction(unit)

    async def _handle(self, ctx: Context) -> Answer:
        command = ctx.call.command
        if command.allow.check is not None:
            await command.allow.check(ctx, ctx.call.payload)
        data = await command.handler(ctx, ctx.call.payload)
        await ctx.flush()
        answer = answers.result(data)
        answer.events, answer.told, answer.after = ctx.events, ctx.told, ctx.after
        return answer

    async def _handle_keyed(self, call: Call[Any], db: Connection) -> Answer:
        """Run a command in its transaction, once for each client_id.

        A repeat is answered from the object as it is now.
        """
        command = call.command
        if command.again is None:
            return await self._handle(Context(self.services, call, db))
        user_id, client_id = call.user.user_id, call.payload.client_id
        result_id, known = await command_keys.claim_key(db, user_id, command.name, client_id, call.digest)
        ctx = Context(self.services, call, db, result_id)
        if known is not None:
            is_repeat = known.body_hmac == call.digest
            try:
                current = await command.again(ctx, result_id)
            except NotFound:  # they may see it no more
                if is_repeat:
                    raise
                current = None
            if not is_repeat:
                raise Conflict("key_reuse", "This client_id was used for something else: use a new one.", current)
            return answers.result(current)
        answer = await self._handle(ctx)
        if ctx.result_id is not None and ctx.result_id != result_id:
            await command_keys.point_key(db, user_id, command.name, client_id, ctx.result_id)
        return answer

    def _finish_batch(self, answered: Sequence[tuple[Call[Any], Answer]], events: Sequence[Event]) -> None:
        for call, answer in answered:
            try:
                call.done(answer)
            except Exception:  # whatever became of one client, the others are answered
                logger.exception("answer_failed", command=call.command.name)
        self.services.delivery.publish(events)


def _is_on(command: Command, socket: Socket | None) -> bool:
    other = Transport.SOCKET if socket is None else Transport.HTTP
    return command.transport is not other


def _nobody(_: Answer) -> None:
    """Stands where the one who waits for the answer is going to be."""
