"""Two instances behind a real nginx with the configuration that is shipped: sockets pass, stick, and find the other."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import aiohttp
import pytest
import socketio

from tests.people import PATIENCE_S, Device, Instance, Person
from tests.servers import RedisServer, until

CONF = Path(__file__).parents[2] / "deploy" / "nginx.conf"
PHONES = 3  # at each instance
TERMINATOR = """
events {{}}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_bind 127.0.0.7;
            proxy_pass {behind};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
        }}
    }}
}}
"""

Phones = Callable[..., Awaitable[Device]]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


def here(conf: str, port: int, instances: Sequence[Instance | Gone], folder: Path, trusted: str | None) -> str:
    """The shipped configuration with this machine's addresses in it, and Docker's resolver out.

    What comes from the address `trusted` is believed, as an operator has it who ends TLS elsewhere.
    """
    if trusted is not None:
        conf, count = re.subn(r"# set_real_ip_from 10.0.0.0/8;", f"set_real_ip_from {trusted};", conf)
        assert count == 1
    for n, instance in enumerate(instances, 1):
        address = instance.url.removeprefix("http://")
        conf, count = re.subn(rf"server parley-{n}:8080 resolve ", f"server {address} ", conf)
        assert count == 1
    conf, count = re.subn(r"listen 8080;", f"listen 127.0.0.1:{port};", conf)
    assert count == 1
    conf = re.sub(r"resolver .*?;.*\n", "", conf)
    conf = conf.replace("worker_processes auto;", "worker_processes 1;")
    return placed(conf, folder)


def placed(conf: str, folder: Path) -> str:
    """A configuration that writes into the folder alone."""
    kept = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    paths = "".join(f"    {each}_temp_path {folder / each};\n" for each in kept)
    return "user root;\n" * (os.geteuid() == 0) + conf.replace("http {\n", f"http {{\n{paths}", 1)


@contextmanager
def nginx(instances: Sequence[Instance | Gone], folder: Path, trusted: str | None = None) -> Iterator[str]:
    """The URL of the one that is shipped, while it runs in front of these."""
    with running(lambda port: here(CONF.read_text(), port, instances, folder, trusted), folder) as url:
        yield url


@contextmanager
def terminator(behind: str, folder: Path) -> Iterator[str]:
    """The URL of what stands for something that ends TLS, in front of another; whom it asks for it says as most do."""
    folder.mkdir()
    with running(lambda port: placed(TERMINATOR.format(port=port, behind=behind), folder), folder) as url:
        yield url


@contextmanager
def running(conf_of: Callable[[int], str], folder: Path) -> Iterator[str]:
    """The URL of an nginx, while it runs. Skips the test where there is none."""
    binary = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if binary is None:
        pytest.skip("nginx is missing: apt-get install nginx-light")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    conf, log = folder / "nginx.conf", folder / "error.log"
    conf.write_text(conf_of(port))
    settings = f"daemon off; pid {folder / 'pid'}; error_log {log} warn;"
    process = subprocess.Popen([binary, "-p", str(folder), "-e", str(log), "-c", str(conf), "-g", settings])
    try:
        until(lambda: process.poll() is not None or socket.socket().connect_ex(("127.0.0.1", port)) == 0, "nginx")
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
async def phones() -> AsyncIterator[Phones]:
    """`await phones(person, url, address, transport)`: a device at an address of this machine, that comes back."""
    made: list[tuple[socketio.AsyncClient, aiohttp.ClientSession]] = []

    async def start(person: Person, url: str, address: str, transport: str) -> Device:
        http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(address, 0)))
        client = socketio.AsyncClient(
            logger=True, engineio_logger=True, http_session=http, reconnection_delay=0.5, randomization_factor=0
        )
        made.append((client, http))
        device = Device(client)
        client.on("*", device.hears)
        await client.connect(url, auth={"token": person.token}, transports=[transport], wait_timeout=PATIENCE_S)
        await device.hearing("hello")
        return device

    yield start
    for client, http in made:
        await client.disconnect()
        await http.close()


async def addresses_of(both: list[Instance], url: str) -> list[str]:
    """Addresses whose clients nginx brings to the one instance, and as many that it brings to the other."""
    found: list[list[str]] = [[] for _ in both]
    for n in range(1, 100):
        before = [each.parley.wire.sessions for each in both]
        connector = aiohttp.TCPConnector(local_addr=(f"127.0.1.{n}", 0))
        handshake = f"{url}/socket.io/?EIO=4&transport=polling"
        async with aiohttp.ClientSession(connector=connector) as http, http.get(handshake) as response:
            assert response.status == 200
        after = [each.parley.wire.sessions for each in both]
        (grown,) = [k for k in range(2) if after[k] > before[k]]
        found[grown].append(f"127.0.1.{n}")
        if all(len(some) >= PHONES for some in found):
            return [address for some in found for address in some[:PHONES]]
    raise AssertionError(f"all come to one: {found}")


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_clients_come_to_both_hear_each_other_and_find_the_other_when_theirs_ends(
    new_instance: Callable[..., Awaitable[Instance]],
    valkey: RedisServer,
    phones: Phones,
    tmp_path: Path,
    transport: str,
) -> None:
    settings = {"REDIS_URL": valkey.url, "PARLEY_TRUSTED_PROXY": "1"}
    stays = await new_instance(**settings)
    ends = await Instance(stays.dsn, **settings).start()
    both = [stays, ends]
    people = [await stays.person(f"p{n}") for n in range(2 * PHONES)]
    chat = await stays.chat(*people, kind="group", title="everybody")
    with nginx(both, tmp_path) as url:
        addresses = await addresses_of(both, url)
        devices = [await phones(*each, transport) for each in zip(people, [url] * len(people), addresses, strict=True)]
        seen = [[connection.address for connection in each.parley.wire.connections] for each in both]
        assert [sorted(some) for some in seen] == [sorted(addresses[:PHONES]), sorted(addresses[PHONES:])]

        for n, device in enumerate(devices):
            await device.send(chat, f"{n}")
        for device in devices:
            await device.hearing("message:created", text=f"{len(people) - 1}")
            assert sorted(device.texts(chat)) == [f"{n}" for n in range(len(people))]
        assert len({tuple(device.texts(chat)) for device in devices}) == 1

        await ends.stop()
        async with asyncio.timeout(PATIENCE_S):
            while len(stays.parley.wire.connections) < len(people):
                await asyncio.sleep(0.01)
            while not all(device.client.connected for device in devices):
                await asyncio.sleep(0.01)
        await devices[0].send(chat, "all here")
        for device in devices:
            await device.hearing("message:created", text="all here")


async def test_what_is_not_for_the_world_does_not_pass_and_refusals_are_parleys_own(
    new_instance: Callable[..., Awaitable[Instance]], tmp_path: Path
) -> None:
    both = [await new_instance(PARLEY_TRUSTED_PROXY="1") for _ in range(2)]
    amina = await both[0].person("amina")
    with nginx(both, tmp_path) as url:
        asked = {"Authorization": f"Bearer {amina.token}"}
        for path, status in [
            ("/metrics", 404),
            ("/metrics/", 404),
            ("/healthz", 200),
            ("/readyz", 200),
            ("/docs", 200),
        ]:
            async with both[0].http.get(url + path, headers=asked) as response:
                assert response.status == status, path
                assert "parley_" not in await response.text() or path == "/docs"
        too_large = {"full_name": "x" * 200_000}
        async with both[0].http.post(f"{url}/api/account/update", json=too_large, headers=asked) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (413, "too_large")
        foreign = {"Origin": "https://evil.example"}
        async with both[0].http.get(f"{url}/socket.io/?EIO=4&transport=polling", headers=foreign) as response:
            assert response.status == 403
        own = {"Origin": url}
        async with both[0].http.get(f"{url}/socket.io/?EIO=4&transport=polling", headers=own) as response:
            assert response.status == 200


async def test_behind_what_ends_tls_clients_keep_their_addresses_and_pages_of_https_are_its_own(
    new_instance: Callable[..., Awaitable[Instance]], tmp_path: Path
) -> None:
    both = [await new_instance(PARLEY_TRUSTED_PROXY="1") for _ in range(2)]
    with nginx(both, tmp_path, "127.0.0.7") as inner, terminator(inner, tmp_path / "tls") as url:
        people = [await both[0].person(f"p{n}") for n in range(2)]
        addresses = await addresses_of(both, url)
        for person, address in zip(people, (addresses[0], addresses[-1]), strict=True):
            forged = {"X-Forwarded-For": "192.0.2.1"}
            assert await seen_of(both, person, url, address, forged) == [address]

        assert await handshake(url, {"Origin": url.replace("http:", "https:")}) == 200
        past_it = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}
        assert await seen_of(both, people[0], inner, "127.0.1.200", past_it) == ["127.0.1.200"]
        assert await handshake(inner, {**past_it, "Origin": inner.replace("http:", "https:")}) == 403
        assert await handshake(inner, {**past_it, "Origin": inner}) == 200


class Gone:
    """An instance whose machine is gone: connections to it are neither accepted nor refused."""

    def __enter__(self) -> Self:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        address = self._listener.getsockname()
        self.url = f"http://{address[0]}:{address[1]}"
        self._waiting = [socket.socket() for _ in range(4)]  # one is taken; with it the queue is full
        for one in self._waiting:
            one.setblocking(False)
            one.connect_ex(address)
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._waiting):
            one.close()


async def test_an_instance_whose_machine_is_gone_is_passed_over(
    new_instance: Callable[..., Awaitable[Instance]], tmp_path: Path
) -> None:
    stays = await new_instance(PARLEY_TRUSTED_PROXY="1")
    with Gone() as gone, nginx([stays, gone], tmp_path) as url:
        for n in range(1, 21):
            assert await handshake(url, {}, f"127.0.1.{n}") == 200
    asked = (tmp_path / "error.log").read_text().count("timed out")
    assert 1 <= asked <= 5, "it is asked by half of them, and then left alone for a while"


async def seen_of(both: list[Instance], person: Person, url: str, address: str, headers: dict[str, str]) -> list[str]:
    """The addresses that the instances see of a phone at an address of this machine."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(address, 0))) as http:
        client = socketio.AsyncClient(http_session=http)
        await client.connect(
            url, headers, auth={"token": person.token}, transports=["polling"], wait_timeout=PATIENCE_S
        )
        seen = [connection.address for each in both for connection in each.parley.wire.connections]
        await client.disconnect()
    return seen


async def handshake(url: str, headers: dict[str, str], address: str = "127.0.0.1") -> int:
    """The status that a page gets which wants a session, at an address of this machine."""
    asked, connector = f"{url}/socket.io/?EIO=4&transport=polling", aiohttp.TCPConnector(local_addr=(address, 0))
    async with aiohttp.ClientSession(connector=connector) as http, http.get(asked, headers=headers) as response:
        return response.status
