"""The documents as a running server has them, and the server against what they say."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import requests
import schemathesis
import socketio
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft7Validator
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server.commands.registry import Limit, Transport, commands
from server.wire import CODECS
from tests.people import PATIENCE_S, ConnectRefused, Instance, Person
from tests.servers import Postgres
from tests.servers import execute as run_sql
from tests.uploads import PNG, declare
from tests.uploads import link as link_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

OVER_HTTP = [one.path for one in commands.values() if one.transport is not Transport.SOCKET]
CASES = settings(
    max_examples=max(2, 200 // len(OVER_HTTP)),  # of each kind, for each command: some 400 in all
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ANSWERS = CHECKS[1:]  # of a server that is made to fail too


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parley(postgres: Postgres) -> AsyncIterator[Instance]:
    """One instance, without limits."""
    rates = dict.fromkeys((f"PARLEY_RATE_{limit.name}" for limit in Limit), "off")
    instance = await Instance(await postgres.create(postgres.dsn("18"), migrated=True), **rates).start()
    yield instance
    await instance.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bilal(parley: Instance) -> Person:
    return await parley.person("bilal")


async def get(parley: Instance, path: str, **headers: str) -> tuple[int, Any, str]:
    async with parley.http.get(parley.url + path, headers=headers) as response:
        return response.status, response.headers, await response.text()


# as they are served


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/docs", "text/html"), ("/openapi.json", "application/json"), ("/asyncapi.json", "application/json")],
)
async def test_a_document_is_sent_once_and_compressed(parley: Instance, path: str, kind: str) -> None:
    status, headers, text = await get(parley, path)
    assert status == 200
    assert headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    status, again, nothing = await get(parley, path, **{"If-None-Match": headers["ETag"]})
    assert (status, nothing, again["ETag"]) == (304, "", headers["ETag"])
    status, plain, as_is = await get(parley, path, **{"Accept-Encoding": "identity"})
    assert (status, "Content-Encoding" in plain, as_is) == (200, False, text)
    assert int(plain["Content-Length"]) > 4 * int(headers["Content-Length"])


class Fetched(HTMLParser):
    """What a page makes a browser fetch, and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: set[str] = set()
        self.anchors: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id":
                self.anchors.append(value or "")
            elif name == "href" and tag == "a":
                self.links.add(value or "")
            elif name in ("src", "href", "style") or name.startswith("on"):
                self.fetched.append(f"{tag} {name}={value}")


async def test_the_page_fetches_nothing_and_may_not(parley: Instance) -> None:
    _, headers, text = await get(parley, "/docs")
    page = Fetched()
    page.feed(text)
    assert page.fetched == []
    assert "@import" not in text
    assert "url(" not in text
    policy = headers["Content-Security-Policy"]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-\S+'; script-src 'sha256-\S+'; "
        r"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        policy,
    )


async def test_every_link_of_the_page_leads_somewhere(parley: Instance) -> None:
    _, _, text = await get(parley, "/docs")
    page = Fetched()
    page.feed(text)
    assert len(set(page.anchors)) == len(page.anchors)
    inside = {link.removeprefix("#") for link in page.links if link.startswith("#")}
    assert inside <= set(page.anchors)
    for link in page.links:
        if not link.startswith("#"):
            assert (await get(parley, link))[0] == 200


# the server against its word


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def schema(parley: Instance) -> Any:
    """What /openapi.json says."""
    _, _, text = await get(parley, "/openapi.json")
    schema = schemathesis.openapi.from_dict(json.loads(text))
    schema.config.checks.negative_data_rejection.expected_statuses += ["413"]  # too large is refused too
    return schema


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "unfitting"])
@pytest.mark.parametrize("path", OVER_HTTP)
async def test_a_command_answers_what_it_is_said_to(
    parley: Instance, bilal: Person, schema: Any, path: str, mode: GenerationMode
) -> None:
    amina = await parley.person("amina")  # one for each: some commands end her session
    chat = await parley.chat(amina, bilal)
    sent = await amina.post("message:send", conversation_id=chat, client_id="1", text="hello")
    known = {"conversation_id": chat, "message_id": sent["message_id"], "user_id": bilal.user_id}
    checks = [*CHECKS, negative_data_rejection] if mode is GenerationMode.NEGATIVE else CHECKS

    @settings(CASES)
    @given(case=schema[path]["POST"].as_strategy(generation_mode=mode))
    def probe(case: Any) -> None:
        if isinstance(case.body, dict) and mode is GenerationMode.POSITIVE:
            case.body |= {name: value for name, value in known.items() if name in case.body}
        response = case.call(base_url=parley.url, headers={"Authorization": f"Bearer {amina.token}"})
        case.validate_response(response, checks=checks)

    await asyncio.to_thread(probe)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_what_watches_the_server_gets_what_it_is_said_to(parley: Instance, schema: Any, path: str) -> None:
    case = schema[path]["GET"].Case()
    response = await asyncio.to_thread(case.call, base_url=parley.url)
    assert response.status_code == 200
    case.validate_response(response, checks=CHECKS)


