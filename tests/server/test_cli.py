"""The command line, as operators use it: a process for each call."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import jwt
import pytest
import socketio

from server.cli import documents
from server.commands.registry import commands, pushes
from server.commands.tokens import AUDIENCE
from server.config import settings
from tests.commandline import Said, parley_cli
from tests.faults.processes import ServerProcess
from tests.people import PATIENCE_S, SECRET, Device, Instance, Person, Refusal
from tests.servers import execute, until

ROOT = Path(__file__).resolve().parent.parent.parent

Operator = Callable[..., Any]


@pytest.fixture
def operator(parley: Instance) -> Operator:
    """`await operator(…)`: the command line on this test's database, with its instance's secret."""

    async def call(*arguments: str) -> Said:
        return await parley_cli(*arguments, DATABASE_URL=parley.dsn, PARLEY_SECRET=SECRET)

    return call


def by_token(parley: Instance, token: str) -> Person:
    """Whoever holds a token."""
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience=AUDIENCE)
    person = Person(parley, "?", claims["sub"], claims["sid"], token)
    parley.people.append(person)
    return person


# tokens


async def test_a_token_for_somebody_new_lets_them_in(parley: Instance, operator: Operator) -> None:
    said = await operator("token", "--user", "dalia", "--create")
    assert (said.code, said.err) == (0, "")
    dalia = by_token(parley, said.out.removesuffix("\n"))
    assert (await dalia.post("account:me"))["username"] == "dalia"
    device = await dalia.connect()
    assert device.hello["session_id"] == dalia.session_id
    again = by_token(parley, (await operator("token", "--user", "Dalia")).out.strip())
    assert (again.user_id, again.session_id != dalia.session_id) == (dalia.user_id, True)


async def test_tokens_for_several_are_one_a_line_with_the_scope_and_life_asked_for(
    parley: Instance, operator: Operator, amina: Person
) -> None:
    asked = ("token", "--user", amina.username, "--user", "dalia", "--create", "--scope", "read", "--ttl", "77")
    people = [by_token(parley, line) for line in (await operator(*asked)).out.splitlines()]
    assert [(await person.post("account:me"))["username"] for person in people] == [amina.username, "dalia"]
    assert people[0].user_id == amina.user_id
    for person in people:
        claims = jwt.decode(person.token, SECRET, algorithms=["HS256"], audience=AUDIENCE)
        assert (claims["scope"], claims["exp"] - claims["iat"]) == ("read", 77)
        with pytest.raises(Refusal, match="forbidden"):
            await person.post("conversation:create", kind="group", user_ids=[], client_id="a")


async def test_a_token_for_nobody_is_a_clear_error_and_makes_nobody(operator: Operator, amina: Person) -> None:
    said = await operator("token", "--user", amina.username, "--user", "nobody.here")
    assert said == Said(1, "", "parley: There is nobody called nobody.here: register them first, or give --create.\n")
    rule, names = "a username is 2 to 64 letters, digits, dots, hyphens and underscores", ("x", "d@example.org", "a b")
    answers = await asyncio.gather(*(operator("token", "--user", name, "--create") for name in names))
    assert answers == [Said(1, "", f"parley: --user {name}: {rule}.\n") for name in names]
    imitation = f"\u0430{amina.username}"  # whose first letter is Cyrillic
    said = await operator("token", "--user", imitation, "--create")
    assert said == Said(1, "", f"parley: --user {imitation}: the name has letters of more than one script.\n")
    said = await operator("token", "--user", amina.username, "--scope", "all")
    assert said == Said(1, "", "parley: --scope all: it is full, limited or read.\n")
    found = await amina.instance.parley.database.statement(
        lambda db: db.fetchval("select count(*) from user_sessions where user_id = $1", amina.user_id)
    )
    assert found == 1  # the one she had


# administrators


async def test_an_operator_says_who_is_an_administrator(
    parley: Instance, operator: Operator, amina: Person, bilal: Person
) -> None:
    device = await amina.connect()
    assert await operator("admin", "list") == Said(0, "", "")
    for _ in range(2):  # again is no other grant
        assert await operator("admin", "grant", "--user", amina.username.upper()) == Said(0, "", "")
    assert await operator("admin", "list") == Said(0, f"{amina.username}\n", "")
    await device.hearing("user:updated", roles=["admin"])
    user = await device.call("user:suspend", user_id=bilal.user_id, reason="spam")
    assert user["status"] == "suspended"
    await amina.post("account:update", roles=["seller"])
    assert await operator("admin", "revoke", "--user", amina.username) == Said(0, "", "")
    assert await operator("admin", "list") == Said(0, "", "")
    await device.hearing("user:updated", roles=["seller"])
    assert len([push for push in device.heard if push.name == "user:updated"]) == 3
    answer = await device.answer("user:restore", user_id=bilal.user_id, reason="a mistake")
    assert answer["error"]["code"] == "forbidden"


async def test_who_is_nobody_is_no_administrator(parley: Instance, operator: Operator, amina: Person) -> None:
    await execute(parley.dsn, f"update users set status = 'deleted' where user_id = '{amina.user_id}'")
    asked = [(name, verb) for name in ("nobody.here", amina.username) for verb in ("grant", "revoke")]
    said = await asyncio.gather(*(operator("admin", verb, "--user", name) for name, verb in asked))
    assert said == [Said(1, "", f"parley: There is nobody called {name}: register them first.\n") for name, _ in asked]
    assert await operator("admin", "list") == Said(0, "", "")


# settings


async def test_bad_settings_are_all_named_at_once() -> None:
    said = await parley_cli(
        "serve", PARLEY_PORT="http", PARLEY_RATE_READS="much", PARLEY_COLOR="red", DATABASE_URL="mysql://root:pw@x/y",
        PARLEY_SECRET="short",
    )  # fmt: skip
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("parley: 5 settings are not usable:\n")
    for name in ("PARLEY_PORT", "PARLEY_RATE_READS", "PARLEY_COLOR", "DATABASE_URL", "PARLEY_SECRET"):
        assert f"\n  {name}" in said.err
    assert not [secret for secret in ("short ", "root:pw", "Traceback") if secret in said.err]


async def test_a_missing_secret_is_named_where_the_database_is_somebody_elses(database: str) -> None:
    calls = [("serve",), ("token", "--user", "amina"), ("migrate",), ("restored",)]
    for said in await asyncio.gather(*(parley_cli(*call, DATABASE_URL=database) for call in calls)):
        assert (said.code, said.out) == (1, "")
        assert "\n  PARLEY_SECRET is missing: with DATABASE_URL every instance needs the same one" in said.err


async def test_settings_lists_every_setting_by_its_whole_name_on_a_narrow_terminal() -> None:
    said = await parley_cli("settings")
    assert (said.code, said.err) == (0, "")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server.cli", "settings"),
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert (await process.communicate())[0].decode() == said.out  # as a process that has come from nothing says it
    for setting in settings():
        assert setting.name in said.out
    assert max(len(line) for line in said.out.splitlines()) <= 80


async def test_a_database_that_cannot_be_reached_is_said_without_a_traceback(tmp_path: Path) -> None:
    away = f"postgresql://parley@/parley?host={tmp_path}"
    calls = [("serve",), ("token", "--user", "amina"), ("migrate",), ("restored",)]
    for said in await asyncio.gather(*(parley_cli(*call, DATABASE_URL=away, PARLEY_SECRET=SECRET) for call in calls)):
        assert said.code == 1
        assert "parley: The database cannot be reached" in said.err
        assert "Traceback" not in said.err


async def test_migrate_says_what_it_has_applied(database: str) -> None:
    first = await parley_cli("migrate", DATABASE_URL=database, PARLEY_SECRET=SECRET)
    applied = first.out.splitlines()
    assert (first.code, applied[0], applied == sorted(applied)) == (0, "0001_rooms", True)
    again = await parley_cli("migrate", DATABASE_URL=database, PARLEY_SECRET=SECRET)
    assert again == Said(0, "The schema is current.\n", "")


# serving


def commands_in(text: str) -> dict[str, list[str]]:
    """The words of each command that `parley serve` says to try, by what it is for."""
    lines = text.replace("\\\n", " ").splitlines()
    told = (line.strip().partition(":  ") for line in lines if line.startswith("  "))
    return {name: shlex.split(words) for name, _, words in told}


async def test_what_serve_says_to_try_works_and_its_data_stay(open_folder: Path) -> None:
    data, log = open_folder / "data", open_folder / "log"
    server = ServerProcess(log, {"PARLEY_DATA": str(data), "DATABASE_URL": ""})
    await asyncio.to_thread(server.start)
    try:
        text = await asyncio.to_thread(until, lambda: seen(log, "Ctrl-C stops it"), "it says what to try")
        assert f"Parley is ready on {server.url}\n" in text
        tries = commands_in(text)
        assert list(tries) == ["An account", "A token", "A client", "Its health"]
        async with aiohttp.ClientSession() as http:
            curl, silent, url, header, kind, body, account = tries["An account"]
            assert (curl, silent, header, body) == ("curl", "-s", "-H", "-d")
            name, _, value = kind.partition(": ")
            async with http.post(url, data=account, headers={name: value}) as response:
                assert response.status == 200
                assert (await response.json())["data"]["user"]["username"] == "amina"
            assert tries["Its health"][:2] == ["curl", "-s"]
            async with http.get(tries["Its health"][2]) as response:
                assert (response.status, (await response.json())["status"]) == (200, "ready")
        program, *words = tries["A token"]
        assert Path(program).name == "parley"
        token = (await parley_cli(*words, PARLEY_DATA=str(data))).out.strip()
        client = socketio.AsyncClient(reconnection=False)
        assert tries["A client"][0] == f"io({server.url},"
        await client.connect(server.url, auth={"token": token}, transports=["websocket"], wait_timeout=10)
        answer = await client.call("account:me", {})
        await client.disconnect()
        assert answer["data"]["username"] == "amina"

        second = await parley_cli("serve", PARLEY_DATA=str(data), PARLEY_PORT="0")
        assert (second.code, second.out) == (1, "")
        assert second.err.startswith(f"parley: The data folder {data} is in use by process {server.pid}.")
        assert second.err.count("\n") == 1
        assert await asyncio.to_thread(server.stop) == 0
    finally:
        server.kill()
        await asyncio.to_thread(until, lambda: not (data / "postgres" / "postmaster.pid").exists(), "PostgreSQL ends")
    again = await parley_cli(*words, PARLEY_DATA=str(data))
    assert (again.code, again.err) == (0, "")


async def test_on_a_database_of_somebody_elses_serve_prints_nothing_but_its_log(
    migrated_database: str, open_folder: Path
) -> None:
    server = ServerProcess(open_folder / "log", {"DATABASE_URL": migrated_database, "PARLEY_SECRET": SECRET})
    await asyncio.to_thread(server.start)
    try:
        assert await asyncio.to_thread(server.stop) == 0
    finally:
        server.kill()
    lines = (open_folder / "log").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["serving", "stopping", "stopped"]


async def test_a_port_that_is_taken_is_said_and_nothing_is_left_running(open_folder: Path) -> None:
    data = open_folder / "data"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = await parley_cli("serve", PARLEY_DATA=str(data), PARLEY_PORT=str(taken.getsockname()[1]))
    *log, last = said.err.splitlines()
    assert (said.code, said.out) == (1, "")
    assert last.startswith("parley: ")
    assert "address already in use" in last
    assert all(json.loads(line)["event"] == "migrated" for line in log)
    assert not (data / "postgres" / "postmaster.pid").exists()


def seen(log: Path, words: str) -> str | None:
    """The log's text, when it has these words."""
    text = log.read_text()
    return text if words in text else None


