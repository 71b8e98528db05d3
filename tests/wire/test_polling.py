"""What waits for a client that polls: handed over once, in order, and to one request at a time."""

from __future__ import annotations

import asyncio

import pytest

from server.wire import polling as pollings
from server.wire.polling import Overlap, Polling


class Connection(asyncio.Transport):
    """What a poll comes over, of whose answer so much has not been taken."""

    def __init__(self) -> None:
        self.untaken = 0
        self.is_cut = False

    def get_write_buffer_size(self) -> int:
        return self.untaken

    def is_closing(self) -> bool:
        return self.is_cut

    def abort(self) -> None:
        self.is_cut = True
        self.untaken = 0


@pytest.fixture
def taken() -> list[str]:
    return []


@pytest.fixture
def polling(taken: list[str]) -> Polling:
    return Polling(lambda: taken.append("taken"))


@pytest.fixture
def connection() -> Connection:
    return Connection()


async def waiting(polling: Polling, connection: Connection) -> asyncio.Task[bytes]:
    """A poll for which there is nothing yet."""
    poll = asyncio.ensure_future(polling.poll(connection))
    await asyncio.sleep(0)
    assert not poll.done()
    return poll


async def untaken(polling: Polling, connection: Connection) -> None:
    """Have a poll answered, of which the client reads nothing."""
    polling.give(b"4a")
    await polling.poll(connection)
    connection.untaken = 1_000
    await asyncio.sleep(0)


async def test_a_poll_takes_all_that_waits_in_order(polling: Polling, connection: Connection, taken: list[str]) -> None:
    polling.give(b"4a\x1ebAQ==")
    polling.give("4é".encode())
    assert polling.backlog == 11
    assert await polling.poll(connection) == "4a\x1ebAQ==\x1e4é".encode()
    assert polling.backlog == 0
    assert taken == ["taken"]


async def test_a_poll_that_waits_ends_with_what_comes(polling: Polling, connection: Connection) -> None:
    poll = await waiting(polling, connection)
    polling.give(b"4a")
    polling.give(b"4b")
    assert await poll == b"4a\x1e4b"


async def test_a_second_poll_is_refused_and_a_later_one_is_not(polling: Polling, connection: Connection) -> None:
    poll = await waiting(polling, connection)
    with pytest.raises(Overlap):
        await polling.poll(connection)
    polling.give(b"4a")
    assert await poll == b"4a"
    polling.give(b"4b")
    assert await polling.poll(connection) == b"4b"


async def test_a_poll_that_is_broken_off_takes_nothing(polling: Polling, connection: Connection) -> None:
    poll = await waiting(polling, connection)
    poll.cancel()
    await asyncio.gather(poll, return_exceptions=True)
    polling.give(b"4a")
    assert await polling.poll(connection) == b"4a"


async def test_a_poll_whose_client_has_gone_is_deserted(polling: Polling, connection: Connection) -> None:
    assert not polling.is_deserted
    poll = await waiting(polling, connection)
    assert not polling.is_deserted
    connection.abort()
    assert polling.is_deserted
    polling.give(b"4a")
    await poll
    assert not polling.is_deserted


async def test_an_answer_waits_until_it_is_taken_and_no_other_is_given_meanwhile(
    polling: Polling, connection: Connection, taken: list[str]
) -> None:
    await untaken(polling, connection)
    polling.give(b"4b")
    assert polling.backlog == 1_002
    with pytest.raises(Overlap):
        await polling.poll(Connection())
    connection.untaken = 0
    assert polling.backlog == 2
    assert await polling.poll(Connection()) == b"4b"
    polling.give(b"4c")
    await untaken(polling, connection)
    connection.untaken = 0
    await waiting(polling, connection)
    assert taken == ["taken"] * 4  # the last when there was nothing for a poll, and the one before is taken


@pytest.mark.parametrize("look", [Polling.look, Polling.begin_post])
async def test_what_else_goes_over_a_connection_is_no_answer_of_a_poll(
    polling: Polling, connection: Connection, look: object
) -> None:
    await untaken(polling, connection)
    connection.untaken = 0
    look(polling)  # type: ignore[operator]
    connection.untaken = 500
    assert polling.backlog == 0


async def test_the_end_comes_behind_what_waited(polling: Polling, connection: Connection) -> None:
    polling.give(b"4a")
    polling.end(cut=False)
    assert polling.backlog
    assert await polling.poll(connection) == b"4a\x1e1"


async def test_what_waited_is_gone_with_a_cut_and_nothing_comes_behind_it(
    polling: Polling, connection: Connection
) -> None:
    poll = await waiting(polling, connection)
    polling.give(b"4a")
    polling.end(cut=True)
    polling.give(b"4b")
    assert await poll == b"1"
    assert polling.backlog == 0
    assert not connection.is_cut


async def test_a_cut_cuts_an_answer_that_is_not_taken(polling: Polling, connection: Connection) -> None:
    await untaken(polling, connection)
    polling.end(cut=True)
    assert connection.is_cut


@pytest.mark.parametrize("way", ["the end", "a poll behind the end", "going over"])
async def test_the_last_answer_is_cut_where_it_is_not_taken_in_time(
    polling: Polling, connection: Connection, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(pollings, "LINGER_S", 0.0)
    if way == "a poll behind the end":
        polling.end(cut=False)
        await untaken(polling, connection)
    else:
        await untaken(polling, connection)
        if way == "the end":
            polling.end(cut=False)
        else:
            polling.hand_over()
    assert not connection.is_cut
    async with asyncio.timeout(10):
        while not connection.is_cut:
            await asyncio.sleep(0)


async def test_an_upgrade_ends_the_poll_and_those_that_come(polling: Polling, connection: Connection) -> None:
    poll = await waiting(polling, connection)
    polling.upgrade()
    assert await poll == b"6"
    assert await polling.poll(connection) == b"6"
    polling.give(b"4a")
    assert await polling.poll(connection) == b"4a"


async def test_what_waits_goes_to_the_websocket_and_not_to_the_poll(
    polling: Polling, connection: Connection, taken: list[str]
) -> None:
    poll = await waiting(polling, connection)
    taken.clear()
    polling.give(b"4a\x1ebAQ==")
    polling.give(b"4b")
    assert polling.hand_over() == ["4a", b"\x01", "4b"]
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


@pytest.mark.parametrize("end", [lambda polling: polling.end(cut=False), Polling.hand_over])
async def test_a_body_is_not_waited_for_beyond_the_end(polling: Polling, end: object) -> None:
    body = asyncio.get_running_loop().create_future()
    reading = asyncio.ensure_future(polling.body(body))
    await asyncio.sleep(0)
    end(polling)  # type: ignore[operator]
    await asyncio.wait([reading], timeout=10)
    assert isinstance(reading.exception(), TimeoutError)
    assert body.cancelled()
