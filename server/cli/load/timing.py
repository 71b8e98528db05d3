"""How long it takes from a move until each side is told of it, whatever of the two is known first. Pure."""

SIDES = 2
MOST = 5_000  # moves of which somebody waits to hear; those that nobody made, as a sale ends them, stay behind

Key = tuple[str, int]
"""An offer and its version."""


class _Timed:
    """When a move was asked for, 0 before that is known; when the sides heard, and how many have."""

    __slots__ = ("asked_at", "heard_at", "sides")

    def __init__(self) -> None:
        self.asked_at = 0.0
        self.heard_at: list[float] = []
        self.sides = 0


class Timing:
    """The moves of a table; each call gives the durations in seconds that are known by it."""

    def __init__(self) -> None:
        self._timed: dict[Key, _Timed] = {}

    def asked(self, key: Key, at: float) -> list[float]:
        """A move was acked that had been asked for, or was due, at this time."""
        timed = self._of(key)
        timed.asked_at = at
        return self._known(key, timed)

    def heard(self, key: Key, at: float) -> list[float]:
        """A side was told."""
        timed = self._of(key)
        timed.sides += 1
        timed.heard_at.append(at)
        return self._known(key, timed)

    def _of(self, key: Key) -> _Timed:
        if len(self._timed) > MOST:
            self._timed.clear()
        return self._timed.setdefault(key, _Timed())

    def _known(self, key: Key, timed: _Timed) -> list[float]:
        if not timed.asked_at:
            return []
        heard, timed.heard_at = timed.heard_at, []
        if timed.sides == SIDES:
            del self._timed[key]
        return [at - timed.asked_at for at in heard]
