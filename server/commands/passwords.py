"""Passwords.

Argon2id with the library's current profile (RFC 9106, low memory), in threads, two at once at the most.
"""

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from server.errors import Unavailable

AT_ONCE = 2  # each takes 64 MiB and tens of milliseconds
WAITING = 64  # some seconds of them; who comes on top is better off trying again


@functools.cache
def _hasher() -> tuple[PasswordHasher, str]:
    """The hasher, and a hash of its making that no password fits; made once, for it takes its time."""
    hasher = PasswordHasher()
    return hasher, hasher.hash("nobody's password")


class Passwords:
    """Hashes and verifies without holding up the loop."""

    def __init__(self) -> None:
        self._hasher, self._nobody = _hasher()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """The hash to store. Raises `Unavailable` where too many wait."""
        async with self._turn():
            return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether the password fits; as long a look for a person who does not exist (None) as for one who does.

        Raises `Unavailable` where too many wait.
        """
        async with self._turn():
            fits = await asyncio.to_thread(self._verify, stored or self._nobody, password)
        return fits and stored is not None

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._waiting >= WAITING:
            raise Unavailable("Too many people sign in at once: try again in a few seconds.")
        self._waiting += 1
        try:
            async with self._turns:
                yield
        finally:
            self._waiting -= 1

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False
