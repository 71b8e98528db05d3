"""Whether `parley load` sees what is wrong in a room: histories that are made up."""

from __future__ import annotations

import pytest

from server.cli.load.faults import Fault, Faults
from server.cli.load.ledger import Ears, Ledger, Sent

ROOM = "conversation:0"


class Heard:
    """Two people of a room, and what they hear of it."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.ledger = Ledger(self.faults)
        self.amina, self.bilal = self.ledger.ears("amina"), self.ledger.ears("bilal")
        for ears in (self.amina, self.bilal):
            self.ledger.anchor(ears, ROOM, 10)
        for number in (1, 2, 3):
            self.say(number)
            self.ledger.ack(number, 10 + number)

    def say(self, number: int) -> None:
        """A message is sent to both."""
        self.ledger.say(Sent(number, ROOM, (self.amina, self.bilal), at=0.0))

    def hear(self, ears: Ears, *numbers: int) -> Heard:
        """Somebody hears these messages, each under the number of its ack."""
        for number in numbers:
            self.ledger.hear(ears, ROOM, 10 + number, number)
        return self

    def found(self) -> set[Fault]:
        """What is wrong when all is over."""
        self.ledger.close()
        return set(self.faults.found)


def test_a_history_in_order_is_right() -> None:
    heard = Heard()
    assert not heard.ledger.is_settled
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    assert heard.ledger.is_settled
    assert heard.found() == set()


@pytest.mark.parametrize(
    ("numbers", "faults"),
    [
        ((1, 3), {Fault.LOST, Fault.GAP}),
        ((1, 2), {Fault.LOST, Fault.GAP}),
        ((), {Fault.LOST, Fault.GAP}),
        ((1, 2, 2, 3), {Fault.DOUBLED}),
        ((1, 2, 3, 1), {Fault.DOUBLED}),
        ((1, 3, 2), {Fault.REORDERED}),
        ((2, 3, 1), {Fault.REORDERED}),
    ],
)
def test_what_is_lost_doubled_or_reordered_is_found(numbers: tuple[int, ...], faults: set[Fault]) -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, *numbers)
    assert heard.found() == faults


def test_what_was_lost_is_told_with_who_did_not_hear_it() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2)
    assert heard.found() == {Fault.LOST, Fault.GAP}
    assert "bilal" in heard.faults.found[Fault.LOST].examples[0]


def test_a_message_that_comes_again_under_another_number_is_doubled() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.ledger.hear(heard.amina, ROOM, 14, 2)
    heard.ledger.hear(heard.bilal, ROOM, 14)
    assert heard.found() == {Fault.DOUBLED}


def test_an_ack_and_a_delivery_of_two_numbers_are_found() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3)
    for number, seq in ((2, 11), (1, 12), (3, 13)):
        heard.ledger.hear(heard.bilal, ROOM, seq, number)
    assert heard.found() == {Fault.MISNUMBERED}


def test_a_message_that_nobody_sent_or_that_was_refused_may_not_be_heard() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.say(4)
    heard.ledger.refuse(4)
    assert heard.ledger.is_settled
    heard.hear(heard.amina, 4, 99)
    assert heard.found() >= {Fault.STRANGE}
    assert heard.faults.count(Fault.STRANGE) == 2


def test_a_message_that_is_never_answered_is_found() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.say(4)
    assert heard.found() == {Fault.UNANSWERED}


def test_events_that_are_no_messages_count_in_their_room() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.ledger.hear(heard.amina, ROOM, 14)
    heard.ledger.hear(heard.bilal, ROOM, 15)
    assert heard.found() == {Fault.GAP}


def test_what_was_said_in_a_new_room_while_somebody_was_away_may_come_late_but_has_to_come() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.ledger.owe(heard.bilal, "conversation:1", 0, 2)
    heard.ledger.hear(heard.bilal, "conversation:1", 3)
    assert [heard.ledger.fill(heard.bilal, "conversation:1", seq) for seq in (1, 3, 1)] == [True, False, False]
    assert set(heard.faults.found) == set()
    assert heard.found() == {Fault.GAP}
    assert "never heard 2 of conversation:1" in heard.faults.found[Fault.GAP].examples[0]


def test_a_message_that_an_outsider_hears_in_a_members_place_is_lost_and_strange() -> None:
    heard = Heard()
    carim = heard.ledger.ears("carim")
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2).hear(carim, 3)
    assert not heard.ledger.is_settled
    assert heard.found() == {Fault.LOST, Fault.GAP, Fault.STRANGE}
    assert heard.faults.found[Fault.LOST].examples[0].endswith("did not reach 1 members: bilal")
    assert "carim" in heard.faults.found[Fault.STRANGE].examples[0]


def test_a_message_that_reaches_an_outsider_in_a_room_of_theirs_is_strange() -> None:
    heard = Heard()
    carim = heard.ledger.ears("carim")
    heard.ledger.anchor(carim, "conversation:1", 0)
    heard.ledger.hear(carim, "conversation:1", 1, 3)
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    assert heard.found() == {Fault.STRANGE}


def test_an_event_of_a_room_that_somebody_has_nothing_to_do_with_is_strange() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.ledger.hear(heard.amina, "conversation:9", 7)
    assert heard.found() == {Fault.STRANGE}


def test_what_comes_before_somebody_knows_that_they_stand_there_counts_when_they_do() -> None:
    heard = Heard()
    carim = heard.ledger.ears("carim")
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.ledger.say(Sent(4, "conversation:1", (carim,), at=0.0))
    heard.ledger.ack(4, 1)
    heard.ledger.hear(carim, "conversation:1", 1, 4)
    heard.ledger.anchor(carim, "conversation:1", 0)
    assert heard.ledger.is_settled
    assert heard.found() == set()


def test_an_event_at_a_rooms_end_that_is_no_message_has_to_reach_all() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.ledger.hear(heard.amina, ROOM, 14)
    assert not heard.ledger.is_settled
    assert heard.found() == {Fault.GAP}
    assert "bilal never heard 14" in heard.faults.found[Fault.GAP].examples[0]


def test_a_message_that_was_missed_reaches_its_member_by_another_way() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3)
    heard.ledger.owe(heard.bilal, ROOM, 10, 13)
    assert not heard.ledger.is_settled
    for number in (1, 2, 3):
        assert heard.ledger.fill(heard.bilal, ROOM, 10 + number)
        assert heard.ledger.reach(heard.bilal, ROOM, 10 + number, number) is not None
    assert heard.ledger.is_settled
    assert heard.found() == set()


def test_who_stands_in_a_room_no_more_need_not_hear_it() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.ledger.forget(heard.bilal, ROOM)
    heard.ledger.hear(heard.amina, ROOM, 14)
    assert heard.found() == set()
