"""Between sockets and commands: who may connect, what each connection's events become, when it ends."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog

from server.commands.answers import Answer
from server.commands.context import Caller, Services, encode
from server.commands.dispatch import Dispatcher, Lane
from server.commands.registry import push
from server.errors import Invalid, ParleyError
from server.rooms.log import ephemeral
from server.rooms.names import user_room
from server.rooms.sockets import Socket
from server.wire import Connection, Packet, Refused, ack_packet

logger = structlog.get_logger("parley.sockets")


class ServerDraining(msgspec.Struct, frozen=True):
    """The instance goes; come back after this long, each client at a moment of its own."""

    reconnect_in_ms: int


server_draining = push("server:draining", ServerDraining, "This instance stops soon.", rooms=("user",), ephemeral=True)


class Welcome(NamedTuple):
    """A connect that was let in.

    Who it is and until when (seconds since 1970), its hello, and what serves its replays.
    """

    socket: Socket
    caller: Caller
    expires_at: float
    hello: Packet
    serve: Callable[[], None]


Admit = Callable[[Services, Connection, Any], Awaitable[Welcome]]
"""Judges a connect by its auth data. Raises `ParleyError` to refuse it."""


class _State:
    """What the gateway keeps with a connection."""

    __slots__ = ("lane", "timer", "welcome")

    def __init__(self, welcome: Welcome, lane: Lane, timer: asyncio.TimerHandle) -> None:
        self.welcome = welcome
        self.lane = lane
        self.timer = timer


class Gateway:
    """The wire's listener."""

    def __init__(self, dispatcher: Dispatcher, admit: Admit) -> None:
        self._dispatcher = dispatcher
        self._services = dispatcher.services
        self._admit = admit

    async def connecting(self, connection: Connection, auth: Any) -> None:
        try:
            welcome = await self._admit(self._services, connection, auth)
        except Exception as error:
            raise _refusal(error) from error
        left = welcome.expires_at - time.time()
        timer = asyncio.get_running_loop().call_later(left, connection.close)
        connection.state = _State(welcome, self._dispatcher.lane(), timer)

    def connected(self, connection: Connection) -> None:
        welcome: Welcome = connection.state.welcome
        connection.send(welcome.hello)
        welcome.socket.greeted.set_result(None)
        welcome.serve()

    async def received(self, connection: Connection, name: str, arguments: Sequence[Any], ack_id: int | None) -> None:
        state: _State = connection.state

        def done(answer: Answer) -> None:
            if ack_id is not None:
                connection.send(ack_packet(ack_id, answer.body))
            elif answer.code != "ok":
                logger.info("unheard_error", command=name[:100], code=answer.code)

        if len(arguments) > 1:
            self._dispatcher.refuse(name, Invalid({"payload": "a command takes one object"}), done)
            return
        self._dispatcher.submit(
            name,
            arguments[0] if arguments else None,
            done,
            caller=state.welcome.caller,
            socket=state.welcome.socket,
            lane=state.lane,
            address=connection.address,
            agent=connection.agent,
        )
        await state.lane.room()

    def disconnected(self, connection: Connection) -> None:
        state: _State | None = connection.state
        if state is not None:
            connection.state = None
            state.timer.cancel()
            state.lane.leave()
            self._services.delivery.exit(state.welcome.socket)

    def drain(self, connections: Sequence[Connection], delay_ms: Callable[[], int]) -> None:
        """Tell every client that the server goes, and when to come back."""
        for connection in connections:
            if connection.state is not None:
                room = user_room(connection.state.welcome.socket.user_id)
                told = ephemeral(room, server_draining.name, encode(ServerDraining(delay_ms())).decode())
                connection.send(told.packet)


def _refusal(error: Exception) -> Refused:
    if isinstance(error, ParleyError):
        return Refused(error.message, {key: value for key, value in error.body().items() if key != "message"})
    logger.error("connect_failed", exc_info=error)
    return Refused("Something went wrong on our side.", {"code": "internal"})
