"""What waits for a client that polls: handed over once, in order, and to one request at a time."""

from __future__ import annotations

import asyncio

import pytest

from server.wire.polling import Overlap, Polling


@pytest.fixture
def taken() -> list[str]:
    return []


@pytest.fixture
def polling(taken: list[str]) -> Polling:
    return Polling(lambda: taken.append("taken"))


async def waiting(polling: Polling) -> asyncio.Task[bytes]:
    """A poll for which there is nothing yet."""
    poll = asyncio.ensure_future(polling.poll())
    await asyncio.sleep(0)
    assert not poll.done()
    return poll


async def test_a_poll_takes_all_that_waits_in_order(polling: Polling, taken: list[str]) -> None:
    polling.give(["4a", b"\x01"])
    polling.give(["4b"])
    assert polling.backlog == 5
    assert await polling.poll() == b"4a\x1ebAQ==\x1e4b"
    assert polling.backlog == 0
    assert taken == ["taken"]


async def test_a_poll_that_waits_ends_with_what_comes(polling: Polling) -> None:
    poll = await waiting(polling)
    polling.give(["4a"])
    polling.give(["4b"])
    assert await poll == b"4a\x1e4b"


async def test_a_second_poll_is_refused_and_a_later_one_is_not(polling: Polling) -> None:
    poll = await waiting(polling)
    with pytest.raises(Overlap):
        await polling.poll()
    polling.give(["4a"])
    assert await poll == b"4a"
    polling.give(["4b"])
    assert await polling.poll() == b"4b"


async def test_a_poll_that_is_broken_off_takes_nothing(polling: Polling) -> None:
    poll = await waiting(polling)
    poll.cancel()
    await asyncio.gather(poll, return_exceptions=True)
    polling.give(["4a"])
    assert await polling.poll() == b"4a"


async def test_the_end_comes_behind_what_waited(polling: Polling) -> None:
    polling.give(["4a"])
    polling.end(cut=False)
    assert polling.backlog
    assert await polling.poll() == b"4a\x1e1"


async def test_what_waited_is_gone_with_a_cut(polling: Polling) -> None:
    poll = await waiting(polling)
    polling.give(["4a"])
    polling.end(cut=True)
    assert await poll == b"1"
    assert polling.backlog == 0


async def test_an_upgrade_ends_the_poll_and_those_that_come(polling: Polling) -> None:
    poll = await waiting(polling)
    polling.upgrade()
    assert await poll == b"6"
    assert await polling.poll() == b"6"
    polling.give(["4a"])
    assert await polling.poll() == b"4a"


async def test_what_waits_goes_to_the_websocket_and_not_to_the_poll(polling: Polling, taken: list[str]) -> None:
    poll = await waiting(polling)
    polling.give(["4a"])
    assert polling.hand_over() == ["4a"]
    assert await poll == b"6"
    assert polling.hand_over() == []
    assert taken == []  # how the WebSocket flows is no business of that poll any more


async def test_one_post_at_a_time(polling: Polling) -> None:
    polling.begin_post()
    with pytest.raises(Overlap):
        polling.begin_post()
    polling.end_post()
    polling.begin_post()


async def test_a_post_waits_until_it_may_go_on_or_all_is_over(polling: Polling) -> None:
    for go_on in (polling.go_on, lambda: polling.end(cut=False)):
        reading = asyncio.ensure_future(polling.read())
        await asyncio.sleep(0)
        assert not reading.done()
        go_on()
        await reading
        go_on()
