"""`parley load` as it is typed: what is refused before anything is begun, and what is told of it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import jwt
import pytest
from typer.testing import CliRunner

from server.cli.load.command import _own
from server.cli.load.servers import LoadFailed, Spent, spent_between
from server.cli.main import app
from server.config import load as settings
from server.errors import Invalid
from tests.people import SECRET, Instance
from tests.server.test_cli import Said, parley_cli


async def load(parley: Instance, *arguments: str, secret: str = SECRET) -> Said:
    """`parley load` against an instance, for half a second, by one worker."""
    fixed = (parley.url, "--seconds", "0.5", "--workers", "1")
    return await parley_cli("load", *fixed, *arguments, DATABASE_URL=parley.dsn, PARLEY_SECRET=secret)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--sockets", "3", "--groups", "9"), "--sockets 3 are too few: these shapes need 9."),
        (("--seconds", "0"), "--seconds 0: from 0.1 to 3600."),
        (("--drain", "0"), "--drain 0: from 0.1 to 3600."),
        (("--rate", "nan"), "--rate nan: from 0.01 to 1000000."),
        (("http://192.0.2.7",), "http://192.0.2.7 is not this machine. .* give --yes-remote"),
        (("http://192.0.2.7", "--yes-remote"), "give their --tokens"),
        (("http://127.0.0.1:80/chat",), "an address is like"),
        (("http://127.0.0.1:port",), "not an address"),
        (("http://:password@127.0.0.1:80",), "^An address is like .*, without a name and password.$"),
        (("--json", "{folder}/nowhere/a.json"), "/nowhere/a.json can't be written: No such file"),
        (("--html", "{folder}"), "can't be written: Is a directory"),
        (("--groups", "501", "--sockets", "600"), "--groups 501: from 2 to 500."),
        (("--tokens", "{folder}/none"), "token 1 is none: one a line"),
        (("--tokens", "{folder}/twice"), "tokens 1 and 2 are one person's"),
        (("--tokens", "{folder}/few"), "has 1 tokens, and 200 are needed"),
        (("--tokens", "{folder}/old"), "token 1 ends before the test would"),
        (("--tokens", "{folder}/missing"), "/missing can't be read: No such file"),
        (("--tokens", "{folder}/binary"), "/binary is no file of tokens"),
    ],
)
def test_options_that_make_no_sense_are_clear_errors(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    token, old = (jwt.encode({"sub": "somebody", "exp": time.time() + life}, SECRET) for life in (3600, 20))
    texts = {"none": "no token\n", "twice": f"{token}\n{token}\n", "few": f"# few\n\n{token}\n", "old": f"{old}\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    words = [word.replace("{folder}", str(tmp_path)) for word in arguments]
    said = CliRunner().invoke(app, ["load", *words], env={"DATABASE_URL": None})
    assert isinstance(said.exception, Invalid), said
    assert re.search(told, said.exception.message)
    assert "password@" not in said.exception.message


def test_a_file_for_a_report_is_not_there_before_the_report_is(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("of the last run")
    files = ("--json", str(tmp_path / "new"), "--html", str(there))
    CliRunner().invoke(app, ["load", "http://127.0.0.1:9", *files], env={"DATABASE_URL": None})
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert there.read_text() == "of the last run"


async def test_a_token_that_is_not_valid_is_a_clear_error(parley: Instance, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    people = [await parley.person("load") for _ in range(2)]
    tokens.write_text("".join(f"{person.token[:-3]}abc\n" for person in people))
    said = await load(parley, "--tokens", str(tokens), "--sockets", "2")
    assert (said.code, said.out) == (1, "")
    assert "unauthenticated: This token is not valid" in said.err


async def test_a_server_with_another_secret_is_a_clear_error(parley: Instance) -> None:
    said = await load(parley, "--sockets", "2", secret=SECRET[::-1])
    assert (said.code, said.out) == (1, "")
    assert "does not know people who are made here: DATABASE_URL, PARLEY_DATA and PARLEY_SECRET" in said.err


async def test_people_who_may_not_open_a_conversation_end_it_at_once(parley: Instance, tmp_path: Path) -> None:
    amina, bilal = [await parley.person("load") for _ in range(2)]
    await amina.post("user:block", user_id=bilal.user_id)
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{amina.token}\n{bilal.token}\n")
    said = await load(parley, "--tokens", str(tokens), "--sockets", "2")
    assert (said.code, said.out) == (1, "")
    assert "Could not begin: conversation:create: conflict: blocked" in said.err


def test_a_server_that_is_not_there_is_a_clear_error() -> None:
    said = CliRunner().invoke(app, ["load", "http://127.0.0.1:9"], env={"DATABASE_URL": None})
    assert isinstance(said.exception, LoadFailed), said
    assert said.exception.message == "Nobody answers on http://127.0.0.1:9: start a server with `parley serve`."


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("::1", "http://[::1]:8080"),
        ("::", "http://[::1]:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("localhost", "http://localhost:8080"),
    ],
)
def test_the_server_of_the_settings_is_found_whatever_its_host(host: str, url: str) -> None:
    assert _own(settings({"PARLEY_HOST": host, "PARLEY_PORT": "8080"})) == url


def test_of_a_server_that_was_started_anew_it_is_not_known_what_it_spent() -> None:
    before = Spent(5.0, 100.0, (1.0,))
    assert spent_between(before, Spent(7.0, 110.0, (1.0,))) == (2.0, 110.0)
    assert spent_between(before, Spent(7.0, 110.0, (2.0,))) is None
    assert spent_between(before, None) is None


def test_the_settings_that_help_shows_can_be_pasted() -> None:
    said = CliRunner().invoke(app, ["load", "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert re.search(r"^ +PARLEY_RATE_MESSAGE_SEND=off \\ *$", said.output, re.MULTILINE), said.output
