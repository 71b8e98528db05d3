"""The engine over real sockets: engine.io-protocol 4 and RFC 6455, as a client sees them byte by byte."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import time
import zlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from server.wire import Connection, Packet, engineio, send_all, upgrade
from server.wire.engineio import Engine
from server.wire.session import Reason, Session
from server.wire.websocket import BACKLOG_BYTES
from tests.wire.bare import (
    CLOSE,
    CONTINUATION,
    PATIENCE_S,
    PING,
    PONG,
    TEXT,
    Above,
    Raw,
    Site,
    client_frame,
    deflated,
    engine_site,
    handshake,
    nothing_left,
    until,
)

MOST_BYTES = 100_000
LONG_S = 1_000.0
DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}


@pytest.fixture
def above() -> Above:
    return Above()


@pytest.fixture
async def served(above: Above) -> AsyncIterator[tuple[Site, Engine]]:
    async with engine_site(above, ping_interval=LONG_S, ping_timeout=LONG_S, most_bytes=MOST_BYTES) as both:
        yield both


@pytest.fixture
def site(served: tuple[Site, Engine]) -> Site:
    return served[0]


@pytest.fixture
def engine(served: tuple[Site, Engine]) -> Engine:
    return served[1]


@pytest.fixture
async def raw(site: Site) -> AsyncIterator[Raw]:
    one = await site.raw()
    yield one
    one.cut()


# the handshake


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_session_opens_with_its_terms(site: Site, transport: str) -> None:
    if transport == "polling":
        opening = json.loads((await site.poll())[1:])
    else:
        one = await site.raw()
        opening = one.opening
        one.cut()
    assert len(opening.pop("sid")) >= 20
    assert opening == {
        "upgrades": ["websocket"] if transport == "polling" else [],
        "pingInterval": 1_000_000,
        "pingTimeout": 1_000_000,
        "maxPayload": MOST_BYTES,
    }


async def test_the_terms_are_to_the_millisecond(above: Above) -> None:
    async with engine_site(above, ping_interval=1.001, ping_timeout=2.01) as (site, _):
        opening = json.loads((await site.poll())[1:])
        assert (opening["pingInterval"], opening["pingTimeout"]) == (1_001, 2_010)


async def test_two_sessions_have_two_sids(site: Site) -> None:
    assert await site.open_polling() != await site.open_polling()


@pytest.mark.parametrize(
    ("method", "query", "code", "message"),
    [
        ("GET", "", 0, "Transport unknown"),
        ("GET", "EIO=4", 0, "Transport unknown"),
        ("GET", "EIO=4&transport=abc", 0, "Transport unknown"),
        ("GET", "EIO=4&transport=polling&sid=abc", 1, "Session ID unknown"),
        ("POST", "EIO=4&transport=polling&sid=abc", 1, "Session ID unknown"),
        ("GET", "EIO=4&transport=websocket&sid=abc", 1, "Session ID unknown"),
        ("POST", "EIO=4&transport=polling", 2, "Bad handshake method"),
        ("PUT", "EIO=4&transport=websocket", 2, "Bad handshake method"),
        ("GET", "EIO=3&transport=polling", 5, "Unsupported protocol version"),
        ("GET", "transport=websocket", 5, "Unsupported protocol version"),
        ("GET", "EIO=44&transport=polling", 5, "Unsupported protocol version"),
    ],
)
async def test_a_request_that_is_none_is_told_so(
    site: Site, engine: Engine, method: str, query: str, code: int, message: str
) -> None:
    async with site.http.request(method, f"{site.url}{site.path}?{query}") as response:
        assert response.status == 400
        assert await response.json() == {"code": code, "message": message}
    assert not engine.sessions


async def test_a_request_that_is_refused_is_not_kept(site: Site) -> None:
    for _ in range(50):
        async with site.http.get(site.polling("nobody")) as response:
            assert response.status == 400
    gc.collect()
    assert sum(isinstance(each, web.Request) for each in gc.get_objects()) < 5


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_a_session_takes_gets_and_posts_alone(site: Site, engine: Engine, method: str) -> None:
    sid = await site.open_polling()
    async with site.http.request(method, site.polling(sid)) as response:
        assert response.status == 400
    assert await site.post(sid, "4x") == 200
    assert await site.poll(sid) == "4x"


# polling


async def test_a_client_that_polls_is_answered(site: Site) -> None:
    sid = await site.open_polling()
    assert await site.post(sid, "4hello") == 200
    assert await site.poll(sid) == "4hello"
    assert await site.post(sid, "4one\x1e4two\x1ebAQI=") == 200
    assert await site.poll(sid) == "4one\x1e4two\x1e40102"


async def test_a_poll_waits_for_what_comes(site: Site, above: Above) -> None:
    sid = await site.open_polling()
    poll = asyncio.ensure_future(site.poll(sid))
    await until(lambda: above.sessions[0]._polling._poll, "nobody polls")  # type: ignore[union-attr]
    above.sessions[0].push(Packet("x"))
    assert await poll == "4x"


async def test_a_second_poll_ends_the_session_and_both(site: Site, engine: Engine, above: Above) -> None:
    sid = await site.open_polling()
    poll = asyncio.ensure_future(site.poll(sid))
    await until(lambda: above.sessions[0]._polling._poll, "nobody polls")  # type: ignore[union-attr]
    async with site.http.get(site.polling(sid)) as response:
        assert response.status == 400
    assert await poll == "1"
    await nothing_left(engine)
    assert above.ends == [Reason.TRANSPORT_ERROR]


async def test_a_second_post_ends_the_session(site: Site, engine: Engine) -> None:
    sid = await site.open_polling()
    first = await site.plain()
    first.writer.write(
        f"POST {site.polling(sid).removeprefix(site.url)} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n4".encode()
    )
    session = engine.sessions[sid]
    await until(lambda: session._polling._is_posting, "no post has come")  # type: ignore[union-attr]
    assert await site.post(sid, "4x") == 400
    await nothing_left(engine)
    first.writer.write(b"xxxxxxxxx")
    assert (await first.answer()).startswith(b"HTTP/1.1 400")
    first.cut()


async def test_a_post_that_is_cut_in_its_middle_ends_the_session(site: Site, engine: Engine, above: Above) -> None:
    sid = await site.open_polling()
    one = await site.plain()
    one.writer.write(
        f"POST {site.polling(sid).removeprefix(site.url)} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n4".encode()
    )
    await until(lambda: engine.sessions[sid]._polling._is_posting, "no post has come")  # type: ignore[union-attr]
    one.cut()
    await nothing_left(engine)
    assert above.received_ == []


async def test_a_client_that_is_cut_while_it_polls_is_gone_at_the_next_look(
    site: Site, engine: Engine, above: Above, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engineio, "LOOK_S", 0.0)
    sid = await site.open_polling()
    one = await site.plain()
    one.writer.write(f"GET {site.polling(sid).removeprefix(site.url)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await until(lambda: above.sessions[0]._polling._poll, "nobody polls")  # type: ignore[union-attr]
    one.cut()
    await nothing_left(engine)
    assert above.ends == [Reason.TRANSPORT_CLOSE]


async def test_what_is_for_a_client_that_is_cut_while_it_polls_is_gone_with_it(
    site: Site, engine: Engine, above: Above
) -> None:
    sid = await site.open_polling()
    one = await site.plain()
    one.writer.write(f"GET {site.polling(sid).removeprefix(site.url)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await until(lambda: above.sessions[0]._polling._poll, "nobody polls")  # type: ignore[union-attr]
    before = site.requests
    one.cut()
    await until(lambda: site.requests < before, "its connection is kept")
    above.sessions[0].push(Packet("x"))
    await nothing_left(engine)
    assert above.ends == [Reason.TRANSPORT_CLOSE]


async def test_a_poll_of_who_is_too_far_behind_is_answered_with_the_end_and_not_with_what_comes_later(
    site: Site, engine: Engine, above: Above
) -> None:
    sid = await site.open_polling()
    poll = asyncio.ensure_future(site.poll(sid))
    [session] = above.sessions
    await until(lambda: session._polling._poll, "nobody polls")  # type: ignore[union-attr]
    assert session.push(Packet("a" * (BACKLOG_BYTES - 1)))
    assert not session.push(Packet("b"))
    assert not session.push(Packet("c"))
    assert not session.is_closed  # whoever sends may be amid a crowd
    assert await poll == "1"
    await nothing_left(engine)
    assert above.ends == [Reason.TRANSPORT_ERROR]


async def test_what_waits_for_many_who_poll_is_there_once(site: Site, above: Above) -> None:
    for _ in range(2):
        await site.open_polling()
    packet = Packet("é" * 1_000)
    for session in above.sessions:
        session.push(packet)
        assert session.backlog == 2_001
    first, second = (session._polling._payloads for session in above.sessions)  # type: ignore[union-attr]
    assert first[0] is second[0]


async def test_a_post_that_never_comes_does_not_outlive_its_session(site: Site, engine: Engine) -> None:
    sid = await site.open_polling()
    session = engine.sessions[sid]
    one = await site.plain()
    path = site.polling(sid).removeprefix(site.url)
    one.writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n4".encode())
    await until(lambda: session._polling._reading, "no post has come")  # type: ignore[union-attr]
    session.close()
    assert (await one.answer()).startswith(b"HTTP/1.1 400")
    one.cut()


@pytest.mark.parametrize("body", ["", "x", "2", "5", "6", "0{}", "3\x1e", "b!", "4x\x1e\x1e", b"4\xff", b"\x00"])
async def test_a_post_that_is_malformed_ends_the_session(site: Site, engine: Engine, body: str | bytes) -> None:
    sid = await site.open_polling()
    assert await site.post(sid, body) == 400
    await nothing_left(engine)


async def test_a_post_of_which_what_is_above_breaks_ends_the_session(site: Site, engine: Engine) -> None:
    sid = await site.open_polling()
    assert await site.post(sid, "4broken") == 500
    await nothing_left(engine)


@pytest.mark.parametrize("body", [b"zz\r\n", b"5\r\n4x\r\n0\r\n\r\n", b"2\r\n4xxx"])
async def test_a_post_in_pieces_that_are_none_ends_the_session(
    site: Site, engine: Engine, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    sid = await site.open_polling()
    one = await site.plain()
    path = site.polling(sid).removeprefix(site.url)
    one.writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    await until(lambda: engine.sessions[sid]._polling._is_posting, "no post has come")  # type: ignore[union-attr]
    one.writer.write(body)
    one.writer.write_eof()
    await one.reader.read()
    one.cut()
    await nothing_left(engine)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("announced", [True, False])
async def test_a_post_that_is_too_large_ends_the_session(site: Site, engine: Engine, announced: bool) -> None:
    sid = await site.open_polling()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"4" * 50_000

    body = b"4" * 150_000 if announced else pieces()
    async with site.http.post(site.polling(sid), data=body) as response:
        assert response.status == 413
    await nothing_left(engine)


async def test_a_client_that_says_goodbye_is_gone(site: Site, engine: Engine, above: Above) -> None:
    sid = await site.open_polling()
    poll = asyncio.ensure_future(site.poll(sid))
    await until(lambda: above.sessions[0]._polling._poll, "nobody polls")  # type: ignore[union-attr]
    assert await site.post(sid, "1") == 200
    assert await poll == "6"
    await nothing_left(engine)
    assert above.ends == [Reason.TRANSPORT_CLOSE]


async def test_what_was_said_last_is_there_for_one_more_poll(site: Site, engine: Engine, above: Above) -> None:
    sid = await site.open_polling()
    above.sessions[0].push(Packet("x"))
    above.sessions[0].close()
    assert above.ends == [Reason.SERVER]
    assert await site.post(sid, "4x") == 400
    assert await site.poll(sid) == "4x\x1e1"
    await nothing_left(engine)


async def test_a_session_that_is_closed_here_says_so_to_the_next_poll(site: Site, engine: Engine, above: Above) -> None:
    sid = await site.open_polling()
    above.sessions[0].close()
    assert await site.poll(sid) == "1"
    await nothing_left(engine)


# a WebSocket


@pytest.mark.parametrize("way", ["push", "send_all"])
async def test_a_packet_that_the_kernel_has_no_room_for_is_not_lost(
    raw: Raw, above: Above, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    [session] = above.sessions

    def refuse(frames: bytes) -> int:
        raise OSError(errno.ENOBUFS, "no buffer space")

    with monkeypatch.context() as patch:
        patch.setattr(session, "send", refuse)
        if way == "push":
            session.push(Packet("x"))
        else:
            send_all([Connection(session, "", "", "")], Packet("x"))
    session.push(Packet("y"))
    assert [await raw.text() for _ in range(2)] == ["4x", "4y"]


async def test_messages_that_are_let_through_one_by_one_cost_no_more_the_more_of_them_wait() -> None:
    class Hesitant(Above):
        def received(self, session: Session, message: bytes, at: int, *, is_binary: bool) -> None:
            super().received(session, message, at, is_binary=is_binary)
            session.hold()

    hesitant = Hesitant(echoes=False)
    async with engine_site(hesitant) as (its_site, _):
        one = await its_site.raw()
        [session] = hesitant.sessions
        session.hold()
        waiting = [str(n).encode() for n in range(30_000)]
        for each in waiting:
            session.received(b"4" + each, is_binary=False)
        began = time.process_time()
        for _ in waiting:
            session.go_on()
        assert time.process_time() - began < 0.5  # it was 5 s when those that waited on were moved each time
        assert hesitant.received_ == waiting
        one.cut()


async def test_messages_come_back_in_order(raw: Raw) -> None:
    raw.send(*(f"4{n}" for n in range(500)))
    assert [await raw.text() for _ in range(500)] == [f"4{n}" for n in range(500)]
    raw.send(b"\x01\x02")
    assert await raw.text() == "40102"


@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 65_534, 65_535, 65_536, MOST_BYTES - 1])
async def test_a_message_of_any_length_comes_back(raw: Raw, size: int) -> None:
    raw.writer.write(client_frame(TEXT, b"4" + b"x" * size))
    assert await raw.text() == "4" + "x" * size


async def test_a_frame_that_comes_byte_by_byte_is_whole_in_the_end(raw: Raw, above: Above) -> None:
    data = client_frame(TEXT, b"4hello") + client_frame(TEXT, b"4" + b"y" * 200)
    for n in range(len(data)):
        raw.writer.write(data[n : n + 1])
        await raw.writer.drain()
        await asyncio.sleep(0)
    assert await raw.text() == "4hello"
    assert await raw.text() == "4" + "y" * 200
    assert above.received_ == [b"hello", b"y" * 200]


async def test_a_message_in_fragments_is_one_with_pings_in_between(raw: Raw, above: Above) -> None:
    raw.writer.write(
        client_frame(TEXT, b"4a", final=False)
        + client_frame(PING, b"p")
        + client_frame(CONTINUATION, b"", final=False)
        + b"".join(client_frame(CONTINUATION, b"b", final=False) for _ in range(300))
        + client_frame(CONTINUATION, "é".encode()[:1], final=False)
        + client_frame(CONTINUATION, "é".encode()[1:])
    )
    assert await raw.frame() == (0x80 | PONG, b"p")
    assert await raw.text() == "4a" + "b" * 300 + "é"
    assert len(above.received_) == 1


@pytest.mark.parametrize("payload", [b"", b"x", os.urandom(125)], ids=["nothing", "a byte", "125 bytes"])
async def test_a_ping_is_answered_with_its_own_payload(raw: Raw, payload: bytes) -> None:
    raw.writer.write(client_frame(PONG, b"nobody asked") + client_frame(PING, payload))
    assert await raw.frame() == (0x80 | PONG, payload)


async def test_a_close_is_answered_and_is_the_end(raw: Raw, engine: Engine, above: Above) -> None:
    raw.writer.write(client_frame(CLOSE, (1000).to_bytes(2) + b"bye") + client_frame(TEXT, b"4late"))
    assert (await raw.frame()).payload == (1000).to_bytes(2)
    assert await raw.reader.read() == b""
    await nothing_left(engine)
    assert above.ends == [Reason.TRANSPORT_CLOSE]
    assert above.received_ == []


async def test_a_goodbye_of_engine_io_closes_the_websocket(raw: Raw, engine: Engine, above: Above) -> None:
    raw.send("1")
    assert await raw.end() == 1000
    await nothing_left(engine)
    assert above.ends == [Reason.TRANSPORT_CLOSE]


async def test_a_session_that_is_closed_here_says_so_behind_what_was_sent(
    raw: Raw, engine: Engine, above: Above
) -> None:
    above.sessions[0].push(Packet("last"))
    above.sessions[0].close()
    assert await raw.text() == "4last"
    frame = await raw.frame()
    assert (frame.opcode, frame.payload) == (CLOSE, (1000).to_bytes(2))
    raw.send("4late")
    raw.writer.write(client_frame(CLOSE, (1000).to_bytes(2)))
    assert await raw.reader.read() == b""
    assert above.received_ == []
    await nothing_left(engine)


async def test_a_session_that_reads_nothing_for_now_closes_as_fast(raw: Raw, above: Above) -> None:
    above.sessions[0].hold()
    above.sessions[0].close()
    assert (await raw.frame()).opcode == CLOSE
    raw.writer.write(client_frame(CLOSE, (1000).to_bytes(2)))
    async with asyncio.timeout(2):  # not after the time that a client has to close its side
        assert await raw.reader.read() == b""


BREACHES: dict[str, tuple[bytes, int]] = {
    "a reserved bit": (client_frame(TEXT, b"4x", rsv=2), 1002),
    "a compressed frame that nobody agreed to": (client_frame(TEXT, deflated(b"4x"), rsv=4), 1002),
    "an opcode that is none": (client_frame(0x3, b"4x"), 1002),
    "a control opcode that is none": (client_frame(0xB, b""), 1002),
    "a ping in fragments": (client_frame(PING, b"", final=False), 1002),
    "a ping of 126 bytes": (client_frame(PING, b"x" * 126), 1002),
    "a continuation of nothing": (client_frame(CONTINUATION, b"x"), 1002),
    "a message within a message": (client_frame(TEXT, b"4x", final=False) + client_frame(TEXT, b"4y"), 1002),
    "a close of one byte": (client_frame(CLOSE, b"\x03"), 1002),
    "a close of a code that is none": (client_frame(CLOSE, (999).to_bytes(2)), 1002),
    "a close of a code that is never sent": (client_frame(CLOSE, (1005).to_bytes(2)), 1002),
    "a close of the code of no close": (client_frame(CLOSE, (1006).to_bytes(2)), 1002),
    "a close of a code beyond all codes": (client_frame(CLOSE, (5000).to_bytes(2)), 1002),
    "a frame without a mask": (b"\x81\x024x", 1002),
    "a close whose reason is not UTF-8": (client_frame(CLOSE, (1000).to_bytes(2) + b"\xff"), 1007),
    "a text that is not UTF-8": (client_frame(TEXT, b"\xff"), 1007),
    "a packet of no type": (client_frame(TEXT, b"x"), 1002),
    "an empty packet": (client_frame(TEXT, b""), 1002),
    "an opening, which is for servers": (client_frame(TEXT, b"0{}"), 1002),
    "a ping, which is for servers": (client_frame(TEXT, b"2"), 1002),
    "a probe of what is no upgrade": (client_frame(TEXT, b"2probe"), 1002),
    "an upgrade of what is one": (client_frame(TEXT, b"5"), 1002),
    "what is above finds malformed": (client_frame(TEXT, b"4malformed"), 1002),
    "what is above breaks of": (client_frame(TEXT, b"4broken"), 1011),
    "a frame that is too large": (client_frame(TEXT, b"4" + b"x" * MOST_BYTES), 1009),
    "a frame that says it is huge": (b"\x81\xff\x7f" + b"\xff" * 7 + b"mask", 1009),
    "a frame that says it is more than huge": (b"\x81\xff" + b"\xff" * 8 + b"mask", 1009),
    "fragments that are too large together": (
        client_frame(TEXT, b"4" * 60_000, final=False) + client_frame(CONTINUATION, b"4" * 60_000),
        1009,
    ),
}


@pytest.mark.parametrize(("data", "code"), BREACHES.values(), ids=BREACHES)
async def test_a_breach_ends_the_session_at_once_with_its_code(
    raw: Raw, engine: Engine, above: Above, data: bytes, code: int
) -> None:
    raw.writer.write(data + client_frame(TEXT, b"4late"))
    assert await raw.end() == code
    await nothing_left(engine)
    assert above.ends == [Reason.TRANSPORT_ERROR]
    assert b"late" not in above.received_


async def test_a_frame_without_a_mask_that_comes_byte_by_byte_is_not_taken(
    raw: Raw, engine: Engine, above: Above
) -> None:
    for byte in (b"\x81", b"\x02", b"4x"):
        raw.writer.write(byte)
        await raw.writer.drain()
        await asyncio.sleep(0)
    assert (await raw.frame()).payload == (1002).to_bytes(2)
    raw.writer.write(client_frame(CLOSE, (1002).to_bytes(2)))
    async with asyncio.timeout(2):  # not after the time that a client has to close its side
        assert await raw.reader.read() == b""
    assert above.received_ == []
    await nothing_left(engine)


@pytest.mark.parametrize("code", [1000, 1003, 1014, 3000, 4999])
async def test_a_close_of_any_other_code_is_a_close(raw: Raw, above: Above, code: int) -> None:
    raw.writer.write(client_frame(CLOSE, code.to_bytes(2)))
    assert await raw.end() == 1000
    assert above.ends == [Reason.TRANSPORT_CLOSE]


async def test_who_breaks_the_framing_is_not_kept_waiting_for_the_end(raw: Raw) -> None:
    raw.writer.write(client_frame(0x3, b""))
    assert (await raw.frame()).opcode == CLOSE
    raw.writer.write(client_frame(CLOSE, (1002).to_bytes(2)))
    async with asyncio.timeout(2):
        assert await raw.reader.read() == b""


async def test_who_is_cut_is_forgotten(raw: Raw, engine: Engine, above: Above) -> None:
    raw.writer.write(client_frame(TEXT, b"4" + b"x" * 1_000)[:500])
    raw.cut()
    await nothing_left(engine)
    assert above.ends == [Reason.TRANSPORT_CLOSE]
    assert above.received_ == []


# compression


async def test_compression_is_off_unless_it_is_asked_for_on_both_sides(site: Site, above: Above) -> None:
    one = await site.raw(headers=DEFLATE)
    assert b"Sec-WebSocket-Extensions" not in one.head
    one.cut()
    async with engine_site(above, deflate=True) as (compressing, _):
        one = await compressing.raw()
        assert b"Sec-WebSocket-Extensions" not in one.head
        one.send("4" + "x" * 5_000)
        assert not (await one.frame()).is_compressed
        one.cut()


async def test_compression_goes_both_ways_frame_by_frame(above: Above) -> None:
    async with engine_site(above, deflate=True, most_bytes=MOST_BYTES) as (site, engine):
        one = await site.raw(headers=DEFLATE)
        assert b"permessage-deflate" in one.head
        assert b"server_no_context_takeover" in one.head
        for _ in range(3):
            one.writer.write(client_frame(TEXT, deflated(b"4" + b"x" * 5_000), rsv=4))
            frame = await one.frame()
            assert frame.is_compressed
            assert zlib.decompressobj(wbits=-15).decompress(frame.payload + b"\0\0\xff\xff") == b"4" + b"x" * 5_000
        one.send("4short")
        frame = await one.frame()
        assert (frame.is_compressed, frame.payload) == (False, b"4short")
        compressed = deflated(b"4in pieces")
        one.writer.write(
            client_frame(TEXT, compressed[:4], final=False, rsv=4) + client_frame(CONTINUATION, compressed[4:])
        )
        assert await one.text() == "4in pieces"
        one.writer.write(client_frame(TEXT, deflated(b"4" * 50 * MOST_BYTES), rsv=4))  # 5 KB of what is 5 MB
        assert await one.end() == 1009
        await nothing_left(engine)


async def test_what_is_not_compressed_as_it_says_ends_the_session(above: Above) -> None:
    async with engine_site(above, deflate=True) as (site, engine):
        one = await site.raw(headers=DEFLATE)
        one.writer.write(client_frame(TEXT, b"\xff\xff\xff\xff", rsv=4))
        assert await one.end() == 1002
        await nothing_left(engine)


async def test_an_offer_of_a_smaller_window_alone_is_not_taken(above: Above) -> None:
    async with engine_site(above, deflate=True) as (site, _):
        one = await site.raw(headers={"Sec-WebSocket-Extensions": "permessage-deflate; server_max_window_bits=9"})
        one.send("4" + "x" * 5_000)
        assert not (await one.frame()).is_compressed
        one.cut()


# the upgrade


async def trying(site: Site, sid: str) -> Raw:
    """A WebSocket that probes a session."""
    one = await site.plain()
    await one.shake(f"{site.path}?EIO=4&transport=websocket&sid={sid}", opens=False)
    return one


async def test_a_client_goes_over(site: Site, engine: Engine, above: Above) -> None:
    sid = await site.open_polling()
    poll = asyncio.ensure_future(site.poll(sid))
    one = await trying(site, sid)
    one.send("2probe")
    assert await one.text() == "3probe"
    assert await poll == "6"
    one.send("5", "4over")
    assert await one.text() == "4over"
    async with site.http.get(site.polling(sid)) as response:
        assert response.status == 400
    assert await site.post(sid, "4x") == 400
    assert not engine.sessions[sid].is_closed
    one.send("4still")
    assert await one.text() == "4still"
    one.cut()
    await nothing_left(engine)
    assert above.ends == [Reason.TRANSPORT_CLOSE]


@pytest.mark.parametrize("round_", range(5))
async def test_under_load_nothing_is_lost_doubled_or_out_of_order(site: Site, above: Above, round_: int) -> None:
    above.echoes = False
    heard: list[str] = []
    sid = await site.open_polling()
    enough = asyncio.Event()

    async def say() -> int:
        sent = 0
        while not enough.is_set():
            for _ in range(7):
                above.sessions[-1].push(Packet(str(sent)))
                sent += 1
            await asyncio.sleep(0)
        return sent

    def take(payload: str) -> bool:
        packets = payload.split("\x1e")
        heard.extend(packet[1:] for packet in packets if packet[0] == "4")
        return "6" in packets

    saying = asyncio.ensure_future(say())
    posted = 0
    for _ in range(3 + round_):
        take(await site.poll(sid))
        await site.post(sid, f"4{posted}")
        posted += 1
    one = await trying(site, sid)
    one.send("2probe")
    while above.sessions[-1]._polling is not None and not above.sessions[-1]._polling.is_upgrading:
        take(await site.poll(sid))  # there is always something to take, so that this goes on
        await site.post(sid, f"4{posted}")
        posted += 1
    assert await one.text() == "3probe"
    one.send("5", *(f"4{n}" for n in range(posted, posted + 50)))
    over = len(heard) + 1_000
    while len(heard) < over:
        heard.append((await one.text())[1:])
    enough.set()
    sent = await saying
    while len(heard) < sent:
        heard.append((await one.text())[1:])
    assert heard == [str(n) for n in range(sent)]
    await until(lambda: len(above.received_) == posted + 50, "something is missing")
    assert above.received_ == [str(n).encode() for n in range(posted + 50)]
    one.cut()


async def test_a_post_that_waits_is_dealt_with_and_answered_after_the_client_has_gone_over(
    site: Site, engine: Engine, above: Above
) -> None:
    sid = await site.open_polling()
    session = engine.sessions[sid]
    session.hold()
    post = asyncio.ensure_future(site.post(sid, "4first\x1e4second"))
    await until(lambda: session._polling._is_posting, "no post has come")  # type: ignore[union-attr]
    one = await trying(site, sid)
    one.send("2probe")
    assert await one.text() == "3probe"
    one.send("5")
    await until(lambda: session.upgraded, "it never went over")
    assert await asyncio.wait_for(post, PATIENCE_S) == 200
    one.send("4third")
    session.go_on()
    assert [await one.text() for _ in range(3)] == ["4first", "4second", "4third"]
    one.cut()


async def test_one_websocket_too_many_is_closed_and_the_session_stays(site: Site, engine: Engine) -> None:
    sid = await site.open_polling()
    one = await trying(site, sid)
    another = await trying(site, sid)
    assert await another.end() == 1000
    one.send("2probe")
    assert await one.text() == "3probe"
    one.send("5", "4x")
    assert await one.text() == "4x"
    late = await trying(site, sid)
    assert await late.end() == 1000
    one.send("4y")
    assert await one.text() == "4y"
    one.cut()
    await nothing_left(engine)


@pytest.mark.parametrize(
    "frames", [("x",), ("5",), ("2probe", "4x"), ("2probe", "2probe"), ("2",), (b"2probe",), ("4x",), ("1",)]
)
async def test_what_belongs_in_no_upgrade_ends_the_attempt_and_not_the_session(
    site: Site, engine: Engine, frames: tuple[str | bytes, ...]
) -> None:
    sid = await site.open_polling()
    one = await trying(site, sid)
    one.send(*frames)
    assert await one.end() == 1002
    assert await site.post(sid, "4x") == 200
    body = await site.poll(sid)
    assert "4x" in body.split("\x1e")
    again = await trying(site, sid)
    again.send("2probe")
    assert await again.text() == "3probe"
    again.send("5", "4y")
    assert await again.text() == "4y"
    again.cut()
    await nothing_left(engine)


async def test_an_attempt_that_is_cut_leaves_the_session_polling(site: Site, engine: Engine, above: Above) -> None:
    sid = await site.open_polling()
    one = await trying(site, sid)
    one.send("2probe")
    assert await one.text() == "3probe"
    one.cut()
    session = engine.sessions[sid]
    await until(lambda: session._probe is None, "it is still being tried")
    poll = asyncio.ensure_future(site.poll(sid))
    await until(lambda: session._polling._poll, "it does not wait")  # type: ignore[union-attr]
    session.push(Packet("x"))
    assert await poll == "4x"
    assert above.ends == []


async def test_who_has_polled_is_freed_without_the_collector(site: Site, engine: Engine, above: Above) -> None:
    sids = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            sid = await site.open_polling()
            sids.append(sid)
            poll = asyncio.create_task(site.poll(sid))
            await until(lambda: engine.sessions[sid]._polling.is_polled)  # type: ignore[union-attr]  # noqa: B023
            assert await site.post(sid, "1") == 200
            assert await poll == "6"
        await nothing_left(engine)
        above.sessions.clear()
        await until(
            lambda: not [each for each in gc.get_objects() if type(each) is Session and each.sid in sids],
            "a session is kept",
        )
    finally:
        gc.enable()


async def test_a_goodbye_that_overtakes_a_poll_still_lets_it_end(site: Site, engine: Engine) -> None:
    sid = await site.open_polling()
    assert await site.post(sid, "1") == 200
    assert await site.poll(sid) == "6"
    await nothing_left(engine)


async def test_an_attempt_that_comes_to_nothing_is_cut(
    site: Site, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "UPGRADE_S", 0.1)
    sid = await site.open_polling()
    one = await trying(site, sid)
    one.send("2probe")
    assert await one.end() is None
    assert engine.sessions[sid]._probe is None
    assert await site.post(sid, "4x") == 200


async def test_an_attempt_ends_with_its_session(site: Site, engine: Engine) -> None:
    sid = await site.open_polling()
    one = await trying(site, sid)
    assert await site.post(sid, "1") == 200
    assert await one.end() is None
    assert await site.poll(sid) == "6"
    await nothing_left(engine)


# the heartbeat


async def test_a_client_is_asked_and_one_that_answers_stays(above: Above) -> None:
    async with engine_site(above, ping_interval=0.05, ping_timeout=0.2) as (site, engine):
        silent, one = await site.raw(), await site.raw()
        for _ in range(8):
            assert await one.text() == "2"
            one.send("3")
        assert await silent.end() is None
        assert above.ends == [Reason.PING_TIMEOUT]
        assert len(engine.sessions) == 1
        one.cut()


async def test_a_client_that_polls_is_asked_too(above: Above) -> None:
    async with engine_site(above, ping_interval=0.05, ping_timeout=0.3) as (site, engine):
        sid, silent = await site.open_polling(), await site.open_polling()
        for _ in range(8):
            assert await site.poll(sid) == "2"
            assert await site.post(sid, "3") == 200
        await until(lambda: silent not in engine.sessions, "it still stands")
        assert above.ends == [Reason.PING_TIMEOUT]
        assert sid in engine.sessions


async def test_whoever_breaks_in_the_end_of_one_session_does_not_stop_the_heart_of_the_others(above: Above) -> None:
    class Broken(Above):
        def ended(self, session: object, reason: Reason) -> None:
            self.ends.append(reason)
            raise RuntimeError("as asked")

    broken = Broken()
    async with engine_site(broken, ping_interval=0.05, ping_timeout=0.1) as (site, _):
        await site.open_polling()
        await site.open_polling()
        await until(lambda: len(broken.ends) == 2, "the heart has stopped")
        one = await site.raw()
        assert await one.text() == "2"
        one.cut()


# origins


OWN, ALLOWED, OTHER = "http://127.0.0.1:{port}", "https://web.example", "https://evil.example"


@pytest.fixture
async def guarded(above: Above) -> AsyncIterator[tuple[Site, Engine]]:
    async with engine_site(above, origins=[ALLOWED]) as both:
        yield both


@pytest.mark.parametrize("transport", ["polling", "websocket"])
@pytest.mark.parametrize(
    ("origin", "status"),
    [(None, 200), (OWN, 200), (ALLOWED, 200), (OTHER, 403), ("null", 403), (f"{ALLOWED}.evil", 403)],
)
async def test_a_page_of_another_origin_is_let_in_where_it_is_named(
    guarded: tuple[Site, Engine], transport: str, origin: str | None, status: int
) -> None:
    site, engine = guarded
    given = {} if origin is None else {"Origin": origin.format(port=site.port)}
    if transport == "polling":
        async with site.http.get(site.polling(), headers=given) as response:
            assert response.status == status
            allowed = response.headers.get("Access-Control-Allow-Origin")
            assert allowed == (given.get("Origin") if status == 200 else None)
            if status == 403:
                assert await response.json() == {"code": 4, "message": "Forbidden"}
    else:
        one = await site.plain()
        address = f"127.0.0.1:{site.port}"
        one.writer.write(handshake(f"{site.path}?EIO=4&transport=websocket", headers={"Host": address, **given}))
        assert (await one.answer()).split()[1] == (b"101" if status == 200 else b"403")
        one.cut()
    if status == 403:
        assert not engine.sessions


async def test_a_page_behind_a_proxy_is_of_the_proxys_origin(guarded: tuple[Site, Engine]) -> None:
    headers = {"Origin": "https://parley.example", "X-Forwarded-Host": "parley.example", "X-Forwarded-Proto": "https"}
    async with guarded[0].http.get(guarded[0].polling(), headers=headers) as response:
        assert response.status == 200


async def test_a_browser_that_asks_first_is_told_what_it_may(guarded: tuple[Site, Engine]) -> None:
    site, engine = guarded
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-Mine"}
    async with site.http.options(site.polling(), headers={"Origin": ALLOWED, **asked}) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == ALLOWED
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert response.headers["Access-Control-Allow-Headers"] == "X-Mine"
    async with site.http.options(site.polling(), headers={"Origin": OTHER, **asked}) as response:
        assert response.status == 403
    assert not engine.sessions


async def test_a_refusal_can_be_read_by_the_page_that_was_let_in(guarded: tuple[Site, Engine]) -> None:
    async with guarded[0].http.get(guarded[0].polling("x"), headers={"Origin": ALLOWED}) as response:
        assert response.status == 400
        assert response.headers["Access-Control-Allow-Origin"] == ALLOWED


async def test_a_refusal_of_a_body_or_a_handshake_can_be_read_too(guarded: tuple[Site, Engine]) -> None:
    site, engine = guarded
    url, headers = site.polling(await site.open_polling()), {"Origin": ALLOWED}
    async with site.http.post(url, data=b"4" * (engine.most_bytes + 1), headers=headers) as response:
        assert response.status == 413
        assert response.headers["Access-Control-Allow-Origin"] == ALLOWED
        assert (await response.json())["code"] == 3
    async with site.http.get(f"{site.url}{site.path}?EIO=4&transport=websocket", headers=headers) as response:
        assert response.status == 400
        assert response.headers["Access-Control-Allow-Origin"] == ALLOWED
        assert (await response.json())["code"] == 3


async def test_an_engine_that_is_shut_down_lets_nobody_in(above: Above) -> None:
    async with engine_site(above) as (site, engine):
        await engine.shutdown()
        async with site.http.get(site.polling()) as response:
            assert response.status == 503
        one = await site.plain()
        one.writer.write(handshake(f"{site.path}?EIO=4&transport=websocket"))
        assert (await one.answer()).startswith(b"HTTP/1.1 503")
        one.cut()
        assert not engine.sessions
        assert engine._timer is None


async def test_an_engine_that_is_shut_down_holds_nobody(above: Above) -> None:
    async with engine_site(above, ping_interval=LONG_S, ping_timeout=LONG_S) as (site, engine):
        one, sid = await site.raw(), await site.open_polling()
        await engine.shutdown()
        assert await one.end() is None
        await nothing_left(engine)
        with pytest.raises((aiohttp.ClientError, AssertionError)):
            await site.poll(sid)
        assert engine._timer is None
