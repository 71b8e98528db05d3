"""The bytes of attachments over HTTP: PUT to upload, GET to download, each by a signed link.

Nothing of what is served may run in a browser: it is always a download, of the type that was judged, in a sandbox.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import NamedTuple
from uuid import UUID, uuid4

import structlog
from aiohttp import web

from rules.attachments import disposition
from server.adapters.attachments import CHUNK_BYTES, delete_files
from server.commands import answers
from server.commands.context import Services
from server.commands.links import Purpose
from server.commands.registry import Limit
from server.errors import Conflict, Forbidden, Invalid, NotFound, RateLimited, TooLarge, Unavailable
from server.http import Handler, Http, respond
from storage import Connection, attachments
from storage.attachments import Declared, File

STALL_S = 30.0  # without a byte from or to the client; then it is gone, and may come back
LEAST_BYTES_S = 8 * 1024  # of an upload, on average, from STALL_S on: a slower one would hold its place for hours
UPLOADS = 128  # at once on an instance; each has a chunk in memory
UPLOADS_OF_ONE = 8  # at once of one person on an instance
WAIT_MS = 1_000  # before somebody who has all of theirs under way asks again
PATH = "/attachments/{attachment_id}"

logger = structlog.get_logger("parley.http")


class AttachmentRoutes:
    """The routes of one instance, beside those of `http`."""

    def __init__(self, services: Services, http: Http) -> None:
        self._database = services.database
        self._store = services.attachments
        self._links = services.links
        self._limits = services.limits
        self._http = http
        self._uploading: dict[UUID, UUID] = {}  # the attachments, and whose they are

    def attach(self, app: web.Application) -> None:
        """Add the routes to an application."""
        app.router.add_put(PATH, self._answering(self.upload), expect_handler=_expect_later)
        app.router.add_get(PATH, self._answering(self.download))
        app.router.add_options(PATH, self.preflight)

    def _answering(self, handler: Handler) -> Handler:
        """Answer errors in the contract's form, in a way that the pages of the listed origins can read."""

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except Exception as error:
                refusal = respond(answers.error(error, "attachment"))
                if isinstance(error, _Unsatisfiable):
                    refusal.set_status(416)
                    refusal.headers["Content-Range"] = f"bytes */{error.size}"
                return self._http.readable(request, refusal)

        return answer

    async def preflight(self, request: web.Request) -> web.Response:
        """A browser asks whether a page of another origin may upload: those of PARLEY_ORIGINS may."""
        response = self._http.readable(request, web.Response(status=204))
        if "Access-Control-Allow-Origin" in response.headers:
            response.headers["Access-Control-Allow-Methods"] = "GET, PUT"
            response.headers["Access-Control-Allow-Headers"] = "Content-Type, If-None-Match, If-Range, Range"
            response.headers["Access-Control-Max-Age"] = "600"
        return response

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """`PUT`: keep the body as what was uploaded last, all of it or nothing."""
        link = self._permitted(request, Purpose.UPLOAD)
        self._limits.take(Limit.WRITES, link.user_id)
        with self._place(link):
            await self._receive(request, link.attachment_id)
        return self._http.readable(request, web.Response(status=204))

    @contextlib.contextmanager
    def _place(self, link: "_Permitted") -> Iterator[None]:
        """One of the places for uploads. Raises `Unavailable` or `RateLimited` where there is none."""
        if link.attachment_id in self._uploading:
            raise Unavailable(
                "Another upload of this attachment is under way: wait for its end, or PUT it again later."
            )
        if [*self._uploading.values()].count(link.user_id) >= UPLOADS_OF_ONE:
            raise RateLimited(WAIT_MS, f"You have {UPLOADS_OF_ONE} uploads under way, and more wait for one to end")
        if len(self._uploading) >= UPLOADS:
            raise Unavailable("Too many uploads are under way here: PUT it again a little later.")
        self._uploading[link.attachment_id] = link.user_id
        try:
            yield
        finally:
            del self._uploading[link.attachment_id]

    async def _receive(self, request: web.Request, attachment_id: UUID) -> None:
        async with self._database.connection() as db:
            declared = await _awaited(db, attachment_id)
        if (request.content_length or 0) > declared.size:
            raise _too_large(declared.size)
        if "Expect" in request.headers:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # of the body, which has not begun
        file_id = uuid4()
        try:
            written = await self._store.write(file_id, _body(request, declared.size))
        except OSError as error:
            logger.error("attachment_not_written", error=str(error))
            raise Unavailable from error
        # Where the database fails now, nobody knows whether the file is the attachment's: then it is left to the sweep.
        async with self._database.connection() as db:
            recorded = await attachments.record_upload(
                db, attachment_id, file_id, sha256=written.sha256, head=written.head
            )
        unused = file_id if recorded is None else recorded.replaced_id
        if unused is not None:
            await delete_files(self._store, [unused])
        if recorded is None:
            async with self._database.connection() as db:
                await _awaited(db, attachment_id)  # raises why it is not: complete by now, or gone

    async def download(self, request: web.Request) -> web.StreamResponse:
        """`GET` or `HEAD`: the bytes, or the range asked for."""
        link = self._permitted(request, Purpose.DOWNLOAD)
        async with self._database.connection() as db:
            may_see = await attachments.find_visible(db, link.attachment_id, link.user_id)
            file = await attachments.find_file(db, link.attachment_id) if may_see else None
        if file is None:
            raise NotFound
        kept = {
            "Cache-Control": f"private, max-age={int(link.seconds_left)}, immutable",
            "Cross-Origin-Resource-Policy": self._http.shown_on,
            "ETag": _etag(file),
        }
        if any(tag.value in (file.sha256, "*") for tag in request.if_none_match or ()):
            return self._http.readable(request, web.Response(status=304, headers=kept))
        span = _span(request, file)
        response = web.StreamResponse(
            status=200 if span is None else 206,
            headers={
                **kept,
                "Content-Type": file.content_type,
                "Content-Disposition": disposition(file.name, file.content_type),
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "sandbox; default-src 'none'",
                "Accept-Ranges": "bytes",
            },
        )
        start, stop = span or (0, file.size)
        if span is not None:
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
        response.content_length = stop - start
        if "Access-Control-Allow-Origin" in self._http.readable(request, response).headers:
            response.headers["Access-Control-Expose-Headers"] = (
                "Accept-Ranges, Content-Disposition, Content-Range, ETag"
            )
        chunks = await self._store.read(file.file_id, start, stop - start)
        await response.prepare(request)
        if request.method != "HEAD":
            await _send(request, response, chunks)
        return response

    def _permitted(self, request: web.Request, purpose: Purpose) -> "_Permitted":
        """What the link is signed for. Raises `Forbidden`.

        Nothing is looked up before: the answer is the same whether there is such an attachment or not.
        """
        attachment_id = request.match_info["attachment_id"]
        user_id, expires, signature = (request.query.get(name, "") for name in ("user", "expires", "signature"))
        left = self._links.seconds_left(purpose, attachment_id, user_id, expires, signature)
        if not left:
            raise _not_valid()
        return _Permitted(UUID(attachment_id), UUID(user_id), left)


