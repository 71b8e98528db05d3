"""What a seller's rule answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.autorules import Decision, Rule, Verdict, decide

ALL = Rule(accept_at=90, decline_below=50, counter_step=5)
PRICES = st.integers(1, 1_000)


@pytest.mark.parametrize(
    ("rule", "price", "asked", "rounds_left", "decision"),
    [
        (ALL, 90, 100, 5, Decision(Verdict.ACCEPT)),
        (ALL, 500, 100, 5, Decision(Verdict.ACCEPT)),
        (ALL, 49, 100, 5, Decision(Verdict.DECLINE)),
        (ALL, 50, 100, 5, Decision(Verdict.COUNTER, 95)),
        (ALL, 89, 93, 5, Decision(Verdict.COUNTER, 90)),
        (ALL, 89, 90, 5, Decision(Verdict.COUNTER, 90)),
        (ALL, 60, 80, 5, Decision(Verdict.COUNTER, 80)),  # the seller went lower themselves
        (ALL, 85, 80, 5, Decision(Verdict.LEAVE)),
        (ALL, 60, 100, 0, Decision(Verdict.LEAVE)),
        (Rule(90, 50, None), 60, 100, 5, Decision(Verdict.LEAVE)),
        (Rule(None, None, 5), 60, 100, 5, Decision(Verdict.COUNTER, 95)),
        (Rule(None, None, 5), 97, 100, 5, Decision(Verdict.LEAVE)),
        (Rule(None, None, 200), 1, 100, 5, Decision(Verdict.LEAVE)),
        (Rule(None, None, None), 1, 100, 5, Decision(Verdict.LEAVE)),
        (Rule(90, None, None), 90, 100, 0, Decision(Verdict.ACCEPT)),
        (Rule(None, 50, None), 49, 100, 0, Decision(Verdict.DECLINE)),
    ],
)
def test_a_rule_accepts_declines_and_comes_down_by_its_step(
    rule: Rule, price: int, asked: int, rounds_left: int, decision: Decision
) -> None:
    assert decide(rule, price, asked, rounds_left) == decision


@given(PRICES, PRICES, PRICES, PRICES, st.integers(0, 10))
def test_a_counter_offer_is_above_the_buyers_price_and_never_over_what_was_asked(
    accept_at: int, step: int, price: int, asked: int, rounds_left: int
) -> None:
    verdict, counter = decide(Rule(accept_at, None, step), price, asked, rounds_left)
    assert (counter is not None) == (verdict is Verdict.COUNTER)
    if counter is not None:
        assert price < counter <= asked
        assert counter >= min(asked, accept_at)
        assert rounds_left > 0
