"""Parley with an eye on itself: `python -m tests.wire.watched <file>`.

At SIGUSR1 it writes to that file, as JSON: sessions, connections, tasks, descriptors and resident bytes as they are
now, the loop's lag since the last time (how late a timer of 5 ms came: p50, p99 and most), and how many errors were
logged.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

from server.app import Parley
from server.cli.main import main

EVERY_S = 0.005
PAGE_BYTES = 4096


class Watch(logging.Handler):
    """Counts errors, and measures how late the loop is."""

    def __init__(self, parley: Parley, file: Path) -> None:
        super().__init__(logging.ERROR)
        self.errors = 0
        self._parley = parley
        self._file = file
        self._lags: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + EVERY_S
        self._loop.call_at(self._due, self._tick)

    def emit(self, record: logging.LogRecord) -> None:
        self.errors += 1

    def _tick(self) -> None:
        now = self._loop.time()
        self._lags.append(now - self._due)
        while (due := self._due + EVERY_S) <= now:  # what a standing loop let pass
            self._due = due
            self._lags.append(now - due)
        self._due = due
        self._loop.call_at(due, self._tick)

    def tell(self) -> None:
        """Write what there is, and begin to measure anew."""
        lags, self._lags = sorted(self._lags) or [0.0], []
        wire = self._parley.wire
        figures = {
            "sessions": wire.sessions,
            "connections": len(wire),
            "watched": len(self._parley.delivery.sockets()),
            "tasks": len(asyncio.all_tasks()),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "rss": int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES,
            "lag_p50_ms": lags[len(lags) // 2] * 1e3,
            "lag_p99_ms": lags[len(lags) * 99 // 100] * 1e3,
            "lag_most_ms": lags[-1] * 1e3,
            "samples": len(lags),
            "errors": self.errors,
        }
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(figures))
        new.rename(self._file)


def watch(file: Path) -> None:
    """Have every instance of this process watched."""
    start = Parley.start

    async def started(self: Parley) -> int:
        port = await start(self)
        eye = Watch(self, file)
        logging.getLogger().addHandler(eye)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, eye.tell)
        return port

    Parley.start = started  # type: ignore[method-assign]


if __name__ == "__main__":
    watch(Path(sys.argv.pop(1)))
    sys.argv.append("serve")
    main()
