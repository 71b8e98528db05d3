"""What waits for a client that polls, and the requests by which it takes that and sends its own."""

import asyncio
from collections.abc import Awaitable, Callable

from server.wire.frames import SEPARATOR, decode_payload

NOOP = b"6"
CLOSE = b"1"
LINGER_S = 10.0  # that a client has to take what was said last


class Overlap(Exception):
    """A client polls, or posts, while it does so already."""


class Polling:
    """The half of a session that goes by HTTP requests: at most one GET and one POST at a time.

    `is_upgrading` has polls end at once, so that the client can go over. `taken` is called when a poll has taken all,
    or finds nothing: what waits then is at most the answer, in the connection of a slow client.
    """

    __slots__ = (
        "_connection",
        "_is_posting",
        "_last",
        "_payloads",
        "_poll",
        "_read",
        "_reading",
        "_waiting",
        "is_upgrading",
        "taken",
    )

    def __init__(self, taken: Callable[[], None]) -> None:
        self.is_upgrading = False
        self.taken = taken
        self._last: bytes | None = None
        self._payloads: list[bytes] = []
        self._waiting = 0
        self._poll: asyncio.Future[None] | None = None
        self._connection: asyncio.Transport | None = None  # of the poll that waits, or was answered last
        self._read: asyncio.Future[None] | None = None
        self._reading: asyncio.Timeout | None = None
        self._is_posting = False

    @property
    def backlog(self) -> int:
        """Bytes that wait in this process: for a poll, and in the answer to the last one."""
        return self._waiting + self._untaken

    @property
    def is_polled(self) -> bool:
        """Whether a poll waits."""
        return self._poll is not None

    @property
    def is_deserted(self) -> bool:
        """Whether the client whose poll waits has gone."""
        return self._poll is not None and self._connection is not None and self._connection.is_closing()

    def give(self, payload: bytes) -> None:
        """Let Engine.IO packets wait for the next poll, as they stand in a payload; after the end they go nowhere."""
        if self._last is None:
            self._payloads.append(payload)
            self._waiting += len(payload)
            self._wake()

    def end(self, *, cut: bool, last: bytes = CLOSE) -> None:
        """Nothing more is going to wait. What does is left for one more poll, unless the session is cut."""
        if cut:
            self._clear()
            if self._connection is not None and self._untaken:
                self._connection.abort()
        self._last = last
        self.taken = _nothing  # nor holds it whom that was of, who holds this
        self._wake()
        self.go_on()
        self._let_go()

    def hand_over(self) -> list[str | bytes]:
        """All packets that waited, for the WebSocket that takes over; the poll that waits ends with nothing."""
        payload = self._clear()
        self.taken = _nothing  # what that poll takes says nothing of the WebSocket
        if self._poll is not None:
            self._payloads = [NOOP]
            self._wake()
        self._let_go()
        return decode_payload(payload) if payload else []

    async def poll(self, connection: asyncio.Transport) -> bytes:
        """The payload of a poll that has come over a connection. Raises `Overlap`.

        That is also where the last answer is still on its way: whoever polls anew has not waited for it.
        """
        if self._poll is not None or self._untaken:
            raise Overlap
        self._connection = connection
        if self.is_upgrading and not self._payloads:
            self._payloads = [NOOP]
        if not self._payloads and self._last is None:
            self.taken()
            self._poll = asyncio.get_running_loop().create_future()
            try:
                await self._poll
            finally:
                self._poll = None
        if self._last is not None:
            self._payloads.append(self._last)
        asyncio.get_running_loop().call_soon(self._answered)  # by then the answer is in the connection
        payload = self._clear()
        self.taken()
        return payload

    def upgrade(self) -> None:
        """Have the poll that waits end, and those that come."""
        self.is_upgrading = True
        if self._poll is not None and not self._payloads:
            self.give(NOOP)

    def begin_post(self) -> None:
        """A POST has come. Raises `Overlap`."""
        if self._is_posting:
            raise Overlap
        self._is_posting = True
        self.look()  # its answer may go over that connection

    def end_post(self) -> None:
        """The POST is dealt with."""
        self._is_posting = False

    async def body(self, body: Awaitable[bytes]) -> bytes:
        """The body of a POST. Raises TimeoutError where all is over before it has come."""
        async with asyncio.timeout(None) as self._reading:
            try:
                return await body
            finally:
                self._reading = None

    async def read(self) -> None:
        """Wait until `go_on`: the POST is not answered while its messages wait."""
        self._read = asyncio.get_running_loop().create_future()
        await self._read

    def go_on(self) -> None:
        """What had to wait has been dealt with."""
        if self._read is not None and not self._read.done():
            self._read.set_result(None)

    def look(self) -> None:
        """Forget the connection of the last answer when that has been taken: others may be served over it."""
        if self._poll is None and not self._untaken:
            self._connection = None

    @property
    def _untaken(self) -> int:
        """Bytes of the last answer that its client has not taken."""
        return 0 if self._connection is None else self._connection.get_write_buffer_size()

    def _clear(self) -> bytes:
        """All that waited."""
        payloads, self._payloads, self._waiting = self._payloads, [], 0
        return SEPARATOR.encode().join(payloads)

    def _let_go(self) -> None:
        """Break off a POST that is still on its way, and wait for the last answer to be taken, but not for ever."""
        if self._reading is not None:
            self._reading.reschedule(asyncio.get_running_loop().time())
        self._linger()

    def _answered(self) -> None:
        self.look()
        if self._last is not None:
            self._linger()

    def _linger(self) -> None:
        if self._connection is not None and self._untaken:
            asyncio.get_running_loop().call_later(LINGER_S, _cut, self._connection)

    def _wake(self) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)


def _cut(connection: asyncio.Transport) -> None:
    """Cut it where something waits in it still."""
    if connection.get_write_buffer_size():
        connection.abort()


def _nothing() -> None:
    """For whom it makes no difference."""
