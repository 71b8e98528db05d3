"""The command line in processes of their own, without a second of imports for each: a server of forks has them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PATIENCE_S = 30

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.commandline", "server.cli.main", "server.cli.operators", "server.cli.instance"])


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
        process = _forks.Process(target=_call, args=(arguments, {**inherited, "COLUMNS": "80", **environ}, told))
        await asyncio.to_thread(process.start)
        await asyncio.to_thread(process.join, PATIENCE_S)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"parley {arguments} has not ended; it said {[path.read_text() for path in told]}")
        return Said(process.exitcode, *(path.read_text() for path in told))


def _call(arguments: Sequence[str], environ: Mapping[str, str], told: Sequence[Path]) -> None:
    """Be the process that `python -m server.cli` would be."""
    for number, path in zip((1, 2), told, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["parley", *arguments]
    from server.cli import main

    main()
