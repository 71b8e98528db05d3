"""`parley serve --workers 2`: several processes on one port, their parent, and what it starts for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import structlog
from redis.asyncio import Redis

from server.cli import crew
from server.cli.crew import LONGEST_PAUSE_S, Port, Post, Worker, pauses, posts
from server.config import SettingsError, load
from server.embedded import attach
from tests.commandline import parley_cli
from tests.faults.processes import ServerProcess
from tests.people import SECRET, Device, Instance, Person
from tests.servers import until

WORKERS = ("w-1", "w-2")


def descendants(pid: int) -> dict[int, str]:
    """The processes below one, with the names of their programs."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:  # it is gone
            continue
        parents[int(folder.name)], names[int(folder.name)] = int(rest.split()[1]), name
    below, found = {pid}, {}
    while below:
        below = {child for child, parent in parents.items() if parent in below}
        found |= {child: names[child] for child in below}
    return found


def are_gone(pids: Mapping[int, str]) -> bool:
    """Whether none of these processes runs (one that nobody has buried yet does not)."""
    return not [pid for pid in pids if _state(pid) not in ("", "Z")]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def free_ports() -> int:
    """The first of two loopback ports that were free a moment ago, below those that the kernel gives to anybody."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port


class Workers(ServerProcess):
    """A server of two workers with a PostgreSQL and a Valkey of its own."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.metrics_port = free_ports()
        environ = {
            "PARLEY_DATA": str(self.data),
            "DATABASE_URL": "",
            "REDIS_URL": "",
            "PARLEY_SECRET": SECRET,
            "PARLEY_INSTANCE": "w",
            "PARLEY_METRICS_PORT": str(self.metrics_port),
            "PARLEY_POOL_MIN": "1",
            "PARLEY_DRAIN_MS": "0",
        }
        super().__init__(folder / "log", environ, ("server.cli", "serve", "--workers", "2"))

    @property
    def dsn(self) -> str:
        dsn = attach(self.data)
        assert dsn is not None
        return dsn

    def pid_of(self, program: str) -> int:
        """The one process of a program, or of the worker of that name; 0 where there is none now."""
        below = descendants(self.pid)
        if program in WORKERS:
            own = f"PARLEY_INSTANCE={program}".encode()
            found = [pid for pid in below if own in _environ(pid)]
        else:
            found = [pid for pid, name in below.items() if name == program]
        return found[0] if found else 0

    def url_of(self, worker: str) -> str:
        """Where a worker alone answers about itself."""
        return f"http://127.0.0.1:{self.metrics_port + WORKERS.index(worker)}"

    async def is_well(self, worker: str) -> bool:
        """Whether a worker serves, with its database and its bus."""
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{self.url_of(worker)}/readyz") as response:
                return dict(await response.json()) == {"status": "ready", "database": "ok", "bus": "ok"}
        except aiohttp.ClientConnectionError:
            return False

    async def are_well(self) -> None:
        """Wait until both workers are."""
        async with asyncio.timeout(20):
            while not all([await self.is_well(worker) for worker in WORKERS]):
                await asyncio.sleep(0.02)


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


@pytest.fixture(scope="module")
def server(servers_folder: Path) -> Iterator[Workers]:
    """The server that most of these tests share; whoever kills a part of it waits until it is back."""
    folder = servers_folder / f"workers-{uuid4().hex}"
    folder.mkdir(mode=0o711)
    server = Workers(folder)
    server.start()
    yield server
    server.kill()
    until(lambda: not (server.data / "postgres" / "postmaster.pid").exists(), "its PostgreSQL ends with it")


@pytest.fixture
def another_server(open_folder: Path) -> Iterator[Workers]:
    """A server to be ended."""
    server = Workers(open_folder)
    server.start()
    yield server
    server.kill()
    until(lambda: not (server.data / "postgres" / "postmaster.pid").exists(), "its PostgreSQL ends with it")


@pytest.fixture
async def registry(server: Workers) -> AsyncIterator[Instance]:
    """Who makes people and conversations in the server's database."""
    instance = await Instance(server.dsn, PARLEY_POOL_MAX="2").start()
    yield instance
    await instance.stop()


async def connect_to(server: Workers, worker: str, person: Person, **auth: Any) -> Device:
    """A device of somebody on that worker: which one a connect reaches is up to the kernel."""
    for _ in range(60):
        device = await person.connect(to=server.url, **auth)
        if device.hello["instance"] == worker:
            return device
        person.devices.remove(device)
        await device.leave()
    raise AssertionError(f"of sixty connects none reached {worker}")


