"""Passwords.

Argon2id with the library's current profile (RFC 9106, low memory), in threads, two at once at the most. Whoever has to
wait does so in a line of their address, one for passwords to be looked at and one for those to be hashed, and the lines
take turns: many who register from one address hold up nobody else, and not those who sign in from there.
"""

import asyncio
import functools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from server.errors import RateLimited, Unavailable

AT_ONCE = 2  # each takes 64 MiB and tens of milliseconds
WAITING = 128  # of each kind: some seconds of them; who comes on top is better off trying again
WAITING_OF_ONE = 64  # of each kind, from one address
AGAIN_MS = 1_000  # when an address whose line is full may try again


@functools.cache
def _hasher() -> tuple[PasswordHasher, str]:
    """The hasher, and a hash of its making that no password fits; made once, for it takes its time."""
    hasher = PasswordHasher()
    return hasher, hasher.hash("nobody's password")


class _Line(NamedTuple):
    kind: str
    address: str


class Passwords:
    """Hashes and verifies without holding up the loop.

    `address` is where the call comes from, as the limits count it.
    """

    def __init__(self) -> None:
        self._hasher, self._nobody = _hasher()
        self._free = AT_ONCE
        self._lines: dict[_Line, deque[asyncio.Future[None]]] = {}  # the first is the next to have a turn

    async def hash(self, password: str, address: str) -> str:
        """The hash to store. Raises `RateLimited` where too many wait of this address, `Unavailable` of all."""
        async with self._turn(_Line("hash", address)):
            return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, stored: str | None, password: str, address: str) -> bool:
        """Whether the password fits; as long a look for a person who does not exist (None) as for one who does.

        Raises `RateLimited` where too many wait of this address, `Unavailable` of all.
        """
        async with self._turn(_Line("match", address)):
            fits = await asyncio.to_thread(self._verify, stored or self._nobody, password)
        return fits and stored is not None

    @asynccontextmanager
    async def _turn(self, line: _Line) -> AsyncIterator[None]:
        if self._free:
            self._free -= 1
        else:
            await self._wait(line)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, line: _Line) -> None:
        if len(self._lines.get(line, ())) >= WAITING_OF_ONE:
            raise RateLimited(AGAIN_MS)
        if sum(len(waiting) for other, waiting in self._lines.items() if other.kind == line.kind) >= WAITING:
            raise Unavailable("Too many people sign in at once: try again in a few seconds.")
        turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(line, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had just been given
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Give a turn that has ended to the first of the next line, which goes behind all the others."""
        while self._lines:
            line = next(iter(self._lines))
            waiting = self._lines.pop(line)
            turn = waiting.popleft()
            if waiting:
                self._lines[line] = waiting
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False
