"""Who waits for a password to be hashed, and for how long: lines of their own, which take turns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from server.commands import passwords as module
from server.commands.passwords import AT_ONCE, Passwords
from server.errors import RateLimited, Unavailable
from tests.people import PATIENCE_S


class Hasher:
    """Takes as long as the test has it take, and notes in which order."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.done: list[str] = []

    def hash(self, password: str) -> str:
        assert self.may_end.wait(PATIENCE_S)
        self.done.append(password)
        return password

    def verify(self, stored: str, password: str) -> bool:
        self.hash(password)
        return True


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    hasher = Hasher()
    yield hasher
    hasher.may_end.set()


@pytest.fixture
async def passwords(hasher: Hasher, monkeypatch: pytest.MonkeyPatch) -> Passwords:
    """One at a time, so that the order is one."""
    monkeypatch.setattr(module, "AT_ONCE", 1)
    monkeypatch.setattr(module, "WAITING", 5)
    monkeypatch.setattr(module, "WAITING_OF_ONE", 3)
    passwords = Passwords()
    monkeypatch.setattr(passwords, "_hasher", hasher)
    return passwords


async def waiting(*calls: tuple[str, str], passwords: Passwords) -> list[asyncio.Task[str]]:
    """Calls of hash, each by its password and address, all of which have begun."""
    tasks = [asyncio.create_task(passwords.hash(*call)) for call in calls]
    await asyncio.sleep(0)
    return tasks


def test_two_at_once_take_two_places() -> None:
    assert AT_ONCE == 2


async def test_the_lines_of_addresses_take_turns(passwords: Passwords, hasher: Hasher) -> None:
    tasks = await waiting(
        *[("first", "x"), ("x1", "x"), ("x2", "x"), ("x3", "x"), ("y1", "y"), ("y2", "y")], passwords=passwords
    )
    looking = asyncio.create_task(passwords.matches("stored", "x looks", "x"))
    await asyncio.sleep(0)
    hasher.may_end.set()
    await asyncio.gather(*tasks, looking)
    assert hasher.done == ["first", "x1", "y1", "x looks", "x2", "y2", "x3"]
    assert not passwords._lines
    assert await passwords.hash("again", "x") == "again"


async def test_one_address_does_not_fill_what_is_there_for_all(passwords: Passwords, hasher: Hasher) -> None:
    tasks = await waiting(*[("x", "x")] * 4, passwords=passwords)
    with pytest.raises(RateLimited):
        await passwords.hash("x", "x")
    tasks += await waiting(("y", "y"), ("y", "y"), passwords=passwords)
    with pytest.raises(Unavailable):
        await passwords.hash("z", "z")
    looking = asyncio.create_task(passwords.matches(None, "z looks", "z"))  # which is another kind
    await asyncio.sleep(0)
    assert not looking.done()
    hasher.may_end.set()
    assert not await looking
    await asyncio.gather(*tasks)


async def test_who_goes_away_while_waiting_leaves_no_gap(passwords: Passwords, hasher: Hasher) -> None:
    first, gone, last = await waiting(("first", "x"), ("gone", "x"), ("last", "x"), passwords=passwords)
    gone.cancel()
    await asyncio.sleep(0)
    hasher.may_end.set()
    await asyncio.gather(first, last)
    assert hasher.done == ["first", "last"]
    assert await passwords.hash("again", "x") == "again"


async def test_a_turn_that_is_given_to_who_has_just_gone_goes_on(passwords: Passwords, hasher: Hasher) -> None:
    first, gone, last = await waiting(("first", "x"), ("gone", "y"), ("last", "z"), passwords=passwords)
    passwords._pass_on()  # the turn is gone's, who has not run yet
    gone.cancel()
    hasher.may_end.set()
    await asyncio.gather(first, last)
    assert "gone" not in hasher.done
