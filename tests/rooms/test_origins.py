"""Whom an instance believes on the bus: who has heard it a moment ago, and nobody else, whatever was recorded."""

from __future__ import annotations

import pytest

from server.rooms import origins
from server.rooms.origins import FRESH_S, Origins


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Party:
    """An instance that greets, and keeps what it has said as somebody who records it does."""

    def __init__(self, name: bytes, clock: Clock) -> None:
        self.name = name
        self.origins = Origins(name, clock)
        self.said: list[tuple[int, dict[bytes, int] | None]] = []

    def greet(self, *others: Party) -> None:
        """Greet; those hear it."""
        self.origins.greeted(len(self.said) + 1)
        self.said.append((len(self.said) + 1, self.origins.heard()))
        self.tell(*others)

    def speak(self, *others: Party) -> None:
        """Say something that is no greeting."""
        self.said.append((len(self.said) + 1, None))
        self.tell(*others)

    def tell(self, *others: Party) -> None:
        """Let others hear what was said last."""
        for other in others:
            other.hear(self, -1)

    def hear(self, other: Party, at: int) -> bool:
        """Hear what another has said, then or now; whether it is to be greeted soon."""
        return self.origins.hear(other.name, *other.said[at])

    def believes(self, other: Party) -> bool:
        return self.origins.is_believed(other.name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def amina(clock: Clock) -> Party:
    return Party(b"amina", clock)


@pytest.fixture
def bilal(clock: Clock) -> Party:
    return Party(b"bilal", clock)


def meet(one: Party, other: Party) -> None:
    one.greet(other)
    other.greet(one)
    one.greet(other)


def test_two_believe_each_other_once_both_have_heard_the_other(amina: Party, bilal: Party) -> None:
    amina.greet(bilal)
    assert not bilal.believes(amina)  # she may have said that at any time
    bilal.greet(amina)
    assert amina.believes(bilal)
    amina.speak(bilal)
    assert not bilal.believes(amina)
    amina.greet(bilal)
    assert bilal.believes(amina)


def test_who_greets_every_second_is_believed_for_good(clock: Clock, amina: Party, bilal: Party) -> None:
    meet(amina, bilal)
    for _ in range(100):
        clock.now += 1
        amina.greet(bilal)
        bilal.greet(amina)
        assert amina.believes(bilal)
        assert bilal.believes(amina)


def test_who_falls_silent_is_believed_no_longer_than_what_they_heard_is_fresh(
    clock: Clock, amina: Party, bilal: Party
) -> None:
    meet(amina, bilal)
    clock.now += 3
    bilal.greet(amina)  # he names her last greeting, of three seconds ago
    clock.now += FRESH_S - 3.1
    assert amina.believes(bilal)
    clock.now += 0.2
    assert not amina.believes(bilal)


def test_the_whole_record_of_who_has_died_is_not_believed_by_who_comes_later(
    clock: Clock, amina: Party, bilal: Party
) -> None:
    for _ in range(5):
        meet(amina, bilal)
    late = Party(b"carim", clock)
    for at in range(len(bilal.said)):
        late.greet()
        late.hear(bilal, at)
        assert not late.believes(bilal)


def test_what_was_said_in_ones_absence_is_not_believed_when_it_is_played_later(
    clock: Clock, amina: Party, bilal: Party
) -> None:
    meet(amina, bilal)
    for _ in range(5):
        bilal.greet()  # recorded, and not heard by her
    clock.now += FRESH_S
    for at in range(-5, 0):
        amina.greet()
        amina.hear(bilal, at)
        assert not amina.believes(bilal)


def test_what_is_played_again_is_refused_and_changes_nothing(clock: Clock, amina: Party, bilal: Party) -> None:
    meet(amina, bilal)
    bilal.greet(amina)
    for _ in range(int(FRESH_S)):
        amina.greet()
        for at in range(len(bilal.said)):
            with pytest.raises(ValueError, match="played again"):
                amina.hear(bilal, at)
        clock.now += 1
    assert not amina.believes(bilal)


def test_who_was_forgotten_is_not_believed_for_what_they_said_before(clock: Clock, amina: Party, bilal: Party) -> None:
    meet(amina, bilal)
    bilal.greet(amina)
    clock.now += FRESH_S
    assert amina.origins.heard() == {}
    for at in range(len(bilal.said)):
        amina.hear(bilal, at)
        assert not amina.believes(bilal)
    meet(bilal, amina)
    assert amina.believes(bilal)


def test_a_bounded_number_is_remembered_and_of_strangers_who_spoke_last(
    clock: Clock, amina: Party, bilal: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origins, "ORIGINS", 3)
    meet(amina, bilal)
    strangers = [Party(b"%d" % n, clock) for n in range(5)]
    for stranger in strangers:
        clock.now += 0.01
        stranger.speak(amina)
    strangers[3].speak(amina)
    Party(b"one more", clock).speak(amina)
    assert amina.origins.heard().keys() == {b"bilal", b"3", b"one more"}
    assert amina.believes(bilal)


def test_where_all_are_believed_one_more_is_refused(
    clock: Clock, amina: Party, bilal: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origins, "ORIGINS", 1)
    meet(amina, bilal)
    late = Party(b"late", clock)
    with pytest.raises(ValueError, match="too many"):
        late.speak(amina)
    assert amina.believes(bilal)
    clock.now += FRESH_S
    late.speak(amina)


def test_a_table_full_of_the_dead_keeps_nobody_who_lives_out(clock: Clock, amina: Party, bilal: Party) -> None:
    for n in range(2 * origins.ORIGINS):
        Party(b"%d" % n, clock).speak(amina)
    meet(amina, bilal)
    assert amina.believes(bilal)
    assert bilal.believes(amina)


def test_a_record_of_the_dead_makes_no_greeting_long_and_is_named_but_once(
    clock: Clock, amina: Party, bilal: Party
) -> None:
    meet(amina, bilal)
    for n in range(origins.NAMED + 50):
        Party(b"%d" % n, clock).speak(amina)
    named = amina.origins.heard()
    assert len(named) == origins.NAMED + 1
    assert named.keys() >= {b"bilal", b"%d" % (origins.NAMED + 49)}
    assert amina.origins.heard().keys() == {b"bilal"}


def test_many_who_come_at_once_believe_each_other_after_a_few_greetings(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origins, "NAMED", 5)
    crowd = [Party(b"%d" % n, clock) for n in range(20)]
    for _ in range(8):
        clock.now += 1
        for one in crowd:
            one.greet(*(other for other in crowd if other is not one))
    assert all(one.believes(other) for one in crowd for other in crowd if one is not other)


def test_an_origin_is_greeted_soon_while_it_is_not_believed_and_at_most_once_a_second(
    clock: Clock, amina: Party, bilal: Party
) -> None:
    for _ in range(4):
        bilal.speak()
    assert [amina.hear(bilal, at) for at in range(3)] == [True, False, False]
    clock.now += origins.GREET_AGAIN_S
    assert amina.hear(bilal, 3)
    meet(amina, bilal)
    clock.now += origins.GREET_AGAIN_S
    bilal.speak()
    assert not amina.hear(bilal, -1)


def test_of_ones_own_greetings_only_those_are_kept_that_count(clock: Clock, amina: Party) -> None:
    for _ in range(100):
        clock.now += 1
        amina.greet()
    assert len(amina.origins._greetings) == FRESH_S
