"""When sessions are asked and given up, by a clock of the test's own."""

from __future__ import annotations

from itertools import pairwise

import pytest

from server.wire.heartbeat import Heartbeat


class Heart:
    """What has a heartbeat."""

    due = 0
    is_asked = False


def walked(heartbeat: Heartbeat[Heart], begin: float, end: float) -> list[tuple[float, list[Heart], list[Heart]]]:
    """Every look between two times at which there was something, as the timer would take it."""
    seen = []
    at = begin
    while (at := heartbeat.next_at(at)) <= end:
        to_ask, dead = heartbeat.advance(at)
        if to_ask or dead:
            seen.append((at, to_ask, dead))
    return seen


@pytest.mark.parametrize(("interval_s", "timeout_s"), [(25.0, 20.0), (0.3, 0.2), (0.05, 5.0), (60.0, 0.1)])
def test_who_never_answers_is_asked_after_an_interval_and_given_up_after_a_time_out(
    interval_s: float, timeout_s: float
) -> None:
    heartbeat: Heartbeat[Heart] = Heartbeat(interval_s, timeout_s)
    heart = Heart()
    heartbeat.add(heart, 1_000.0)
    slack = 2 * heartbeat.tick_s
    [(asked_at, asked, nobody), (given_up_at, _, dead)] = walked(heartbeat, 1_000.0, 1_000 + interval_s + timeout_s + 1)
    assert asked == dead == [heart]
    assert nobody == []
    assert 1_000 + interval_s - slack <= asked_at <= 1_000 + interval_s + 0.001
    assert asked_at + timeout_s - slack <= given_up_at <= asked_at + timeout_s + 0.001


def test_who_answers_is_asked_again_an_interval_later_and_never_given_up() -> None:
    heartbeat: Heartbeat[Heart] = Heartbeat(10.0, 5.0)
    heart = Heart()
    heartbeat.add(heart, 0.0)
    times = []
    at = 0.0
    while (at := heartbeat.next_at(at)) < 100:
        to_ask, dead = heartbeat.advance(at)
        assert not dead
        if to_ask:
            times.append(at)
            heartbeat.answered(heart, at + 0.01)
    assert len(times) == 10
    assert all(9.4 < after - before < 10.3 for before, after in pairwise(times))


def test_an_answer_that_nobody_asked_for_changes_nothing() -> None:
    heartbeat: Heartbeat[Heart] = Heartbeat(10.0, 5.0)
    heart = Heart()
    heartbeat.add(heart, 0.0)
    before = heart.due
    heartbeat.answered(heart, 9.0)  # or a client could put its ping off for ever
    assert heart.due == before


def test_who_has_ended_is_neither_asked_nor_given_up() -> None:
    heartbeat: Heartbeat[Heart] = Heartbeat(1.0, 1.0)
    early, late = Heart(), Heart()
    heartbeat.add(early, 0.0)
    heartbeat.add(late, 0.0)
    heartbeat.remove(early)
    [(_, asked, _)] = walked(heartbeat, 0.0, 1.05)
    assert asked == [late]
    heartbeat.remove(late)
    heartbeat.remove(late)
    assert walked(heartbeat, 1.05, 10.0) == []
    assert not any(heartbeat._due.values())


def test_a_loop_that_was_held_up_asks_all_and_gives_each_a_whole_time_out() -> None:
    heartbeat: Heartbeat[Heart] = Heartbeat(1.0, 1.0)
    hearts = [Heart() for _ in range(5)]
    for n, heart in enumerate(hearts):
        heartbeat.add(heart, n / 10)
    asked, dead = heartbeat.advance(30.0)
    assert set(asked) == set(hearts)
    assert dead == []
    assert heartbeat.advance(30.9) == ([], [])
    assert set(heartbeat.advance(31.0)[1]) == set(hearts)


def test_a_look_comes_often_enough_and_not_too_often() -> None:
    assert Heartbeat(25.0, 20.0).tick_s == 0.25
    assert Heartbeat(0.05, 0.05).tick_s == 0.005
    assert Heartbeat(25.0, 0.64).tick_s == pytest.approx(0.01)
