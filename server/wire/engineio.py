"""Engine.IO sessions: python-engineio's engine with guards, until one of our own takes its place.

What the guards mend in it: malformed packets close the session at once instead of leaving a ghost; what waits for a
client is counted in bytes and bounded; a client that takes nothing for 10 seconds is cut, one that is being closed too;
compression stays off (it costs 78 KB a connection); packets go to a connection without a task for each.
"""

import asyncio
import logging
from typing import Any

import engineio
from aiohttp import web
from engineio import async_socket, exceptions, packet
from engineio.async_drivers import aiohttp as aiohttp_driver

from server.wire.codec import Packet

BACKLOG_BYTES = 1024 * 1024  # held in this process for one client; over it the client is cut, and resumes later
DROP_BYTES = 256 * 1024  # behind this much, a client is not sent what may be dropped
PACE_BYTES = 64 * 1024  # a replay goes on when less than this is waiting
STALL_S = 10.0  # nothing taken for so long, though something waits: cut

log = logging.getLogger("parley.wire")  # engine.io's own logger would write packets, tokens among them
log.setLevel(logging.ERROR)


class _PlainWebSocket(aiohttp_driver.WebSocket):  # type: ignore[misc]
    """The driver's websocket without compression, and with its transport in reach."""

    async def __call__(self, environ: dict[str, Any]) -> web.WebSocketResponse:
        most = self.server.max_http_buffer_size + 1  # aiohttp refuses what reaches its bound
        self._sock = web.WebSocketResponse(max_msg_size=most, compress=False, timeout=1.0)
        await self._sock.prepare(environ["aiohttp.request"])
        self.transport = environ["aiohttp.request"].transport
        await self.handler(self)
        return self._sock


class Session(async_socket.AsyncSocket):  # type: ignore[misc]
    """One client's Engine.IO session, over polling, websocket, or first the one and then the other."""

    def __init__(self, engine: "Engine", sid: str) -> None:
        super().__init__(engine, sid)
        # Set by the base class too, which has no types.
        self.closed: bool = False
        self.closing: bool = False
        self.connected: bool = False
        self.backlog = 0
        self.progress_at = 0.0
        self._aborted = False
        self._reading = asyncio.Lock()  # a client may POST twice at once: one packet is dealt with after the other
        self._ready: list[asyncio.Future[None]] = []
        self._ws: _PlainWebSocket | None = None
        self._cutting: asyncio.TimerHandle | None = None

    def push(self, message: Packet, *, droppable: bool = False) -> bool:
        """Queue a packet; False where it was dropped, because the session is closed or the client far behind."""
        if self.closed or self.closing or (droppable and self.backlog > DROP_BYTES):
            return False
        framed = message.framed
        if framed is None:
            framed = message.framed = packet.Packet(packet.MESSAGE, message.text)
            framed.size = message.size
        self._put(framed, message.size)
        return True

    async def paced(self) -> None:
        """Wait until the client has taken most of what was sent to it, or is gone."""
        if self.backlog > PACE_BYTES and not self.closed:
            waiter = asyncio.get_running_loop().create_future()
            self._ready.append(waiter)
            await waiter

    def abort(self) -> None:
        """Cut the client off without a word: it takes nothing, so it would not hear one."""
        if not self._aborted:  # a broadcast may come by many times before the close has run
            self._aborted = True
            self.server.start_background_task(
                self.close, wait=False, abort=True, reason=self.server.reason.TRANSPORT_ERROR
            )
        self._cut()

    def _cut(self) -> None:
        if self._ws is not None and self._ws.transport is not None:
            self._ws.transport.abort()

    def is_stalled(self, now: float) -> bool:
        """Whether something waits for the client and nothing was taken for `STALL_S`."""
        return self.backlog > 0 and now - self.progress_at > STALL_S

    # what the stock engine calls

    async def send(self, pkt: packet.Packet) -> None:
        if self.closed:
            return
        self._put(pkt, getattr(pkt, "size", 16))

    async def poll(self) -> list[packet.Packet]:
        packets: list[packet.Packet] = await super().poll()
        self._taken(sum(getattr(pkt, "size", 16) for pkt in packets))
        return packets

    async def handle_post_request(self, environ: dict[str, Any]) -> None:
        # The stock engine takes what has arrived so far for the whole of a body, and refuses over 16 packets in it.
        try:
            body: bytes = await environ["wsgi.input"].readexactly(int(environ.get("CONTENT_LENGTH", "0")))
            async with self._reading:
                for encoded in body.decode().split("\x1e"):
                    await self.receive(packet.Packet(encoded_packet=encoded))
        except Exception as error:
            await self.close(wait=False, reason=self.server.reason.TRANSPORT_ERROR)
            raise exceptions.EngineIOError("malformed payload") from error

    async def check_ping_timeout(self) -> bool:
        alive: bool = self.closed or await super().check_ping_timeout()
        if not alive and self._ws is not None:
            self.abort()
        return alive

    async def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:
        if self.closed or self.closing:
            return
        self.closing = True
        await self.server._trigger_event(
            "disconnect", self.sid, reason or self.server.reason.SERVER_DISCONNECT, run_async=False
        )
        if not abort:
            self._put(packet.Packet(packet.CLOSE), 1)
            if self._ws is not None:
                # Nobody watches a closed session, and one whose client takes nothing would never get to its end.
                self._cutting = asyncio.get_running_loop().call_later(STALL_S, self._cut)
        self.closed = True
        self.queue.put_nowait(None)
        self._release()
        if abort:
            self.server.sockets.pop(self.sid, None)

    async def _websocket_handler(self, ws: _PlainWebSocket) -> None:
        self._ws = ws
        if self.connected:
            if not await self._upgraded(ws):
                self._ws = None
                return
        else:
            self.connected = self.upgraded = True
        writer = asyncio.ensure_future(self._write(ws))
        try:
            while (data := await ws.wait()) is not None and not self.closed:
                async with self._reading:
                    await self.receive(packet.Packet(encoded_packet=data))
            reason = self.server.reason.TRANSPORT_CLOSE
        except OSError:  # the driver's word for a closed socket
            reason = self.server.reason.TRANSPORT_CLOSE
        except Exception:
            # Whatever a packet broke, the session ends here: half of a protocol is worse than none.
            log.debug("%s: malformed packet", self.sid, exc_info=True)
            reason = self.server.reason.TRANSPORT_ERROR
        await self.close(wait=False, abort=True, reason=reason)
        self.queue.put_nowait(None)
        await writer
        if self._cutting is not None:
            self._cutting.cancel()
        self.server.sockets.pop(self.sid, None)

    # inside

    def _put(self, pkt: packet.Packet, size: int) -> None:
        if self.backlog == 0:
            self.progress_at = asyncio.get_running_loop().time()
        self.backlog += size
        if self.backlog > BACKLOG_BYTES:
            self.abort()
        else:
            self.queue.put_nowait(pkt)

    def _taken(self, size: int) -> None:
        self.backlog -= size
        self.progress_at = asyncio.get_running_loop().time()
        if self._ready and self.backlog <= PACE_BYTES:
            self._release()

    def _release(self) -> None:
        ready, self._ready = self._ready, []
        for waiter in ready:
            if not waiter.done():
                waiter.set_result(None)

    async def _write(self, ws: _PlainWebSocket) -> None:
        """Send what is queued, in order, until None or until the socket is gone."""
        try:
            while (pkt := await self.queue.get()) is not None:
                await ws.send(pkt.encode())
                self._taken(getattr(pkt, "size", 16))
        except (OSError, RuntimeError):
            pass
        await ws.close()

    async def _upgraded(self, ws: _PlainWebSocket) -> bool:
        """The probe of an upgrade from polling; whether the client went through with it."""
        self.upgrading = True
        try:
            probe = packet.Packet(encoded_packet=await ws.wait())
            if probe.packet_type != packet.PING or probe.data != "probe":
                return False
            await ws.send(packet.Packet(packet.PONG, data="probe").encode())
            await self.send(packet.Packet(packet.NOOP))  # ends the poll that waits
            answer = packet.Packet(encoded_packet=await ws.wait())
            self.upgraded = answer.packet_type == packet.UPGRADE
            return self.upgraded
        except (OSError, ValueError):
            return False
        finally:
            self.upgrading = False


