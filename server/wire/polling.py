"""What waits for a client that polls, and the requests by which it takes that and sends its own."""

import asyncio
from collections.abc import Callable, Sequence

from server.wire.frames import encode_payload

NOOP = "6"
CLOSE = "1"


class Overlap(Exception):
    """A client polls, or posts, while it does so already."""


class Polling:
    """The half of a session that goes by HTTP requests: at most one GET and one POST at a time.

    `is_upgrading` has polls end at once, so that the client can go over. `taken` is called when nothing waits any more.
    """

    __slots__ = ("_is_posting", "_last", "_packets", "_poll", "_read", "backlog", "is_upgrading", "taken")

    def __init__(self, taken: Callable[[], None]) -> None:
        self.backlog = 0
        self._last: str | None = None
        self.is_upgrading = False
        self.taken = taken
        self._packets: list[str | bytes] = []
        self._poll: asyncio.Future[None] | None = None
        self._read: asyncio.Future[None] | None = None
        self._is_posting = False

    def give(self, packets: Sequence[str | bytes]) -> None:
        """Let Engine.IO packets wait for the next poll, binary messages as their bytes."""
        self._packets += packets
        # In base64 bytes are a third longer; of text we take the length in characters for what it is in bytes.
        self.backlog += sum(map(len, packets))
        self._wake()

    def end(self, *, cut: bool, last: str = CLOSE) -> None:
        """Nothing more is going to wait. What does is left for one more poll, unless the session is cut."""
        if cut:
            self.clear()
        self._last = last
        self._wake()
        self.go_on()

    def clear(self) -> list[str | bytes]:
        """All that waited."""
        packets, self._packets, self.backlog = self._packets, [], 0
        return packets

    def hand_over(self) -> list[str | bytes]:
        """All that waited, for the WebSocket that takes over; the poll that waits ends with nothing."""
        packets = self.clear()
        self.taken = _nothing  # what that poll takes says nothing of the WebSocket
        if self._poll is not None:
            self._packets = [NOOP]
            self._wake()
        return packets

    async def poll(self) -> bytes:
        """The payload of a poll. Raises `Overlap`."""
        if self._poll is not None:
            raise Overlap
        if self.is_upgrading and not self._packets:
            self._packets = [NOOP]
        if not self._packets and self._last is None:
            self._poll = asyncio.get_running_loop().create_future()
            try:
                await self._poll
            finally:
                self._poll = None
        packets = self.clear()
        if self._last is not None:
            packets.append(self._last)
        self.taken()
        return encode_payload(packets)

    def upgrade(self) -> None:
        """Have the poll that waits end, and those that come."""
        self.is_upgrading = True
        if self._poll is not None and not self._packets:
            self.give([NOOP])

    def begin_post(self) -> None:
        """A POST has come. Raises `Overlap`."""
        if self._is_posting:
            raise Overlap
        self._is_posting = True

    def end_post(self) -> None:
        """The POST is dealt with."""
        self._is_posting = False

    async def read(self) -> None:
        """Wait until `go_on`: the POST is not answered while its messages wait."""
        self._read = asyncio.get_running_loop().create_future()
        await self._read

    def go_on(self) -> None:
        """What had to wait has been dealt with."""
        if self._read is not None and not self._read.done():
            self._read.set_result(None)

    def _wake(self) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)


def _nothing() -> None:
    """For whom it makes no difference."""
