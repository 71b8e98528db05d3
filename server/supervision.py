"""A server that this one starts for itself: it ends with the thread that started it, and comes back when it ends."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from server.datafolder import DataFolderError

WATCH_S = 0.1
RETRY_S = 2.0
AGAIN_S = 60.0  # between two lines of why it does not start


class Supervised(ABC):
    """A process that is to be there until it is stopped. `name` is how the log calls it."""

    name: str

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = True

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self._process.pid if self._process is not None and self.running() else None

    def running(self) -> bool:
        """Whether the process is there (it may be starting up, or recovering)."""
        return self._process is not None and self._process.poll() is None

    async def supervise(self) -> None:
        """Start it again whenever it ends by itself, until it is stopped. Await it on the main thread."""
        begun, told_at = None, -AGAIN_S
        while not self._stopped:
            await asyncio.sleep(WATCH_S)
            if self._stopped or self._process is None or self.running():
                continue
            if begun is None:
                self._log.error("%s ended by itself (%s): starting it again", self.name, how(self._process.returncode))
                begun = time.monotonic()
            try:
                # The fork happens here in the coroutine, not in an executor: it must be the main thread's child.
                for pause in self._launching():
                    await asyncio.sleep(pause)
            except (DataFolderError, OSError, subprocess.SubprocessError) as error:  # of the folder, or of the fork
                if time.monotonic() >= told_at + AGAIN_S:  # as a full disk lasts, and each has much to say
                    self._log.error("%s", error)
                    told_at = time.monotonic()
                await asyncio.sleep(RETRY_S)
            else:
                self._log.warning("%s answers again after %d ms", self.name, (time.monotonic() - begun) * 1000)
                begun, told_at = None, -AGAIN_S

    @abstractmethod
    def _launching(self) -> Iterator[float]:
        """Start the process, yielding the pauses (seconds) to be made until it answers.

        Nothing blocks but the end of one that never answers.
        """

    def _see_to_its_thread(self) -> None:
        """Raise RuntimeError anywhere but on the main thread, with which the process ends."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"{self.name} ends with the thread that starts it: start it from the main thread")

    def _spawn(self, command: Sequence[str], log_file: Path, identity: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        """A process that logs into this file; `identity` says whose it is, and with whom it ends."""
        with log_file.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for the server, which stops this last
                **identity,
            )


def how(returncode: int | None) -> str:
    """How a process has ended, in words; None where it has not, and did not answer."""
    if returncode is None:
        return "it did not answer"
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
