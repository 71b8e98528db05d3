"""When to ask each session whether it is there, and when to give it up. Pure: the time is given.

Sessions are kept by the tick in which they are due: one timer serves them all, and a look costs only what is due.
"""

from typing import Generic, Protocol, TypeVar

TICKS = 64  # of an interval or a time-out, whichever is shorter: how exactly it is kept
SHORTEST_S, LONGEST_S = 0.005, 0.25  # of a tick


class Beating(Protocol):
    """What has a heartbeat. `due` and `is_asked` are for the heartbeat to keep."""

    due: int
    is_asked: bool


S = TypeVar("S", bound=Beating)


class Heartbeat(Generic[S]):
    """The hearts of all sessions. Times are in seconds, of any one clock."""

    def __init__(self, interval_s: float, timeout_s: float) -> None:
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self.tick_s = min(LONGEST_S, max(SHORTEST_S, min(interval_s, timeout_s) / TICKS))
        self._due: dict[int, set[S]] = {}

    def next_at(self, now: float) -> float:
        """When to look again: later than now."""
        at = (int(now / self.tick_s) + 1) * self.tick_s
        return at if at > now else at + self.tick_s  # where the quotient was rounded down

    def add(self, session: S, now: float) -> None:
        """Ask it an interval from now."""
        session.is_asked = False
        self._schedule(session, now + self._interval_s)

    def answered(self, session: S, now: float) -> None:
        """It is there: ask again an interval from now. An answer that nobody asked for changes nothing."""
        if session.is_asked:
            self.remove(session)
            self.add(session, now)

    def remove(self, session: S) -> None:
        """It has ended."""
        due = self._due.get(session.due)
        if due is not None:
            due.discard(session)

    def advance(self, now: float) -> tuple[list[S], list[S]]:
        """Those to be asked now, which have a time-out's time to answer, and those that have not answered in theirs."""
        to_ask: list[S] = []
        dead: list[S] = []
        until = int(now / self.tick_s)
        for tick in sorted(tick for tick in self._due if tick <= until):
            for session in self._due.pop(tick):
                (dead if session.is_asked else to_ask).append(session)
        for session in to_ask:
            session.is_asked = True
            self._schedule(session, now + self._timeout_s)
        return to_ask, dead

    def _schedule(self, session: S, at: float) -> None:
        session.due = int(at / self.tick_s) - 1  # a little early rather than late: both ends count on it
        self._due.setdefault(session.due, set()).add(session)
