"""Engine.IO over aiohttp: handshake, heartbeat, polling, WebSocket, and the upgrade from the one to the other.

Revision 4 of the protocol (socketio/socket.io, docs/engine.io-protocol). One timer beats for all sessions, and looks
for those whose clients take nothing.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from server.wire.frames import Kind, frame
from server.wire.heartbeat import Heartbeat
from server.wire.polling import LINGER_S
from server.wire.refusals import (
    BAD_METHOD,
    BAD_REQUEST,
    FORBIDDEN,
    SHUT_DOWN,
    TOO_LARGE,
    UNKNOWN_SESSION,
    UNKNOWN_TRANSPORT,
    UNSUPPORTED,
    WEBSOCKET_ALONE,
    Refusal,
)
from server.wire.session import Above, Cut, Reason, Session
from server.wire.upgrade import Probe
from server.wire.websocket import Switching

LOOK_S = 1.0  # between two looks for those that take nothing
ID_BYTES = 15  # of randomness: a sid is what the polling client is known by

log = logging.getLogger("parley.wire")


class Engine:
    """All sessions of a server, over aiohttp. Times are in seconds, sizes in bytes."""

    def __init__(
        self,
        *,
        ping_interval: float = 25.0,
        ping_timeout: float = 20.0,
        most_bytes: int = 1_000_000,
        deflate: bool = False,
        origins: Sequence[str] = (),
        polling: bool = True,
    ) -> None:
        self.above: Above
        self.sessions: dict[str, Session] = {}
        self.cuts = dict.fromkeys(Cut, 0)
        self.heartbeat: Heartbeat[Session] = Heartbeat(ping_interval, ping_timeout)
        self.most_bytes = most_bytes
        self.deflate = deflate
        self._origins = frozenset(origins)
        self._takes_polls = polling
        self._terms = {
            "pingInterval": round(ping_interval * 1000),
            "pingTimeout": round(ping_timeout * 1000),
            "maxPayload": most_bytes,
        }
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = 0.0
        self._is_shut = False

    # requests

    async def handle_request(self, request: web.Request) -> web.StreamResponse:
        """Answer a request to Engine.IO's path."""
        headers: dict[str, str] = {}
        try:
            headers = self._cors(request)
            response = await self._respond(request)
        except Refusal as refusal:
            response = refusal.response()
        if not response.prepared:
            response.headers.update(headers)
        return response

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return web.Response(status=204)
        query, method = request.query, request.method
        transport, sid = query.get("transport"), query.get("sid")
        if transport not in ("polling", "websocket"):
            raise Refusal(*UNKNOWN_TRANSPORT)
        if transport == "polling" and not self._takes_polls:
            raise Refusal(*WEBSOCKET_ALONE)
        if sid is None:
            if method != "GET":
                raise Refusal(*BAD_METHOD)
            if query.get("EIO") != "4":
                raise Refusal(*UNSUPPORTED)
            if self._is_shut:
                raise Refusal(*SHUT_DOWN)
            return self._open_polling(request) if transport == "polling" else await self._open_websocket(request)
        session = self.sessions.get(sid)
        if session is None:
            raise Refusal(*UNKNOWN_SESSION)
        if transport == "websocket":
            return await self._upgrade(session, request)
        if method == "GET":
            body = await session.poll(request)
            return web.Response(body=body, content_type="text/plain", charset="utf-8")
        if method != "POST":
            raise Refusal(*BAD_REQUEST)
        await session.post(request)
        return web.Response(text="ok", content_type="text/html")

    async def body_of(self, request: web.Request) -> bytes:
        """A request's body. Raises `Refusal`, ValueError where it is no body, and ConnectionError."""
        size, body = request.content_length or 0, bytearray()
        if size <= self.most_bytes:
            try:
                async for piece in request.content.iter_any():
                    body += piece
                    size = len(body)
                    if size > self.most_bytes:
                        break
            except (web.RequestPayloadError, HttpProcessingError):
                raise ValueError("a body that is not sent as it says") from None
        if size > self.most_bytes:
            raise Refusal(*TOO_LARGE)
        return bytes(body)

    def _open_polling(self, request: web.Request) -> web.Response:
        self.above.opening(request)
        session = Session(self, self.generate_id())
        session.start_polling()
        self._begin(session, request)
        opening = self._opening(session, upgrades=["websocket"])
        return web.Response(text=opening, content_type="text/plain", charset="utf-8")

    async def _open_websocket(self, request: web.Request) -> web.StreamResponse:
        switching = Switching(request, deflate=self.deflate)
        self.above.opening(request)
        session = Session(self, self.generate_id())
        opening = frame(Kind.TEXT, self._opening(session, upgrades=[]).encode())
        ws = None
        try:
            ws = await switching.take_over(request, session, self.most_bytes, opening)
        finally:
            if ws is None:
                self.above.not_opened(request)
        if ws is None:
            return switching
        early = switching.begin(request, ws)
        session.open(ws)
        self._begin(session, request)
        if self._is_shut:  # meanwhile
            session.abort(Reason.SERVER)
        elif early:
            ws.data_received(early)
        return switching

    async def _upgrade(self, session: Session, request: web.Request) -> web.StreamResponse:
        """Let a WebSocket try to take over from polling; one too many is closed, and the session stays as it is."""
        switching, probe = Switching(request, deflate=self.deflate), Probe(session)
        session.probe(probe)
        try:
            probe.ws = ws = await switching.take_over(request, probe, self.most_bytes, b"")
        finally:
            if probe.ws is None:
                probe.lost(malformed=False)
        if ws is None:
            return switching
        early = switching.begin(request, ws)
        if not session.is_tried_by(probe):  # or not any more
            probe.refuse()
        elif early:
            ws.data_received(early)
        return switching

    def _begin(self, session: Session, request: web.Request) -> None:
        self.sessions[session.sid] = session
        self.heartbeat.add(session, asyncio.get_running_loop().time())
        if self._timer is None and not self._is_shut:
            self._beat()
        self.above.opened(session, request)

    def _opening(self, session: Session, upgrades: Sequence[str]) -> str:
        return "0" + orjson.dumps({"sid": session.sid, "upgrades": upgrades, **self._terms}).decode()

    def _cors(self, request: web.Request) -> dict[str, str]:
        """Headers for a page of another origin. Raises `Refusal` where it is none of those let in."""
        origin = request.headers.get("Origin")
        if origin is None:
            return {}
        if "*" not in self._origins and origin not in self._origins and origin not in _own_origins(request):
            raise Refusal(*FORBIDDEN)
        headers = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}
        if request.method == "OPTIONS":
            headers["Access-Control-Allow-Methods"] = "OPTIONS, GET, POST"
            wanted = request.headers.get("Access-Control-Request-Headers")
            if wanted is not None:
                headers["Access-Control-Allow-Headers"] = wanted
        return headers

    # sessions

    def generate_id(self) -> str:
        """An id that nobody guesses."""
        return secrets.token_urlsafe(ID_BYTES)

    def answered(self, session: Session) -> None:
        """A session's client has answered a ping."""
        self.heartbeat.answered(session, asyncio.get_running_loop().time())

    def ended(self, session: Session, *, lingers: bool) -> None:
        """A session is gone; one that lingers is kept a while for a last poll."""
        self.heartbeat.remove(session)
        if lingers:
            asyncio.get_running_loop().call_later(LINGER_S, self.forget, session)
        else:
            self.forget(session)

    def forget(self, session: Session) -> None:
        """Keep nothing of a session that has ended."""
        self.sessions.pop(session.sid, None)

    def _beat(self) -> None:
        """Ask those who are due, give up those who have not answered, and look for those who take nothing."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        to_ask, dead = self.heartbeat.advance(now)
        self._timer = loop.call_at(self.heartbeat.next_at(now), self._beat)
        for session in to_ask:
            session.ask()
        for session in dead:
            if session.is_held:  # nothing is read from it: its answer may be there
                self.heartbeat.add(session, now)
            else:
                self.cuts[Cut.SILENT] += 1
                _apart(session.abort, Reason.PING_TIMEOUT)
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            for session in list(self.sessions.values()):
                _apart(session.look, now)

    @property
    def backlog(self) -> int:
        """Bytes that wait in this process for clients that take them slowly."""
        return sum(session.backlog for session in self.sessions.values() if not session.is_flowing)

    @property
    def backlog_most(self) -> int:
        """Of these, the bytes that wait for the one client for which the most do."""
        return max((session.backlog for session in self.sessions.values() if not session.is_flowing), default=0)

    async def shutdown(self) -> None:
        """Stop the heartbeat, cut whoever is there, and let nobody in any more."""
        self._is_shut = True
        for session in list(self.sessions.values()):
            _apart(session.abort, Reason.SERVER)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _apart(deed: Callable[[Any], None], argument: Any) -> None:
    """Do it to one session; where what stands on it breaks of that, the others are none the worse."""
    try:
        deed(argument)
    except Exception:
        log.exception("a session's end broke what stood on it")


def _own_origins(request: web.Request) -> set[str]:
    """The origins of this server's own pages, as the client or a proxy before us addresses it.

    The headers are believed whoever sends them: a browser lets no page set them on a WebSocket, and on a request only
    after a preflight, which comes without them and is refused. Who is no browser needs no Origin at all.
    """
    headers = request.headers
    own = {f"{request.scheme}://{request.host}"}
    forwarded = headers.get("X-Forwarded-Host", request.host).partition(",")[0].strip()
    scheme = headers.get("X-Forwarded-Proto", request.scheme).partition(",")[0].strip()
    own.add(f"{scheme}://{forwarded}")
    return own
