"""What stands above a session: a client's connection, whom it is told to, and what it is to Socket.IO."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from server.wire.codec import Packet, Received
from server.wire.session import Session


class Refused(Exception):
    """A connect that is refused; the client hears `connect_error` with `message` and `data`."""

    def __init__(self, message: str, data: dict[str, Any]) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class Connection:
    """One client's connection to the namespace `/`. `state` belongs to the listener."""

    __slots__ = ("address", "agent", "session", "sid", "state")

    def __init__(self, session: Session, sid: str, address: str, agent: str) -> None:
        self.session = session
        self.sid = sid
        self.address = address
        self.agent = agent
        self.state: Any = None

    def send(self, message: Packet, *, droppable: bool = False) -> bool:
        """Send a packet behind those sent before; False where it was dropped (closed, or droppable and far behind)."""
        return self.session.push(message, droppable=droppable)

    def answer(self, message: Packet) -> None:
        """Send a packet in one write with what follows it, if something does at once."""
        self.session.push_along(message)

    async def paced(self) -> None:
        """Wait until the client has taken most of what was sent to it, or is gone. For replays."""
        await self.session.paced()

    def hold(self) -> None:
        """Let what the client sends wait until `go_on`; nothing more is read from it meanwhile."""
        self.session.hold()

    def go_on(self) -> None:
        """Receive what has waited, and read on."""
        self.session.go_on()

    def close(self) -> None:
        """End the connection, telling the client that the server did (it does not reconnect by itself)."""
        self.send(_DISCONNECT)
        self.session.close()

    def drop(self) -> None:
        """End the transport under the connection, so that the client comes back by itself.

        What is said to it in this turn of the loop still goes out, such as the answer to what was asked last.
        """
        asyncio.get_running_loop().call_soon(self.session.close)

    @property
    def is_open(self) -> bool:
        return not self.session.is_closed


_DISCONNECT = Packet("1")


def send_all(connections: Iterable[Connection], packet: Packet, *, droppable: bool = False) -> None:
    """Send a packet to many. Nobody of them is told to be gone before it returns."""
    frames = packet.frames
    for connection in connections:
        session = connection.session
        if session.is_flowing:  # as in `Session.push`, whose calls would cost a tenth of the system call
            frame = frames[session.encoding] or packet.encode(session.encoding)
            try:
                sent = session.send(frame)
            except OSError:
                sent = 0
            if sent != len(frame):
                session.write(frame[sent:])
        else:
            session.push(packet, droppable=droppable)


class Listener(Protocol):
    """What happens on connections to `/`, called in order for each of them."""

    async def connecting(self, connection: Connection, auth: Any) -> None:
        """A client asks to connect; what it sends meanwhile waits. Raise `Refused` to turn it away."""

    def connected(self, connection: Connection) -> None:
        """The client has been told that it is connected: what is sent from now on follows."""

    def received(self, connection: Connection, name: str, arguments: Sequence[Any], ack_id: int | None) -> None:
        """An event arrived. Call `hold` where no more should come for now."""

    def disconnected(self, connection: Connection) -> None:
        """The connection is gone; called once for each one for which `connecting` has returned."""


class Client:
    """What a session is to Socket.IO.

    `timer` ends it where it connects to no namespace in time, of which `patience_s` is left when a connect is judged;
    `waiting` is a packet whose attachments are still to come; `early` holds, for each namespace that is being
    connected, what is sent there before it is; `hearing` is how many handlers are hearing that it comes or goes.
    """

    __slots__ = (
        "address",
        "agent",
        "attachments",
        "connection",
        "early",
        "hearing",
        "is_fresh",
        "namespaces",
        "patience_s",
        "timer",
        "waiting",
    )

    def __init__(self, address: str, agent: str, patience_s: float) -> None:
        self.address = address
        self.agent = agent
        self.is_fresh = True
        self.connection: Connection | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.patience_s = patience_s
        self.hearing = 0
        self.waiting: Received | None = None
        self.attachments: list[bytes] = []
        self.early: dict[str, list[Packet]] | None = None
        self.namespaces: set[str] | None = None

    @property
    def attached(self) -> int:
        """The bytes of the attachments so far."""
        return sum(map(len, self.attachments))

    def attach(self, attachment: bytes) -> Received | None:
        """One more of the attachments that are waited for; the whole packet, when it was the last."""
        assert self.waiting is not None
        self.attachments.append(attachment)
        if len(self.attachments) < self.waiting.attachments:
            return None
        whole, self.waiting, self.attachments = self.waiting.filled(self.attachments), None, []
        return whole
