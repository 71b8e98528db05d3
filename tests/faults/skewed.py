"""Parley on a machine whose clock is wrong: `python -m tests.faults.skewed <seconds>` serves as if it were later."""

from __future__ import annotations

import datetime
import sys
import time

import handlers  # noqa: F401  (declares the commands, before the command line is set up)
from server.cli.main import main

SKEWED = ("server", "handlers", "storage", "rules", "jwt")


def skew(seconds: float) -> None:
    """Let all modules of this server, and what reads its tokens, believe that it is so much later, or earlier."""
    real, moment, by = time.time, datetime.datetime, datetime.timedelta(seconds=seconds)

    class Skewed(moment):  # type: ignore[misc,valid-type]
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return moment.now(tz) + by

    time.time = lambda: real() + seconds
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in SKEWED and getattr(module, "datetime", None) is moment:
            module.datetime = Skewed  # type: ignore[attr-defined]


if __name__ == "__main__":
    skew(float(sys.argv[1]))
    sys.argv[1:] = ["serve"]
    main()
