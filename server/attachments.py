"""The bytes of attachments over HTTP: PUT to upload, GET to download, each by a signed link.

Nothing of what is served may run in a browser: it is always a download, of the type that was judged, in a sandbox.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from uuid import UUID, uuid4

import structlog
from aiohttp import web

from rules.attachments import disposition
from server.adapters.attachments import CHUNK_BYTES, delete_files
from server.commands import answers
from server.commands.context import Services
from server.commands.links import Purpose
from server.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge, Unavailable
from server.http import Handler, Http, respond
from storage import attachments
from storage.attachments import File

STALL_S = 30.0  # without a byte from or to the client; then it is gone, and may come back
PATH = "/attachments/{attachment_id}"

logger = structlog.get_logger("parley.http")


class AttachmentRoutes:
    """The routes of one instance, beside those of `http`."""

    def __init__(self, services: Services, http: Http) -> None:
        self._database = services.database
        self._store = services.attachments
        self._links = services.links
        self._http = http
        self._uploading: set[UUID] = set()

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
            response.headers["Access-Control-Allow-Headers"] = "Content-Type, Range, If-Range"
            response.headers["Access-Control-Max-Age"] = "600"
        return response

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """`PUT`: keep the body as what was uploaded last, all of it or nothing."""
        attachment_id, _ = self._permitted(request, Purpose.UPLOAD)
        if attachment_id in self._uploading:
            raise Conflict("taken", "Another upload of this attachment is under way: wait for its end, or try again.")
        self._uploading.add(attachment_id)
        try:
            await self._receive(request, attachment_id)
        finally:
            self._uploading.discard(attachment_id)
        return self._http.readable(request, web.Response(status=204))

    async def _receive(self, request: web.Request, attachment_id: UUID) -> None:
        async with self._database.connection() as db:
            declared = await attachments.find_declared(db, attachment_id)
        if declared is None:
            raise NotFound
        if declared.is_complete:
            raise _completed()
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
            raise _completed()

    async def download(self, request: web.Request) -> web.StreamResponse:
        """`GET` or `HEAD`: the bytes, or the range asked for."""
        attachment_id, seconds_left = self._permitted(request, Purpose.DOWNLOAD)
        async with self._database.connection() as db:
            file = await attachments.find_file(db, attachment_id)
        if file is None:
            raise NotFound
        span = _span(request, file)
        response = web.StreamResponse(
            status=200 if span is None else 206,
            headers={
                "Content-Type": file.content_type,
                "Content-Disposition": disposition(file.name),
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "sandbox; default-src 'none'",
                "Cache-Control": f"private, max-age={int(seconds_left)}, immutable",
                "Accept-Ranges": "bytes",
                "ETag": _etag(file),
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

    def _permitted(self, request: web.Request, purpose: Purpose) -> tuple[UUID, float]:
        """The attachment that the link is signed for, and the seconds it is valid yet. Raises `Forbidden`.

        Nothing is looked up before: the answer is the same whether there is such an attachment or not.
        """
        attachment_id, query = request.match_info["attachment_id"], request.query
        left = self._links.seconds_left(purpose, attachment_id, query.get("expires", ""), query.get("signature", ""))
        if not left:
            raise Forbidden("This link is not valid, or not any more: ask for a new one.")
        return UUID(attachment_id), left


class _Unsatisfiable(Invalid):
    """The range asked for has no byte of the file."""

    def __init__(self, size: int) -> None:
        super().__init__({"range": f"the attachment has {size} bytes"})
        self.size = size


def _completed() -> Conflict:
    return Conflict("not_pending", "This attachment is complete, and does not change any more.")


def _too_large(size: int) -> TooLarge:
    return TooLarge(f"The body is larger than the {size} bytes that were declared.", size)


async def _expect_later(_: web.Request) -> None:
    """A client that waits for a word before it sends its body gets it once the upload is let in."""


async def _body(request: web.Request, size: int) -> AsyncIterator[bytes]:
    """The body in chunks. Raises `TooLarge` or `Invalid` for another size, `Unavailable` where it breaks off."""
    received, gathered = 0, bytearray()
    while True:
        try:
            async with asyncio.timeout(STALL_S):
                piece = await request.content.readany()
        except (OSError, web.RequestPayloadError) as error:
            raise Unavailable("The upload broke off, and nothing of it was kept: PUT it again.") from error
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
    if start >= stop:
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
