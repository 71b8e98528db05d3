"""How many sessions an address may have, and how many may be opened a second. Pure: the time is given."""

from server.wire.refusals import Refusal


class Admission:
    """Counts sessions by address, and takes new ones at a rate. None for no bound."""

    def __init__(self, *, per_address: int | None, per_second: float | None, burst: int) -> None:
        self._per_address = per_address
        self._per_second = per_second
        self._burst = burst
        self._left = float(burst)
        self._at = 0.0
        self._open: dict[str, int] = {}

    def judge(self, address: str, now: float) -> None:
        """Let a session be opened. Raises `Refusal`, which says when to try again."""
        if self._per_address is not None and self._open.get(address, 0) >= self._per_address:
            raise Refusal(3, f"More than {self._per_address} connections from this address: close some.", 429)
        if self._per_second is not None:
            self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
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
