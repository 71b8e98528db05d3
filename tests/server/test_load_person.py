"""The people of `parley load`: how they return when they are cut, and what they make of a server that errs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.cli.load import person as people
from server.cli.load.faults import Fault
from server.cli.load.haggle import Table
from server.cli.load.moves import Move
from server.cli.load.options import Options
from server.cli.load.packets import Error
from server.cli.load.person import Asked, Person
from server.cli.load.stage import Stage
from server.cli.load.talk import MOST_ASKED, Talk
from tests.server.scripted import OWN, Scripted, event, hello, listening, ok, refused

CHAT = "conversation:7"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long before they return."""
    monkeypatch.setattr(people, "RETURN_S", 0.01)


@asynccontextmanager
async def connected(scripted: Scripted) -> AsyncIterator[Person]:
    """Somebody who has been let in."""
    stage = Stage(Options(urls=[]), 0, 100)
    async with listening(scripted) as server:
        amina = Person(stage, "amina", "token", server)
        assert await amina.connect()
        yield amina
        stage.is_over = True
        amina.leave()


async def until(seen: Callable[[], Any]) -> None:
    """Wait for something to be so."""
    async with asyncio.timeout(10):
        while not seen():
            await asyncio.sleep(0.002)


def found(amina: Person) -> set[Fault]:
    """What is wrong when all is over."""
    amina.stage.ledger.close()
    return set(amina.stage.faults.found)


async def cut(scripted: Scripted, amina: Person) -> None:
    """Somebody is cut, and comes back."""
    times = amina.stage.reconnects
    scripted.cut()
    await until(lambda: amina.stage.reconnects > times and amina.is_ready)


# cut


async def test_who_is_cut_returns_where_they_stood_and_asks_again() -> None:
    scripted = Scripted(hello({OWN: 0, CHAT: 3}), hello({OWN: 0, CHAT: 5}))
    async with connected(scripted) as amina:
        answers: list[Any] = []
        amina.ask("x:y", {}, lambda asked, data, error: answers.append((asked.times, data)))
        scripted.say(event("x", {}, CHAT, 4))
        await until(lambda: amina.ears.heads[CHAT] == 4 and scripted.asked)
        scripted.answer = lambda number, name, payload: [ok(number, {"done": True})]
        await cut(scripted, amina)
        scripted.say(event("x", {}, CHAT, 5))
        await until(lambda: amina.ears.heads[CHAT] == 5 and answers)
        assert scripted.auths[-1] == {"token": "token", "epoch": "e", "rooms": {OWN: 0, CHAT: 4}}
        assert answers == [(2, {"done": True})]
        assert found(amina) == set()


async def test_a_handshake_that_is_turned_away_is_tried_again_and_counted() -> None:
    scripted = Scripted()
    async with connected(scripted) as amina:
        busy = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\n\r\n"
        scripted.turned_away = [busy, b"HTTP/1.1 429 Too Many Requests\r\n\r\n", busy]
        await cut(scripted, amina)
        errors = amina.stage.span.errors
        assert errors == {
            "connect: HTTP/1.1 503 Service Unavailable": 2,
            "connect: HTTP/1.1 429 Too Many Requests": 1,
        }
        assert found(amina) == set()


async def test_a_command_that_waits_to_be_asked_again_goes_out_once_behind_a_cut() -> None:
    scripted = Scripted()
    async with connected(scripted) as amina:
        answers: list[Any] = []
        scripted.answer = lambda number, name, payload: [refused(number, "unavailable", retry_after_ms=100)]
        amina.ask("x:y", {}, lambda asked, data, error: answers.append(data))
        await until(lambda: amina.stage.span.errors)
        scripted.answer = lambda number, name, payload: [ok(number, {})]
        await cut(scripted, amina)
        await until(lambda: answers)
        assert [name for _, name, _ in scripted.asked] == ["x:y", "x:y"]
        assert found(amina) == set()


