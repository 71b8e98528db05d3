"""The table of moves, walked whole."""

from __future__ import annotations

import itertools

import pytest

from rules.offers import TABLE, CloseReason, Move, Mover, NegotiationStatus, OfferStatus, Side, Turn, outcome

P, A = OfferStatus.PENDING, OfferStatus.ACCEPTED
OPEN, CLOSED = NegotiationStatus.OPEN, NegotiationStatus.CLOSED

# (state, mover, move): the offer, why, the negotiation with rounds left and without, whose turn; the seller made it.
EXPECTED = {
    (P, Mover.OTHER, Move.COUNTER): ("rejected", "countered", "open", "open", "seller"),
    (P, Mover.MAKER, Move.WITHDRAW): ("cancelled", "withdrawn", "open", "closed", "none"),
    (P, Mover.OTHER, Move.DECLINE): ("rejected", "declined", "open", "closed", "buyer"),
    (P, Mover.OTHER, Move.AUTO_DECLINE): ("rejected", "auto_declined", "open", "closed", "buyer"),
    (P, Mover.OTHER, Move.ACCEPT): ("accepted", None, "agreed", "agreed", "none"),
    (P, Mover.CLOCK, Move.EXPIRE): ("expired", "timeout", "open", "closed", "none"),
    (P, Mover.MAKER, Move.SUPERSEDE): ("cancelled", "superseded", "open", "open", "none"),
    (P, Mover.SYSTEM, Move.SELL_OUT): ("cancelled", "listing_sold", "closed", "closed", "none"),
    (P, Mover.SYSTEM, Move.CLOSE_LISTING): ("cancelled", "listing_closed", "closed", "closed", "none"),
    (P, Mover.SYSTEM, Move.BLOCK): ("cancelled", "blocked", "closed", "closed", "none"),
    (P, Mover.SYSTEM, Move.LEAVE): ("cancelled", "withdrawn", "closed", "closed", "none"),
    (A, Mover.CLOCK, Move.LAPSE): ("cancelled", "payment_lapsed", "closed", "closed", "none"),
    (A, Mover.EITHER, Move.CANCEL): ("cancelled", "withdrawn", "open", "closed", "none"),
    (A, Mover.EITHER, Move.COMPLETE): ("accepted", None, "completed", "completed", "none"),
}


@pytest.mark.parametrize("key", list(itertools.product(OfferStatus, Mover, Move)), ids=lambda key: ":".join(key))
def test_every_move_in_every_state_by_everybody_is_as_the_contract_says(key: tuple[OfferStatus, Mover, Move]) -> None:
    found = outcome(*key)
    if key not in EXPECTED:
        assert found is None
        return
    assert found is not None
    status, reason, open_, spent, turn = EXPECTED[key]
    assert (found.status, found.reason) == (status, reason)
    assert found.standing(3, Side.SELLER) == (open_, turn)
    assert found.standing(0, Side.SELLER) == (spent, turn if spent == open_ else "none")


def test_whose_turn_it_is_depends_on_whose_offer_it_was() -> None:
    countered = TABLE[P, Mover.OTHER, Move.COUNTER]
    assert [countered.standing(1, side)[1] for side in (Side.BUYER, Side.SELLER)] == [Side.BUYER, Side.SELLER]
    assert [side.other() for side in Side] == [Side.SELLER, Side.BUYER, Side.NONE]


def test_every_reason_and_every_word_of_the_table_is_used() -> None:
    assert {found.reason for found in TABLE.values()} == {*CloseReason, None}
    assert {found.turn for found in TABLE.values()} == set(Turn)
    assert {move for _, _, move in TABLE} == set(Move)
    assert {found.negotiation for found in TABLE.values()} == set(NegotiationStatus)
