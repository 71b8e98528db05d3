"""Between sockets and commands: who may connect, what each connection's events become, when it ends."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import structlog

from rules.presence import PresenceState
from server.commands.answers import Answer
from server.commands.context import Caller, Services, encode
from server.commands.dispatch import Dispatcher
from server.commands.lane import GOING, Lane
from server.commands.registry import push
from server.commands.tokens import Claims, spelt
from server.errors import Invalid, ParleyError, Unavailable
from server.rooms.log import ephemeral
from server.rooms.names import user_room
from server.rooms.sockets import Socket
from server.wire import Connection, Packet, Refused, ack_packet
from storage import Time

NOTICE_S = 60.0  # before its token's end a socket is told to renew it; of a short life, when half of it is over
UNHEARD_S = 1.0  # between two lines about errors of one socket that waits for no answers: it must not fill the log

logger = structlog.get_logger("parley.sockets")


class ServerDraining(msgspec.Struct, frozen=True):
    """The instance goes; come back after this long, each client at a moment of its own."""

    reconnect_in_ms: int


server_draining = push("server:draining", ServerDraining, "This instance stops soon.", rooms=("user",), ephemeral=True)


class SessionExpiring(msgspec.Struct, frozen=True):
    """The socket ends at `expires_at`, unless account:renew brings a fresh token before."""

    session_id: UUID
    expires_at: Time


session_expiring = push(
    "session:expiring",
    SessionExpiring,
    "This socket's token ends within a minute; to that socket alone.",
    rooms=("user",),
    ephemeral=True,
)


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
    """What the gateway keeps with a connection, whose end is that of its token."""

    __slots__ = (
        "_end", "_notice", "_notice_s", "_unheard", "_unheard_at", "caller", "expires_at", "lane", "welcome",
    )  # fmt: skip

    def __init__(self, welcome: Welcome, lane: Lane, notice_s: float) -> None:
        self.welcome = welcome
        self.lane = lane
        self._notice_s = notice_s
        self.caller = welcome.caller
        self.expires_at = welcome.expires_at
        self._end = self._at(0, welcome.socket.connection.close)
        self._notice: asyncio.TimerHandle | None = None
        self._unheard = 0
        self._unheard_at = -UNHEARD_S

    def unheard(self, command: str, code: str) -> None:
        """Log an error that the client does not wait for, now and then, with how many there were since."""
        self._unheard += 1
        now = asyncio.get_running_loop().time()
        if now - self._unheard_at >= UNHEARD_S:
            logger.info("unheard_error", command=command[:100], code=code, count=self._unheard)
            self._unheard, self._unheard_at = 0, now

    def greeted(self) -> None:
        """The client knows where it is: from now on it may be told that its time runs out."""
        self._notice = self._at(self._notice_s, self._notify)

    def renew(self, claims: Claims) -> None:
        """Let a fresh token's end and scope take the place of the old one's."""
        self.cancel()
        self.caller = replace(self.caller, scope=claims.scope)
        self.expires_at = claims.expires_at
        self._end = self._at(0, self.welcome.socket.connection.close)
        self._notice = self._at(self._notice_s, self._notify)

    def cancel(self) -> None:
        """Let nothing happen any more."""
        self._end.cancel()
        if self._notice is not None:
            self._notice.cancel()

    def _at(self, before_s: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        left = self.expires_at - time.time()
        return asyncio.get_running_loop().call_later(max(0.0, left - before_s), then)

    def _notify(self) -> None:
        socket = self.welcome.socket
        told = SessionExpiring(socket.session_id, spelt(self.expires_at))
        event = ephemeral(user_room(socket.user_id), session_expiring.name, encode(told).decode())
        socket.connection.send(event.packet)


def renew(socket: Socket, claims: Claims) -> None:
    """Let a fresh token of the same session keep a socket, with that token's scope; one that is gone stays gone."""
    state: _State | None = socket.connection.state
    if state is not None:
        state.renew(claims)


class Gateway:
    """The wire's listener."""

    def __init__(self, dispatcher: Dispatcher, admit: Admit) -> None:
        self._dispatcher = dispatcher
        self._services = dispatcher.services
        self._admit = admit
        # A fresh token must not be so near its end that the notice follows at once, and another renewal, and so on.
        self._notice_s = min(NOTICE_S, dispatcher.services.tokens.access_ttl_s / 2)

    async def connecting(self, connection: Connection, auth: Any) -> None:
        try:
            self._refuse_if_going()
            welcome = await self._admit(self._services, connection, auth)
            if not welcome.socket.is_gone and self._dispatcher.is_closing:
                self._services.delivery.exit(welcome.socket)
                self._refuse_if_going()
        except Exception as error:
            raise _refusal(error) from error
        lane = self._dispatcher.lane(connection.hold, connection.go_on)
        connection.state = _State(welcome, lane, self._notice_s)

    def connected(self, connection: Connection) -> None:
        state: _State = connection.state
        connection.send(state.welcome.hello)
        state.welcome.socket.greeted.set_result(None)
        state.welcome.serve()
        self._services.presences.say(state.welcome.socket, PresenceState.ONLINE)
        state.greeted()

    def received(self, connection: Connection, name: str, arguments: Sequence[Any], ack_id: int | None) -> None:
        state: _State = connection.state

        def done(answer: Answer) -> None:
            if ack_id is not None:
                connection.answer(ack_packet(ack_id, answer.body))
            elif answer.code != "ok":
                state.unheard(name, answer.code)

        if len(arguments) > 1:
            self._dispatcher.refuse(name, Invalid({"payload": "a command takes one object"}), done)
            return
        self._dispatcher.submit(
            name,
            arguments[0] if arguments else None,
            done,
            caller=state.caller,
            socket=state.welcome.socket,
            lane=state.lane,
            address=connection.address,
            agent=connection.agent,
        )

    def disconnected(self, connection: Connection) -> None:
        state: _State | None = connection.state
        if state is not None:
            connection.state = None
            state.cancel()
            state.lane.leave()
            self._services.delivery.exit(state.welcome.socket)
            self._services.presences.leave(state.welcome.socket)

    def _refuse_if_going(self) -> None:
        """Let nobody in whom no `server:draining` would reach any more. Raises `Unavailable`."""
        if self._dispatcher.is_closing:
            raise Unavailable(GOING)

    def drain(self, connections: Sequence[Connection], delay_ms: Callable[[], int]) -> None:
        """Tell every client that the server goes, and when to come back; refuse what it asked for and is not begun."""
        for connection in connections:
            if connection.state is not None:
                connection.state.lane.refuse()
                room = user_room(connection.state.welcome.socket.user_id)
                told = ephemeral(room, server_draining.name, encode(ServerDraining(delay_ms())).decode())
                connection.send(told.packet)


def _refusal(error: Exception) -> Refused:
    if isinstance(error, ParleyError):
        return Refused(error.message, {key: value for key, value in error.body().items() if key != "message"})
    logger.error("connect_failed", exc_info=error)
    return Refused("Something went wrong on our side.", {"code": "internal"})