async def test_what_was_missed_of_a_new_room_is_asked_for_page_by_page() -> None:
    scripted = Scripted(hello({OWN: 0}), hello({OWN: 0, CHAT: 5}))
    async with connected(scripted) as amina:
        scripted.answer = _pages(5, 2)
        await cut(scripted, amina)
        await until(lambda: not amina.asked)
        assert [payload["after"] for _, _, payload in scripted.asked] == [0, 2, 4]
        assert amina.stage.ledger.is_settled
        assert found(amina) == set()


async def test_a_room_that_was_reset_is_loaded_afresh_and_its_messages_count() -> None:
    scripted = Scripted(hello({OWN: 0, CHAT: 3}), hello({OWN: 0, CHAT: 6}, CHAT))
    async with connected(scripted) as amina:
        answers: list[Any] = []
        scripted.answer = lambda number, name, payload: [ok(number, {"seq": 5})]
        amina.say(CHAT, [amina.ears], lambda asked, data, error: answers.append((asked.number, data["seq"])))
        await until(lambda: answers)
        amina.stage.ledger.ack(*answers[0])
        [(_, _, said)] = scripted.asked
        scripted.answer = _pages(6, 100, {5: said | {"sender_id": "1"}})
        await cut(scripted, amina)
        await until(lambda: not amina.asked)
        assert amina.stage.span.delivered == 1
        assert amina.stage.ledger.is_settled
        assert found(amina) == set()


def _pages(
    head: int, size: int, messages: dict[int, dict[str, Any]] | None = None
) -> Callable[[int, str, dict[str, Any]], list[str]]:
    """Answers `room:sync` of a room with so many events."""

    def answer(number: int, name: str, asked: dict[str, Any]) -> list[str]:
        assert name == "room:sync"
        seqs = range(asked["after"] + 1, min(head, asked["after"] + size) + 1)
        said = messages or {}
        events = [
            {"name": "message:created" if seq in said else "x", "payload": said.get(seq, {}), "seq": seq, "at": ""}
            for seq in seqs
        ]
        return [ok(number, {"events": events, "head_seq": head, "more": seqs[-1] < head, "reset": False})]

    return answer


async def test_a_room_that_cannot_be_loaded_or_entered_any_more_is_a_fault() -> None:
    scripted = Scripted(hello({OWN: 0, CHAT: 3, "conversation:8": 1}), hello({OWN: 0, CHAT: 6}, CHAT))
    async with connected(scripted) as amina:
        lost = {"events": [], "head_seq": 6, "more": False, "reset": True}
        scripted.answer = lambda number, name, payload: [ok(number, lost)]
        await cut(scripted, amina)
        await until(lambda: not amina.asked)
        assert amina.stage.faults.count(Fault.ABSENT) == 2


# answers


@pytest.mark.parametrize(("code", "counts_from"), [("rate_limited", None), ("unavailable", 5.0)])
async def test_a_limit_starts_the_clock_anew_and_a_server_that_is_not_available_does_not(
    code: str, counts_from: float | None
) -> None:
    scripted = Scripted()
    async with connected(scripted) as amina:
        answers: list[float] = []
        scripted.answer = lambda number, name, payload: [refused(number, code, retry_after_ms=1)]
        amina.ask("x:y", {}, lambda asked, data, error: answers.append(asked.at), at=5.0)
        await until(lambda: amina.stage.span.errors)
        scripted.answer = lambda number, name, payload: [ok(number, {})]
        await until(lambda: answers)
        assert (answers == [5.0]) == (counts_from == 5.0)
        assert set(amina.stage.span.errors) == {code}


@pytest.mark.parametrize("packet", ['42["x"]', '42{"a":1}', "44[]", "43", '431["x"]', '42["hello",{}]', "9", "46", "x"])
async def test_what_is_no_packet_is_a_fault_and_no_crash(packet: str) -> None:
    scripted = Scripted()
    async with connected(scripted) as amina:
        scripted.say(packet)
        await until(lambda: amina.stage.reconnects and amina.is_ready)
        assert found(amina) == {Fault.STRANGE}


async def test_a_second_answer_is_a_fault() -> None:
    scripted = Scripted()
    async with connected(scripted) as amina:
        scripted.answer = lambda number, name, payload: [ok(number, {}), ok(number, {})]
        amina.ask("x:y", {}, lambda asked, data, error: None)
        await until(lambda: amina.stage.faults.found)
        assert found(amina) == {Fault.STRANGE}


