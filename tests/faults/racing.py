"""Parley with its clock at work all the time, so that it takes part in every race: `python -m tests.faults.racing`.

`python -m tests.faults.racing without_locks` takes the row locks of the market out of its queries, to show what a
checker would notice.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import aiosql

EVERY_S = 0.05
LOCKED = ("listings", "negotiations", "offers")
LOCK = re.compile(r"\s+for (no key update|update|key share|share)( of \w+)?( skip locked)?(?=\s*[;)])")
TURN = re.compile(r"pg_advisory_xact_lock(?:_shared)?\(([^;]*?)\) as turn")  # which would keep the order all the same


def without_locks() -> None:
    """Let the queries of the market read rows as they are, without holding any. They must not be loaded yet."""
    assert "storage" not in sys.modules, "the queries have been loaded with their locks: start afresh"
    from_path = aiosql.from_path

    def from_unlocked(path: Path, *arguments: Any, **more: Any) -> Any:
        if path.stem not in LOCKED:
            return from_path(path, *arguments, **more)
        text, taken_out = LOCK.subn("", TURN.sub(r"\1 as turn", path.read_text()))
        assert taken_out, f"{path.name} takes no locks"
        return aiosql.from_str(text, *arguments, **more)

    aiosql.from_path = from_unlocked  # type: ignore[assignment]


if __name__ == "__main__":
    if sys.argv[1:] == ["without_locks"]:
        without_locks()
    import handlers  # noqa: F401  (declares the commands, before the command line is set up)
    from server import jobs
    from server.cli.main import main

    jobs.CLOCK_EVERY_S = EVERY_S
    sys.argv[1:] = ["serve"]
    main()
