"""What a process writes of itself: one line an event, in the form asked for, and nothing secret in it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.logs import HIDDEN

ROOT = Path(__file__).resolve().parent.parent.parent

START = """
import logging, structlog, sys
from server.logs import HIDDEN, configure
configure(*sys.argv[1:])
ours, others = structlog.get_logger("parley"), logging.getLogger("aiohttp.server")
"""


def command(code: str, form: str, level: str) -> dict[str, Any]:
    """How a process of its own is run in which logging is set up so; what it says is on stderr."""
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200", "TERM": "xterm"}
    return {"args": [sys.executable, "-c", START + code, form, level], "cwd": ROOT, "env": environ}


def said(code: str, form: str = "json", level: str = "info") -> str:
    """What a process logs into a pipe."""
    done = subprocess.run(**command(code, form, level), capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == ""
    return done.stderr


def said_on_a_terminal(code: str, form: str, level: str = "info") -> str:
    """What a process logs where its stderr is a terminal."""
    ours, its = pty.openpty()
    with subprocess.Popen(**command(code, form, level), stderr=its) as process:
        os.close(its)
        text = b""
        try:
            while data := os.read(ours, 65_536):
                text += data
        except OSError:  # Linux's word for the end
            pass
        os.close(ours)
    assert process.returncode == 0
    return text.decode()


TWO_LINES = 'ours.info("served", port=8080); others.warning("slow %s", "client")'


def test_json_is_an_object_a_line_from_us_and_from_the_libraries() -> None:
    first, second = map(json.loads, said(TWO_LINES).splitlines())
    assert first.items() >= {"event": "served", "port": 8080, "level": "info"}.items()
    assert second.items() >= {"event": "slow client", "level": "warning"}.items()
    assert first["timestamp"].endswith("Z")
    assert second["timestamp"].endswith("Z")


def test_console_is_for_people() -> None:
    first, second = said(TWO_LINES, "console").splitlines()
    assert "served" in first
    assert "8080" in first
    assert "slow client" in second
    assert not [line for line in (first, second) if line.startswith("{")]


def test_what_a_client_is_named_moves_nothing_on_a_terminal() -> None:
    named = r'"a\n\x1b[41mforged\x9b2J\u202eكلمة"'
    text = said(f'ours.info("told", command={named}); others.warning("slow %s", {named})', "console")
    assert len(text.splitlines()) == 2
    assert not [raw for raw in ("\x1b[41m", "\x9b", "\u202e") if raw in text]
    assert text.count(r"a\n\x1b[41mforged\x9b2J\u202eكلمة") == 2


@pytest.mark.parametrize("form", ["auto", "console"])
def test_on_a_terminal_it_is_for_people(form: str) -> None:
    text = said_on_a_terminal(TWO_LINES, form)
    assert "slow client" in text
    assert "{" not in text


@pytest.mark.parametrize(("say", "form"), [(said, "auto"), (said_on_a_terminal, "json")])
def test_elsewhere_or_when_asked_for_it_is_json(say: Callable[[str, str], str], form: str) -> None:
    assert [json.loads(line)["event"] for line in say(TWO_LINES, form).splitlines()] == ["served", "slow client"]


SECRETS = """
structlog.contextvars.bind_contextvars(authorization="a whisper")
ours.info("told", **{key: "a whisper" for key in HIDDEN}, user_id="u-1")
ours.bind(token="a whisper").error("bound", text=["a whisper"])
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_is_secret_does_not_show(form: str) -> None:
    text = said(SECRETS, form)
    assert "whisper" not in text
    assert text.count("(hidden)") == len(HIDDEN) + 3  # authorization too in the second
    assert "u-1" in text


def test_tokens_passwords_and_texts_are_secret() -> None:
    assert {
        "token",
        "access_token",
        "refresh_token",
        "password",
        "secret",
        "authorization",
        "text",
        "payload",
    } == HIDDEN


TRACEBACKS = """
def work(held):
    raise LookupError("a bug")
for log in (ours, others):
    try:
        work("a whis" + "per")
    except LookupError:
        log.exception("failed")
"""


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("say", [said, said_on_a_terminal])
def test_a_traceback_shows_where_and_not_what_was_held(form: str, say: Callable[[str, str], str]) -> None:
    text = say(TRACEBACKS, form)
    assert text.count("LookupError: a bug") == 2
    assert text.count("in work") == 2
    assert "whisper" not in text


LEVELS = """
for name in ("debug", "info", "warning"):
    getattr(ours, name)(f"our {name}")
    for library in ("aiohttp.server", "aiohttp.access", "engineio", "socketio", "asyncio"):
        getattr(logging.getLogger(library), name)(f"{library} {name}")
"""
LIBRARIES = ("aiohttp.server", "aiohttp.access", "engineio", "socketio", "asyncio")
WARNINGS = {"our warning", *(f"{library} warning" for library in LIBRARIES)}


@pytest.mark.parametrize(
    ("level", "more"),
    [
        ("warning", set()),
        ("info", {"our info", "aiohttp.server info"}),
        ("debug", {"our debug", "our info", "aiohttp.server info"}),  # libraries' debugging says what travels
    ],
)
def test_a_level_leaves_out_what_is_below_it_and_what_says_what_travels(level: str, more: set[str]) -> None:
    events = {json.loads(line)["event"] for line in said(LEVELS, level=level).splitlines()}
    assert events == WARNINGS | more


SERVE_GARBAGE = """
import asyncio
from aiohttp import web

async def main():
    async def fail(request):
        raise LookupError("a bug of ours")
    async def read(request):
        await request.read()
    app = web.Application()
    app.router.add_get("/fail", fail)
    app.router.add_post("/read", read)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    head = b" HTTP/1.1\\r\\nHost: here\\r\\nConnection: close\\r\\n"
    garbage = b"POST /read" + head + b"Transfer-Encoding: chunked\\r\\n\\r\\nhunter2\\r\\n"
    for sent in (b"hunter2 is no HTTP\\r\\n\\r\\n", garbage, b"GET /fail" + head + b"\\r\\n"):
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(sent)
        print((await reader.read())[9:12].decode(), file=sys.stderr)
        writer.close()
    await runner.cleanup()

asyncio.run(main())
"""


def test_what_is_no_http_is_answered_and_not_logged_while_a_bug_is() -> None:
    text = said(SERVE_GARBAGE)
    assert "hunter2" not in text
    statuses = [line for line in text.splitlines() if line.isdigit()]
    logged = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert statuses == ["400", "400", "500"]
    assert len(logged) == 1
    assert "a bug of ours" in logged[0]["exception"]
