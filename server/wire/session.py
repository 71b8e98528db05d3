"""One client's Engine.IO session, whatever it goes over: an object without a task or a timer of its own.

Whatever a client sends that the protocol has not ends its session at once, with all that was held for it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol

from aiohttp import web

from server.wire.codec import Encoding, Packet
from server.wire.frames import Kind, decode_payload, frame
from server.wire.polling import CLOSE, NOOP, Overlap, Polling
from server.wire.refusals import BAD_REQUEST, Refusal
from server.wire.stall import Stall
from server.wire.websocket import BACKLOG_BYTES, DROP_BYTES, PACE_BYTES, WebSocket

STALL_S = 10.0  # nothing taken for so long, though something waits: cut

_PING = frame(Kind.TEXT, b"2")

log = logging.getLogger("parley.wire")


class Reason(StrEnum):
    """Why a session ended, in the words of Socket.IO's own servers."""

    CLIENT = "client disconnect"
    SERVER = "server disconnect"
    PING_TIMEOUT = "ping timeout"
    TRANSPORT_CLOSE = "transport close"
    TRANSPORT_ERROR = "transport error"


class Cut(StrEnum):
    """Why a client was cut that has not left."""

    STALLED = "stalled"  # it took nothing for `STALL_S` of what waited
    BEHIND = "behind"  # more waited than `BACKLOG_BYTES`
    SILENT = "silent"  # it did not answer a ping


class Above(Protocol):
    """What stands on the sessions."""

    def opening(self, request: web.Request) -> None:
        """Somebody asks for a session. Raises `Refusal`."""

    def opened(self, session: "Session", request: web.Request) -> None:
        """There is a session."""

    def not_opened(self, request: web.Request) -> None:
        """There is none after all, for whom one was being opened."""

    def received(self, session: "Session", message: bytes, at: int, *, is_binary: bool) -> None:
        """A message, from `at` on. Raises ValueError where it is malformed: that ends the session."""

    def ended(self, session: "Session", reason: Reason) -> None:
        """The session is gone; called once."""


class Keeper(Protocol):
    """What keeps the sessions."""

    above: Above
    cuts: dict[Cut, int]

    def answered(self, session: "Session") -> None:
        """A session's client has answered a ping."""

    def ended(self, session: "Session", *, lingers: bool) -> None:
        """A session is gone; one that lingers has something left for a last poll."""

    def forget(self, session: "Session") -> None:
        """A session that lingered has nothing left."""

    async def body_of(self, request: web.Request) -> bytes:
        """A request's body. Raises `Refusal`, ValueError where it is no body, and ConnectionError."""


class Trial(Protocol):
    """A WebSocket that tries to take over."""

    def abort(self) -> None:
        """Cut it."""


