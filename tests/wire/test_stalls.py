"""Clients that take nothing, or little: what is held for them is bounded, and so is the time that they have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from server.wire import Packet, engineio, polling, websocket
from server.wire import session as sessions
from server.wire.engineio import Engine
from server.wire.session import Cut, Reason, Session
from tests.wire.bare import CLOSE, PING, TEXT, Above, Deaf, Site, client_frame, engine_site, handshake, until

STALL_S = 0.5
LONG_S = 1_000.0
MESSAGE = Packet("x" * 10_000)
SLOW_BYTES_PER_S = 20_000


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and have little patience."""
    monkeypatch.setattr(sessions, "STALL_S", STALL_S)
    monkeypatch.setattr(engineio, "LOOK_S", 0.02)


async def opened(deaf: Deaf, above: Above) -> Session:
    """The session that it opens, of which it reads no further."""
    await deaf.ask(handshake("/socket.io/?EIO=4&transport=websocket"))
    await deaf.until(b'"maxPayload"')
    return above.sessions[-1]


async def pong(deaf: Deaf) -> None:
    """Answer pings that it has not read."""
    while True:
        await deaf.send(client_frame(TEXT, b"3"))
        await pace(0.02)


@pytest.fixture
def above() -> Above:
    return Above()


@pytest.fixture
async def narrow(above: Above) -> AsyncIterator[tuple[Site, Engine]]:
    """An engine behind sockets for which the kernel takes next to nothing."""
    async with engine_site(above, narrow=True, ping_interval=LONG_S, ping_timeout=LONG_S) as both:
        yield both


@pytest.fixture
def site(narrow: tuple[Site, Engine]) -> Site:
    return narrow[0]


@pytest.fixture
def engine(narrow: tuple[Site, Engine]) -> Engine:
    return narrow[1]


@pytest.fixture
def deaf(site: Site) -> Iterator[Deaf]:
    one = Deaf(site.port)
    yield one
    one.socket.close()


async def pace(seconds: float) -> None:
    """What a client does between two of its deeds."""
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("pongs", [False, True], ids=["silent", "sending pongs"])
async def test_who_takes_nothing_is_cut_a_while_after_the_last_byte_it_took_and_others_go_on(
    above: Above, pongs: bool
) -> None:
    pings_s = 0.05 if pongs else LONG_S
    async with engine_site(above, narrow=True, ping_interval=pings_s, ping_timeout=LONG_S) as (site, engine):
        deaf = Deaf(site.port)
        session = await opened(deaf, above)
        ponging = asyncio.ensure_future(pong(deaf)) if pongs else None
        other = await site.raw()
        while session.backlog < 300_000:
            session.push(MESSAGE)
        await until(lambda: session._stall is not None, "nobody has looked")
        await deaf.take(2_000)
        took_at = time.monotonic()
        slowest = 0.0
        while not session.is_closed:
            asked_at = time.monotonic()
            other.send("4x")
            while await other.text() == "2":
                other.send("3")
            slowest = max(slowest, time.monotonic() - asked_at)
            assert session.backlog <= websocket.BACKLOG_BYTES
            assert time.monotonic() - took_at < 10 * STALL_S, "it still stands"
            await pace(0.005)
        assert time.monotonic() - took_at > STALL_S * 0.9
        assert slowest < 0.3
        assert above.ends == [Reason.TRANSPORT_ERROR]
        assert engine.cuts == {Cut.STALLED: 1, Cut.BEHIND: 0, Cut.SILENT: 0}
        assert list(engine.sessions.values()) == [above.sessions[-1]]
        other.cut()
        if ponging is not None:
            ponging.cancel()
            await asyncio.gather(ponging, return_exceptions=True)
        deaf.socket.close()


async def test_who_takes_nothing_is_cut_at_once_when_too_much_waits(engine: Engine, above: Above, deaf: Deaf) -> None:
    session = await opened(deaf, above)
    held = 0
    for _ in range(1_000):
        session.push(MESSAGE)
        held = max(held, session.backlog)
    await until(lambda: session.is_closed, "it still stands")
    assert websocket.BACKLOG_BYTES - 20_000 < held <= websocket.BACKLOG_BYTES + 10_100
    assert session.backlog == 0
    assert not session.push(MESSAGE)
    assert engine.cuts == {Cut.STALLED: 0, Cut.BEHIND: 1, Cut.SILENT: 0}


