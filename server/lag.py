"""How late the event loop comes to what is due: what holds it up holds up everybody on the instance."""

import asyncio

from server.histogram import Histogram

LOOK_S = 0.1


class LoopLag:
    """Ten looks a second, each with how many seconds it came too late; a loop that stands has one look, a late one."""

    def __init__(self) -> None:
        self.histogram = Histogram()
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, in the running loop."""
        loop = asyncio.get_running_loop()
        self._due = loop.time() + LOOK_S
        self._timer = loop.call_at(self._due, self._look)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self.histogram.count(max(0.0, asyncio.get_running_loop().time() - self._due))
        self.start()
