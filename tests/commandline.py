"""The command line in processes of their own, without a second of imports for each: a server of forks has them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

PATIENCE_S = 30
ROOT = Path(__file__).resolve().parent.parent
COMMAND_LINE = ("server.cli",)

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.commandline", "server.cli.main", "server.cli.operators", "server.cli.instance"])
_looking = threading.Lock()  # multiprocessing looks at all processes whenever it starts one, and not from two threads


class Fork:
    """A process that is what `python -m <module>` would be, with these settings and its output in these files.

    Its methods are those of `subprocess.Popen`. It has a pid, an environment and signals of its own; what differs is
    that its parent is the server of forks, and that all modules are loaded when it begins.
    """

    def __init__(self, module: Sequence[str], environ: Mapping[str, str], out: Path, err: Path) -> None:
        for path in (out, err):
            path.touch()
        self._process = _forks.Process(target=_become, args=(module, environ, out, err), daemon=True)
        with _looking:
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """Its exit code, negative where a signal has ended it; None while it runs."""
        with _looking:
            return self._process.exitcode

    def wait(self, patience_s: float | None = None) -> int:
        """Its exit code, when it has ended. Raises TimeoutError."""
        wait([self._process.sentinel], patience_s)
        code = self.poll()
        if code is None:
            raise TimeoutError(f"process {self.pid} has not ended in {patience_s} s")
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _become(module: Sequence[str], environ: Mapping[str, str], out: Path, err: Path) -> None:
    for number, path in ((1, out), (2, err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environ)
    name, *arguments = module
    sys.argv = ["parley" if (name,) == COMMAND_LINE else name, *arguments]
    runpy.run_module(name, run_name="__main__")


class Said(NamedTuple):
    """What a call of the command line came to."""

    code: int
    out: str
    err: str


async def parley_cli(*arguments: str, **environ: str) -> Said:
    """`parley <arguments>` with these settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    inherited.pop("DATABASE_URL", None)
    with tempfile.TemporaryDirectory() as folder:
        told = [Path(folder) / name for name in ("out", "err")]
        environ = {**inherited, "COLUMNS": "80", **environ}
        process = await asyncio.to_thread(Fork, (*COMMAND_LINE, *arguments), environ, *told)
        try:
            code = await asyncio.to_thread(process.wait, PATIENCE_S)
        except TimeoutError:
            process.send_signal(signal.SIGKILL)
            said = [each.read_text() for each in told]
            raise TimeoutError(f"parley {arguments} has not ended; it said {said}") from None
        return Said(code, *(each.read_text() for each in told))
