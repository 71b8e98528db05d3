"""How late the event loop comes to what is due: what holds it up holds up everybody on the instance."""

import asyncio

from server.histogram import Histogram

LOOK_S = 0.1


class LoopLag:
    """Ten looks a second, each with how many seconds it came too late.

    What a standstill let pass is counted as late as it would have come: or a minute of it were one late look among
    hundreds, which no percentile shows (Gil Tene's "coordinated omission").
    """

    def __init__(self) -> None:
        self.histogram = Histogram()
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, in the running loop."""
        self._look_at(asyncio.get_running_loop().time() + LOOK_S)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_at(self, due: float) -> None:
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._look)

    def _look(self) -> None:
        due, now = self._due, asyncio.get_running_loop().time()
        self.histogram.count(max(0.0, now - due))  # uvloop's timers may be a millisecond early
        while (due := due + LOOK_S) <= now:
            self.histogram.count(now - due)
        self._look_at(due)
