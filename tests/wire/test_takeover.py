"""What `server/wire/websocket.py` assumes of aiohttp's private parts: when the pinned version is raised, these tests
say which assumption broke. And that what aiohttp puts around a route holds on that of the WebSocket too."""

from __future__ import annotations

import asyncio
import gc
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web, web_protocol
from aiohttp._websocket.helpers import ws_ext_parse
from aiohttp._websocket.models import WebSocketError
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.http_websocket import WSMsgType

from server.wire.engineio import Engine
from server.wire.websocket import WebSocket
from tests.wire.bare import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Above,
    Site,
    client_frame,
    deflated,
    handshake,
    serving,
    until,
)

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_the_version_is_pinned_and_is_the_one_that_is_installed() -> None:
    dependencies = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    [pinned] = [line for line in dependencies if line.startswith("aiohttp")]
    assert pinned == f"aiohttp=={version('aiohttp')}"


# the reader


class Queue(WebSocketDataQueue):
    """What the reader is given, as ours is: not initialised."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.error: BaseException | None = None

    def feed_data(self, message: Any, size: int) -> None:
        self.messages.append(message)

    def set_exception(self, error: BaseException, *_: Any) -> None:
        self.error = error


@pytest.fixture
def queue() -> Queue:
    return Queue()


def test_the_reader_is_the_one_in_c() -> None:
    assert WebSocketReader.__module__ == "aiohttp._websocket.reader_c"


def test_the_reader_calls_a_queue_that_is_not_initialised_and_keeps_nothing_in_it(queue: Queue) -> None:
    reader = WebSocketReader(queue, 1_000, False, False)
    for _ in range(10_000):  # beyond any bound that a queue with a size would have
        assert reader.feed_data(client_frame(TEXT, b"hello")) == (False, b"")
    assert len(queue.messages) == 10_000
    assert queue.error is None
    assert queue._size == queue._limit == 0


def test_the_reader_gives_the_bytes_of_a_text_as_it_came(queue: Queue) -> None:
    reader = WebSocketReader(queue, 1_000, False, False)
    reader.feed_data(client_frame(TEXT, b"\xff") + client_frame(BINARY, b"\xfe"))
    assert [(message.type, message.data) for message in queue.messages] == [
        (WSMsgType.TEXT, b"\xff"),
        (WSMsgType.BINARY, b"\xfe"),
    ]
    assert all(type(message.data) is bytes for message in queue.messages)


def test_the_reader_gives_control_frames_by_type(queue: Queue) -> None:
    reader = WebSocketReader(queue, 1_000, False, False)
    reader.feed_data(client_frame(PING, b"p") + client_frame(PONG, b"q") + client_frame(CLOSE, b"\x03\xe8"))
    assert [message.type for message in queue.messages] == [WSMsgType.PING, WSMsgType.PONG, WSMsgType.CLOSE]
    assert bytes(queue.messages[0].data) == b"p"


def test_the_readers_bound_is_one_more_than_what_may_come(queue: Queue) -> None:
    reader = WebSocketReader(queue, 101, False, False)
    reader.feed_data(client_frame(TEXT, b"x" * 100))
    assert len(queue.messages) == 1
    reader.feed_data(client_frame(TEXT, b"x" * 101))
    assert isinstance(queue.error, WebSocketError)
    assert queue.error.code == 1009


def test_the_readers_error_is_told_to_the_queue_with_its_code_and_nothing_is_raised(queue: Queue) -> None:
    reader = WebSocketReader(queue, 1_000, False, False)
    reader.feed_data(client_frame(CONTINUATION, b""))
    assert isinstance(queue.error, WebSocketError)
    assert queue.error.code == 1002
    reader.feed_data(client_frame(TEXT, b"late"))
    assert queue.messages == []


def test_the_reader_inflates_where_it_is_told_to_and_refuses_where_not(queue: Queue) -> None:
    frame = client_frame(TEXT, deflated(b"x" * 500), rsv=4)
    WebSocketReader(queue, 1_000, True, False).feed_data(frame)
    assert queue.messages[0].data == b"x" * 500
    WebSocketReader(queue, 1_000, False, False).feed_data(frame)
    assert queue.error is not None


@pytest.mark.parametrize(
    ("offer", "window"),
    [
        (None, 0),
        ("permessage-deflate", 15),
        ("permessage-deflate; client_max_window_bits", 15),
        ("permessage-deflate; server_max_window_bits=9", 9),
        ("x-unknown", 0),
    ],
)
def test_an_offer_of_compression_is_parsed_to_its_window(offer: str | None, window: int) -> None:
    assert ws_ext_parse(offer, isserver=True)[0] == window


# the request and its protocol


def test_the_protocol_has_what_the_takeover_touches() -> None:
    there = {name for base in web_protocol.RequestHandler.__mro__ for name in getattr(base, "__slots__", ())}
    touched = {"_message_tail", "transport", "_reading_paused", "_buffer_paused"}
    assert touched <= there, "the attributes that `Switching.begin` reads and sets are gone"


def test_a_response_has_what_the_one_that_switches_says_otherwise() -> None:
    assert {"_send_headers_immediately", "_eof_sent", "_req"} <= vars(web.StreamResponse).keys()
    assert asyncio.iscoroutinefunction(web.StreamResponse.write_eof)


@asynccontextmanager
async def engine_behind(
    *middlewares: Any, signal: Callable[[web.Request, web.StreamResponse], Awaitable[None]] | None = None
) -> AsyncIterator[tuple[Site, Engine, Above]]:
    """An engine behind middlewares and a signal."""
    above = Above()
    engine = Engine(ping_interval=1_000.0, ping_timeout=1_000.0)
    engine.above = above
    app = web.Application(middlewares=middlewares)
    if signal is not None:
        app.on_response_prepare.append(signal)
    app.router.add_route("*", "/socket.io/", engine.handle_request)
    async with serving(app) as site:
        yield site, engine, above
        await engine.shutdown()


async def test_the_protocol_of_the_transport_is_ours_and_aiohttp_keeps_no_task() -> None:
    async with engine_behind() as (site, engine, above):
        before = len(asyncio.all_tasks())
        raws = [await site.raw() for _ in range(20)]
        for session in above.sessions:
            assert isinstance(session._ws, WebSocket)
            assert session._ws.transport.get_protocol() is session._ws, "set_protocol is not what it was"
        await until(lambda: len(asyncio.all_tasks()) <= before, "aiohttp's task of the connection is not over")
        handlers = [each for each in gc.get_objects() if isinstance(each, web_protocol.RequestHandler)]
        standing = [each for each in handlers if each.transport is not None]
        assert len(standing) <= 1, "aiohttp still counts the connection as its own"
        for raw in raws:
            raw.send("4x")
            assert await raw.text() == "4x"
            raw.cut()
        await until(lambda: not engine.sessions)


async def test_bytes_right_behind_the_handshake_are_not_lost() -> None:
    async with engine_behind() as (site, _, above):
        whole = client_frame(TEXT, b"4first") + client_frame(TEXT, b"4" + b"x" * 70_000)
        for cut_at in (len(whole), 1, 3, 9, len(whole) - 1):
            raw = await site.plain()
            behind = whole[:cut_at]
            await raw.shake(f"{site.path}?EIO=4&transport=websocket", behind=behind)
            raw.writer.write(whole[cut_at:])
            assert await raw.text() == "4first"
            assert await raw.text() == "4" + "x" * 70_000
            raw.cut()
        assert len(above.received_) == 10


async def test_bytes_right_behind_the_handshake_of_an_upgrade_are_not_lost() -> None:
    async with engine_behind() as (site, _, _):
        sid = await site.open_polling()
        raw = await site.plain()
        path = f"{site.path}?EIO=4&transport=websocket&sid={sid}"
        await raw.shake(path, behind=client_frame(TEXT, b"2probe"), opens=False)
        assert await raw.text() == "3probe"
        raw.send("5", "4x")
        assert await raw.text() == "4x"
        raw.cut()


async def test_a_breach_right_behind_the_handshake_ends_it_with_its_code() -> None:
    async with engine_behind() as (site, engine, _):
        raw = await site.plain()
        await raw.shake(f"{site.path}?EIO=4&transport=websocket", behind=client_frame(0x3, b""))
        assert await raw.end() == 1002
        await until(lambda: not engine.sessions)


async def test_a_client_that_goes_during_the_handshake_leaves_nothing() -> None:
    async with engine_behind() as (site, engine, above):
        for _ in range(20):
            raw = await site.plain()
            raw.writer.write(handshake(f"{site.path}?EIO=4&transport=websocket"))
            raw.cut()
        raw = await site.raw()
        raw.cut()
        await until(lambda: not engine.sessions)
        assert len(above.ends) == len(above.sessions)


async def test_a_request_before_the_handshake_on_the_same_connection_is_no_matter() -> None:
    async with engine_behind() as (site, _, _):
        raw = await site.plain()
        raw.writer.write(f"GET {site.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await raw.answer()
        assert head.startswith(b"HTTP/1.1 400")
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await raw.reader.readexactly(size)
        await raw.shake(f"{site.path}?EIO=4&transport=websocket", behind=client_frame(TEXT, b"4x"))
        assert await raw.text() == "4x"
        raw.cut()


# what is around the route


async def test_headers_of_signals_and_middlewares_go_along() -> None:
    async def signal(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Signal"] = "seen"

    async with engine_behind(signal=signal) as (site, _, _):
        raw = await site.raw()
        assert b"X-Signal: seen\r\n" in raw.head
        raw.cut()


async def test_a_middleware_sees_the_handshake_and_may_refuse_it() -> None:
    seen: list[str] = []

    @web.middleware
    async def guard(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        if request.headers.get("Authorization") != "Bearer right":
            raise web.HTTPUnauthorized
        response = await handler(request)
        seen.append(f"{response.status}")
        return response

    async with engine_behind(guard) as (site, engine, _):
        refused = await site.plain()
        refused.writer.write(handshake(f"{site.path}?EIO=4&transport=websocket") + client_frame(TEXT, b"4x"))
        assert (await refused.answer()).startswith(b"HTTP/1.1 401")
        refused.cut()
        assert not engine.sessions
        raw = await site.raw(headers={"Authorization": "Bearer right"})
        raw.send("4x")
        assert await raw.text() == "4x"
        assert seen == ["101"]
        raw.cut()


async def test_a_signal_that_breaks_leaves_nothing_of_an_upgrade() -> None:
    async def signal(request: web.Request, response: web.StreamResponse) -> None:
        if response.status == 101:
            raise RuntimeError("as asked")

    async with engine_behind(signal=signal) as (site, engine, _):
        sid = await site.open_polling()
        raw = await site.plain()
        raw.writer.write(handshake(f"{site.path}?EIO=4&transport=websocket&sid={sid}"))
        assert (await raw.answer()).startswith(b"HTTP/1.1 500")
        raw.cut()
        assert engine.sessions[sid]._probe is None


@asynccontextmanager
async def amid_the_handshake() -> AsyncIterator[tuple[Site, Engine, Above, asyncio.Event, asyncio.Event]]:
    """An engine whose 101s wait until they may go on, and say that they do."""
    waits, may = asyncio.Event(), asyncio.Event()

    async def signal(request: web.Request, response: web.StreamResponse) -> None:
        if response.status == 101:
            waits.set()
            await may.wait()

    async with engine_behind(signal=signal) as (site, engine, above):
        yield site, engine, above, waits, may


async def test_a_session_that_ends_amid_the_handshake_of_its_upgrade_is_not_taken_over() -> None:
    async with amid_the_handshake() as (site, engine, _, waits, may):
        sid = await site.open_polling()
        raw = await site.plain()
        raw.writer.write(handshake(f"{site.path}?EIO=4&transport=websocket&sid={sid}"))
        await waits.wait()
        assert await site.post(sid, "1") == 200
        assert await site.poll(sid) == "6"
        may.set()
        assert (await raw.answer()).startswith(b"HTTP/1.1 101")
        assert await raw.end() == 1000
        assert not engine.sessions


async def test_an_engine_that_is_shut_down_amid_a_handshake_holds_nobody() -> None:
    async with amid_the_handshake() as (site, engine, above, waits, may):
        raw = await site.plain()
        raw.writer.write(handshake(f"{site.path}?EIO=4&transport=websocket"))
        await waits.wait()
        await engine.shutdown()
        may.set()
        await until(lambda: above.ends, "a session stands")
        assert not engine.sessions
        assert engine._timer is None
        raw.cut()


async def test_who_goes_amid_the_handshake_has_not_come() -> None:
    async with amid_the_handshake() as (site, engine, above, waits, may):
        raw = await site.plain()
        raw.writer.write(handshake(f"{site.path}?EIO=4&transport=websocket"))
        await waits.wait()
        raw.cut()
        await until(lambda: not site.requests, "its connection is kept")
        may.set()
        await until(lambda: above.not_opened_ == 1, "it is still on its way")
        assert not above.sessions
        assert not engine.sessions


NO_HANDSHAKES: dict[str, dict[str, str]] = {
    "no upgrade": {"Upgrade": "", "Connection": "keep-alive"},
    "another upgrade": {"Upgrade": "h2c"},
    "an upgrade that the connection does not name": {"Connection": "keep-alive"},
    "an old version": {"Sec-WebSocket-Version": "8"},
    "no version": {"Sec-WebSocket-Version": ""},
    "no key": {"Sec-WebSocket-Key": ""},
    "a short key": {"Sec-WebSocket-Key": "AAAA"},
    "a key that is not base64": {"Sec-WebSocket-Key": "!" * 24},
}


@pytest.mark.parametrize("headers", NO_HANDSHAKES.values(), ids=NO_HANDSHAKES)
async def test_a_handshake_that_is_none_is_refused(headers: dict[str, str]) -> None:
    async with engine_behind() as (site, engine, _):
        raw = await site.plain()
        raw.writer.write(handshake(f"{site.path}?EIO=4&transport=websocket", headers=headers))
        answer = await raw.answer()
        assert answer.startswith(b"HTTP/1.1 400")
        if "Sec-WebSocket-Version" in headers:
            assert b"Sec-WebSocket-Version: 13" in answer
        assert not engine.sessions
        raw.cut()


async def test_the_key_of_the_specification_is_answered_as_it_stands_there() -> None:
    async with engine_behind() as (site, _, _):
        raw = await site.raw(headers={"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in raw.head
        assert b"Content-Length" not in raw.head
        assert b"Transfer-Encoding" not in raw.head
        raw.cut()


async def test_a_handshake_is_of_http_1_1() -> None:
    async with engine_behind() as (site, engine, _):
        raw = await site.plain()
        raw.writer.write(handshake(f"{site.path}?EIO=4&transport=websocket").replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        assert (await raw.answer()).split()[1] == b"400"
        raw.cut()
        assert not engine.sessions


async def test_a_handshake_is_a_get() -> None:
    async with engine_behind() as (site, engine, _):
        sid = await site.open_polling()
        raw = await site.plain()
        path = f"{site.path}?EIO=4&transport=websocket&sid={sid}"
        raw.writer.write(handshake(path).replace(b"GET", b"POST", 1))
        assert (await raw.answer()).startswith(b"HTTP/1.1 400")
        raw.cut()
        assert engine.sessions[sid]._probe is None
