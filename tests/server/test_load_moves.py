"""What the people of `parley load` do at a table, and what they try in vain."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import count
from typing import Any

from server.cli.load import packets
from server.cli.load.moves import Seat, buyers_move, forbidden_moves, sellers_answer, wants_no_more
from server.cli.load.packets import Listing, Negotiation
from tests.server.test_load_deals import negotiation, offer


def seat(*known: Mapping[str, Any]) -> Seat:
    """Somebody who knows these negotiations."""
    found = Seat(random.Random(1))
    for each in known:
        found.learn(packets.read(each, Negotiation))
    return found


IDS = map(str, count())
LISTING = Listing("l", 1, 1)


def test_a_seller_answers_each_offer_once_until_something_has_changed() -> None:
    seller = seat(negotiation(offer("x", 1, "pending"), 1))
    move = sellers_answer(seller, IDS.__next__)
    assert move is not None
    assert move.negotiation is not None
    seller.doubt(move.negotiation)
    assert sellers_answer(seller, IDS.__next__) is None
    seller.learn(packets.read(negotiation(offer("z", 1, "pending"), 2), Negotiation))
    assert sellers_answer(seller, IDS.__next__) is not None


def test_how_often_a_buyer_is_asked_decides_nothing() -> None:
    for number in range(50):
        buyer = Seat(random.Random(number))
        buyer.learn(packets.read(negotiation(offer("x", 2, "rejected"), 3, turn="buyer"), Negotiation))
        asked = [(wants_no_more(buyer), move and move.payload["price"]) for move in _asked(buyer, 5)]
        assert asked == asked[:1] * 5


def _asked(buyer: Seat, times: int) -> list[Any]:
    return [buyers_move(buyer, LISTING, IDS.__next__) for _ in range(times)]


def test_a_move_that_is_tried_to_see_it_refused_is_never_one_that_may_be_made() -> None:
    own = negotiation(offer("x", 1, "pending"), 1)
    theirs = negotiation(offer("x", 1, "pending", maker_id="seller"), 1, turn="buyer")
    rivals = negotiation(offer("y", 1, "pending"), 1)
    for known in (own, theirs):
        tried = list(forbidden_moves("amina", seat(known), seat(known, rivals), IDS.__next__))
        assert {move.payload["offer_id"] for move in tried} == {"x", "y"}
        for move in tried:
            how, is_own = move.command.removeprefix("offer:"), known is own
            is_stale, is_rivals = move.payload["version"] != 1, move.payload["offer_id"] == "y"
            assert is_stale or is_rivals or (how == "withdraw") != is_own
            assert move.against
