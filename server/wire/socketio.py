"""The Socket.IO server that the rest of Parley sees: connections, their events in order, their answers.

python-socketio's own API (namespaces, `emit`, rooms, `call`, the admin UI) stays usable on `Server`; Parley's
commands don't go through its event handlers but to one `Listener`, in the order in which a client sent them.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import socketio
from aiohttp import web
from socketio import packet

from server.wire import codec
from server.wire.codec import Packet
from server.wire.engineio import Engine, log

# What the protocol's own clients say of themselves: from a client's packet it is an attempt to pass for the server.
RESERVED = frozenset({"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"})
ATTACHMENTS = 10  # binary attachments of one packet: no command takes bytes, so this only bounds what is held to say so


class Refused(Exception):
    """A connect that is refused; the client hears `connect_error` with `message` and `data`."""

    def __init__(self, message: str, data: dict[str, Any]) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class Connection:
    """One client's connection to the namespace `/`. `state` belongs to the listener."""

    __slots__ = ("_engine", "_session", "address", "agent", "sid", "state")

    def __init__(self, engine: Engine, session: Any, sid: str, address: str, agent: str) -> None:
        self._engine = engine
        self._session = session
        self.sid = sid
        self.address = address
        self.agent = agent
        self.state: Any = None

    def send(self, message: Packet, *, droppable: bool = False) -> bool:
        """Queue a packet behind those sent before; False where it was dropped (closed, or droppable and far behind)."""
        sent: bool = self._session.push(message, droppable=droppable)
        return sent

    async def paced(self) -> None:
        """Wait until the client has taken most of what was sent to it, or is gone. For replays."""
        await self._session.paced()

    def close(self) -> None:
        """End the connection, telling the client that the server did (it does not reconnect by itself)."""
        self.send(Packet("1"))
        self._engine.start_background_task(self._session.close, wait=False)

    def drop(self) -> None:
        """End the transport under the connection, so that the client comes back by itself."""
        self._engine.start_background_task(self._session.close, wait=False)

    @property
    def is_open(self) -> bool:
        return not self._session.closed


class _Rooms(socketio.AsyncManager):  # type: ignore[misc]
    """python-socketio's rooms, knowing which ones a client is in.

    The library looks through every room there is when a client leaves, and each client has one of its own: 8,000
    clients that go at once held the loop for 4.2 s.
    """

    def __init__(self) -> None:
        super().__init__()
        self._entered: dict[tuple[str, str], set[str | None]] = {}

    def basic_enter_room(self, sid: str, namespace: str, room: str | None, eio_sid: str | None = None) -> None:
        super().basic_enter_room(sid, namespace, room, eio_sid=eio_sid)
        self._entered.setdefault((namespace, sid), set()).add(room)

    def basic_leave_room(self, sid: str, namespace: str, room: str | None) -> None:
        super().basic_leave_room(sid, namespace, room)
        self._entered.get((namespace, sid), set()).discard(room)

    def basic_disconnect(self, sid: str, namespace: str, **_: Any) -> None:
        for room in self._entered.pop((namespace, sid), ()):
            super().basic_leave_room(sid, namespace, room)
        self.callbacks.pop(sid, None)
        for pending in (self.pending_connect, self.pending_disconnect):
            sids = pending.get(namespace)
            if sids is not None and sid in sids:
                sids.remove(sid)
                if not sids:
                    del pending[namespace]


class Listener(Protocol):
    """What happens on connections, called in order for each of them."""

    async def connecting(self, connection: Connection, auth: Any) -> None:
        """A client asks to connect. Raise `Refused` to turn it away."""

    def connected(self, connection: Connection) -> None:
        """The client has been told that it is connected: what is sent from now on follows."""

    async def received(self, connection: Connection, name: str, arguments: Sequence[Any], ack_id: int | None) -> None:
        """An event arrived. While this waits, nothing more is read from the client."""

    def disconnected(self, connection: Connection) -> None:
        """The connection is gone; called once for each one for which `connecting` has returned."""


