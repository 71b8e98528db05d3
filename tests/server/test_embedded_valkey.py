"""The embedded Valkey: private, one a data folder, back after a kill, and nothing left of it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from server.datafolder import DataFolderInUse
from server.embedded_valkey import EmbeddedValkey, EmbeddedValkeyError


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., EmbeddedValkey]]:
    """`start()`: a Valkey on a data folder, or on the one of that name."""
    started: list[EmbeddedValkey] = []

    def start(name: str = "data") -> EmbeddedValkey:
        started.append(EmbeddedValkey(tmp_path / name))
        started[-1].start()
        return started[-1]

    yield start
    for valkey in started:
        valkey.stop()


async def asked(valkey: EmbeddedValkey, *command: str) -> object:
    async with Redis.from_url(valkey.url) as client:
        return await client.execute_command(*command)


async def answers(valkey: EmbeddedValkey) -> bool:
    try:
        return await asked(valkey, "ping") is True
    except RedisConnectionError:
        return False


def socket_of(valkey: EmbeddedValkey) -> Path:
    return Path(valkey.url.removeprefix("unix://"))


async def test_it_listens_on_a_private_socket_alone_and_keeps_nothing(
    start: Callable[..., EmbeddedValkey], tmp_path: Path
) -> None:
    valkey = start()
    kept = await asked(valkey, "config", "get", "port", "save", "appendonly")
    assert kept == {b"port": b"0", b"save": b"", b"appendonly": b"no"}
    assert stat.S_IMODE(socket_of(valkey).stat().st_mode) == 0o700
    valkey.stop()
    assert sorted(path.name for path in (tmp_path / "data" / "valkey").iterdir()) == ["server.lock", "valkey.log"]
    assert valkey.pid is None


@pytest.mark.parametrize("name", ["a" * 120, "with a space, and 'more'"])
async def test_a_path_that_a_socket_cannot_have_is_no_hindrance(
    start: Callable[..., EmbeddedValkey], name: str
) -> None:
    valkey = start(name)
    assert await asked(valkey, "ping") is True
    assert stat.S_IMODE(socket_of(valkey).parent.stat().st_mode) == 0o700
    valkey.stop()
    assert not socket_of(valkey).parent.exists()


def test_a_second_server_on_the_folder_is_refused(start: Callable[..., EmbeddedValkey]) -> None:
    start().stop()
    start()
    with pytest.raises(DataFolderInUse, match=f"is in use by process {os.getpid()}"):
        start()


async def test_it_is_started_again_when_it_is_killed(start: Callable[..., EmbeddedValkey]) -> None:
    valkey = start()
    killed = valkey.pid
    assert killed is not None
    supervising = asyncio.create_task(valkey.supervise())
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)  # it answers no more
    async with asyncio.timeout(10):
        while not await answers(valkey):
            await asyncio.sleep(0.01)
    assert valkey.pid not in (None, killed)
    supervising.cancel()


def test_where_there_is_no_valkey_for_the_machine_that_is_said(
    start: Callable[..., EmbeddedValkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EmbeddedValkeyError, match="set REDIS_URL to a Redis of yours"):
        start()


def test_a_valkey_that_does_not_start_says_why(
    start: Callable[..., EmbeddedValkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.embedded_valkey.SETTINGS", {"no-such-setting": "1"})
    with pytest.raises(EmbeddedValkeyError, match=r"exit code 1(.|\n)*no-such-setting"):
        start()