# a restore


async def cut_off(device: Device) -> asyncio.Event:
    """What is set when the device has been disconnected."""
    gone = asyncio.Event()

    async def disconnected(*_: object) -> None:
        gone.set()

    device.client.on("disconnect", disconnected)
    return gone


async def rewind(parley: Instance, chat: str, seq: int) -> None:
    """Let a conversation be what it was at `seq`, as restoring an old backup does."""
    connection = await asyncpg.connect(parley.dsn)
    try:
        async with connection.transaction():
            await connection.execute("delete from messages where conversation_id = $1 and seq > $2", chat, seq)
            await connection.execute("delete from room_events where room_id = $1 and seq > $2", chat, seq)
            await connection.execute("update rooms set last_seq = $2 where room_id = $1", chat, seq)
    finally:
        await connection.close()


async def test_after_a_restore_everybody_is_cut_off_and_loads_everything_afresh(
    parley: Instance, operator: Operator, amina: Person, bilal: Person, their_chat: str
) -> None:
    phone, other = await amina.connect(), await bilal.connect()
    old = phone.hello["epoch"]
    for n in range(5):
        await phone.send(their_chat, str(n))
    await other.hearing("message:created", text="4")
    gone = [await cut_off(device) for device in (phone, other)]
    await rewind(parley, their_chat, 2)
    said = await operator("restored")
    epoch = said.out.removeprefix("The new epoch is ").removesuffix(".\n")
    assert (said.code, str(UUID(epoch)), epoch != old) == (0, epoch, True)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(event.wait() for event in gone))

    room, own = f"conversation:{their_chat}", f"user:{bilal.user_id}"
    phone, other = await amina.connect(), await bilal.connect(epoch=old, rooms={room: 1, own: 1})
    assert other.hello["epoch"] == phone.hello["epoch"] == epoch
    assert other.hello["rooms"][room] == 2
    assert sorted(other.hello["reset"]) == sorted([room, own])
    sent = await phone.send(their_chat, "anew")
    assert sent["seq"] == 3
    await other.hearing("message:created", text="anew")
    assert other.texts(their_chat) == ["anew"]
    resumed = await bilal.connect(epoch=epoch, rooms={room: 2})
    assert resumed.hello["reset"] == []
    await resumed.hearing_up_to(room, 3)


