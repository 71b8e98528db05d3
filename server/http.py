"""HTTP beside the sockets: the commands, health, metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0

from handlers.connections import PROTOCOL, Auth
from server.commands import answers
from server.commands.answers import Answer
from server.commands.context import Caller
from server.commands.dispatch import Dispatcher
from server.commands.docs import PATHS, Documents
from server.commands.registry import commands
from server.errors import Invalid, ParleyError, TooLarge, Unauthenticated, UnknownCommand
from server.migrate import pending
from server.wire import codec
from storage import sessions

logger = structlog.get_logger("parley.http")

R = TypeVar("R", bound=web.StreamResponse)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def address_of(request: web.Request, *, trusted_proxy: bool) -> str:
    """The client's address: the peer's, or behind a trusted proxy the last one that the proxy has added."""
    if trusted_proxy:
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", [])).rpartition(",")[2].strip()
        if forwarded:
            return forwarded[:64]
    return request.remote or "unknown"


class Http:
    """The routes of one instance."""

    def __init__(
        self, dispatcher: Dispatcher, registry: CollectorRegistry, *, trusted_proxy: bool, origins: Sequence[str]
    ) -> None:
        self._dispatcher = dispatcher
        self._services = dispatcher.services
        self._registry = registry
        self._trusted_proxy = trusted_proxy
        self._origins = frozenset(origins)
        self._documents = Documents(auth=Auth, protocol=PROTOCOL)
        self._bus_state: Callable[[], str] = lambda: "ok"
        self.is_ready = True

    def attach(self, app: web.Application, bus_state: Callable[[], str], *, is_shared: bool = False) -> None:
        """Add the routes to an application, whose port may be shared with other processes."""
        self._bus_state = bus_state
        app.middlewares.append(errors_as_json)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/metrics", self.no_metrics if is_shared else self.metrics)
        for path in PATHS:
            app.router.add_get(path, self.document)
        app.router.add_post("/api/{noun}/{verb}", self.command)
        app.router.add_options("/api/{noun}/{verb}", self.preflight)

    def own_application(self) -> web.Application:
        """What is about this process alone, for a port that it does not share."""
        app = web.Application(middlewares=[errors_as_json])
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/metrics", self.metrics)
        return app

    async def healthz(self, request: web.Request) -> web.Response:
        """Alive: the loop turns."""
        return web.json_response({"status": "ok"})

    async def readyz(self, request: web.Request) -> web.Response:
        """Ready: PostgreSQL answers, its schema is this code's, and the server is not on its way out.

        The bus is reported and does not decide: without it events take up to two seconds, and none is lost.
        """
        status = {"bus": self._bus_state()}
        if not self.is_ready:
            return web.json_response({"status": "draining", **status}, status=503)
        try:
            async with asyncio.timeout(2), self._services.database.connection() as db:
                missing = await pending(db)
        except (ParleyError, TimeoutError):
            return web.json_response({"status": "unavailable", "database": "down", **status}, status=503)
        if missing:
            return web.json_response({"status": "unavailable", "migrations": missing, **status}, status=503)
        return web.json_response({"status": "ready", "database": "ok", **status})

    async def metrics(self, request: web.Request) -> web.Response:
        """What Prometheus scrapes."""
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_1_0_0})

    async def no_metrics(self, request: web.Request) -> web.Response:
        """What Prometheus hears where every scrape would reach another process."""
        raise web.HTTPNotFound(
            reason="Several workers share this port: set PARLEY_METRICS_PORT, and scrape that and the ports behind it."
        )

    async def document(self, request: web.Request) -> web.Response:
        """A document of the declarations, made when it is first asked for."""
        found = await asyncio.to_thread(self._documents.served, request.path)
        if request.headers.get("If-None-Match") == found.headers["ETag"]:
            return web.Response(status=304, headers=found.headers)
        headers, body = dict(found.headers), found.body
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"], body = "gzip", found.compressed
        return web.Response(body=body, headers=headers, content_type=found.content_type, charset="utf-8")

    async def command(self, request: web.Request) -> web.Response:
        """`POST /api/<noun>/<verb>`: a command with a JSON object as its body."""
        name = f"{request.match_info['noun']}:{request.match_info['verb']}"
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        try:
            value = await _body(request)
            self._dispatcher.submit(
                name,
                value,
                done,
                caller=await self._caller(request, name),
                address=address_of(request, trusted_proxy=self._trusted_proxy),
                agent=request.headers.get("User-Agent", ""),
            )
        except ParleyError as error:
            self._dispatcher.refuse(name, error, done)
        return self.readable(request, respond(await answered))

    async def preflight(self, request: web.Request) -> web.Response:
        """A browser asks whether a page of another origin may call a command: those of PARLEY_ORIGINS may."""
        response = self.readable(request, web.Response(status=204))
        if "Access-Control-Allow-Origin" in response.headers:
            response.headers["Access-Control-Allow-Methods"] = "POST"
            response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
            response.headers["Access-Control-Max-Age"] = "600"
        return response

    def readable(self, request: web.Request, response: R) -> R:
        """Let the pages of the listed origins read an answer."""
        origin = request.headers.get("Origin")
        if origin is not None and (origin in self._origins or "*" in self._origins):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = "Retry-After"
            response.headers["Vary"] = "Origin"
        return response

    @property
    def shown_on(self) -> str:
        """Whose pages may show what is served here, as Cross-Origin-Resource-Policy has it."""
        return "cross-origin" if self._origins else "same-origin"

    async def _caller(self, request: web.Request, name: str) -> Caller | None:
        """Who calls, by their bearer token; None where nobody has to. Raises `Unauthenticated`."""
        command = commands.get(name)
        if command is None:
            raise UnknownCommand(f"There is no command {name[:100]!r} here.")
        if command.allow.public:
            return None
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("A token is needed: send Authorization: Bearer <access token>.")
        claims = self._services.tokens.read(token.strip())
        async with self._services.database.connection() as db:
            session = await sessions.find_session(db, claims.session_id, claims.user_id)
            if session is None:
                raise Unauthenticated("This session has ended: sign in again.")
            if session.stale:
                await sessions.touch_sessions(db, [claims.session_id])
        return Caller(claims.user_id, claims.session_id, claims.scope, frozenset(session.roles))


async def _body(request: web.Request) -> Any:
    """The decoded JSON body, None where there is none. Raises `Invalid` or `TooLarge`."""
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        limit = request.client_max_size
        raise TooLarge(f"The body is larger than {limit} bytes.", limit) from error
    if not body.strip():
        return None
    try:
        return codec.loads(body)
    except ValueError:
        raise Invalid({"payload": "not JSON in UTF-8"}) from None


def respond(answer: Answer) -> web.Response:
    """An answer as an HTTP response."""
    headers = {"Cache-Control": "no-store"}
    if answer.retry_after_s is not None:
        headers["Retry-After"] = str(answer.retry_after_s)
    if answer.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(text=answer.body, status=answer.status, content_type="application/json", headers=headers)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let aiohttp's own refusals (no such path, wrong method) answer in the contract's form."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        known = {404: "not_found", 405: "unknown_command", 413: "too_large"}
        told: dict[str, Any] = {"code": known.get(error.status, "invalid"), "message": error.reason}
        if isinstance(error, web.HTTPRequestEntityTooLarge):
            told["limit"] = request.client_max_size
        elif told["code"] == "invalid":
            told["fields"] = {"request": error.reason}
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return web.json_response({"ok": False, "error": told}, status=error.status, headers=headers)
    except Exception as error:
        if request.transport is None and type(error) is RuntimeError:  # so aiohttp says that a body's client is gone
            return web.Response(status=400)  # which nobody gets; raised on, it would be logged as a bug
        return respond(answers.error(error, request.path[:100]))
