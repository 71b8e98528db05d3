"""A WebSocket taken over from aiohttp: its C reader feeds packets straight in, frames go straight out.

No task, no queue and no writer object a connection or a message. The takeover happens inside aiohttp's routing, behind
its middlewares, by private parts of aiohttp, which are all in this file: `WebSocketReader` and the queue that it calls,
`ws_ext_parse`; of `RequestHandler` `_message_tail`, `_reading_paused` and `_buffer_paused`, and that its transport may
be given another protocol; of a response `_send_headers_immediately`, `_eof_sent` and `_req`; of a request the parsed
`_message`. The version is pinned, and tests/wire/test_takeover.py says which assumption broke when it is raised.

The reader is laxer than RFC 6455 in two things, and checking them would cost every frame: only the first frame of a
connection has to be masked, and where a message begins with an empty fragment, another one may come in its middle.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from aiohttp import web
from aiohttp._websocket.helpers import ws_ext_parse
from aiohttp._websocket.models import WebSocketError
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.http_websocket import WSMsgType

from server.wire.frames import CloseCode, Kind, close_frame, fault_of, frame
from server.wire.handshake import accepted

BACKLOG_BYTES = 1024 * 1024  # held in this process for one client; over it the client is cut, and resumes later
DROP_BYTES = 256 * 1024  # behind this much, a client is not sent what may be dropped
PACE_BYTES = 64 * 1024  # a replay goes on when less than this is waiting
CLOSE_S = 5.0  # for the client to close its side, once ours is closed

log = logging.getLogger("parley.wire")

_NEVER_SENT, _LAST_CODE = 1006, 4999  # of the codes of a close; the reader refuses others below 3000
_TEXT, _BINARY, _PING, _CLOSE = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.CLOSE


class Owner(Protocol):
    """Whom a WebSocket works for."""

    def received(self, message: bytes, *, is_binary: bool) -> None:
        """A message arrived, whole. Raises ValueError where it is malformed: that ends the WebSocket."""

    def slowed(self) -> None:
        """Something waits for the client."""

    def flowing(self) -> None:
        """The client has taken all that waited for it."""

    def lost(self, *, malformed: bool) -> None:
        """The WebSocket is gone, or its client has closed it: called once, and not after `detach`."""


class _Messages(WebSocketDataQueue):
    """What the reader calls for each message; it keeps none.

    The base class is not initialised: its buffer would take most of a kilobyte a connection, and the reader reads no
    more of it than its size and its bound, which are both 0.
    """

    __slots__ = ("_ws",)

    def __init__(self, ws: "WebSocket") -> None:
        self._ws = ws

    def feed_data(self, message: Any, size: int) -> None:
        self._ws._take(message)

    def set_exception(self, error: BaseException, *_: Any) -> None:
        self._ws._break(error)


class WebSocket(asyncio.Protocol):
    """An open WebSocket. `write` takes whole frames.

    So does `send`, which hands them to the kernel by the shortest way and says how many bytes of them it has taken: for
    when nothing waits. The transport's own way to the same system call costs a tenth of it.
    """

    __slots__ = ("_feed", "_is_closing", "_owner", "_socket", "_timer", "is_deflated", "send", "transport", "write")

    def __init__(self, transport: asyncio.Transport, owner: Owner, most_bytes: int, *, deflated: bool) -> None:
        self.transport = transport
        self.is_deflated = deflated
        self.write = transport.write
        self.send: Callable[[bytes], int] = self._write_all
        self._socket: socket.socket | None = None
        self._owner: Owner | None = owner
        self._is_closing = False
        self._timer: asyncio.TimerHandle | None = None
        # The reader refuses what reaches its bound; ours is what may come.
        reader = WebSocketReader(_Messages(self), most_bytes + 1, deflated, False)
        self._feed: Callable[[bytes], Any] = partial(self._feed_first, reader.feed_data, b"")
        transport.set_write_buffer_limits(high=0)  # who sends past the transport has to know when anything waits in it

    @property
    def backlog(self) -> int:
        """Bytes that wait in this process for the client to take them."""
        return self.transport.get_write_buffer_size()

    def close(self, code: int = CloseCode.NORMAL) -> None:
        """Say that it is closed, and end when the client says so too, at the latest after `CLOSE_S`.

        Not at once: what the client has sent meanwhile would turn the end into a reset, which takes back what is on its
        way to the client.
        """
        self.detach()
        if not self._is_closing:
            self._finish(code)
            self.transport.resume_reading()  # for its answer

    def abort(self) -> None:
        """Cut it: nothing more is sent, not even what waits."""
        self.detach()
        self._is_closing = True
        self.transport.abort()

    def begin(self) -> None:
        """Let `send` go past the transport, whose protocol this is now; not where it encrypts."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None and self.transport.get_extra_info("sslcontext") is None:
            # Shares the transport's descriptor, which stays the transport's to close: see `detach`.
            self._socket = socket.socket(raw.family, raw.type, raw.proto, fileno=raw.fileno())
            self.send = self._socket.send

    def detach(self) -> None:
        """Tell the owner nothing more, and send nothing past the transport."""
        self._owner = None
        self.send = len  # all of it goes nowhere
        if self._socket is not None:
            self._socket.detach()
            self._socket = None

    def hand_over(self, owner: Owner) -> None:
        """Work for somebody else from now on."""
        self._owner = owner

    def pause(self) -> None:
        """Read no more from the client than what is on its way in this process."""
        self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self.transport.resume_reading()

    # what the transport calls

    def data_received(self, data: bytes) -> None:
        self._feed(data)

    def eof_received(self) -> None:
        """The client sends nothing more; the transport closes itself when what waits is gone."""

    def pause_writing(self) -> None:
        if self._owner is not None:
            self._owner.slowed()

    def resume_writing(self) -> None:
        if self._owner is not None:
            self._owner.flowing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._lose(malformed=False)
        del self._feed  # the reader holds what holds this

    def _feed_first(self, feed: Callable[[bytes], Any], early: bytes, data: bytes) -> None:
        """See that the client masks, of which its second byte tells: the reader does not ask."""
        early += data
        if len(early) == 1:
            self._feed = partial(self._feed_first, feed, early)
            return
        self._feed = feed
        if early[1] < 0x80:
            self._fail(CloseCode.PROTOCOL_ERROR)
        feed(early)

    # what the reader calls

    def _take(self, message: Any) -> None:
        owner = self._owner
        kind = message.type
        if owner is None:
            if kind is _CLOSE:
                self.transport.close()
            return
        try:
            if kind is _TEXT:
                owner.received(message.data, is_binary=False)
            elif kind is _BINARY:
                owner.received(message.data, is_binary=True)
            elif kind is _PING:
                if self.backlog < PACE_BYTES:  # who asks and does not read is not answered without end
                    self.write(frame(Kind.PONG, bytes(message.data)))
            elif kind is _CLOSE:
                is_malformed = message.data == _NEVER_SENT or message.data > _LAST_CODE
                self._finish(CloseCode.PROTOCOL_ERROR if is_malformed else CloseCode.NORMAL)
                self.transport.close()
                self._lose(malformed=is_malformed)
        except ValueError:
            self.fail(message.data, is_binary=kind is _BINARY)
        except Exception:
            log.exception("a message broke what it was for")
            self._fail(CloseCode.INTERNAL_ERROR)

    def _break(self, error: BaseException) -> None:
        """The reader understands no more, not even that the client closes: it is shown that nothing comes any more."""
        self._fail(error.code if isinstance(error, WebSocketError) else CloseCode.PROTOCOL_ERROR)
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()

    def fail(self, message: bytes, *, is_binary: bool) -> None:
        """End it for a message that is malformed."""
        self._fail(CloseCode.PROTOCOL_ERROR if is_binary else fault_of(message))

    def _fail(self, code: int) -> None:
        """The client has broken the protocol: say how, and end."""
        self._lose(malformed=True)
        self.close(code)

    def _finish(self, code: int) -> None:
        """Write the last frame. The client has `CLOSE_S` to take what waits; a transport that closes waits for ever."""
        self._is_closing = True
        self.write(close_frame(code))
        self._timer = asyncio.get_running_loop().call_later(CLOSE_S, self.abort)

    def _write_all(self, frames: bytes) -> int:
        self.write(frames)
        return len(frames)

    def _lose(self, *, malformed: bool) -> None:
        owner = self._owner
        self.detach()
        if owner is not None:
            owner.lost(malformed=malformed)


