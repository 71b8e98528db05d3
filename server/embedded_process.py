"""Which PostgreSQL processes work on a database's folder, and seeing those of a killed server off."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from server.embedded_files import SOCKET, EmbeddedPostgresError

LEFTOVER_S = 10.0  # for a PostgreSQL whose server was killed to end, before it is pushed
ORPHAN_S = 1.0  # for backends whose postmaster was killed to notice; one in a long query does not


def status(folder: Path) -> tuple[int, str]:
    """The pid and the state ("starting", "ready", "stopping") that PostgreSQL wrote down, or (0, "")."""
    try:
        lines = (folder / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), lines[7].strip()
    except (FileNotFoundError, IndexError, ValueError):  # absent, or half written
        return 0, ""


def works_in(pid: int, folder: Path) -> bool:
    """Whether the process is a PostgreSQL of this database: all have the folder as working directory."""
    try:
        here = os.readlink(f"/proc/{pid}/cwd") == str(folder)
        return here and Path(f"/proc/{pid}/comm").read_text().strip() == "postgres"  # not somebody's shell
    except OSError:  # it is gone, or somebody else's
        return False


def _leftovers(folder: Path) -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and works_in(int(name), folder)]


def leftovers_ended(folder: Path, socket: Path) -> Iterator[float]:
    """See the PostgreSQL of a killed server off, with all its backends, yielding the pauses to be made.

    The postmaster gets its signal from the kernel when the server dies; the backends of a postmaster that was
    killed itself end when they notice. Until all are gone, the memory they share is taken and they may write.
    """
    if not (folder / "postmaster.pid").exists():
        return
    postmaster, _ = status(folder)
    if alive := postmaster in _leftovers(folder):
        _signal(postmaster, signal.SIGINT)  # a fast shutdown; mostly under way already
    # A killed postmaster's children get no SIGINT: PostgreSQL 18's checkpointer would write its last record.
    yield from _gone(folder, LEFTOVER_S if alive else ORPHAN_S)
    for push in (signal.SIGQUIT, signal.SIGKILL):
        for pid in _leftovers(folder):
            _signal(pid, push)
        yield from _gone(folder, LEFTOVER_S)
    if left := _leftovers(folder):
        raise EmbeddedPostgresError(
            f"Processes of an earlier PostgreSQL do not end: {left}. End them, then start again."
        )
    # Its number may be another process's by now, which PostgreSQL would take for a server that runs.
    for lock in (folder / "postmaster.pid", socket / f"{SOCKET}.lock"):
        lock.unlink(missing_ok=True)


def _gone(folder: Path, patience_s: float) -> Iterator[float]:
    deadline = time.monotonic() + patience_s
    while _leftovers(folder) and time.monotonic() < deadline:
        yield 0.02


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