async def test_what_waits_for_one_client_is_told_beside_what_waits_for_all(
    site: Site, engine: Engine, above: Above, deaf: Deaf
) -> None:
    assert (engine.backlog, engine.backlog_most) == (0, 0)
    first, other = await opened(deaf, above), Deaf(site.port)
    second = await opened(other, above)
    for session, bytes_least in ((first, 300_000), (second, 100_000)):
        while session.backlog < bytes_least:
            session.push(MESSAGE)
    assert engine.backlog_most == first.backlog
    assert engine.backlog == first.backlog + second.backlog
    other.socket.close()


async def test_what_may_be_dropped_is_dropped_for_who_is_far_behind(above: Above, deaf: Deaf) -> None:
    session = await opened(deaf, above)
    while session.backlog <= websocket.DROP_BYTES:
        assert session.push(MESSAGE, droppable=True)
    held = session.backlog
    for _ in range(100):
        assert not session.push(MESSAGE, droppable=True)
    assert session.backlog == held
    assert session.push(MESSAGE)


async def test_a_slow_phone_that_keeps_taking_lives(above: Above, deaf: Deaf) -> None:
    session = await opened(deaf, above)
    while session.backlog < 300_000:
        session.push(MESSAGE)
    began, taken = time.monotonic(), 0
    while time.monotonic() - began < 5 * STALL_S:
        if taken < (time.monotonic() - began) * SLOW_BYTES_PER_S:
            taken += len(await deaf.take(1_000))
        await pace(0.005)
    assert 0.7 < taken / (5 * STALL_S * SLOW_BYTES_PER_S) < 1.3
    assert not session.is_closed
    assert session.backlog > 200_000
    while session.backlog:
        await deaf.take(65_536)
    await until(lambda: session.is_flowing, "it does not flow again")


async def test_who_does_not_poll_is_cut_too(site: Site, engine: Engine, above: Above) -> None:
    idle, greedy = await site.open_polling(), await site.open_polling()
    first, second = (engine.sessions[sid] for sid in (idle, greedy))
    first.push(MESSAGE)
    held = 0
    for _ in range(1_000):
        second.push(MESSAGE)
        held = max(held, second.backlog)
    await until(lambda: second.is_closed, "it still stands")
    assert held <= websocket.BACKLOG_BYTES + 10_100
    await until(lambda: first.is_closed, "it still stands")
    assert not engine.sessions
    assert above.ends == [Reason.TRANSPORT_ERROR] * 2


async def test_what_waits_for_who_polls_slowly_is_kept(site: Site, engine: Engine) -> None:
    sid = await site.open_polling()
    began, sent, heard = time.monotonic(), 0, 0
    while time.monotonic() - began < 3 * STALL_S:
        engine.sessions[sid].push(Packet(str(sent)))
        sent += 1
        heard += len((await site.poll(sid)).split("\x1e"))
        await pace(STALL_S / 3)
    assert heard == sent


async def test_pings_of_who_does_not_read_the_pongs_fill_nothing(above: Above, deaf: Deaf) -> None:
    session = await opened(deaf, above)
    ping = client_frame(PING, os.urandom(125)) * 500
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(20 * STALL_S):
            while not session.is_closed:
                await deaf.send(ping)
                assert session.backlog <= 2 * websocket.PACE_BYTES
    await until(lambda: session.is_closed, "it still stands")


async def test_who_closes_and_does_not_read_on_is_cut(
    above: Above, deaf: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "CLOSE_S", 0.2)
    session = await opened(deaf, above)
    transport = session._ws.transport  # type: ignore[union-attr]
    while session.backlog < 300_000:
        session.push(MESSAGE)
    await deaf.send(client_frame(CLOSE, (1000).to_bytes(2)))
    await until(lambda: above.ends, "it still stands")
    assert transport.get_write_buffer_size()
    await until(lambda: not transport.get_write_buffer_size(), "what waits is kept")
    assert len(await deaf.rest()) < 300_000


