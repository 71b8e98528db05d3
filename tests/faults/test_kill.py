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
from tests.faults.checker import read_log, violations
from tests.faults.processes import ServerProcess, without
from tests.faults.senders import Sender, crowd
from tests.servers import execute, until

SENDERS, CHATS, EACH = 64, 8, 15


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


async def _reached(senders: list[Sender], acks: int) -> None:
    """Wait until that many sends have been acknowledged."""
    async with asyncio.timeout(30):
        while sum(len(sender.acked) for sender in senders) < acks:
            await asyncio.sleep(0)


async def _judge(data: Path, senders: list[Sender]) -> list[str]:
    """What the checker finds when everybody has caught up."""
    found = []
    for chat in {sender.conversation_id for sender in senders}:
        group = [sender for sender in senders if sender.conversation_id == chat]
        log = await read_log(_dsn(data), chat)
        await asyncio.gather(*(sender.seen_up_to(len(log.seqs)) for sender in group))
        acked = [ack for sender in group for ack in sender.acked]
        found += violations(log, acked, {sender.user_id: sender.seen for sender in group})
    return found


async def _run(data: Path, url: str, kill: Callable[[], None], *, times: int = 2) -> list[Sender]:
    senders = await crowd(_dsn(data), secret(data), url, SENDERS, CHATS, EACH)
    await execute(_dsn(data), "checkpoint")  # who talks is there whatever happens; it is about what they say
    running = asyncio.gather(*(sender.run() for sender in senders))
    for n in range(1, times + 1):
        await _reached(senders, SENDERS * EACH * n // (times + 2))
        await asyncio.to_thread(kill)
    async with asyncio.timeout(60):
        await running
        await asyncio.gather(*(sender.again() for sender in senders))
    return senders


async def test_acknowledged_messages_survive_kill_9_of_the_server(
    data: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server()

    def kill() -> None:
        server.kill()
        server.start()

    senders = await _run(data, server.url, kill)
    assert await _judge(data, senders) == []
    assert sum(len(sender.acked) for sender in senders) == SENDERS * (EACH + 1)
    assert sum(sender.sends for sender in senders) > SENDERS * (EACH + 1)  # some had to be sent again
    await asyncio.gather(*(sender.drop() for sender in senders))


def _kill_postgresql(data: Path) -> None:
    pid = int((data / "postgres" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)


async def test_acknowledged_messages_survive_kill_9_of_postgresql(
    data: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server()
    senders = await _run(data, server.url, lambda: _kill_postgresql(data))
    assert await _judge(data, senders) == []
    assert sum(len(sender.acked) for sender in senders) == SENDERS * (EACH + 1)
    assert sum(sender.sends for sender in senders) > SENDERS * (EACH + 1)
    await asyncio.gather(*(sender.drop() for sender in senders))


async def test_a_postgresql_that_commits_before_it_has_written_is_caught(
    data: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server()
    await execute(_dsn(data), "alter database postgres set synchronous_commit = off")
    await execute(_dsn(data), "alter system set wal_writer_delay = '10s'")
    await execute(_dsn(data), "select pg_reload_conf()")
    server.kill()
    server.start()
    senders = await _run(data, server.url, lambda: _kill_postgresql(data), times=1)
    found = await _judge(data, senders)
    assert any(line.startswith("lost:") for line in found), found
    await asyncio.gather(*(sender.drop() for sender in senders))


async def test_a_server_that_acknowledges_before_it_commits_is_caught(
    data: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server("tests.faults.broken", "ack_after_commit")

    def kill() -> None:
        server.kill()
        server.start()

    senders = await _run(data, server.url, kill, times=1)
    found = await _judge(data, senders)
    assert any(line.startswith("lost:") for line in found), found
    await asyncio.gather(*(sender.drop() for sender in senders))


async def test_a_database_that_does_not_recognise_repeats_is_caught(
    data: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server()
    await execute(_dsn(data), "alter table messages drop constraint messages_client_id_key")
    repeat = "when old.body_hmac = i.body_hmac then 'repeat'"
    key_reuse = "when old.message_id is not null then 'key_reuse'"
    await execute(_dsn(data), await without(_dsn(data), "append_messages", (repeat, ""), (key_reuse, "")))

    senders = await crowd(_dsn(data), secret(data), server.url, 4, 1, 2)
    await asyncio.gather(*(sender.run() for sender in senders))
    await asyncio.gather(*(sender.again() for sender in senders))
    found = await _judge(data, senders)
    assert any(line.startswith("doubled:") for line in found), found
    await asyncio.gather(*(sender.drop() for sender in senders))
