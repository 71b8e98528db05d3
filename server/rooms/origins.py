"""Which of the instances heard on the bus live now: those who say what only somebody who hears this one could say.

Every second an instance greets the others: it says whom it has heard, and up to which of their frames. Who names a
frame that was made here a moment ago has heard it since, and lives: what it says behind that greeting is of after that
frame, and is believed until that frame is `FRESH_S` old. So nothing is believed that is older. A record of frames, of
an instance that is gone or of one's own absence, names nothing of now; what is played again in the meantime is known
by its number. Neither clocks in step nor the database are needed.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping

FRESH_S = 10.0  # ten greetings: a loop that is held up for less disbelieves nobody
ORIGINS = 1_000  # remembered at once; who comes on top is not believed, and left to the log


class _Origin:
    __slots__ = ("fresh_until", "heard_at", "number")

    def __init__(self) -> None:
        self.number = 0
        self.heard_at = 0.0
        self.fresh_until = 0.0


class Origins:
    """The others, as the instance `own` hears them. `clock` is of seconds, and never goes back."""

    def __init__(self, own: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._own = own
        self._clock = clock
        self._greetings: deque[tuple[int, float]] = deque()
        self._origins: dict[bytes, _Origin] = {}

    def is_believed(self, origin: bytes) -> bool:
        """Whether what it says now is of the last `FRESH_S`."""
        known = self._origins.get(origin)
        return known is not None and self._clock() < known.fresh_until

    def greeted(self, number: int) -> None:
        """This instance is about to greet the others by its frame of that number."""
        now = self._clock()
        self._greetings.append((number, now))
        while self._greetings[0][1] <= now - FRESH_S:
            self._greetings.popleft()

    def heard(self) -> dict[bytes, int]:
        """Who was heard in the last `FRESH_S`, believed or not, and up to which number; the others are forgotten."""
        now = self._clock()
        for origin in [one for one, known in self._origins.items() if now >= known.heard_at + FRESH_S]:
            del self._origins[origin]
        return {origin: known.number for origin, known in self._origins.items()}

    def hear(self, origin: bytes, number: int, greeting: Mapping[bytes, int] | None) -> None:
        """Note a frame, and what it greets by. Raises ValueError where it is played again, or one origin too many."""
        known = self._origins.get(origin)
        if known is None:
            if len(self._origins) >= ORIGINS:
                raise ValueError("too many origins")
            known = self._origins[origin] = _Origin()
        if number <= known.number:
            raise ValueError("a frame that is played again")
        known.number = number
        known.heard_at = self._clock()
        if greeting is not None:
            known.fresh_until = max(known.fresh_until, self._made_at(greeting.get(self._own, 0)) + FRESH_S)

    def _made_at(self, number: int) -> float:
        """When the own frame of that number was made, or shortly before; long ago where that is not known any more."""
        return next((at for greeted, at in reversed(self._greetings) if greeted <= number), -FRESH_S)