async def test_a_websocket_for_which_something_waits_takes_over_and_what_is_sent_follows_that(
    site: Site, engine: Engine, deaf: Deaf
) -> None:
    sid = await site.open_polling()
    session = engine.sessions[sid]
    await deaf.ask(handshake(f"/socket.io/?EIO=4&transport=websocket&sid={sid}"))
    pings = client_frame(PING, b"x" * 125) * 400
    await deaf.send(client_frame(TEXT, b"2probe") + pings + client_frame(TEXT, b"5"))
    await until(lambda: session.upgraded, "it never went over")
    assert session.backlog
    assert not session.is_flowing
    session.push(MESSAGE)
    session.push(Packet("last"))
    await deaf.until(b"4" + b"x" * 10_000 + b"\x81\x054last")


# the answers to polls


def poll(site: Site, sid: str) -> bytes:
    return f"GET {site.polling(sid).removeprefix(site.url)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def answered(site: Site, deaf: Deaf, session: Session) -> asyncio.Transport:
    """Let nearly 300 KB wait, and be asked for by a client that reads none of it; their connection."""
    for _ in range(29):
        session.push(MESSAGE)
    await deaf.ask(poll(site, session.sid))
    assert session._polling is not None
    await until(lambda: not session._polling._payloads, "nobody polls")  # type: ignore[union-attr]
    connection = session._polling._connection
    assert connection is not None
    return connection


async def test_an_answer_that_is_not_read_is_counted_and_nothing_more_is_answered(
    site: Site, engine: Engine, deaf: Deaf
) -> None:
    session = engine.sessions[await site.open_polling()]
    connection = await answered(site, deaf, session)
    assert session.backlog == connection.get_write_buffer_size() > 250_000
    async with site.http.get(site.polling(session.sid)) as response:
        assert response.status == 400
    assert session.is_closed
    await until(connection.is_closing, "the answer is kept")
    assert len(await deaf.rest()) < 250_000
    assert not engine.sessions


async def test_an_answer_that_is_not_read_and_what_waits_are_bounded_together(
    site: Site, engine: Engine, deaf: Deaf
) -> None:
    session = engine.sessions[await site.open_polling()]
    connection = await answered(site, deaf, session)
    held = 0
    while session.push(MESSAGE):
        held = max(held, session.backlog)
    assert websocket.BACKLOG_BYTES - 20_000 < held <= websocket.BACKLOG_BYTES
    await until(lambda: session.is_closed, "it still stands")
    assert not connection.get_write_buffer_size()


async def test_who_reads_nothing_of_an_answer_is_cut_a_while_later(site: Site, engine: Engine, deaf: Deaf) -> None:
    session = engine.sessions[await site.open_polling()]
    connection = await answered(site, deaf, session)
    await until(lambda: session.is_closed, "it still stands")
    assert connection.is_closing()


async def test_a_slow_phone_that_keeps_taking_an_answer_lives_and_polls_on(
    site: Site, engine: Engine, deaf: Deaf
) -> None:
    session = engine.sessions[await site.open_polling()]
    await answered(site, deaf, session)
    began, taken, told = time.monotonic(), 0, 0
    while time.monotonic() - began < 4 * STALL_S:
        if taken < (time.monotonic() - began) * SLOW_BYTES_PER_S:
            taken += len(await deaf.take(1_000))
            session.push(Packet(str(told)))  # so that more is waiting than it is taking
            session.push(Packet("y" * 1_500))
            told += 1
        await pace(0.005)
    assert not session.is_closed
    assert session.backlog > 250_000
    while session._polling._untaken:  # type: ignore[union-attr]
        await deaf.take(65_536)
    await until(lambda: session._polling._connection is None, "what else goes that way is counted for it")  # type: ignore[union-attr]
    packets = (await site.poll(session.sid)).split("\x1e")
    assert packets == [each for n in range(told) for each in (f"4{n}", "4" + "y" * 1_500)]


async def test_what_is_said_last_is_not_kept_for_ever_for_who_does_not_read_it(
    site: Site, engine: Engine, deaf: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "LINGER_S", 0.2)
    first, second = engine.sessions[await site.open_polling()], engine.sessions[await site.open_polling()]
    connection = await answered(site, deaf, first)
    first.close()
    assert connection.get_write_buffer_size()
    await until(connection.is_closing, "the answer is kept")
    for _ in range(29):
        second.push(MESSAGE)
    second.close()
    late = Deaf(site.port)
    await late.ask(poll(site, second.sid))
    await until(lambda: second.sid not in engine.sessions and site.unsent, "it is never asked for")
    await until(lambda: not site.unsent, "the last answer is kept")
    late.socket.close()
