"""Closing a session whose client takes nothing: it hears nothing of it, and goes all the same."""

from __future__ import annotations

import asyncio
from socket import SO_SNDBUF, SOL_SOCKET

import pytest

from server.wire import event_packet, websocket
from tests.people import Instance, Person
from tests.wire.bare import until
from tests.wire.test_guards import Deaf


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def test_a_client_that_takes_nothing_is_cut_some_time_after_it_was_closed(
    parley: Instance, amina: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "CLOSE_S", 0.2)
    for listening in parley.parley._site._server.sockets:  # type: ignore[union-attr]
        listening.setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)  # the kernel would take megabytes
    deaf = Deaf(parley)
    session = parley.parley.wire.eio.sessions[await deaf.connect(amina)]
    transport = session._ws.transport
    [connection] = parley.parley.wire.connections
    while session.backlog < 200_000:
        connection.send(event_packet("x", '"' + "x" * 50_000 + '"'))
        await asyncio.sleep(0)
    connection.drop()
    await until(lambda: session.is_closed, "it still stands")
    await until(transport.is_closing, "its connection is kept")
    deaf.socket.close()


async def test_a_client_that_listens_is_closed_without_a_cut(parley: Instance, amina: Person) -> None:
    phone = await amina.connect()
    session = parley.parley.wire.eio.sessions[phone.client.eio.sid]
    [connection] = parley.parley.wire.connections
    connection.drop()
    await phone.gone()
    await until(lambda: session._ws._timer is not None and session._ws._timer.cancelled(), "it would be cut later")