async def test_clients_of_all_workers_hear_each_other_in_one_order(server: Workers, registry: Instance) -> None:
    people = [await registry.person(name) for name in ("amina", "bilal", "carim")]
    chat = await registry.chat(*people, kind="group")
    devices = [
        await connect_to(server, worker, person) for person, worker in zip(people, ("w-1", "w-2", "w-2"), strict=True)
    ]

    async def talk(n: int) -> None:
        for m in range(20):
            await devices[n].send(chat, f"{n} {m}")

    await asyncio.gather(*(talk(n) for n in range(3)))
    for device in devices:
        await device.hearing_up_to(f"conversation:{chat}", 60)
    texts = [device.texts(chat) for device in devices]
    assert texts[0] == texts[1] == texts[2]
    assert sorted(texts[0]) == sorted(f"{n} {m}" for n in range(3) for m in range(20))
    for device in devices:
        assert [push.seq for push in device.of(f"conversation:{chat}")] == list(range(1, 61))


async def test_the_workers_meet_on_the_servers_own_valkey(server: Workers) -> None:
    await server.are_well()
    async with Redis.from_url(f"unix://{server.data}/valkey/valkey.sock") as valkey:
        (channel,) = await valkey.pubsub_channels()
        assert channel.startswith(b"parley:")
        assert await valkey.pubsub_numsub(channel) == [(channel, len(WORKERS))]


async def test_who_polls_is_told_what_to_do_instead(server: Workers) -> None:
    polls = "/socket.io/?EIO=4&transport=polling"
    async with aiohttp.ClientSession() as http:
        for call in (
            http.get(server.url + polls),
            http.get(server.url + polls + "&sid=x"),
            http.post(server.url + polls + "&sid=x", data="2"),
        ):
            async with call as response:
                assert response.status == 400
                told = await response.json()
                assert told["code"] == 0
                assert "use the websocket transport, or a proxy that keeps a client on one instance" in told["message"]


async def test_every_worker_has_its_metrics_at_a_port_of_its_own(server: Workers, registry: Instance) -> None:
    amina = await registry.person("amina")
    for worker in WORKERS:
        await connect_to(server, worker, amina)
    async with aiohttp.ClientSession() as http:
        for worker in WORKERS:
            async with http.get(f"{server.url_of(worker)}/metrics") as response:
                lines = (await response.text()).splitlines()
                assert {"parley_connections 1.0", "parley_bus_ok 1.0"} <= set(lines)
        async with http.get(f"{server.url}/metrics") as response:
            assert response.status == 404
            assert "PARLEY_METRICS_PORT" in (await response.json())["error"]["message"]


async def test_a_worker_that_is_killed_comes_back_and_nobody_else_is_harmed(
    server: Workers, registry: Instance
) -> None:
    amina, bilal = await registry.person("amina"), await registry.person("bilal")
    chat = await registry.chat(amina, bilal)
    phone, other = await connect_to(server, "w-1", amina), await connect_to(server, "w-2", bilal)
    await phone.send(chat, "before")
    await other.hearing("message:created", text="before")
    killed, alive = (server.pid_of(worker) for worker in WORKERS)

    os.kill(killed, signal.SIGKILL)
    await phone.gone()
    await other.send(chat, "meanwhile")
    back = await amina.connect(to=server.url, rooms={f"conversation:{chat}": phone.position(chat)})
    assert (await back.hearing("message:created", text="meanwhile")).seq == 2
    await server.are_well()
    assert server.pid_of("w-1") not in (0, killed)
    again = await connect_to(server, "w-1", amina)
    await again.send(chat, "after")
    await other.hearing("message:created", text="after")
    assert other.texts(chat) == ["before", "meanwhile", "after"]
    assert server.pid_of("w-2") == alive
    assert other.client.connected


async def test_a_valkey_that_is_killed_comes_back_and_nothing_is_lost(server: Workers, registry: Instance) -> None:
    amina, bilal = await registry.person("amina"), await registry.person("bilal")
    chat = await registry.chat(amina, bilal)
    phone, other = await connect_to(server, "w-1", amina), await connect_to(server, "w-2", bilal)
    killed = server.pid_of("valkey-server")
    os.kill(killed, signal.SIGKILL)
    await phone.send(chat, "meanwhile")
    await other.hearing("message:created", text="meanwhile")
    async with asyncio.timeout(20):
        while server.pid_of("valkey-server") in (0, killed):
            await asyncio.sleep(0.02)
    await server.are_well()
    await phone.send(chat, "after")
    await other.hearing("message:created", text="after")
    assert other.texts(chat) == ["meanwhile", "after"]


async def test_sigterm_drains_every_worker_and_leaves_no_process(another_server: Workers) -> None:
    registry = await Instance(another_server.dsn, PARLEY_POOL_MAX="2").start()
    amina = await registry.person("amina")
    await registry.stop()
    devices = [await connect_to(another_server, worker, amina) for worker in WORKERS]
    processes = descendants(another_server.pid)
    assert {"postgres", "valkey-server"} <= set(processes.values())
    ended = asyncio.create_task(asyncio.to_thread(another_server.stop))
    for device in devices:
        await device.hearing("server:draining")
        await device.gone()
    assert await ended == 0
    assert are_gone(processes)


