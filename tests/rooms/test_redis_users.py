"""What deploy/redis-users.acl lets Parley do, on a Valkey that is started as the compose file starts its Redis."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from server.embedded_files import Account
from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.redisbus import RedisBus
from storage import Time
from tests.faults.processes import free_port
from tests.servers import RedisServer, until, valkey_binary

ROOT = Path(__file__).parents[2]
PASSWORD = "5f0c8d"
ADMIN = "user admin on nopass ~* &* +@all"
KEY = b"a deployment's key"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Where a Valkey with these users answers, and with an administrator, who asks it what it has refused."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    compose = services["redis"]
    assert services["parley-1"]["environment"]["REDIS_URL"].startswith("redis://parley:${REDIS_PASSWORD:?")
    (mounted,) = [volume.split(":") for volume in compose["volumes"]]
    users, port = tmp_path / "users", free_port()
    users.write_text(f"{(ROOT / mounted[0]).read_text()}{ADMIN}\n")
    shell, option, script = compose["command"]
    for word, here in (
        (mounted[1], str(users)),
        ("/data/", f"{tmp_path}/"),
        ("exec redis-server", f"exec {valkey_binary()} --port {port} --bind 127.0.0.1"),
        ("$$", "$"),
    ):
        assert word in script
        script = script.replace(word, here)
    child = Account("tests").identity(signal.SIGKILL)
    child["env"] = {**child["env"], "REDIS_PASSWORD": PASSWORD}
    with (tmp_path / "log").open("ab") as log:
        process = subprocess.Popen([shell, option, script], stdin=subprocess.DEVNULL, stdout=log, stderr=log, **child)
    until(lambda: _answer(port, "ping"), f"it answers (its log: {tmp_path}/log)")
    yield port
    process.kill()
    process.wait()


def _answer(port: int, command: str) -> str | None:
    server = RedisServer(valkey_binary(), Path())
    server.port = port
    return server.ask(command)


@pytest.fixture
def url(port: int) -> str:
    return f"redis://parley:{PASSWORD}@127.0.0.1:{port}/0"


async def test_the_bus_works_as_that_user_and_asks_for_nothing_more(port: int, url: str) -> None:
    heard: list[Event] = []
    arrived = asyncio.Event()

    def receive(event: Event) -> None:
        heard.append(event)
        arrived.set()

    room = Room("conversation", UUID(int=1))
    sender, listener = RedisBus(url, KEY), RedisBus(url, KEY)
    await sender.start(lambda _: None)
    await listener.start(receive)
    listener.subscribe(room)
    async with asyncio.timeout(10):
        while not arrived.is_set():
            sender.publish(Event(room, 1, Time("2026-11-20T17:00:00.000Z"), "message:created", "{}"))
            await asyncio.sleep(0.01)
    assert {(event.room, event.seq, event.name) for event in heard} == {(room, 1, "message:created")}
    await sender.stop()
    await listener.stop()
    async with Redis.from_url(f"redis://admin:x@127.0.0.1:{port}/0") as admin:
        assert await admin.acl_log() == []


@pytest.mark.parametrize(
    "command",
    [
        "set parley:x 1",
        "get parley:x",
        "del parley:x",
        "keys *",
        "flushall",
        "config get *",
        "acl list",
        "client list",
        "pubsub channels",
        "psubscribe *",
        "psubscribe parley:*",
        "publish other:x hello",
        "spublish other:x hello",
        "subscribe other:x",
        "ssubscribe parley",
        "eval 1 0",
        "shutdown nosave",
    ],
)
async def test_what_parley_does_not_need_is_refused(url: str, command: str) -> None:
    async with Redis.from_url(url) as client:
        with pytest.raises(NoPermissionError):
            await client.execute_command(*command.split())
        assert await client.publish("parley:x", "hello") == 0


async def test_nobody_else_gets_in(port: int) -> None:
    assert str(_answer(port, "ping")).startswith("-NOAUTH")
    async with Redis.from_url(f"redis://parley:guessed@127.0.0.1:{port}/0") as client:
        with pytest.raises(AuthenticationError):
            await client.ping()
