"""Which of the instances heard on the bus live now: those who say what only somebody who hears this one could say.

Every second an instance greets the others: it says whom it has heard, and up to which of their frames. Who names a
frame that was made here a moment ago has heard it since, and lives: what it says behind that greeting is of after that
frame, and is believed until that frame is `FRESH_S` old. So nothing is believed that is older. A record of frames, of
an instance that is gone or of one's own absence, names nothing of now; what is played again in the meantime is known
by its number. Neither clocks in step nor the database are needed.

Whom nobody believes yet is named too, or two who have just come would never begin; but once for what was heard of it,
and of many the latest, so that records of the dead make no greeting long.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

FRESH_S = 10.0  # ten greetings: a loop that is held up for less disbelieves nobody
ORIGINS = 1_000  # remembered at once; for who comes on top one goes who is not believed, and is left to the log
NAMED = 100  # in a greeting, of those who are not believed
GREET_AGAIN_S = 1.0  # between two greetings for the sake of one origin


class _Origin:
    __slots__ = ("fresh_until", "greet_at", "heard_at", "is_news", "number")

    def __init__(self) -> None:
        self.number = 0
        self.heard_at = 0.0
        self.fresh_until = 0.0
        self.greet_at = 0.0
        self.is_news = False


class Origins:
    """The others, as the instance `own` hears them. `clock` is of seconds, and never goes back."""

    def __init__(self, own: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._own = own
        self._clock = clock
        self._greetings: deque[tuple[int, float]] = deque()
        self._origins: OrderedDict[bytes, _Origin] = OrderedDict()  # who was heard longest ago comes first

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
        """Whom the next greeting names, and up to which number each was heard.

        All who are believed, and the latest `NAMED` of the others who were heard since the last call. Who was not heard
        for `FRESH_S` is forgotten.
        """
        now = self._clock()
        for origin in [one for one, known in self._origins.items() if now >= known.heard_at + FRESH_S]:
            del self._origins[origin]
        believed = [one for one, known in self._origins.items() if now < known.fresh_until]
        news = [one for one, known in self._origins.items() if known.is_news and now >= known.fresh_until]
        for known in self._origins.values():
            known.is_news = False
        return {origin: self._origins[origin].number for origin in believed + news[-NAMED:]}

    def hear(self, origin: bytes, number: int, greeting: Mapping[bytes, int] | None) -> bool:
        """Note a frame, and what it greets by; whether its origin is to be greeted soon, not having been believed.

        Raises ValueError where it is played again, or of one more than can be remembered, all of them believed.
        """
        now = self._clock()
        known = self._origins.get(origin)
        if known is None:
            if len(self._origins) >= ORIGINS:
                self._forget_one(now)
            known = self._origins[origin] = _Origin()
        if number <= known.number:
            raise ValueError("a frame that is played again")
        was_believed = now < known.fresh_until
        known.number = number
        known.heard_at = now
        known.is_news = True
        self._origins.move_to_end(origin)
        if greeting is not None:
            known.fresh_until = max(known.fresh_until, self._made_at(greeting.get(self._own, 0)) + FRESH_S)
        if was_believed or now < known.greet_at:
            return False
        known.greet_at = now + GREET_AGAIN_S
        return True

    def _forget_one(self, now: float) -> None:
        """Forget the one heard longest ago of those who are not believed. Raises ValueError where there is none."""
        stranger = next((one for one, known in self._origins.items() if now >= known.fresh_until), None)
        if stranger is None:
            raise ValueError("too many origins")
        del self._origins[stranger]

    def _made_at(self, number: int) -> float:
        """When the own frame of that number was made, or shortly before; long ago where that is not known any more."""
        return next((at for greeted, at in reversed(self._greetings) if greeted <= number), -FRESH_S)
