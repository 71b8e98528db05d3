"""Who may open a session, by a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from server.wire.admission import Admission
from server.wire.refusals import Refusal


@dataclass(frozen=True)
class Rate:
    per_second: float
    burst: int


def refused(admission: Admission, address: str, now: float) -> Refusal | None:
    try:
        admission.judge(address, now)
    except Refusal as refusal:
        return refusal
    return None


def test_without_bounds_everybody_may() -> None:
    admission = Admission(None, None)
    for n in range(10_000):
        admission.judge("a", n / 1e6)
        admission.opened("a")


def test_an_address_has_so_many_and_another_has_its_own() -> None:
    admission = Admission(2, None)
    for address in ("a", "a", "b"):
        admission.judge(address, 0.0)
        admission.opened(address)
    refusal = refused(admission, "a", 0.0)
    assert refusal is not None
    assert (refusal.status, refusal.retry_after_s) == (429, None)
    admission.judge("b", 0.0)
    admission.ended("a")
    admission.judge("a", 0.0)


def test_an_address_without_sessions_is_forgotten() -> None:
    admission = Admission(2, None)
    admission.opened("a")
    admission.opened("a")
    admission.ended("a")
    assert admission.addresses == 1
    admission.ended("a")
    assert admission.addresses == 0


def test_who_asks_and_opens_nothing_is_not_counted_against_the_address() -> None:
    admission = Admission(1, None)
    for _ in range(5):
        admission.judge("a", 0.0)


def test_a_burst_is_let_in_and_then_a_rate_over_all_addresses() -> None:
    admission = Admission(None, Rate(8.0, 3))
    let_in = [refused(admission, str(n), 100.0) is None for n in range(5)]
    assert let_in == [True, True, True, False, False]
    refusal = refused(admission, "x", 100.0625)
    assert refusal is not None
    assert (refusal.status, refusal.retry_after_s) == (503, 1)
    assert refused(admission, "x", 100.125) is None
    assert refused(admission, "x", 100.125) is not None
    assert [refused(admission, "x", 200.0) is None for _ in range(4)] == [
        True,
        True,
        True,
        False,
    ]  # never over the burst


def test_who_is_refused_for_the_address_takes_nothing_of_the_rate() -> None:
    admission = Admission(1, Rate(1.0, 2))
    admission.judge("a", 0.0)
    admission.opened("a")
    for _ in range(5):
        assert refused(admission, "a", 0.0) is not None
    assert refused(admission, "b", 0.0) is None


@pytest.mark.parametrize("rate", [None, Rate(1.0, 1)])
def test_a_refusal_is_in_the_words_of_engine_io(rate: Rate | None) -> None:
    refusal = refused(Admission(0, rate), "a", 0.0)
    assert refusal is not None
    response = refusal.response()
    assert response.status == 429
    assert response.text is not None
    assert '"code": 3' in response.text
