"""Parley on a machine whose clock is wrong: `python -m tests.faults.skewed <seconds>` serves as if it were later.

Its tokens go by the right time: it has signed none of those that the tests hold.
"""

from __future__ import annotations

import datetime
import sys
import time

import handlers  # noqa: F401  (declares the commands, before the command line is set up)
from server.cli.main import main

OURS = ("server", "handlers", "storage", "rules")


def skew(seconds: float) -> None:
    """Let all modules of this server believe that it is so much later, or earlier."""
    real, moment, by = time.time, datetime.datetime, datetime.timedelta(seconds=seconds)

    class Skewed(moment):  # type: ignore[misc,valid-type]
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return moment.now(tz) + by

    time.time = lambda: real() + seconds
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in OURS and getattr(module, "datetime", None) is moment:
            module.datetime = Skewed  # type: ignore[attr-defined]


if __name__ == "__main__":
    skew(float(sys.argv[1]))
    sys.argv[1:] = ["serve"]
    main()
