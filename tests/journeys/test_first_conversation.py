"""The first conversation of the README, by the real clients as processes of their own, against `parley serve`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.processes import ServerProcess
from tests.servers import Node

CLIENTS = Path(__file__).parent.parent / "clients"


@pytest.fixture(scope="module")
def server(servers_folder: Path) -> Iterator[ServerProcess]:
    """A server with a PostgreSQL of its own, as `make run` starts it."""
    folder = servers_folder / "first"
    folder.mkdir(mode=0o711)
    process = ServerProcess(folder / "log", {"PARLEY_DATA": str(folder / "data"), "DATABASE_URL": ""}, afresh=True)
    process.start()
    yield process
    process.kill()


def _talk(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_first_conversation_by_pythons_client(server: ServerProcess) -> None:
    said = _talk(sys.executable, str(CLIENTS / "first_conversation.py"), server.url)
    assert "has them all, in order" in said


@pytest.mark.parametrize("transport", ["websocket", ""], ids=["websocket", "default"])
def test_a_first_conversation_by_socket_io_client(server: ServerProcess, node: Node, transport: str) -> None:
    command = [str(node.binary), str(node.clients / "first_conversation.mjs"), server.url, transport]
    assert "has them all, in order" in _talk(*filter(None, command))


def test_a_server_stops_gracefully_at_sigterm_and_logs_no_secret(
    server: ServerProcess, node: Node, servers_folder: Path
) -> None:
    _talk(sys.executable, str(CLIENTS / "first_conversation.py"), server.url)
    assert server.stop() == 0
    logged = (servers_folder / "first" / "log").read_text()
    assert '"stopped"' in logged
    for secret in ("correct horse", "bicycle", "You missed this", "eyJ"):
        assert secret not in logged
