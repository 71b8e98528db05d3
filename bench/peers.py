"""The two servers that are compared, and what each needs of its database."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench import seeding
from bench.crowds import Crowd
from bench.machine import NODE_FOLDER
from bench.services import Postgres, Process, free_port, libpq

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})

LINE = 240  # characters of a log line that are shown
RATES_OFF = {f"PARLEY_RATE_{name}": "off" for name in ("MESSAGE_SEND", "WRITES", "READS", "CONNECTS", "HANDSHAKES")}

Environment = Callable[[str, str, int], dict[str, str]]
"""(dsn, secret, port) → what this server reads of the environment."""


def _parley(dsn: str, secret: str, port: int) -> dict[str, str]:
    own = {"DATABASE_URL": dsn, "PARLEY_SECRET": secret, "PARLEY_PORT": str(port), "PARLEY_INSTANCE": f"bench-{port}"}
    return own | {"PARLEY_LOG": "json", "PARLEY_LOG_LEVEL": "warning", "PARLEY_DRAIN_MS": "0"} | RATES_OFF


def _node(dsn: str, secret: str, port: int) -> dict[str, str]:
    return {"NODE_ENV": "production", "PORT": str(port), "PEER_SECRET": secret} | libpq(dsn)


def _bare(dsn: str, secret: str, port: int) -> dict[str, str]:
    return {"NODE_ENV": "production", "PORT": str(port)}


@dataclass(frozen=True, slots=True)
class Peer:
    """One of the servers: how it is called, started and given its people; `prepare` is None where nothing is stored."""

    name: str
    command: tuple[str, ...]
    environment: Environment
    prepare: Callable[[str, Sequence[Crowd]], Coroutine[Any, Any, None]] | None = None

    @property
    def bare(self) -> bool:
        """Whether it is a socket engine alone."""
        return self.prepare is None


NODE = Peer("Node.js", ("node", str(NODE_FOLDER / "server.js")), _node, seeding.prepare_node)
PARLEY = Peer("Parley", (sys.executable, "-m", "server.cli", "serve"), _parley, seeding.prepare_parley)
BARE_NODE = Peer("Node.js", ("node", str(NODE_FOLDER / "bare.js")), _bare)
BARE_PARLEY = Peer("Parley", (sys.executable, "-m", "bench.bare"), _bare)
PEERS = (BARE_NODE, BARE_PARLEY, NODE, PARLEY)


class Site:
    """A peer, with a database full of people where it has one, ready to be started any number of times."""

    def __init__(self, peer: Peer, postgres: Postgres, crowds: Sequence[Crowd], secret: str, folder: Path) -> None:
        self.peer = peer
        self._secret = secret
        slug = "".join(c for c in peer.name.lower() if c.isalnum()) + "_bare" * peer.bare
        self.log = folder / f"{slug}.log"
        self.dsn = ""
        if peer.prepare is not None:
            self.dsn = postgres.create(f"bench_{slug}_{secrets.token_hex(4)}")
            asyncio.run(peer.prepare(self.dsn, crowds))

    def start(
        self, instances: int, cores: str, redis_url: str | None, settings: Mapping[str, str] = NO_SETTINGS
    ) -> list[Process]:
        """Start instances of it, all on the same core or cores; `settings` go before its own environment."""
        kept = {key: value for key, value in os.environ.items() if key in {"PATH", "HOME", "LANG", "PYTHONPATH"}}
        started: list[Process] = []
        try:
            for _ in range(instances):
                port = free_port()
                environ = kept | self.peer.environment(self.dsn, self._secret, port)
                environ |= settings
                if redis_url is not None:
                    environ["REDIS_URL"] = redis_url
                started.append(Process(self.peer.command, environ, port, cores, self.log))
        except BaseException:
            for process in started:
                process.stop()
            raise
        return started

    def complaints(self) -> list[str]:
        """What it has logged, each line cut to what a person reads: nothing, if all went well."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return [_gist(line)[:LINE] for line in lines]

    def errors(self) -> list[str]:
        """Of these what is a bug: a client that goes at the wrong moment may cause a warning, and no more."""
        return [line for line in self.complaints() if line.startswith(("error", "critical", "Traceback"))]


def _gist(line: str) -> str:
    """Of a structured line what happened, before all that belongs to it."""
    try:
        fields = json.loads(line)
        return f"{fields.pop('level')} {fields.pop('event')} {fields}"
    except (ValueError, KeyError, AttributeError):
        return line
