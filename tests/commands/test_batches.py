"""Group commit: shared batches, halving, and rooms that somebody holds, without a database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from rules.users import Scope
from server.commands.answers import Answer
from server.commands.batches import MOST, Batcher
from server.commands.context import Batch, Call, Services
from server.commands.registry import BUSY, Command, Payload, Transport, signed_in
from server.errors import NotFound, Unavailable
from server.rooms.names import Room

PATIENCE_S = 10.0


class Say(Payload, frozen=True):
    """A call of these tests: who says what, where; whoever says `bad` breaks the batch."""

    sender: str
    room: str
    text: str


@dataclass
class Trip:
    """One way to the database, begun: its calls, and whether it waits for held rooms. It ends as the test says."""

    calls: Sequence[Call[Say]]
    wait: bool
    _end: asyncio.Future[Callable[[], list[Any]]] = field(default_factory=asyncio.Future)

    @property
    def texts(self) -> list[str]:
        return [call.payload.text for call in self.calls]

    def passes(self, *held: str) -> None:
        """It is committed; calls to these rooms are told that they are held."""

        def outcomes() -> list[Any]:
            if any(call.payload.text == "bad" for call in self.calls):
                raise ZeroDivisionError
            return [BUSY if call.payload.room in held else call.payload.text for call in self.calls]

        self._end.set_result(outcomes)

    def answers(self, *outcomes: Any) -> None:
        """It is committed with these outcomes."""
        self._end.set_result(lambda: list(outcomes))

    def fails(self, error: Exception) -> None:
        """Nothing of it is kept."""
        self._end.set_exception(error)

    async def end(self) -> list[Any]:
        return (await self._end)()


@dataclass
class Counter:
    """Where calls are handed in: `trips` begin here one by one, and `answered` are the texts and codes, in order."""

    trips: asyncio.Queue[Trip] = field(default_factory=asyncio.Queue)
    answered: list[tuple[str, str]] = field(default_factory=list)
    batcher: Batcher = field(init=False)
    end: Callable[[Trip], Awaitable[list[Any]]] = Trip.end

    def __post_init__(self) -> None:
        database = SimpleNamespace(statement=self._statement)
        services = cast("Services", SimpleNamespace(database=database))
        self._command = Command(
            "word:say",
            self._handle,
            allow=signed_in,
            limit=None,
            payload=Say,
            result=str,
            transport=Transport.BOTH,
            reads=False,
            transaction=True,
            batch=True,
            room=None,
            again=None,
            scope=Scope.LIMITED,
            further=(),
            raises=(),
        )
        self.batcher = Batcher(self._command, services, self._finish)

    async def _statement(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        return await work(None)

    async def _handle(self, batch: Batch, calls: list[Call[Say]]) -> list[Any]:
        trip = Trip(calls, batch.wait)
        self.trips.put_nowait(trip)
        return await self.end(trip)

    def _finish(self, answered: Sequence[tuple[Call[Any], Answer]], events: Sequence[object]) -> None:
        for call, answer in answered:
            call.done(answer)

    def say(self, room: str, *texts: str, sender: str = "amina") -> None:
        """Hand in calls."""
        for text in texts:
            call = Call(
                self._command,
                Say(sender=sender, room=room, text=text),
                None,
                socket=None,
                address="",
                agent="",
                started=0.0,
                done=lambda answer, text=text: self.answered.append((text, answer.code)),
            )
            call.room = Room("conversation", UUID(int=sum(room.encode())))
            self.batcher.add(call)

    async def trip(self) -> Trip:
        """The next trip to the database, as it begins."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.trips.get()

    async def goes_through(self, *trips: list[str]) -> None:
        """Let these trips, and no others, pass one after the other."""
        for texts in trips:
            trip = await self.trip()
            assert trip.texts == texts
            trip.passes()

    async def close(self) -> list[tuple[str, str]]:
        """Wait until everything is answered, and return the answers."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.batcher.is_idle:
                await asyncio.sleep(0)
        assert self.trips.empty()
        return self.answered


@pytest.fixture
async def counter() -> Counter:
    return Counter()


def oks(*texts: str) -> list[tuple[str, str]]:
    return [(text, "ok") for text in texts]


async def test_calls_of_one_turn_share_a_batch(counter: Counter) -> None:
    counter.say("one", "a")
    counter.say("two", "b")
    first = await counter.trip()
    assert (first.texts, first.wait) == (["a", "b"], False)
    first.passes()
    assert await counter.close() == oks("a", "b")


async def test_calls_that_arrive_while_their_room_is_in_flight_share_the_next_batch(counter: Counter) -> None:
    counter.say("one", "a")
    first = await counter.trip()
    counter.say("one", "b")
    await asyncio.sleep(0)
    counter.say("one", "c")
    assert counter.trips.empty()
    assert counter.answered == []
    first.passes()
    second = await counter.trip()
    assert second.texts == ["b", "c"]
    second.passes()
    assert await counter.close() == oks("a", "b", "c")


async def test_two_batches_fly_at_once_over_different_rooms_and_a_third_call_waits(counter: Counter) -> None:
    counter.say("one", "a")
    first = await counter.trip()
    counter.say("one", "b")
    counter.say("two", "c")
    second = await counter.trip()
    assert second.texts == ["c"]
    counter.say("two", "d")
    counter.say("three", "e")
    await asyncio.sleep(0)
    assert counter.trips.empty()
    second.passes()
    third = await counter.trip()
    assert third.texts == ["d", "e"]  # and not b, whose room is in flight
    third.passes()
    await asyncio.sleep(0)
    assert counter.trips.empty()
    first.passes()
    fourth = await counter.trip()
    assert fourth.texts == ["b"]
    fourth.passes()
    assert sorted(await counter.close()) == oks("a", "b", "c", "d", "e")


async def test_a_batch_is_bounded_and_the_rest_follows_in_order(counter: Counter) -> None:
    texts = [str(n) for n in range(MOST + 3)]
    counter.say("one", *texts)
    first = await counter.trip()
    assert first.texts == texts[:MOST]
    first.passes()
    second = await counter.trip()
    assert second.texts == texts[MOST:]
    second.passes()
    assert await counter.close() == oks(*texts)


async def test_what_a_call_is_answered_is_its_own(counter: Counter) -> None:
    counter.say("one", "a", "b", "c")
    (await counter.trip()).answers("done", NotFound(), "done")
    assert await counter.close() == [("a", "ok"), ("b", "not_found"), ("c", "ok")]


async def test_a_bad_call_is_isolated_by_halving_and_all_others_are_answered(counter: Counter) -> None:
    for room, text in [("one", "a"), ("two", "b"), ("three", "bad"), ("four", "c"), ("one", "d"), ("three", "e")]:
        counter.say(room, text)
    with capture_logs() as logs:
        await counter.goes_through(
            ["a", "b", "bad", "c", "d", "e"],
            ["a", "b", "d"],  # halves are of whole rooms
            ["bad", "c", "e"],
            ["bad", "e"],
            ["bad"],  # and of calls, where there is but one room
            ["e"],
            ["c"],
        )
        answered = await counter.close()
    assert dict(answered) == {"a": "ok", "b": "ok", "bad": "internal", "c": "ok", "d": "ok", "e": "ok"}
    assert [log["event"] for log in logs] == ["command_failed"]


async def test_what_arrives_while_a_batch_is_halved_waits_for_all_of_it(counter: Counter) -> None:
    counter.say("one", "a", "bad", "b", "c")
    whole = await counter.trip()
    counter.say("one", "d")
    whole.passes()
    with capture_logs():
        await counter.goes_through(["a", "bad"], ["a"], ["bad"], ["b", "c"], ["d"])
        assert [text for text, _ in await counter.close()] == ["a", "bad", "b", "c", "d"]


async def test_a_database_that_is_down_answers_all_calls_once_without_halving(counter: Counter) -> None:
    counter.say("one", "a", "b")
    counter.say("two", "c")
    (await counter.trip()).fails(Unavailable())
    assert await counter.close() == [("a", "unavailable"), ("b", "unavailable"), ("c", "unavailable")]
    counter.say("one", "d")
    (await counter.trip()).passes()
    assert (await counter.close())[-1] == ("d", "ok")


async def test_calls_of_a_held_room_stand_in_front_of_the_next_batch(counter: Counter) -> None:
    counter.say("hot", "a", "b")
    counter.say("cold", "c")
    first = await counter.trip()
    counter.say("cold", "d")
    counter.say("hot", "e")
    first.passes("hot")
    second = await counter.trip()
    assert (second.texts, second.wait) == (["a", "b", "d", "e"], False)
    assert counter.answered == oks("c")
    second.passes()
    assert await counter.close() == oks("c", "a", "b", "d", "e")


async def test_a_room_skipped_twice_is_waited_for_apart_while_others_go_on(counter: Counter) -> None:
    counter.say("hot", "a")
    (await counter.trip()).passes("hot")
    again = await counter.trip()
    counter.say("hot", "b")
    counter.say("cold", "c")
    again.passes("hot")
    trips = [await counter.trip(), await counter.trip()]
    waiting, others = sorted(trips, key=lambda trip: not trip.wait)
    assert (waiting.texts, waiting.wait) == (["a", "b"], True)
    assert (others.texts, others.wait) == (["c"], False)
    others.passes()
    counter.say("hot", "d", "e")  # behind what is waited for, in order
    counter.say("cold", "f")
    last = await counter.trip()
    assert (last.texts, last.wait) == (["f"], False)
    last.passes()
    await asyncio.sleep(0)
    assert counter.trips.empty()
    assert counter.answered == oks("c", "f")
    waiting.passes()
    behind = await counter.trip()
    assert (behind.texts, behind.wait) == (["d", "e"], True)
    behind.passes()
    assert await counter.close() == oks("c", "f", "a", "b", "d", "e")
    counter.say("hot", "g")  # which is a room like any other again
    trip = await counter.trip()
    assert (trip.texts, trip.wait) == (["g"], False)
    trip.passes()
    await counter.close()


async def test_a_room_held_beyond_patience_is_unavailable_and_the_calls_behind_it_are_tried(counter: Counter) -> None:
    counter.say("hot", "a")
    (await counter.trip()).passes("hot")
    (await counter.trip()).passes("hot")
    waiting = await counter.trip()
    counter.say("hot", "b")
    waiting.fails(Unavailable())
    behind = await counter.trip()
    assert (behind.texts, behind.wait) == (["b"], True)
    behind.passes()
    assert await counter.close() == [("a", "unavailable"), ("b", "ok")]


async def test_a_key_that_came_twice_comes_again_even_to_a_room_that_is_waited_for(counter: Counter) -> None:
    counter.say("hot", "a", "again")
    (await counter.trip()).passes("hot")
    (await counter.trip()).passes("hot")
    waiting = await counter.trip()
    assert waiting.texts == ["a", "again"]
    counter.say("hot", "b")
    waiting.answers("done", BUSY)
    behind = await counter.trip()
    assert (behind.texts, behind.wait) == (["again", "b"], True)
    behind.passes()
    assert await counter.close() == oks("a", "again", "b")


async def test_a_room_that_is_held_for_its_first_half_is_not_written_by_its_second(counter: Counter) -> None:
    counter.say("hot", "a", "b", "c", "bad")
    (await counter.trip()).passes()
    half = await counter.trip()
    assert half.texts == ["a", "b"]
    half.passes("hot")  # somebody took the room between the whole and its half
    with capture_logs():
        await counter.goes_through(["a", "b", "c", "bad"], ["a", "b"], ["c", "bad"], ["c"], ["bad"])
        assert [text for text, _ in await counter.close()] == ["a", "b", "c", "bad"]


Arrival = tuple[str, str, bool, int]

ROOMS = ["one", "two"]
arrivals = st.lists(
    st.tuples(
        st.sampled_from(ROOMS),
        st.sampled_from(["amina", "bilal"]),
        st.sampled_from([False, False, False, True]),  # bad
        st.sampled_from([0, 0, 0, 1, 4]),  # turns of the loop before the next one
    ),
    min_size=4,
    max_size=24,
)
holds = st.lists(st.sets(st.sampled_from(ROOMS)), min_size=4, max_size=24)
lengths = st.lists(st.integers(0, 4), max_size=12)


@settings(max_examples=300, deadline=None)
@given(arrivals=arrivals, holds=holds, lengths=lengths)
def test_every_call_is_answered_once_and_no_senders_order_in_a_room_turns(
    arrivals: list[Arrival], holds: list[set[str]], lengths: list[int]
) -> None:
    with capture_logs():
        answered, handled = asyncio.run(_through(arrivals, iter(holds), iter(lengths)))
    names = [f"{n}" for n in range(len(arrivals))]
    bad = {names[n] for n, arrival in enumerate(arrivals) if arrival[2]}
    assert sorted(answered) == sorted((name, "internal" if name in bad else "ok") for name in names)
    arrived: dict[tuple[str, str], list[str]] = {}
    for name, (room, sender, _, _) in zip(names, arrivals, strict=True):
        if name not in bad:
            arrived.setdefault((sender, room), []).append(name)
    assert handled == arrived


async def _through(
    arrivals: Iterable[Arrival], holds: Iterator[set[str]], lengths: Iterator[int]
) -> tuple[list[tuple[str, str]], dict[tuple[str, str], list[str]]]:
    """Hand all in; what was answered, and what was handled, in order, of each sender in each room."""
    handled: dict[tuple[str, str], list[str]] = {}

    async def end(trip: Trip) -> list[Any]:
        for _ in range(next(lengths, 0)):
            await asyncio.sleep(0)
        if any(call.payload.text.startswith("bad") for call in trip.calls):
            raise ZeroDivisionError
        held = set() if trip.wait else next(holds, set())
        for call in trip.calls:
            said = call.payload
            if said.room not in held:
                handled.setdefault((said.sender, said.room), []).append(said.text)
        return [BUSY if call.payload.room in held else "done" for call in trip.calls]

    counter = Counter(end=end)
    for n, (room, sender, bad, turns) in enumerate(arrivals):
        counter.say(room, f"bad {n}" if bad else f"{n}", sender=sender)
        for _ in range(turns):
            await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        while not counter.batcher.is_idle:
            await asyncio.sleep(0)
    return [(text.removeprefix("bad "), code) for text, code in counter.answered], handled
