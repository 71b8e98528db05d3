"""kill -9, of the server and of PostgreSQL, under 64 concurrent senders: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.datafolder import secret
from server.embedded import attach
from tests.faults.clients import Client
from tests.faults.crowd import crowd
from tests.faults.history import History, Outcome
from tests.faults.mutations import forget_repeats
from tests.faults.processes import ServerProcess
from tests.faults.rounds import greeted, judge
from tests.servers import execute, until

SENDERS, CHATS, EACH = 64, 8, 15
PATIENCE_S = 20.0


@pytest.fixture
def data(open_folder: Path) -> Path:
    return open_folder / "data"


@pytest.fixture
def start_server(data: Path, open_folder: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start `parley serve` with a PostgreSQL of its own, or a broken variant of it."""
    started: list[ServerProcess] = []

    def start(*module: str) -> ServerProcess:
        environ = {
            "PARLEY_DATA": str(data),
            "DATABASE_URL": "",
            "PARLEY_RATE_MESSAGE_SEND": "off",
            "PARLEY_RATE_READS": "off",
            "PARLEY_PING_INTERVAL_MS": "1000",  # the clients take a longer silence for an end
            "PARLEY_PING_TIMEOUT_MS": "2000",
        }
        started.append(ServerProcess(open_folder / "log", environ, module or ("server.cli", "serve")))
        started[-1].start()
        return started[-1]

    yield start
    for server in started:
        server.kill()
    until(lambda: not (data / "postgres" / "postmaster.pid").exists(), "its PostgreSQL ends with it")


def _dsn(data: Path) -> str:
    dsn = attach(data)
    assert dsn is not None
    return dsn


async def _reached(history: History, acks: int) -> None:
    """Wait until that many sends have been acknowledged."""
    async with asyncio.timeout(30):
        while sum(1 for _ in history.of(Outcome.OK)) < acks:
            await asyncio.sleep(0.005)


async def _run(
    data: Path, server: ServerProcess, kill: Callable[[], None], *, times: int = 2, is_doubling: bool = False
) -> tuple[History, list[str]]:
    """Let everybody talk, and kill amid it; the history, and what the checker finds when everybody has caught up."""
    people = await crowd(_dsn(data), secret(data), SENDERS, CHATS)
    history = History()
    clients = [Client(who, [("127.0.0.1", server.port)], history, is_doubling=is_doubling) for who in people]
    try:
        for client in clients:
            client.start()
        await greeted(clients)
        await execute(_dsn(data), "checkpoint")  # who talks is there whatever happens; it is about what they say
        for client in clients:
            client.talk()
        for n in range(1, times + 1):
            await _reached(history, SENDERS * EACH * n // (times + 1))
            await greeted(clients)  # those too who were longest in coming back from the kill before
            await asyncio.to_thread(kill)
        await _reached(history, SENDERS * EACH)
        for client in clients:
            client.hush()
        return history, await judge(_dsn(data), clients, history, PATIENCE_S)
    finally:
        await asyncio.gather(*(client.leave() for client in clients))


def _again(server: ServerProcess) -> Callable[[], None]:
    def kill() -> None:
        server.kill()
        server.start()

    return kill


async def test_acknowledged_messages_survive_kill_9_of_the_server(
    data: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server()
    history, found = await _run(data, server, _again(server))
    assert found == []
    assert history.cuts >= 2 * SENDERS
    assert any(history.of(Outcome.UNKNOWN))  # some had to be sent again


def _kill_postgresql(data: Path) -> None:
    pid = int((data / "postgres" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)


async def test_acknowledged_messages_survive_kill_9_of_postgresql(
    data: Path, start_server: Callable[..., ServerProcess]
) -> None:
    history, found = await _run(data, start_server(), lambda: _kill_postgresql(data))
    assert found == []
    assert any(history.of(Outcome.UNKNOWN))


def _is_found(kind: str, found: list[str]) -> bool:
    return any(line.startswith(f"{kind}:") for line in found)


async def test_a_postgresql_that_commits_before_it_has_written_is_caught(
    data: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server()
    await execute(_dsn(data), "alter database postgres set synchronous_commit = off")
    await execute(_dsn(data), "alter system set wal_writer_delay = '10s'")
    await execute(_dsn(data), "select pg_reload_conf()")
    _again(server)()
    _, found = await _run(data, server, lambda: _kill_postgresql(data), times=1)
    assert _is_found("lost", found), found


async def test_a_server_that_acknowledges_before_it_commits_is_caught(
    data: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server("tests.faults.broken", "ack_after_commit")
    _, found = await _run(data, server, _again(server), times=1)
    assert _is_found("lost", found), found


async def test_a_database_that_does_not_recognise_repeats_is_caught(
    data: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server()
    await forget_repeats(_dsn(data))
    _, found = await _run(data, server, lambda: None, times=0, is_doubling=True)
    assert _is_found("doubled", found), found