async def test_a_message_that_is_refused_is_a_fault_and_a_move_that_came_too_late_is_none() -> None:
    scripted = Scripted(hello({OWN: 0, CHAT: 3}))
    async with connected(scripted) as amina:
        talk, stage = Talk(amina.stage, [amina], CHAT.partition(":")[2]), amina.stage
        scripted.answer = lambda number, name, payload: [refused(number, "forbidden")]
        talk.take_turn(amina, 5.0)
        await until(lambda: stage.span.errors)
        assert set(stage.faults.found) == {Fault.REFUSED}
        people.refuse(amina, Asked(1, b"", print, 0.0, is_message=False), Error("conflict"), allowed=("conflict",))
        assert stage.faults.count(Fault.REFUSED) == 1


# turns


async def test_what_is_due_while_somebody_is_away_they_send_when_they_are_back_and_it_counts_from_when_it_was() -> None:
    scripted = Scripted(hello({OWN: 0, CHAT: 3}))
    async with connected(scripted) as amina:
        bilal = Person(amina.stage, "bilal", "token", amina._server)
        talk = Talk(amina.stage, [amina, bilal], CHAT.partition(":")[2])
        talk.take_turn(bilal, 1.0)
        talk.take_turn(bilal, 2.0)
        talk.take_turn(amina, 3.0)
        assert talk.waiting == 2
        assert [asked.at for asked in amina.asked.values()] == [3.0]
        assert await bilal.connect()
        assert talk.waiting == 0
        assert [asked.at for asked in bilal.asked.values()] == [1.0, 2.0]
        bilal.leave()


async def test_who_has_asked_too_much_sends_the_rest_when_they_are_answered() -> None:
    scripted = Scripted(hello({OWN: 0, CHAT: 3}))
    async with connected(scripted) as amina:
        talk = Talk(amina.stage, [amina], CHAT.partition(":")[2])
        for due in range(MOST_ASKED + 2):
            talk.take_turn(amina, float(due + 1))
        assert talk.waiting == 2
        await until(lambda: len(scripted.asked) == MOST_ASKED)
        scripted.say(ok(scripted.asked[0][0], {"seq": 4}))
        await until(lambda: talk.waiting == 1)


async def test_at_a_table_whoever_can_makes_the_move_that_is_due_and_what_nobody_can_waits() -> None:
    stage = Stage(Options(urls=[], rate=10.0, negotiate=True), 0, 100)
    scripted = Scripted()
    async with listening(scripted) as server:
        four = [Person(stage, str(n), "token", server) for n in range(4)]
        for each in four:
            assert await each.connect()
        table = Table(stage, four)
        listed = {"listing_id": "l", "version": 1, "quantity": 1}
        table.take_turn(four[3], 1.0)
        table.take_turn(four[3], 2.0)
        assert table.waiting == 1  # until there is something to haggle over
        await until(lambda: scripted.asked)
        [(number, name, _)] = scripted.asked
        assert name == "listing:create"
        scripted.answer = lambda number, name, payload: []
        for each in four:
            if number in each.asked:
                each.heard(ok(number, listed).encode())
        assert table.waiting == 0
        assert [asked.at for each in four for asked in each.asked.values()] == [2.0]
        for each in four:
            each.leave()


async def test_a_move_that_is_not_theirs_to_make_has_to_be_refused() -> None:
    scripted = Scripted()
    async with connected(scripted) as amina:
        table, stage = Table(amina.stage, [amina]), amina.stage
        asked = Asked(1, b"", print, 0.0, is_message=False)
        move = Move("offer:accept", {"offer_id": "x", "version": 1}, None, "it is their own")
        table._answered(amina, move, asked, None, Error("conflict", reason="not_your_turn"))
        assert (stage.tried, set(stage.faults.found), stage.span.errors) == (1, set(), {})
        table._answered(amina, move, asked, {}, None)
        assert set(stage.faults.found) == {Fault.ILLEGAL}
        table._answered(amina, move, asked, None, Error("invalid"))
        assert set(stage.faults.found) == {Fault.ILLEGAL, Fault.REFUSED}
