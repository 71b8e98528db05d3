"""What all the people of one worker share: its figures, its checks, and whether the play is on."""

import asyncio
import random
import secrets
from time import perf_counter

from server.cli.load.deals import Deals
from server.cli.load.faults import Faults
from server.cli.load.ledger import Ledger
from server.cli.load.measure import Span
from server.cli.load.options import Options


class Stage:
    """`is_on` from the first send to the last, which sets `ended`; `is_over` when sockets may go.

    `spans` are the seconds of the play, `after` is what came behind them; `span` is the one it is now.
    """

    def __init__(self, options: Options, worker: int, sends: int) -> None:
        self.options = options
        self.is_on = False
        self.is_over = False
        self.ended = asyncio.Event()
        self.faults = Faults()
        self.ledger = Ledger(self.faults)
        self.deals = Deals(self.faults)
        self.spans: dict[int, Span] = {}
        self.after = Span()
        self.span = self.after
        self.random = random.Random(worker)
        # By it a message is known among all that were ever sent: its client_id is this and its number.
        self.prefix = f"{secrets.token_hex(4)}-{worker}-"
        self.mark = f'"client_id":"{self.prefix}'.encode()
        self.reconnects = 0
        self.tried = 0
        self._filling = " " + "What would you take for it? " * (options.text // 28 + 1)
        self.ran_s = 0.0
        self._left = sends
        self._number = 0
        self._began = perf_counter()

    def begin(self) -> None:
        """The play begins now."""
        self._began = perf_counter()
        self.is_on = True
        self.turn_second()

    def end(self) -> None:
        """The play ends: nothing more is begun."""
        if self.is_on:
            self.is_on = False
            self.ended.set()
            self.span = self.after
            self.ran_s = perf_counter() - self._began

    def turn_second(self) -> None:
        """Count into the second it is, while the play is on."""
        if self.is_on:
            self.span = self.spans.setdefault(int(perf_counter() - self._began), Span())

    def span_of(self, second: int) -> Span:
        """What was counted in a second of the play."""
        return self.spans.get(second, Span())

    def text_of(self, number: int) -> str:
        """What a message says: no two say the same, where that much was asked for."""
        return f"{number}{self._filling}"[: self.options.text]

    def number(self) -> int:
        """A number that nothing else of this worker has."""
        self._number += 1
        return self._number

    def spend(self) -> bool:
        """Whether one more may be sent; the last one ends the play."""
        if not self.is_on:
            return False
        self._left -= 1
        if self._left <= 0:
            self.end()
        return self._left >= 0