class Session:
    """One client's session, over polling, a WebSocket, or first the one and then the other.

    `state` belongs to what stands on it. `is_flowing` says that a WebSocket is open and nothing waits for its client:
    what is sent may go straight by `send`, and what that does not take by `write`.
    """

    __slots__ = (
        "_along",
        "_engine",
        "_held",
        "_is_cut",
        "_is_slow",
        "_polling",
        "_probe",
        "_ready",
        "_stall",
        "_ws",
        "due",
        "encoding",
        "is_asked",
        "is_closed",
        "is_flowing",
        "send",
        "sid",
        "state",
        "write",
    )

    def __init__(self, engine: Keeper, sid: str) -> None:
        self.sid = sid
        self.state: Any = None
        self.encoding = Encoding.JSON
        self.is_closed = False
        self.is_flowing = False
        self.is_asked = False
        self.due = 0
        self._engine = engine
        self._ws: WebSocket | None = None
        self.write: Callable[[bytes], None] = _nowhere
        self.send: Callable[[bytes], int] = len  # as if all of it had been taken
        self._polling: Polling | None = None
        self._probe: Trial | None = None
        self._held: deque[tuple[bytes, bool]] | None = None
        self._ready: list[asyncio.Future[None]] | None = None
        self._stall: Stall | None = None
        self._is_slow = False
        self._is_cut = False
        self._along: bytes | None = None

    # what stands on it calls

    @property
    def upgraded(self) -> bool:
        """Whether it goes over a WebSocket."""
        return self._ws is not None

    @property
    def backlog(self) -> int:
        """Bytes that wait in this process for the client."""
        if self._ws is not None:
            return 0 if self.is_closed else self._ws.backlog
        return 0 if self._polling is None else self._polling.backlog

    def push(self, packet: Packet, *, droppable: bool = False) -> bool:
        """Send a packet behind those before. A client that is too far behind is cut.

        False where it was dropped: the session is closed, or the packet may be dropped and the client is far behind.
        """
        if self.is_flowing:
            self._send(packet.frames[self.encoding] or packet.encode(self.encoding))
            return True
        if self.is_closed or (droppable and self.backlog > DROP_BYTES):
            return False
        if self._ws is not None:
            self._give(packet.frames[self.encoding] or packet.encode(self.encoding))
        elif self._polling is not None:
            self._leave(self._polling, packet.payload(self.encoding))
        if self.backlog > BACKLOG_BYTES:
            self._overflow()
        return not self._is_cut

    def push_along(self, packet: Packet) -> None:
        """Send a packet with the next one, in one write; at the latest when this turn of the loop is over.

        An answer goes out so with what it has caused: a system call costs more than all the rest of a packet.
        """
        if self.is_flowing:
            self.is_flowing = False
            self._along = packet.frames[self.encoding] or packet.encode(self.encoding)
            asyncio.get_running_loop().call_soon(self._go_along)
        else:
            self.push(packet)

    async def paced(self) -> None:
        """Wait until the client has taken most of what was sent to it, or is gone."""
        while self.backlog > PACE_BYTES and not self.is_closed:  # of many that wait, the first may have filled it again
            waiter = asyncio.get_running_loop().create_future()
            if self._ready is None:
                self._ready = []
            self._ready.append(waiter)
            await waiter

    def hold(self) -> None:
        """Let messages wait until `go_on`, and read no more of them than are on their way."""
        if not (self.is_held or self.is_closed):
            self._held = deque()
            if self._ws is not None:
                self._ws.pause()

    def go_on(self) -> None:
        """Deal with the messages that wait, in order, until one of them asks to hold again."""
        held, self._held = self._held, None
        if held is not None:
            self._deal_with(held)

    @property
    def is_held(self) -> bool:
        """Whether messages wait."""
        return self._held is not None

    def close(self) -> None:
        """End it from this side; the client hears of it behind what was sent before."""
        self._go_along()
        if self._ws is not None and not self.is_closed:
            self._ws.close()
        self._end(Reason.SERVER)

    def abort(self, reason: Reason = Reason.TRANSPORT_ERROR) -> None:
        """Cut it: nothing more reaches the client, not even what waits."""
        if self._ws is not None and not self.is_closed:
            self._ws.abort()
        self._end(reason, cut=True)

    # what a WebSocket calls

    def received(self, message: bytes, *, is_binary: bool) -> None:
        """An Engine.IO packet arrived, or a binary message. Raises ValueError where it is malformed."""
        if is_binary or message[:1] == b"4":
            if self._held is None:
                self._engine.above.received(self, message, 0 if is_binary else 1, is_binary=is_binary)
            else:
                self._held.append((message, is_binary))
        elif message == b"3":
            self._engine.answered(self)
        elif message == b"1":
            if self._ws is not None:
                self._ws.close()
            self._end(Reason.TRANSPORT_CLOSE, last=NOOP)
        else:
            raise ValueError("not a packet of a client")

    def slowed(self) -> None:
        """Something waits."""
        self._is_slow = True
        self.is_flowing = False

    def flowing(self) -> None:
        """Nothing waits."""
        self._is_slow = False
        self._stall = None
        self._flow()
        self._release()

    def lost(self, *, malformed: bool) -> None:
        """The WebSocket is gone."""
        self._end(Reason.TRANSPORT_ERROR if malformed else Reason.TRANSPORT_CLOSE)

    # what the engine calls

    def open(self, ws: WebSocket) -> None:
        """Go over a WebSocket from now on."""
        self._ws, self._probe = ws, None
        self.write, self.send = ws.write, ws.send
        self._is_slow = ws.backlog > 0
        self._flow()
        if ws.is_deflated:
            self.encoding = self.encoding.deflated()
        if self._held is not None:
            ws.pause()
        polling, self._polling = self._polling, None
        if polling is not None:
            for packet in polling.hand_over():
                is_text = isinstance(packet, str)
                self.write(frame(Kind.TEXT, packet.encode()) if is_text else frame(Kind.BINARY, packet))  # type: ignore
            polling.go_on()  # a POST that has not been answered: what is left of it waits here
            self._release()

    def ask(self) -> None:
        """Send a ping."""
        if self._ws is not None:
            self._give(_PING)
        elif self._polling is not None:
            self._leave(self._polling, b"2")

    def look(self, now: float) -> None:
        """Cut the client where it has taken nothing for `STALL_S` of what waits for it, or is gone while it polls."""
        if self._polling is not None:
            if self._polling.is_deserted:
                self.abort(Reason.TRANSPORT_CLOSE)
                return
            self._polling.look()
        backlog = self.backlog
        if not backlog:
            self._stall = None
            self._flow()
        elif self._stall is None:
            self._stall = Stall(backlog, now)
            self.is_flowing = False  # what is sent is counted from here on, so that what is taken can be told
        else:
            self._stall.look(backlog, now)
            if now - self._stall.moved_at > STALL_S:
                self._engine.cuts[Cut.STALLED] += 1
                self.abort()

    async def poll(self, request: web.Request) -> bytes:
        """What waits for a client that polls, or comes next. Raises `Refusal`."""
        connection = request.transport
        if self._polling is None or connection is None:
            raise Refusal(*BAD_REQUEST)
        try:
            body = await self._polling.poll(connection)
        except Overlap:
            self.abort()
            raise Refusal(*BAD_REQUEST) from None
        if connection.is_closing():  # the client has gone, and what was for it with it
            self.abort(Reason.TRANSPORT_CLOSE)
        if self.is_closed:
            self._engine.forget(self)
        return body

    async def post(self, request: web.Request) -> None:
        """Deal with the packets that a client has posted. Raises `Refusal`."""
        polling = self._polling
        if polling is None or self.is_closed:
            raise Refusal(*BAD_REQUEST)
        try:
            polling.begin_post()
            try:
                for packet in decode_payload(await polling.body(self._engine.body_of(request))):
                    while self.is_held and self._polling is polling:
                        await polling.read()
                    if self.is_closed:
                        raise Refusal(*BAD_REQUEST)
                    is_binary = isinstance(packet, bytes)
                    self.received(packet if isinstance(packet, bytes) else packet.encode(), is_binary=is_binary)
            finally:
                polling.end_post()
        except (ValueError, Overlap, ConnectionError, TimeoutError):
            self.abort()
            raise Refusal(*BAD_REQUEST) from None
        except Exception:
            self.abort()
            raise

    def probe(self, trial: Trial) -> None:
        """Let a WebSocket try to take over, unless one has, or is at it."""
        if self._polling is not None and self._probe is None and not self.is_closed:
            self._probe = trial

    def is_tried_by(self, trial: Trial) -> bool:
        """Whether that WebSocket may take over."""
        return self._probe is trial

    def probed(self) -> None:
        """The WebSocket works: have the client end its polling."""
        if self._polling is not None:
            self._polling.upgrade()

    def keep_polling(self, trial: Trial) -> None:
        """A WebSocket that tried to take over has failed."""
        if self._probe is trial:
            self._probe = None
            if self._polling is not None:
                self._polling.is_upgrading = False

    def start_polling(self) -> None:
        """Go over polling, for now."""
        self._polling = Polling(self.flowing)

    # inside

    def _deal_with(self, held: deque[tuple[bytes, bool]]) -> None:
        while held and self._held is None:
            self._deal(*held.popleft())
            if self.is_closed:
                return
        if self._held is not None:
            held.extend(self._held)
            self._held = held
        elif self._ws is not None:
            self._ws.resume()
        elif self._polling is not None:
            self._polling.go_on()

    def _send(self, frames: bytes) -> None:
        """Write to a client for which nothing waits."""
        try:
            sent = self.send(frames)
        except OSError:  # where it is more than a lack of room, the transport finds that out
            sent = 0
        if sent != len(frames):
            self.write(frames[sent:])

    def _leave(self, polling: Polling, payload: bytes) -> None:
        """Let packets wait for a client that polls."""
        polling.give(payload)
        if self._stall is not None:
            self._stall.give(len(payload))

    def _give(self, frames: bytes) -> None:
        """Write to a client for which something may wait."""
        if self._along is not None:
            frames, self._along = self._along + frames, None
        if self._stall is not None:
            self._stall.give(len(frames))
        if self._is_slow:
            self.write(frames)
        else:
            self._send(frames)
        self._flow()

    def _go_along(self) -> None:
        """Write what was to go along with something, where nothing has come."""
        if self._along is not None:
            self._give(b"")

    def _flow(self) -> None:
        """Let what is sent go straight to the WebSocket, where nothing speaks against it."""
        held_up = self._is_slow or self.is_closed or self._stall is not None or self._along is not None
        self.is_flowing = self._ws is not None and not held_up

    def _overflow(self) -> None:
        """Cut a client that is too far behind. It ends in the loop's next turn: whoever sends may be amid a crowd."""
        if not self._is_cut:
            self._engine.cuts[Cut.BEHIND] += 1
        self._is_cut = True
        self.write, self.send = _nowhere, len
        if self._ws is not None:
            self._ws.abort()
        elif self._polling is not None:
            self._polling.end(cut=True)
        asyncio.get_running_loop().call_soon(self.abort)

    def _deal(self, message: bytes, is_binary: bool) -> None:
        """A message that had to wait."""
        try:
            self._engine.above.received(self, message, 0 if is_binary else 1, is_binary=is_binary)
        except ValueError:
            if self._ws is not None:
                self._ws.fail(message, is_binary=is_binary)
            else:
                self.abort()
        except Exception:
            log.exception("a message broke what it was for")
            self.abort()

    def _release(self) -> None:
        ready, self._ready = self._ready, None
        for waiter in ready or ():
            if not waiter.done():
                waiter.set_result(None)

    def _end(self, reason: Reason, *, cut: bool = False, last: bytes = CLOSE) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self.is_flowing = False
        self.write, self.send = _nowhere, len
        self._held = self._stall = self._along = None
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.abort()
        lingers = False
        if self._polling is not None:
            # Whoever polls is told by its next poll; who has said goodbye by the one that waits, or is on its way.
            lingers = not (cut or (last == NOOP and self._polling.is_polled))
            self._polling.end(cut=cut, last=last)
        self._release()
        self._engine.ended(self, lingers=lingers)
        self._engine.above.ended(self, reason)


def _nowhere(_: bytes) -> None:
    """Where what is written to a closed session goes."""