async def test_a_restore_may_take_its_time(parley: Instance, operator: Operator, amina: Person) -> None:
    # As rewriting a log of many millions of events does.
    await execute(
        parley.dsn,
        """create function dawdle() returns trigger language plpgsql as $$
           begin perform pg_sleep(1.2); return null; end $$""",
    )
    await execute(parley.dsn, "create trigger dawdle before update on room_events execute function dawdle()")
    said = await operator("restored")
    assert (said.code, said.err) == (0, "")


# documents


async def test_the_documents_are_what_the_code_derives() -> None:
    assert await parley_cli("docs", "--check") == Said(0, "", "")


def test_documents_that_are_out_of_date_are_named_and_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(documents, "DOCS", tmp_path)
    all_of_them = [f"docs/{name}" for name in ("reference.md", "openapi.json", "asyncapi.json", "parley.d.ts")]
    assert documents.write(check=True) == all_of_them
    assert list(tmp_path.iterdir()) == []
    assert documents.write(check=False) == all_of_them
    assert documents.write(check=True) == []
    (tmp_path / "reference.md").write_text("by hand")
    assert documents.write(check=True) == ["docs/reference.md"]
    text = (tmp_path / "openapi.json").read_text()
    (tmp_path / "openapi.json").write_text(text.replace("conversation_id", "chat_id"))
    assert documents.write(check=True) == ["docs/reference.md", "docs/openapi.json"]


def test_the_reference_names_every_command_push_and_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(documents, "DOCS", tmp_path)
    documents.write(check=False)
    text = (tmp_path / "reference.md").read_text()
    for name in (*commands, *pushes, *(setting.name for setting in settings())):
        assert f"`{name}`" in text
