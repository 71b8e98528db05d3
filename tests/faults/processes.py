"""Servers as processes of their own, to be killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg

from tests.commandline import ROOT, Fork
from tests.servers import until


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """`parley serve` with the settings given, on a port that it keeps over restarts.

    It is forked with all imports made, which spares a second of CPU a start; `afresh` it is a new Python, as an
    operator starts it.
    """

    def __init__(
        self,
        log: Path,
        environ: Mapping[str, str],
        module: Sequence[str] = ("server.cli", "serve"),
        *,
        afresh: bool = False,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self.module = module
        self._environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PARLEY_")},
            "PARLEY_PORT": str(self.port),
            "PARLEY_LOG": "json",
            "PYTHONDONTWRITEBYTECODE": "1",
            **environ,
        }
        self._afresh = afresh
        self._process: subprocess.Popen[bytes] | Fork | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return when it serves."""
        begins = self._log.stat().st_size if self._log.exists() else 0
        self._process = self._new() if self._afresh else Fork(self.module, self._environ, self._log, self._log)
        until(lambda: self._serves(begins), f"the server serves (its log: {self._log})", 60)

    def _new(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", *self.module]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self._environ, stdout=log, stderr=log)

    def _serves(self, begins: int) -> bool:
        assert self._process is not None
        text = self._log.read_bytes()[begins:]
        if self._process.poll() is not None:
            raise AssertionError(f"the server ended: {text.decode()[-2000:]}")
        return b'"serving"' in text

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """End it as an operator does; its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(30)
        self._process = None
        return code

    def logged(self) -> list[dict[str, object]]:
        """Its log's lines."""
        lines = self._log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


async def without(dsn: str, function: str, *edits: tuple[str, str]) -> str:
    """The statement that replaces a SQL function by itself with other lines in it: a guarantee taken out.

    Each edit is a line and what stands instead of it. Fails the test where the function has not a line exactly once:
    what is not taken out any more would go green by itself.
    """
    connection = await asyncpg.connect(dsn)
    try:
        text: str = await connection.fetchval("select pg_get_functiondef($1::regproc)", function)
    finally:
        await connection.close()
    for line, instead in edits:
        assert text.count(line) == 1, f"{function} has {text.count(line)} lines {line!r}"
        text = text.replace(line, instead)
    return text