class Server(socketio.AsyncServer):  # type: ignore[misc]
    """A Socket.IO server on aiohttp that hands connections and their events to a `Listener`.

    Times are in milliseconds, sizes in bytes. `origins` are the web origins let in beside the same one (`*`: all); a
    client without an Origin header, such as a phone, always is.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        address_of: Callable[[web.Request], str],
        ping_interval_ms: int = 25_000,
        ping_timeout_ms: int = 20_000,
        connect_timeout_ms: int = 10_000,
        frame_bytes: int = 131_072,
        origins: Sequence[str] = (),
    ) -> None:
        super().__init__(
            async_mode="aiohttp",
            client_manager=_Rooms(),
            json=codec,
            logger=log,
            engineio_logger=log,
            ping_interval=ping_interval_ms / 1000,
            ping_timeout=ping_timeout_ms / 1000,
            max_http_buffer_size=frame_bytes,
            http_compression=False,
            cors_allowed_origins="*" if "*" in origins else (list(origins) or None),
            namespaces=["/"],
        )
        self._listener = listener
        self._address_of = address_of
        self._connect_timeout_s = connect_timeout_ms / 1000
        self._connections: dict[str, Connection] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def sessions(self) -> int:
        """Engine.IO sessions, those that have not connected to the namespace included."""
        return len(self.eio.sockets)

    @property
    def connections(self) -> list[Connection]:
        return list(self._connections.values())

    def _engineio_server_class(self) -> type[Engine]:
        return Engine

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> None:
        request = environ["aiohttp.request"]
        # Not the whole environ: it would keep the request alive as long as the connection.
        kept = {"REMOTE_ADDR": self._address_of(request), "HTTP_USER_AGENT": environ.get("HTTP_USER_AGENT", "")}
        await super()._handle_eio_connect(eio_sid, kept)
        self._await_connect(eio_sid)

    def _await_connect(self, eio_sid: str) -> None:
        """End the session if it does not connect to the namespace within the time-out."""
        loop = asyncio.get_running_loop()
        self._timers[eio_sid] = loop.call_later(self._connect_timeout_s, self._expire, eio_sid)

    def _expire(self, eio_sid: str) -> None:
        session = self.eio.sockets.get(eio_sid)
        if session is not None and eio_sid not in self._connections:
            session.abort()

    async def _handle_eio_message(self, eio_sid: str, data: str | bytes) -> None:
        try:
            await super()._handle_eio_message(eio_sid, data)
            waiting = self._binary_packet.get(eio_sid)
            if waiting is not None and waiting.attachment_count > ATTACHMENTS:
                raise ValueError("too many attachments")
        except Exception:
            log.debug("%s: malformed message", eio_sid, exc_info=True)
            self._hang_up(eio_sid)

    def _hang_up(self, eio_sid: str) -> None:
        session = self.eio.sockets.get(eio_sid)
        if session is not None:
            session.abort()

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: Any) -> None:
        if (namespace or "/") != "/":
            await self._refuse(eio_sid, namespace, {"message": "Invalid namespace"})
            return
        if eio_sid in self._connections:
            raise ValueError("connected already")
        environ = self.environ[eio_sid]
        session = self.eio.sockets[eio_sid]
        self._timers[eio_sid].cancel()  # the client has done its part; how long judging it takes is ours
        sid = await self.manager.pre_connect(eio_sid, "/")
        connection = Connection(self.eio, session, sid, environ["REMOTE_ADDR"], environ["HTTP_USER_AGENT"])
        try:
            await self._listener.connecting(connection, data)
        except Refused as refusal:
            await self._refuse(eio_sid, None, {"message": refusal.message, "data": refusal.data})
            await self.manager.disconnect(sid, "/", ignore_queue=True)
            if eio_sid in self._timers:
                self._await_connect(eio_sid)
            return
        if session.closed:
            self._listener.disconnected(connection)
            await self.manager.disconnect(sid, "/", ignore_queue=True)
            return
        self._connections[eio_sid] = connection
        await self.manager.connect(sid, "/")
        connection.send(Packet(f'0{{"sid":"{sid}"}}'))
        self._listener.connected(connection)

    async def _refuse(self, eio_sid: str, namespace: str | None, data: dict[str, Any]) -> None:
        await self._send_packet(eio_sid, self.packet_class(packet.CONNECT_ERROR, data=data, namespace=namespace))

    async def _handle_event(self, eio_sid: str, namespace: str | None, ack_id: int | None, data: Any) -> None:
        connection = self._connections.get(eio_sid)
        if connection is None or (namespace or "/") != "/":
            raise ValueError("an event before the connect")
        if not isinstance(data, list) or not data or not isinstance(data[0], str) or data[0] in RESERVED:
            raise ValueError("not an event")
        await self._listener.received(connection, data[0], data[1:], ack_id)

    async def _handle_disconnect(self, eio_sid: str, namespace: str | None, reason: str | None = None) -> None:
        await super()._handle_disconnect(eio_sid, namespace, reason)
        self._forget(eio_sid)
        if eio_sid in self._timers:  # the session stands, and may connect anew
            self._timers[eio_sid].cancel()
            self._await_connect(eio_sid)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        self._forget(eio_sid)
        await super()._handle_eio_disconnect(eio_sid, reason)
        self._binary_packet.pop(eio_sid, None)
        timer = self._timers.pop(eio_sid, None)
        if timer is not None:
            timer.cancel()

    def _forget(self, eio_sid: str) -> None:
        connection = self._connections.pop(eio_sid, None)
        if connection is not None:
            self._listener.disconnected(connection)