async def test_workers_that_are_renewed_go_one_after_another_and_nothing_is_lost(
    another_server: Workers,
) -> None:
    registry = await Instance(another_server.dsn, PARLEY_POOL_MAX="2").start()
    amina, bilal = await registry.person("amina"), await registry.person("bilal")
    chat = await registry.chat(amina, bilal)
    before = {worker: another_server.pid_of(worker) for worker in WORKERS}
    phone = await connect_to(another_server, "w-1", amina)
    other = await connect_to(another_server, "w-2", bilal)
    os.kill(another_server.pid, signal.SIGUSR1)
    await phone.hearing("server:draining")
    await other.send(chat, "meanwhile")  # the second still serves
    await other.hearing("server:draining")
    await other.gone()
    for worker in WORKERS:
        async with asyncio.timeout(20):
            while another_server.pid_of(worker) in (0, before[worker]):
                await asyncio.sleep(0.02)
    await another_server.are_well()
    back = await connect_to(another_server, "w-2", amina, rooms={f"conversation:{chat}": 0})
    assert (await back.hearing("message:created", text="meanwhile")).seq == 1
    await back.send(chat, "after")
    assert another_server.is_running()
    await registry.stop()


async def test_kill_9_of_the_parent_leaves_no_process(another_server: Workers) -> None:
    processes = descendants(another_server.pid)
    assert len([name for name in processes.values() if name in ("valkey-server", "postgres")]) > 2
    assert all(another_server.pid_of(worker) in processes for worker in WORKERS)
    another_server.kill()
    until(lambda: are_gone(processes), "all that it has started has gone with it")


async def test_one_alone_has_its_metrics_at_both_ports(new_instance: Callable[..., Awaitable[Instance]]) -> None:
    port = free_ports()
    instance = await new_instance(PARLEY_METRICS_PORT=str(port))
    for url in (instance.url, f"http://127.0.0.1:{port}"):
        for path in ("/metrics", "/healthz", "/readyz"):
            async with instance.http.get(url + path) as response:
                assert response.status == 200
    async with instance.http.get(f"http://127.0.0.1:{port}/api/account/me") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "not_found")


# what can't be served is said


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port at which another server of workers listens."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(("127.0.0.1", free_ports()))  # the next is the second worker's, which nobody else may have
        listening.listen()
        yield listening.getsockname()[1]


async def test_a_port_that_is_taken_is_not_shared(migrated_database: str, tmp_path: Path, taken_port: int) -> None:
    environ = {"PARLEY_DATA": str(tmp_path), "DATABASE_URL": migrated_database, "PARLEY_SECRET": SECRET}
    said = await parley_cli("serve", "--workers", "2", PARLEY_PORT=str(taken_port), **environ)
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[-1] == f"parley: Port {taken_port} of 127.0.0.1: Address already in use"


async def test_a_worker_that_cannot_serve_at_all_ends_the_server(
    migrated_database: str, tmp_path: Path, taken_port: int
) -> None:
    environ = {
        "PARLEY_DATA": str(tmp_path),
        "DATABASE_URL": migrated_database,
        "PARLEY_SECRET": SECRET,
        "PARLEY_INSTANCE": "w",
        "PARLEY_PORT": "0",
        "PARLEY_METRICS_PORT": str(taken_port),
        "PARLEY_POOL_MIN": "1",
    }
    said = await parley_cli("serve", "--workers", "2", **environ)
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[-1] == "parley: w-1 ended before it served (exit code 1)."
    assert f"('127.0.0.1', {taken_port}): address already in use" in said.err


async def test_more_connections_than_the_embedded_postgresql_has_are_refused() -> None:
    said = await parley_cli("serve", "--workers", "8", PARLEY_WORKERS="1")
    assert (said.code, said.out) == (1, "")
    assert "PARLEY_POOL_MAX=25 is too much for PARLEY_WORKERS=8" in said.err
    assert "at most 22 a worker" in said.err


@pytest.mark.parametrize("workers", ["0", "65", "two"])
def test_a_number_of_workers_out_of_bounds_is_refused(workers: str) -> None:
    with pytest.raises(SettingsError, match=f"PARLEY_WORKERS='{workers}' is .*allowed: 1 to 64"):
        load({"PARLEY_WORKERS": workers})


def test_pools_have_to_fit_the_embedded_postgresql_alone() -> None:
    assert load({"PARLEY_WORKERS": "7"}).workers == 7
    with pytest.raises(SettingsError, match="at most 22 a worker"):
        load({"PARLEY_WORKERS": "8"})
    load({"PARLEY_WORKERS": "8", "PARLEY_POOL_MAX": "22"})
    load({"PARLEY_WORKERS": "64", "DATABASE_URL": "postgresql://db/parley", "PARLEY_SECRET": SECRET})


