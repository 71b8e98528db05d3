"""Parley alone on a database of its own, for what is measured without a peer."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.crowds import Crowd
from bench.machine import Cores
from bench.peers import PARLEY, Site
from bench.services import Postgres, Process


@dataclass(frozen=True, slots=True)
class Alone:
    """A database with a crowd in it, and what a server is started with."""

    postgres: Postgres
    site: Site
    cores: Cores
    secret: str
    _stack: ExitStack

    @property
    def dsn(self) -> str:
        """The database's address."""
        return self.site.dsn

    def serve(self) -> Process:
        """A server on it until the measuring is over; what was written before goes to the disk first."""
        self.postgres.checkpoint()
        (server,) = self.site.start(1, self.cores.server, None)
        self._stack.callback(server.stop)
        return server


@contextmanager
def alone(crowd: Crowd, cores: Cores) -> Iterator[Alone]:
    """A PostgreSQL with the crowd in Parley's schema, which is gone afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True)))
        folder.chmod(0o711)
        postgres = Postgres(folder, cores.rest)
        stack.callback(postgres.stop)
        secret = secrets.token_hex(32)
        yield Alone(postgres, Site(PARLEY, postgres, [crowd], secret, folder), cores, secret, stack)
