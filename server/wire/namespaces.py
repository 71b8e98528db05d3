"""python-socketio's handlers on our engine: who comes to a namespace and goes, and what is sent to it.

What is known of a session (its environ, what handlers have saved with it) stays until the last of them has heard that
it has ended.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import socketio

from server.wire.codec import CONNECT, CONNECT_ERROR, Packet, packet_of
from server.wire.connection import Client
from server.wire.facade import Facade, Outgoing
from server.wire.members import Members
from server.wire.session import Reason, Session

Work = Callable[[], Awaitable[None]]


class Namespaces(socketio.AsyncServer):  # type: ignore[misc]
    """The namespaces whose events go to handlers registered with `on`."""

    eio: Facade
    manager: Members

    def push(self, eio_sid: str, namespace: str, packet: Packet) -> None:
        """Send a packet to a session; to a namespace that it is connecting to, when it has connected."""
        session = self.eio.sessions.get(eio_sid)
        if session is not None:
            early = session.state.early
            if early is not None and namespace in early:
                early[namespace].append(packet)
            else:
                session.push(packet)

    async def call(
        self,
        event: str,
        data: Any = None,
        to: str | None = None,
        sid: str | None = None,
        namespace: str | None = None,
        timeout: float = 60,
        ignore_queue: bool = False,
    ) -> Any:
        """A client's answer to an event. Raises socketio's TimeoutError; nothing is kept of a call then."""
        asked = to or sid
        if asked is None:
            raise ValueError("a call is to one client")
        said: asyncio.Future[tuple[Any, ...]] = asyncio.get_running_loop().create_future()

        def hear(*arguments: Any) -> None:
            if not said.done():  # an answer may come just as the time is over
                said.set_result(arguments)

        try:
            await self.emit(event, data, to=asked, namespace=namespace, callback=hear, ignore_queue=ignore_queue)
            async with asyncio.timeout(timeout):
                arguments = await said
        except TimeoutError:
            raise socketio.exceptions.TimeoutError from None
        finally:
            self.manager.forget_callback(asked, hear)
        return arguments if len(arguments) > 1 else arguments[0] if arguments else None

    # what handlers hear

    async def _admit_by_handler(self, session: Session, client: Client, namespace: str, auth: Any) -> None:
        """Let a handler judge a connect, when it has heard that the client left, where that was here before."""
        await self.manager.left(session.sid, namespace)
        if not session.is_closed:
            await self._judge(session, client, namespace, auth)

    async def _judge(self, session: Session, client: Client, namespace: str, auth: Any) -> None:
        """Have a connect judged. What the handler emits to the client follows the answer to the connect."""
        client.early = {**(client.early or {}), namespace: []}
        try:
            await self._handle_connect(session.sid, namespace, auth)
        except Exception:  # the library leaves a client whose handler has broken where it is
            half = self.manager.sid_from_eio_sid(session.sid, namespace)
            if half is not None:
                self.manager.basic_disconnect(half, namespace)
            raise
        early = client.early.pop(namespace)
        sid = self.manager.sid_from_eio_sid(session.sid, namespace)
        if sid is None:
            if client.namespaces is not None:
                client.namespaces.discard(namespace)
        elif session.is_closed:
            await self._left(session, namespace, Reason.TRANSPORT_CLOSE)
        else:
            for packet in early:
                session.push(packet)

    async def _left(self, session: Session, namespace: str, reason: Reason) -> None:
        """Have a namespace's handler hear that a client is gone."""
        sid = self.manager.sid_from_eio_sid(session.sid, namespace)
        if self.manager.is_connected(sid, namespace):
            await self._gone(sid, namespace, self._handle_disconnect(session.sid, namespace, reason))

    async def _gone(self, sid: str, namespace: str, work: Awaitable[None]) -> None:
        """A client that has left a namespace is not there any more, though the handler that hears of it breaks."""
        try:
            await work
        finally:
            self.manager.basic_disconnect(sid, namespace)

    def _heard(self, session: Session, work: Work) -> Coroutine[Any, Any, None]:
        """What is known of a session is kept until this is done, though it ends meanwhile: handlers may ask for it."""
        client: Client = session.state
        client.hearing += 1

        async def hear() -> None:
            try:
                await work()
            finally:
                client.hearing -= 1
                self._let_go(session)

        return hear()

    def _let_go(self, session: Session) -> None:
        """Forget what handlers may ask of a session that has ended, where none hears of it any more."""
        if not session.is_closed:
            return
        if session.state.hearing:
            self.eio.keep(session.sid)
        else:
            self.eio.let_go(session.sid)
            self.environ.pop(session.sid, None)

    # what python-socketio calls

    async def _send_packet(self, eio_sid: str, pkt: Outgoing) -> None:
        """python-socketio's way to send: the answer to a connect precedes what was emitted during it."""
        session = self.eio.sessions.get(eio_sid)
        if session is None:
            return
        packet = packet_of(pkt.packet_type, pkt.namespace, pkt.id, pkt.data)
        if pkt.packet_type in (CONNECT, CONNECT_ERROR):
            session.push(packet)
        else:
            self.push(eio_sid, pkt.namespace, packet)

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> None:
        """What instruments the server passes on; the session is known already."""

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        """What instruments the server passes on; the session is forgotten already."""

    def _engineio_server_class(self) -> type[Facade]:
        return Facade
