"""Whether a client for which something waits takes any of it. Pure: the time is given."""


class Stall:
    """A client for which something waits: how much of it the client has taken since, and when it last took anything."""

    __slots__ = ("_given", "_taken", "moved_at")

    def __init__(self, backlog: int, now: float) -> None:
        self._given = backlog
        self._taken = 0
        self.moved_at = now

    def give(self, size: int) -> None:
        """So much more waits."""
        self._given += size

    def look(self, backlog: int, now: float) -> None:
        """So much waits now."""
        taken = self._given - backlog
        if taken > self._taken:
            self._taken, self.moved_at = taken, now
