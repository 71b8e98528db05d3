"""The table of a deal's moves, walked whole."""

from __future__ import annotations

from itertools import product

import pytest

from rules.transactions import (
    TABLE,
    Party,
    Provider,
    TransactionMove,
    TransactionStatus,
    is_made_under,
    may_ever,
    outcome,
)

P, C = TransactionStatus.PENDING, TransactionStatus.COMPLETED
CANCELLED, FAILED, REFUNDED = TransactionStatus.CANCELLED, TransactionStatus.FAILED, TransactionStatus.REFUNDED
CELLS = list(product(TransactionStatus, Party, TransactionMove))

# What the domain says, once more and in other words: who may do what to a deal that is pending, completed or refunded.
PENDING = {
    (Party.BUYER, TransactionMove.PAY): (P, P),
    (Party.BUYER, TransactionMove.CONFIRM): (P, C),
    (Party.SELLER, TransactionMove.CONFIRM): (P, C),
    (Party.PROVIDER, TransactionMove.COMPLETE): (C, C),
    (Party.PROVIDER, TransactionMove.FAIL): (FAILED, FAILED),
    (Party.BUYER, TransactionMove.CANCEL): (CANCELLED, CANCELLED),
    (Party.SELLER, TransactionMove.CANCEL): (CANCELLED, CANCELLED),
    (Party.CLOCK, TransactionMove.LAPSE): (CANCELLED, CANCELLED),
}
GIVES_BACK = {Party.SELLER, Party.ADMIN, Party.PROVIDER}


@pytest.mark.parametrize(("status", "party", "move"), CELLS)
def test_every_cell_of_the_table_is_as_the_domain_says(
    status: TransactionStatus, party: Party, move: TransactionMove
) -> None:
    expected = None
    if status is P:
        expected = PENDING.get((party, move))
    elif status is C and move is TransactionMove.REFUND and party in GIVES_BACK:
        expected = (REFUNDED, REFUNDED)
    elif (status, party, move) == (REFUNDED, Party.PROVIDER, TransactionMove.BOUNCE):
        expected = (C, C)
    what = outcome(status, party, move)
    found = what and (what.standing(is_seconded=False), what.standing(is_seconded=True))
    assert found == expected


def test_what_has_ended_stays_so_but_for_a_refund_that_fails() -> None:
    assert {status for status, _, _ in TABLE} == {P, C, REFUNDED}
    assert [(party, move) for status, party, move in TABLE if status is REFUNDED] == [
        (Party.PROVIDER, TransactionMove.BOUNCE)
    ]


def test_every_status_is_come_to() -> None:
    assert {status for what in TABLE.values() for status in what if status} == set(TransactionStatus)


@pytest.mark.parametrize("move", TransactionMove)
def test_every_move_is_somebodys(move: TransactionMove) -> None:
    assert any(may_ever(party, move) for party in Party)


def test_a_payment_is_begun_with_a_provider_and_confirmed_without() -> None:
    under = {move: [provider for provider in Provider if is_made_under(provider, move)] for move in TransactionMove}
    assert under.pop(TransactionMove.PAY) == [Provider.STRIPE]
    assert under.pop(TransactionMove.CONFIRM) == [Provider.MANUAL]
    assert all(providers == list(Provider) for providers in under.values())


def test_the_buyer_gives_nothing_back_and_the_seller_pays_nothing() -> None:
    assert not may_ever(Party.BUYER, TransactionMove.REFUND)
    assert not may_ever(Party.SELLER, TransactionMove.PAY)
    assert not any(may_ever(Party.ADMIN, move) for move in TransactionMove if move is not TransactionMove.REFUND)