async def test_one_that_goes_on_ending_is_started_after_pauses_that_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "PAUSE_S", 0.001)
    worker = Worker(Post("w-1", ["/bin/sh", "-c", "echo serving; exit 3"], {}))
    with structlog.testing.capture_logs() as logs:
        await worker.start()
        keeping = asyncio.create_task(worker.keep())
        async with asyncio.timeout(10):
            while len(ends := [line for line in logs if line["event"] == "worker_ended"]) < 4:
                await asyncio.sleep(0.005)
        keeping.cancel()
        await asyncio.wait([keeping])
        await worker.end()
    assert [line["again_in_s"] for line in ends[:4]] == [0.001, 0.002, 0.004, 0.008]
    assert {(line["worker"], line["how"]) for line in ends} == {("w-1", "exit code 3")}


async def test_one_that_cannot_be_forked_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "PAUSE_S", 0.001)
    create, refused = asyncio.create_subprocess_exec, iter([BlockingIOError(11, "no more processes")] * 2)

    async def create_or_refuse(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        for error in refused:
            raise error
        return await create(*arguments, **options)

    worker = Worker(Post("w-1", ["/bin/sh", "-c", "echo serving; read line"], {}))
    once = Worker(Post("w-1", ["/bin/sh", "-c", "echo serving"], {}))
    await once.start()
    worker._process = once._process
    monkeypatch.setattr(asyncio, "create_subprocess_exec", create_or_refuse)
    with structlog.testing.capture_logs() as logs:
        keeping = asyncio.create_task(worker.keep())
        async with asyncio.timeout(10):
            while not [line for line in logs if line["event"] == "worker_started_again"]:
                await asyncio.sleep(0.005)
        keeping.cancel()
        await asyncio.wait([keeping])
    assert [line["error"] for line in logs if line["event"] == "worker_not_started"] == [
        "[Errno 11] no more processes"
    ] * 2
    await worker.end()


async def test_one_that_does_not_drain_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "END_S", 0.05)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    worker = Worker(Post("w-1", [sys.executable, "-c", deaf], {}))
    await worker.start()
    assert worker._process is not None
    await worker.end()
    assert worker._process.returncode == -signal.SIGKILL


def test_pauses_grow_to_a_bound() -> None:
    found = list(islice(pauses(), 12))
    assert found[:3] == [0.25, 0.5, 1.0]
    assert found == sorted(found)
    assert found[-1] == LONGEST_PAUSE_S


def test_workers_are_told_apart_by_name_and_metrics_port() -> None:
    config = load({"PARLEY_WORKERS": "2", "PARLEY_INSTANCE": "x" * 64, "PARLEY_METRICS_PORT": "9464"})
    one, two = posts(config, 8080, "unix:///bus", None)
    assert [one.name, two.name] == ["x" * 61 + "-1", "x" * 61 + "-2"]
    for post, port in ((one, "9464"), (two, "9465")):
        told = load({name: post.environ[name] for name in post.environ if name.startswith(("PARLEY_", "REDIS_"))})
        assert (told.instance, told.metrics_port) == (post.name, int(port))
        assert (told.workers, told.port, told.redis_url) == (2, 8080, "unix:///bus")
        assert "--dsn" not in " ".join(post.command)


def test_a_held_port_is_not_shared_while_nobody_listens_yet() -> None:
    port = Port("127.0.0.1", 0)
    with pytest.raises(OSError, match="Address already in use"):
        Port("127.0.0.1", port.number)
    port.release()
    Port("127.0.0.1", port.number).release()


def test_the_workers_measures_are_not_at_the_port_that_they_share() -> None:
    with pytest.raises(SettingsError, match="PARLEY_PORT=8081 is among the ports of the workers' measures, 8080 to"):
        load({"PARLEY_PORT": "8081", "PARLEY_METRICS_PORT": "8080", "PARLEY_WORKERS": "2"})
    load({"PARLEY_PORT": "8082", "PARLEY_METRICS_PORT": "8080", "PARLEY_WORKERS": "2"})


def test_a_held_port_is_free_for_those_who_share_it() -> None:
    port = Port("127.0.0.1", 0)
    with socket.socket() as worker, socket.socket() as stranger:
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        worker.bind(("127.0.0.1", port.number))
        worker.listen()
        with pytest.raises(OSError, match="Address already in use"):
            stranger.bind(("127.0.0.1", port.number))
        with pytest.raises(OSError, match=f"Port {port.number} of 127.0.0.1: Address already in use"):
            Port("127.0.0.1", port.number)
    port.release()