async def test_the_bytes_of_attachments_travel_as_they_are_said_to(
    postgres: Postgres, schema: Any, tmp_path: Path
) -> None:
    rates = {"PARLEY_RATE_WRITES": "0.001/8", "PARLEY_ATTACHMENTS_FOLDER": str(tmp_path)}
    parley = await Instance(await postgres.create(postgres.dsn("18"), migrated=True), **rates).start()
    seen: dict[str, set[int]] = {"PUT": set(), "GET": set()}

    async def ask(method: str, url: str, data: bytes | None = None, **headers: str) -> None:
        response = await asyncio.to_thread(requests.request, method, parley.url + url, data=data, headers=headers)
        known = {"attachment_id": url.removeprefix("/attachments/").partition("?")[0]}
        case = schema["/attachments/{attachment_id}"][method].Case(path_parameters=known)
        case.validate_response(response, checks=ANSWERS)
        seen[method].add(response.status_code)

    try:
        amina = await parley.person("amina")
        declared = await declare(amina, PNG)
        url, attachment_id = declared["upload_url"], declared["attachment"]["attachment_id"]
        for link, body in ((url[:-1], PNG), (url, PNG + b"!"), (url, PNG[:-1]), (url, PNG)):
            await ask("PUT", link, body)
        await amina.post("attachment:complete", attachment_id=attachment_id)
        for _ in range(5):
            await ask("PUT", url, PNG)
        shown = await link_of(amina, attachment_id)
        for headers in ({}, {"Range": "bytes=1-2"}, {"Range": "bytes=-0"}, {"If-None-Match": "*"}):
            await ask("GET", shown, **headers)
        await ask("GET", url)
        for file in (path for path in tmp_path.rglob("*") if path.is_file()):
            file.unlink()
        await ask("GET", shown)
        await run_sql(parley.dsn, "delete from message_attachments")
        await ask("GET", shown)
    finally:
        await parley.stop()
    assert seen == {"PUT": {204, 400, 403, 409, 413, 429}, "GET": {200, 206, 304, 403, 404, 416, 503}}


# the socket against its word


@pytest.mark.parametrize("serializer", ["default", "msgpack"])
async def test_a_client_is_understood_in_the_codecs_that_are_documented(
    bilal: Person, parley: Instance, serializer: str
) -> None:
    client, connected = socketio.AsyncClient(serializer=serializer, reconnection=False), asyncio.Event()
    client.on("connect", connected.set)
    await client.connect(parley.url, auth={"token": bilal.token}, transports=["websocket"], wait=False)
    answered, cut = asyncio.create_task(connected.wait()), asyncio.create_task(client.eio.wait())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait({answered, cut}, return_when=asyncio.FIRST_COMPLETED)
        is_understood = answered.done() and (await client.call("account:me", {}, timeout=PATIENCE_S))["ok"]
    finally:
        answered.cancel()
        await client.disconnect()
        await cut
    assert is_understood == ({"default": "json"}.get(serializer, serializer) in CODECS)


def closed(schema: Any) -> Any:
    """A schema that lets nothing pass that it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **strict} if isinstance(strict.get("properties"), dict) else strict


async def test_what_travels_on_the_socket_is_what_it_is_said_to_be(parley: Instance, bilal: Person) -> None:
    document = closed(json.loads((await get(parley, "/asyncapi.json"))[2]))
    messages, schemas = (
        document["components"]["messages"],
        {"components": {"schemas": document["components"]["schemas"]}},
    )

    def fits(schema: Any, value: Any) -> None:
        Draft7Validator({**(schema if "$ref" not in schema else {"allOf": [schema]}), **schemas}).validate(value)

    amina = await parley.person("amina")
    phone, other = await amina.connect(), await bilal.connect()
    group = await parley.chat(amina, bilal, kind="group", title="A group")
    sent = {"conversation_id": group, "client_id": "1", "text": "hello"}
    room = f"conversation:{group}"
    for command, payload in (
        ("message:send", sent),
        ("message:send", {**sent, "text": "something else"}),
        ("message:send", {**sent, "surprise": 1}),
        ("account:me", {}),
        ("conversation:list", {}),
        ("conversation:get", {"conversation_id": amina.user_id}),
        ("message:history", {"conversation_id": group}),
        ("room:sync", {"room": room, "after": 0}),
        ("room:join", {"room": room, "after": 0}),
        ("participant:remove", {"conversation_id": group, "user_id": bilal.user_id}),
        ("room:leave", {"room": room}),
    ):
        answer = await phone.answer(command, **payload)
        fits(messages[f"{command.replace(':', '_')}_ack"]["payload"], answer)
    await other.hearing("participant:removed")
    heard = [*phone.heard, *other.heard]
    assert {"hello", "conversation:created", "message:created", "participant:removed"} <= {push.name for push in heard}
    for push in heard:
        told = messages[push.name.replace(":", "_")]
        fits(told["payload"], push.payload)
        fits(told.get("headers", {"const": {}}), push.meta)
        kind = (push.room or "socket").partition(":")[0]
        assert f"{push.name.replace(':', '_')}_to_{kind}" in document["operations"]


async def test_a_refused_connect_is_what_it_is_said_to_be(parley: Instance, bilal: Person) -> None:
    document = json.loads((await get(parley, "/asyncapi.json"))[2])
    for auth in ({"token": "x"}, {"rooms": 1}, {"surprise": 1}, {"rooms": {f"user:{n}": 0 for n in range(1001)}}):
        with pytest.raises(ConnectRefused) as refused:
            await bilal.connect(**auth)
        Draft7Validator(document["components"]["messages"]["connect_error"]["payload"]).validate(refused.value.said)
