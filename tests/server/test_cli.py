"""The command line, as operators use it: a process of its own for each call."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import jwt
import pytest

from server.cli import documents
from server.commands.registry import commands, pushes
from server.commands.tokens import AUDIENCE
from server.config import settings
from tests.people import PATIENCE_S, SECRET, Device, Instance, Person, Refusal
from tests.servers import execute

ROOT = Path(__file__).resolve().parent.parent.parent


class Said(NamedTuple):
    """What a call of the command line came to."""

    code: int
    out: str
    err: str


async def parley_cli(*arguments: str, **environ: str) -> Said:
    """`parley <arguments>` with these settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    inherited.pop("DATABASE_URL", None)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server.cli", *arguments),
        cwd=ROOT,
        env={**inherited, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80", **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return Said(process.returncode or 0, out.decode(), err.decode())


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
    for name in ("x", "dora@example.org", "a b", "y" * 65):
        said = await operator("token", "--user", name, "--create")
        rule = "a username is 2 to 64 letters, digits, dots, hyphens and underscores"
        assert said == Said(1, "", f"parley: --user {name}: {rule}.\n")
    said = await operator("token", "--user", amina.username, "--scope", "all")
    assert said == Said(1, "", "parley: --scope all: it is full, limited or read.\n")
    found = await amina.instance.parley.database.statement(
        lambda db: db.fetchval("select count(*) from user_sessions where user_id = $1", amina.user_id)
    )
    assert found == 1  # the one she had


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
    assert documents.write(check=True) == ["docs/reference.md"]
    assert list(tmp_path.iterdir()) == []
    assert documents.write(check=False) == ["docs/reference.md"]
    assert documents.write(check=True) == []
    (tmp_path / "reference.md").write_text("by hand")
    assert documents.write(check=True) == ["docs/reference.md"]


def test_the_reference_names_every_command_push_and_setting() -> None:
    text = documents.reference()
    for name in (*commands, *pushes, *(setting.name for setting in settings())):
        assert f"`{name}`" in text