class _Permitted(NamedTuple):
    """What a link is signed for: which attachment, by whom, and for how long yet."""

    attachment_id: UUID
    user_id: UUID
    seconds_left: float


class _Unsatisfiable(Invalid):
    """The range asked for has no byte of the file."""

    def __init__(self, size: int) -> None:
        super().__init__({"range": f"the attachment has {size} bytes"})
        self.size = size


async def _awaited(db: Connection, attachment_id: UUID) -> Declared:
    """What is to be uploaded. Raises `NotFound`, `Forbidden`, or `Conflict` where it has been already."""
    declared = await attachments.find_declared(db, attachment_id)
    if declared is None:
        raise NotFound
    if not declared.is_wanted:
        raise _not_valid()
    if declared.is_complete:
        raise Conflict("not_pending", "This attachment is complete, and does not change any more.")
    return declared


def _not_valid() -> Forbidden:
    return Forbidden("This link is not valid, or not any more: ask for a new one.")


def _too_large(size: int) -> TooLarge:
    return TooLarge(f"The body is larger than the {size} bytes that were declared.", size)


async def _expect_later(_: web.Request) -> None:
    """A client that waits for a word before it sends its body gets it once the upload is let in."""


async def _body(request: web.Request, size: int) -> AsyncIterator[bytes]:
    """The body in chunks. Raises `TooLarge` or `Invalid` for another size, `Unavailable` where it stops or crawls."""
    received, gathered = 0, bytearray()
    clock = asyncio.get_running_loop().time
    began = clock()
    while True:
        try:
            async with asyncio.timeout_at(STALL_S + min(clock(), began + received / LEAST_BYTES_S)):
                piece = await request.content.readany()
        except (OSError, web.RequestPayloadError) as error:
            raise Unavailable("The upload stopped or was too slow, and nothing was kept: PUT it again.") from error
        received += len(piece)
        if received > size:
            raise _too_large(size)
        gathered += piece
        if len(gathered) >= CHUNK_BYTES or not piece:
            yield bytes(gathered)
            gathered.clear()
        if not piece:
            break
    if received < size:
        raise Invalid({"size": f"{size} bytes are declared, and {received} came: PUT all of them"})


def _etag(file: File) -> str:
    return f'"{file.sha256}"'


def _span(request: web.Request, file: File) -> tuple[int, int] | None:
    """The range to serve, from the first byte to behind the last, or None for all. Raises `_Unsatisfiable`.

    Of what is not one range of bytes nothing is understood, and all is served (RFC 9110, 14.2); so it is where If-Range
    names another file.
    """
    try:
        asked = request.http_range
    except ValueError:
        return None
    if asked.start is None or request.headers.get("If-Range", _etag(file)) != _etag(file):
        return None
    start, stop, _ = asked.indices(file.size)
    if start >= stop or re.fullmatch("bytes=-0+", request.headers["Range"]):  # its last no bytes, not all of them
        raise _Unsatisfiable(file.size)
    return start, stop


async def _send(request: web.Request, response: web.StreamResponse, chunks: AsyncGenerator[bytes, None]) -> None:
    """Send the chunks at the client's pace; where it stalls or the disk fails, the connection ends in the middle."""
    try:
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                async with asyncio.timeout(STALL_S):
                    await response.write(chunk)
    except OSError as error:  # TimeoutError and ConnectionError too
        logger.warning("attachment_not_sent", error=repr(error))
        if request.transport is not None:
            request.transport.abort()
