"""How many sessions an address may have, and how fast sessions are opened. Pure: the time is given."""

from typing import Protocol

from server.wire.refusals import Refusal


class Rate(Protocol):
    """A token bucket's measure: so many a second flow in, and so many wait in it at most."""

    @property
    def per_second(self) -> float: ...
    @property
    def burst(self) -> int: ...


class Admission:
    """Counts sessions by address, and lets new ones in at a rate; None for no bound."""

    def __init__(self, per_address: int | None, rate: Rate | None) -> None:
        self._per_address = per_address
        self._rate = rate
        self._left = 0.0 if rate is None else float(rate.burst)
        self._at: float | None = None
        self._open: dict[str, int] = {}

    def judge(self, address: str, now: float) -> None:
        """Let a session be opened. Raises `Refusal`, which says when to try again."""
        if self._per_address is not None and self._open.get(address, 0) >= self._per_address:
            raise Refusal(3, f"More than {self._per_address} connections from this address: close some.", 429)
        if self._rate is not None:
            elapsed = 0.0 if self._at is None else now - self._at
            self._left = min(self._rate.burst, self._left + elapsed * self._rate.per_second)
            self._at = now
            if self._left < 1:
                raise Refusal(3, "Too many connect at once: come back in a moment.", 503, retry_after_s=1)
            self._left -= 1

    def opened(self, address: str) -> None:
        """A session has been opened."""
        self._open[address] = self._open.get(address, 0) + 1

    def ended(self, address: str) -> None:
        """A session has ended."""
        left = self._open[address] - 1
        if left:
            self._open[address] = left
        else:
            del self._open[address]

    @property
    def addresses(self) -> int:
        """How many addresses have sessions."""
        return len(self._open)