class Engine(engineio.AsyncServer):  # type: ignore[misc]
    """python-engineio's server, making our sessions and watching for those that take nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._async = {**aiohttp_driver._async, "websocket": _PlainWebSocket}
        self.start_service_task: bool = True
        self._watcher: asyncio.Task[None] | None = None

    async def handle_request(self, request: web.Request) -> web.StreamResponse:
        length, session = request.content_length or 0, self.sockets.get(request.query.get("sid", ""))
        if length > self.max_http_buffer_size:
            if session is not None:
                session.abort()
            raise web.HTTPRequestEntityTooLarge(self.max_http_buffer_size, length)
        if session is not None and session.closed and request.method == "POST":
            raise web.HTTPBadRequest(reason="Session is disconnected")  # the stock engine trips over it
        answer: web.StreamResponse = await super().handle_request(request)
        return answer

    async def shutdown(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        await super().shutdown()

    async def _handle_connect(self, environ: dict[str, Any], transport: str, jsonp_index: int | None = None) -> Any:
        if self._watcher is None:
            self._watcher = asyncio.ensure_future(self._watch())
        if self.start_service_task:
            self.start_service_task = False
            self.service_task_handle = self.start_background_task(self._service_task)
        sid = self.generate_id()
        session = self.sockets[sid] = Session(self, sid)
        opening = packet.Packet(
            packet.OPEN,
            {
                "sid": sid,
                "upgrades": self._upgrades(sid, transport),
                "pingTimeout": int(self.ping_timeout * 1000),
                "pingInterval": int(self.ping_interval * 1000),
                "maxPayload": self.max_http_buffer_size,
            },
        )
        await session.send(opening)
        await self._trigger_event("connect", sid, environ, run_async=False)
        session.schedule_ping()
        if transport == "websocket":
            return await session.handle_get_request(environ)
        session.connected = True
        return self._ok(await session.poll(), jsonp_index=jsonp_index)

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(1)
            now = clock()
            for session in [s for s in self.sockets.values() if s.is_stalled(now)]:
                session.abort()
