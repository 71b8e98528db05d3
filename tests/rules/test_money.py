"""Money adds up, to the last minor unit."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from rules.money import CURRENCIES, MOST, split

SUBTOTALS = st.integers(1, MOST)
SHARES = st.integers(0, 10_000)


@given(SUBTOTALS, SHARES)
@example(MOST, 10_000)
@example(1, 5_000)
@example(1, 4_999)
def test_what_the_platform_keeps_and_the_seller_gets_is_all_there_is(subtotal: int, fee_bps: int) -> None:
    fee, payout = split(subtotal, fee_bps)
    assert fee + payout == subtotal
    assert 0 <= fee <= subtotal
    assert abs(Fraction(subtotal * fee_bps, 10_000) - fee) <= Fraction(1, 2)


@given(SUBTOTALS, st.integers(0, 9_999))
def test_a_higher_share_is_never_less(subtotal: int, fee_bps: int) -> None:
    assert split(subtotal, fee_bps)[0] <= split(subtotal, fee_bps + 1)[0]


def test_half_a_unit_is_rounded_up() -> None:
    assert [split(subtotal, 500)[0] for subtotal in (9, 10, 29, 30)] == [0, 1, 1, 2]


def test_currencies_are_three_capitals() -> None:
    assert len(CURRENCIES) > 150
    assert all(len(code) == 3 and code.isupper() and code.isascii() for code in CURRENCIES)
