"""HTTP beside the sockets: health, figures, refusals in the contract's form; and the way out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from prometheus_client.parser import text_string_to_metric_families

from server.http import errors_as_json
from storage._db import SQL
from tests.locks import holding
from tests.people import Instance, Person
from tests.servers import database_of, execute

FRAME_BYTES = 131_072


@pytest.fixture
def migrated_database(request: pytest.FixtureRequest) -> Any:
    """A database of its own for a test marked so; the others share one."""
    return request.getfixturevalue("own_database" if "own_database" in request.fixturenames else "shared_database")


@pytest.fixture
async def own_database(new_database: Callable[..., Any]) -> str:
    dsn: str = await new_database(migrated=True)
    return dsn


async def get(parley: Instance, path: str) -> tuple[int, dict[str, Any]]:
    async with parley.http.get(parley.url + path) as response:
        return response.status, await response.json()


async def post(parley: Instance, path: str, body: Any, token: str = "") -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with parley.http.post(parley.url + path, data=body, headers=headers) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


# health


async def test_it_says_that_it_is_alive_and_ready(parley: Instance) -> None:
    assert await get(parley, "/healthz") == (200, {"status": "ok"})
    assert await get(parley, "/readyz") == (200, {"status": "ready", "database": "ok", "bus": "ok"})


async def test_it_is_not_ready_before_its_migrations(own_database: str, parley: Instance) -> None:
    await execute(own_database, "delete from migrations where number = (select max(number) from migrations)")
    status, answer = await get(parley, "/readyz")
    assert (status, answer["status"], len(answer["migrations"])) == (503, "unavailable", 1)
    await execute(own_database, "drop table migrations")
    status, answer = await get(parley, "/readyz")
    assert (status, len(answer["migrations"])) == (503, len(list((SQL / "migrations").glob("*.sql"))))
    assert (await get(parley, "/healthz"))[0] == 200


async def test_a_database_that_is_ahead_is_no_hindrance(own_database: str, parley: Instance) -> None:
    await execute(own_database, "insert into migrations (number, name, checksum) values (9999, '9999_later', '')")
    assert (await get(parley, "/readyz"))[0] == 200


async def test_it_is_not_ready_without_its_database_and_ready_again_with_it(
    own_database: str, parley: Instance, amina: Person
) -> None:
    name = own_database.partition("@/")[2].partition("?")[0]
    postgres = database_of(own_database, "postgres")
    await execute(postgres, f"alter database {name} with allow_connections false")
    await execute(postgres, f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")
    status, answer = await get(parley, "/readyz")
    assert (status, answer["status"], answer["database"]) == (503, "unavailable", "down")
    assert (await get(parley, "/healthz"))[0] == 200
    status, answer = await parley.post("account:me", {}, token=amina.token)
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    await execute(postgres, f"alter database {name} with allow_connections true")
    assert (await get(parley, "/readyz"))[0] == 200
    assert (await amina.post("account:me"))["user_id"] == amina.user_id


async def test_without_its_bus_it_is_ready_and_says_so(new_instance: Callable[..., Any]) -> None:
    parley: Instance = await new_instance(REDIS_URL="redis://127.0.0.1:1/0")
    assert await get(parley, "/readyz") == (200, {"status": "ready", "database": "ok", "bus": "degraded"})
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    phone = await bilal.connect()
    chat = await parley.chat(amina, bilal)
    await amina.post("message:send", conversation_id=chat, client_id="m", text="hello")
    await phone.hearing("message:created", text="hello")


async def test_its_figures_are_there_under_their_names(parley: Instance, amina: Person, their_chat: str) -> None:
    phone = await amina.connect()
    await phone.send(their_chat, "hello")
    await phone.hearing("message:created", text="hello")
    async with parley.http.get(f"{parley.url}/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        families = {family.name: family for family in text_string_to_metric_families(await response.text())}
    values = {name: family.samples[0].value for name, family in families.items()}
    assert values["parley_connections"] == values["parley_sessions"] == values["parley_bus_ok"] == 1
    assert values["parley_rooms_watched"] == 2
    assert values["parley_events_delivered"] >= 1
    assert values["parley_events_repaired"] == 0
    assert {"parley_commands", "parley_command_seconds", "process_resident_memory_bytes", "python_info"} <= {*families}
    assert all(family.documentation for family in families.values())


# refusals


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/nowhere", 404, "not_found", None),
        ("POST", "/api/account", 404, "not_found", None),
        ("POST", "/api/account/me/more", 404, "not_found", None),
        ("POST", "/api/nothing/do", 404, "unknown_command", None),
        ("POST", "/api/room/join", 404, "unknown_command", None),
        ("POST", "/api/%00/%ff", 404, "unknown_command", None),
        ("GET", "/api/account/me", 405, "unknown_command", "OPTIONS,POST"),
        ("DELETE", "/api/account/me", 405, "unknown_command", "OPTIONS,POST"),
        ("POST", "/healthz", 405, "unknown_command", "GET,HEAD"),
    ],
)
async def test_what_is_not_there_is_said_in_the_contracts_form(
    parley: Instance, amina: Person, method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    headers = {"Authorization": f"Bearer {amina.token}"}
    async with parley.http.request(method, parley.url + path, headers=headers) as response:
        answer = await response.json()
        assert response.status == status
        assert response.headers.get("Allow") == allow
    assert answer["ok"] is False
    assert answer["error"]["code"] == code
    assert answer["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [b"x", b"[", b'{"a":', b"\xff", b'{"a":"\xc3"}', b"NaN", b'{"limit":Infinity}', b"[" * 100_000, b"{} {}", b"{,}"],
)
async def test_a_body_that_is_no_json_is_invalid(parley: Instance, amina: Person, body: bytes) -> None:
    status, answer = await post(parley, "/api/conversation/list", body, amina.token)
    assert (status, answer["error"]["code"]) == (400, "invalid")
    assert answer["error"]["fields"].keys() == {"payload"}


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"true"])
async def test_a_body_that_is_no_object_is_invalid(parley: Instance, amina: Person, body: bytes) -> None:
    status, answer = await post(parley, "/api/conversation/list", body, amina.token)
    assert (status, answer["error"]["code"], answer["error"]["fields"].keys()) == (400, "invalid", {"payload"})


async def test_half_of_a_surrogate_pair_is_invalid_where_it_stands(parley: Instance, amina: Person) -> None:
    status, answer = await post(parley, "/api/conversation/list", rb'{"before":"\ud800"}', amina.token)
    assert (status, answer["error"]["code"], answer["error"]["fields"].keys()) == (400, "invalid", {"before"})


async def test_no_body_is_an_empty_object_and_its_type_is_not_asked(parley: Instance, amina: Person) -> None:
    for body in (b"", b"  \n", b"null", b"{}"):
        status, answer = await post(parley, "/api/account/me", body, amina.token)
        assert (status, answer["data"]["user_id"]) == (200, amina.user_id)


async def test_a_body_is_bounded(parley: Instance, amina: Person) -> None:
    at_the_bound = b'{"before":"' + b"x" * (FRAME_BYTES - 13) + b'"}'
    assert len(at_the_bound) == FRAME_BYTES
    status, answer = await post(parley, "/api/conversation/list", at_the_bound, amina.token)
    assert (status, answer["error"]["code"], answer["error"]["limit"]) == (413, "too_large", 10_000)

    async def in_pieces() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 4096

    for body in (at_the_bound + b" ", b"x" * FRAME_BYTES * 4, in_pieces()):
        status, answer = await post(parley, "/api/conversation/list", body, amina.token)
        assert (status, answer["error"]["code"], answer["error"]["limit"]) == (413, "too_large", FRAME_BYTES)


async def test_the_bound_of_a_body_is_a_setting(new_instance: Callable[..., Any]) -> None:
    parley: Instance = await new_instance(PARLEY_FRAME_BYTES="1024")
    amina = await parley.person("amina")
    status, answer = await post(parley, "/api/account/me", b" " * 1025, amina.token)
    assert (status, answer["error"]["limit"]) == (413, 1024)


async def test_answers_are_kept_by_nobody(parley: Instance, amina: Person) -> None:
    headers = {"Authorization": f"Bearer {amina.token}"}
    async with parley.http.post(f"{parley.url}/api/account/me", headers=headers) as response:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.content_type == "application/json"


@pytest.mark.parametrize(
    ("setting", "origin", "let_in"),
    [
        ("", None, True),
        ("", "same", True),
        ("", "https://evil.example", False),
        ("", "null", False),
        ("https://app.example", "https://app.example", True),
        ("https://app.example", "https://evil.example", False),
        ("https://app.example", None, True),
        ("*", "https://anybody.example", True),
    ],
)
async def test_pages_of_other_origins_may_not_connect(
    new_instance: Callable[..., Any], setting: str, origin: str | None, let_in: bool
) -> None:
    parley: Instance = await new_instance(PARLEY_ORIGINS=setting)
    headers = {} if origin is None else {"Origin": parley.url if origin == "same" else origin}
    path = f"{parley.url}/socket.io/?EIO=4&transport="
    async with parley.http.get(path + "polling", headers=headers) as response:
        assert response.status == (200 if let_in else 403)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="}
    async with parley.http.get(path + "websocket", headers=headers | upgrade | key) as response:
        assert response.status == (101 if let_in else 403)


# the way out


@asynccontextmanager
async def running(dsn: str, **environ: str) -> AsyncIterator[Instance]:
    """An instance that the test itself stops."""
    instance = await Instance(dsn, **environ).start()
    try:
        yield instance
    finally:
        for person in instance.people:
            for device in person.devices:
                await device.leave()
        await instance.http.close()


async def test_whoever_is_told_to_come_back_is_told_a_time_of_ones_own(shared_database: str) -> None:
    async with running(shared_database, PARLEY_DRAIN_MS="1000") as parley:
        amina = await parley.person("amina")
        devices = [await amina.connect() for _ in range(40)]
        await parley.parley.stop()
        times = [(await device.hearing("server:draining")).payload["reconnect_in_ms"] for device in devices]
    assert len(set(times)) > 20
    assert min(times) < 300
    assert 700 < max(times) <= 1000


async def test_on_its_way_out_it_finishes_what_was_begun_and_takes_nothing_new(shared_database: str) -> None:
    async with running(shared_database, PARLEY_DRAIN_MS="1000") as parley:
        amina, bilal = await parley.person("amina"), await parley.person("bilal")
        chat = await parley.chat(amina, bilal)
        phone, other = await amina.connect(), await bilal.connect(transports=("polling", "websocket"))
        gone = [asyncio.Event(), asyncio.Event()]
        for device, event in zip((phone, other), gone, strict=True):
            device.client.on("disconnect", lambda *_, event=event: event.set())
        async with holding(shared_database, chat) as holder:
            begun = asyncio.create_task(phone.send(chat, "begun"))
            over_http = asyncio.create_task(
                bilal.post("message:send", conversation_id=chat, client_id="h", text="begun too")
            )
            await holder.stands_in_the_way_of()
            async with parley.http.get(f"{parley.url}/readyz") as response:  # a connection that is kept
                assert response.status == 200
            stopping = asyncio.create_task(parley.parley.stop())
            for device, person in ((phone, amina), (other, bilal)):
                push = await device.hearing("server:draining")
                assert push.payload.keys() == {"reconnect_in_ms"}
                assert 0 <= push.payload["reconnect_in_ms"] <= 1000
                assert push.meta.keys() == {"room", "at"}
                assert push.room == f"user:{person.user_id}"
            answer = await phone.answer("account:me")
            assert answer["error"]["code"] == "unavailable"
            assert await get(parley, "/readyz") == (503, {"status": "draining", "bus": "ok"})
            status, answer = await parley.post("account:me", {}, token=amina.token)
            assert (status, answer["error"]["code"]) == (503, "unavailable")
            assert not stopping.done()
        sent = [await begun, await over_http]
        assert sorted(one["seq"] for one in sent) == [1, 2]
        await asyncio.wait_for(stopping, 10)
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in gone)), 10)
        for device in (phone, other):
            assert sorted(device.texts(chat)) == ["begun", "begun too"]
        with pytest.raises(aiohttp.ClientConnectorError):
            await get(parley, "/healthz")


async def test_what_was_asked_for_before_the_stop_is_answered(shared_database: str) -> None:
    async with running(shared_database) as parley:
        amina, bilal = await parley.person("amina"), await parley.person("bilal")
        chat = await parley.chat(amina, bilal)
        phone = await amina.connect()
        asked = [asyncio.create_task(phone.send(chat, str(n))) for n in range(30)]
        waiting = [
            asyncio.create_task(phone.answer("message:history", conversation_id=chat, limit=100)),
            asyncio.create_task(phone.answer("account:me")),
        ]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait_for(parley.parley.stop(), 10)
        assert [(await one)["seq"] for one in asked] == list(range(1, 31))
        for answer in await asyncio.gather(*waiting):  # done where it had begun, and else refused
            assert answer["ok"] or answer["error"]["code"] == "unavailable"


async def test_a_stop_waits_for_nobody_who_only_listens(shared_database: str) -> None:
    async with running(shared_database) as parley:
        amina = await parley.person("amina")
        await amina.connect()
        await amina.connect(transports=("polling",))
        async with parley.http.ws_connect(f"{parley.url}/socket.io/?EIO=4&transport=websocket") as ws:
            assert (await ws.receive_str()).startswith("0{")
            async with asyncio.timeout(5):
                await parley.parley.stop()
            assert (await ws.receive()).type is not aiohttp.WSMsgType.TEXT


# pages of other origins


@pytest.mark.parametrize(("origin", "may"), [("https://shop.example", True), ("https://evil.example", False)])
async def test_pages_of_the_listed_origins_may_sign_in_and_no_others(
    new_instance: Callable[..., Awaitable[Instance]], origin: str, may: bool
) -> None:
    instance = await new_instance(PARLEY_ORIGINS="https://shop.example,https://app.example")
    url, headers = f"{instance.url}/api/account/login", {"Origin": origin}
    asked = {**headers, "Access-Control-Request-Method": "POST"}
    async with instance.http.options(url, headers=asked) as preflight:
        assert preflight.headers.get("Access-Control-Allow-Origin") == (origin if may else None)
        assert ("Authorization" in preflight.headers.get("Access-Control-Allow-Headers", "")) == may
    async with instance.http.post(url, headers=headers, json={"login": "nobody", "password": "nothing"}) as answer:
        assert answer.status == 401
        assert answer.headers.get("Access-Control-Allow-Origin") == (origin if may else None)


async def test_a_body_whose_client_has_gone_before_it_is_read_is_no_error_of_ours() -> None:
    async def read(request: web.Request) -> web.StreamResponse:
        raise RuntimeError("Connection closed.")  # as aiohttp does where the end comes between a head and its handler

    gone, there = make_mocked_request("POST", "/"), make_mocked_request("POST", "/")
    gone.protocol.transport = None
    assert (await errors_as_json(gone, read)).status == 400
    assert (await errors_as_json(there, read)).status == 500
