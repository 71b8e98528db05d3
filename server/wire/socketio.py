"""The Socket.IO server that the rest of Parley sees: connections, their events in order, their answers.

python-socketio's own API (namespaces, `on`, `emit`, rooms, `call`, the admin UI) stays usable on `Server`; Parley's
commands don't go through its event handlers but to one `Listener`, in the order in which a client sent them.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from aiohttp import web

from server.wire.admission import Admission, Rate
from server.wire.codec import (
    ACK,
    BINARY_ACK,
    BINARY_EVENT,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    Packet,
    Received,
    packet_of,
    parse_packed,
    parse_text,
)
from server.wire.connection import Client, Connection, Listener, Refused
from server.wire.facade import Outgoing, environ_of, log
from server.wire.members import Members
from server.wire.namespaces import Namespaces, Work
from server.wire.session import Reason, Session


def _peer(request: web.Request) -> str:
    return request.remote or "unknown"


class Server(Namespaces):
    """A Socket.IO server on aiohttp. With a `Listener` connections to `/` and their events go to it; everything else,
    and without one everything, to handlers registered with `on`.

    Times are in milliseconds, sizes in bytes. `origins` are the web origins let in beside the same one (`*`: all); a
    client without an Origin header, such as a phone, always is. `per_address` bounds the sessions of one address, or of
    its network, as `network_of` sees it; `handshakes` how fast sessions are opened; None for no bound. `namespaces` are
    those that exist without a handler (`*`: all).
    """

    def __init__(
        self,
        listener: Listener | None = None,
        *,
        address_of: Callable[[web.Request], str] = _peer,
        network_of: Callable[[str], str] = str,
        ping_interval_ms: int = 25_000,
        ping_timeout_ms: int = 20_000,
        connect_timeout_ms: int = 10_000,
        frame_bytes: int = 131_072,
        deflate: bool = False,
        origins: Sequence[str] = (),
        polling: bool = True,
        per_address: int | None = None,
        handshakes: Rate | None = None,
        namespaces: Sequence[str] = ("/",),
    ) -> None:
        super().__init__(
            client_manager=Members(),
            logger=log,
            serializer=Outgoing,
            namespaces=namespaces if namespaces == "*" else list(namespaces),
            ping_interval=ping_interval_ms / 1000,
            ping_timeout=ping_timeout_ms / 1000,
            most_bytes=frame_bytes,
            deflate=deflate,
            origins=origins,
            polling=polling,
        )
        self.eio.above = self
        self.eio.observers.clear()
        self._listener = listener
        self._address_of = address_of
        self._network_of = network_of
        self._connect_timeout_s = connect_timeout_ms / 1000
        self._connections: dict[str, Connection] = {}
        self._admission = Admission(per_address, handshakes)

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def sessions(self) -> int:
        """Engine.IO sessions, those that have not connected to a namespace included."""
        return len(self.eio.sessions)

    @property
    def connections(self) -> list[Connection]:
        """The listener's connections."""
        return list(self._connections.values())

    async def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        """Disconnect a client, which does not come back by itself."""
        if (namespace or "/") == "/" and self._listener is not None:
            eio_sid = self.manager.eio_sid_from_sid(sid, "/")
            if eio_sid in self._connections:
                self._connections[eio_sid].close()
            return
        namespace = namespace or "/"
        session = self.eio.sessions.get(self.manager.eio_sid_from_sid(sid, namespace))
        # Where the session has ended, or the client is leaving, its handler hears of it already.
        if session is not None and not session.is_closed and self.manager.is_connected(sid, namespace):
            self._leave(session, namespace)
            work = super().disconnect(sid, namespace, ignore_queue)
            await self._heard(session, lambda: self._gone(sid, namespace, work))

    async def shutdown(self) -> None:
        """End all sessions. Whoever asks for it says so in the log: the base class would say it too."""
        await self.eio.shutdown()

    # what the engine calls

    def opening(self, request: web.Request) -> None:
        network = self._network_of(self._address_of(request))
        self._admission.judge(network, asyncio.get_running_loop().time())
        self._admission.opened(network)

    def not_opened(self, request: web.Request) -> None:
        self._admission.ended(self._network_of(self._address_of(request)))

    def opened(self, session: Session, request: web.Request) -> None:
        address = self._address_of(request)
        session.state = Client(address, request.headers.get("User-Agent", ""), self._connect_timeout_s)
        if self._listener is None or self.handlers or self.namespace_handlers or self.namespaces != ["/"]:
            self.environ[session.sid] = environ_of(request, address)
            self.eio.observe("connect", session.sid, self.environ[session.sid])
        self._await_connect(session)

    def received(self, session: Session, message: bytes, at: int, *, is_binary: bool) -> None:
        client: Client = session.state
        if client.waiting is not None:
            if not is_binary or len(message) + client.attached > self.eio.most_bytes:
                raise ValueError("an attachment is missing, or they are too large")
            whole = client.attach(message)
            if whole is None:
                return
            packet = whole
        elif is_binary:
            if not client.is_fresh and not session.encoding.is_msgpack:
                raise ValueError("an attachment of nothing")
            packet = parse_packed(message)
        elif session.encoding.is_msgpack:
            raise ValueError("not in the codec of its connect")
        else:
            packet = parse_text(message, at)
        if packet.type == EVENT and client.connection is not None and packet.namespace == "/":
            data = packet.data
            self._listener.received(client.connection, data[0], data[1:], packet.ack_id)  # type: ignore[union-attr]
        else:
            self._deal(session, client, packet, is_binary)

    def ended(self, session: Session, reason: Reason) -> None:
        client: Client = session.state
        self._admission.ended(self._network_of(client.address))
        if client.timer is not None:
            client.timer.cancel()
        self._forget(session, client)
        for namespace in client.namespaces or ():
            self.start_background_task(self._heard, session, partial(self._left, session, namespace, reason))
        if self.environ:
            self.eio.observe("disconnect", session.sid, reason)
        self._let_go(session)

    # packets

    def _deal(self, session: Session, client: Client, packet: Received, is_binary: bool) -> None:
        """Every packet but an event for the listener. Raises ValueError where it is not the time for it."""
        kind, namespace = packet.type, packet.namespace
        if kind == CONNECT:
            if client.is_fresh:
                client.is_fresh = False
                if is_binary:
                    session.encoding = session.encoding.packed()
            self._connect(session, client, namespace, packet.data)
            return
        is_listened = namespace == "/" and client.connection is not None
        if not is_listened and namespace not in (client.namespaces or ()):
            raise ValueError("a packet for a namespace that is not connected")
        if kind in (BINARY_EVENT, BINARY_ACK):
            if packet.attachments:
                client.waiting = packet
                return
            packet = packet.filled(())
            kind = packet.type
        if kind == DISCONNECT:
            self._disconnected(session, client, namespace)
        elif kind == ACK:
            sid = self.manager.sid_from_eio_sid(session.sid, namespace)
            self.start_background_task(self.manager.trigger_callback, sid, packet.ack_id, packet.data)
        elif is_listened:
            assert self._listener is not None
            assert client.connection is not None
            self._listener.received(client.connection, packet.data[0], packet.data[1:], packet.ack_id)
        else:
            sid = self.manager.sid_from_eio_sid(session.sid, namespace)
            # Tasks begin in the order in which they are made, so that handlers begin in the order of the events.
            self.start_background_task(
                self._handle_event_internal, self, sid, session.sid, packet.data, namespace, packet.ack_id
            )

    def _connect(self, session: Session, client: Client, namespace: str, auth: Any) -> None:
        if namespace == "/" and self._listener is not None:
            if client.connection is not None:
                raise ValueError("connected already")
            work: Work = partial(self._admit, session, client, auth)
        elif not self._is_known(namespace):
            session.push(packet_of(CONNECT_ERROR, namespace, None, {"message": "Invalid namespace"}))
            return
        else:
            if client.namespaces is None:
                client.namespaces = set()
            if namespace in client.namespaces:
                raise ValueError("connected already")
            client.namespaces.add(namespace)
            admit = partial(self._admit_by_handler, session, client, namespace, auth)
            work = partial(self._heard, session, admit)
        if client.timer is not None:  # the client has done its part; how long judging it takes is ours
            client.patience_s = client.timer.when() - asyncio.get_running_loop().time()
            client.timer.cancel()
            client.timer = None
        session.hold()
        self.start_background_task(self._held, session, work)

    async def _held(self, session: Session, work: Work) -> None:
        """Let a connect be judged; what the client sends meanwhile waits."""
        try:
            await work()
        except Exception:
            session.abort()
            raise
        self._await_connect(session)
        session.go_on()

    async def _admit(self, session: Session, client: Client, auth: Any) -> None:
        """Let the listener judge a connect to `/`."""
        assert self._listener is not None
        connection = Connection(session, self.eio.generate_id(), client.address, client.agent)
        try:
            await self._listener.connecting(connection, auth)
        except Refused as refusal:
            about = {"message": refusal.message, "data": refusal.data}
            session.push(packet_of(CONNECT_ERROR, "/", None, about))
            return
        if session.is_closed:
            self._listener.disconnected(connection)
            return
        client.connection = self._connections[session.sid] = connection
        self.manager.enter(connection.sid, "/", session.sid)
        connection.answer(Packet(f'0{{"sid":"{connection.sid}"}}'))
        self._listener.connected(connection)

    def _is_known(self, namespace: str) -> bool:
        declared = self.handlers, self.namespace_handlers, self.namespaces
        return bool(self.namespaces == "*" or any(namespace in each for each in declared))

    def _disconnected(self, session: Session, client: Client, namespace: str) -> None:
        """A client has left a namespace; its session stands, and may connect anew."""
        if namespace == "/" and client.connection is not None:
            self._forget(session, client)
        else:
            self.start_background_task(self._heard, session, partial(self._left, session, namespace, Reason.CLIENT))
        self._leave(session, namespace)

    def _leave(self, session: Session, namespace: str) -> None:
        """A client is in a namespace no more; in none at all it has the time to connect that it had at first."""
        client: Client = session.state
        if client.namespaces is not None:
            client.namespaces.discard(namespace)
        client.patience_s = self._connect_timeout_s
        if not session.is_held:  # else it begins when the connect that is being judged has been
            self._await_connect(session)

    def _forget(self, session: Session, client: Client) -> None:
        connection, client.connection = client.connection, None
        if connection is not None:
            del self._connections[session.sid]
            self.manager.basic_disconnect(connection.sid, "/")
            assert self._listener is not None
            self._listener.disconnected(connection)

    def _await_connect(self, session: Session) -> None:
        """End a session that is in no namespace, if it does not connect to one in the time that it has left for it."""
        client: Client = session.state
        if session.is_closed or client.connection is not None or client.namespaces:
            return
        if client.timer is not None:
            client.timer.cancel()
        loop = asyncio.get_running_loop()
        client.timer = loop.call_later(client.patience_s, session.abort, Reason.TRANSPORT_CLOSE)
