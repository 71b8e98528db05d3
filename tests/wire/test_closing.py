"""Closing a session whose client takes nothing: it hears nothing of it, and goes all the same."""

from __future__ import annotations

import asyncio
from socket import SO_SNDBUF, SOL_SOCKET

import pytest

from server.wire import engineio, event_packet
from tests.people import Instance, Person
from tests.wire.test_guards import Deaf, until


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def test_a_client_that_takes_nothing_is_cut_some_time_after_it_was_closed(
    parley: Instance, amina: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engineio, "STALL_S", 0.2)
    for listening in parley.parley._site._server.sockets:  # type: ignore[union-attr]
        listening.setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)  # the kernel would take megabytes
    deaf = Deaf(parley)
    session = parley.parley.wire.eio.sockets[await deaf.connect(amina)]
    transport = session._ws.transport
    [connection] = parley.parley.wire.connections
    while session.backlog < 200_000:
        connection.send(event_packet("x", '"' + "x" * 50_000 + '"'))
        await asyncio.sleep(0)
    connection.drop()
    await until(lambda: session.closed, "it still stands")
    parley.parley.wire.eio.sockets.pop(session.sid, None)  # as the engine's own task does with closed sessions
    await until(transport.is_closing, "its connection is kept")
    deaf.socket.close()


async def test_a_client_that_listens_is_closed_without_a_cut(parley: Instance, amina: Person) -> None:
    phone = await amina.connect()
    session = parley.parley.wire.eio.sockets[phone.client.eio.sid]
    [connection] = parley.parley.wire.connections
    connection.drop()
    await phone.gone()
    await until(lambda: session._cutting is not None and session._cutting.cancelled(), "it would be cut later")