class Switching(web.StreamResponse):
    """The 101 that ends HTTP on a connection. Headers that signals and middlewares add go along.

    Raises `Refusal` for a handshake that is none.
    """

    _send_headers_immediately = False  # they go with the first frame, in one write

    def __init__(self, request: web.Request, *, deflate: bool) -> None:
        super().__init__(status=101)
        self.force_close()
        self.headers.update(accepted(request, is_upgrade=request._message.upgrade))
        offer = request.headers.get("Sec-WebSocket-Extensions")
        window, _ = ws_ext_parse(offer, isserver=True) if deflate else (0, False)
        self.is_deflated = window == 15  # our frames are compressed with that window
        if self.is_deflated:
            extension = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            self.headers["Sec-WebSocket-Extensions"] = extension

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing follows by way of HTTP."""
        self._eof_sent = True
        self._req = None

    async def take_over(self, request: web.Request, owner: Owner, most_bytes: int, first: bytes) -> WebSocket | None:
        """Answer, `first` right behind it, and make the connection a WebSocket; None where the client is gone already.

        `begin` has to follow, in the same turn of the loop.
        """
        writer = await self.prepare(request)
        transport = request.transport
        if writer is None or transport is None or transport.is_closing():
            return None
        if first:
            await writer.write(first)
        else:
            writer.send_headers()
        return WebSocket(transport, owner, most_bytes, deflated=self.is_deflated)

    def begin(self, request: web.Request, ws: WebSocket) -> bytes:
        """Take the connection out of aiohttp's hands, and begin to read; what came right behind the handshake."""
        handler: Any = request.protocol
        transport = ws.transport
        early: bytes = handler._message_tail
        handler._message_tail = b""
        transport.set_protocol(ws)
        ws.begin()
        is_paused = handler._reading_paused or handler._buffer_paused
        handler.transport = None  # its end is not the connection's
        handler.connection_lost(None)
        if is_paused:
            transport.resume_reading()
        return early
