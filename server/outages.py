"""What fails again and again: said at once, then once a minute of each kind, and when it is over."""

import math
import time
from typing import Any

import structlog

from server.errors import ParleyError

AGAIN_S = 60.0

logger = structlog.get_logger("parley.outages")


class Outage:
    """The failures of one piece of work that is tried for ever, as lines of the log under the name `event`.

    `about` is on each line. Failures that are not `expected` are bugs. What is worked on every second fails 3,600 times
    in an hour's outage of PostgreSQL, and buries what else the log has to say.
    """

    def __init__(self, event: str, expected: tuple[type[Exception], ...] = (ParleyError,), **about: Any) -> None:
        self._event = event
        self._expected = expected
        self._about = about
        self._failures = 0
        self._is_told = False
        self._told_at: dict[str, float] = {}

    def failed(self, error: Exception) -> None:
        """Say so, unless the like was said within the last minute, be it of an outage that is over."""
        self._failures += 1
        now, kind = time.monotonic(), type(error).__name__
        if now < self._told_at.get(kind, -math.inf) + AGAIN_S:
            return
        self._told_at[kind], self._is_told = now, True
        if isinstance(error, self._expected):
            logger.warning(self._event, failures=self._failures, error=str(error) or kind, **self._about)
        else:
            logger.error(self._event, failures=self._failures, exc_info=error, **self._about)

    def over(self) -> None:
        """It has worked: say so where it was said to have failed."""
        if self._is_told:
            logger.info(f"{self._event}_no_more", failures=self._failures, **self._about)
        self._failures, self._is_told = 0, False
