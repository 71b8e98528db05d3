"""Whether `parley load` sees what is wrong at a table: negotiations that are made up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from server.cli.load import packets
from server.cli.load.deals import Deals, Made
from server.cli.load.faults import DEALS, Fault, Faults
from server.cli.load.packets import Negotiation, Offer, Transaction

BUYERS = {"x": "amina", "y": "bilal", "z": "amina"}


def offer(offer_id: str, version: int, status: str, **more: Any) -> dict[str, Any]:
    buyer = BUYERS[offer_id]
    return {
        "offer_id": offer_id,
        "negotiation_id": f"of {buyer}",
        "listing_id": "l",
        "maker_id": buyer,
        "buyer_id": buyer,
        "seller_id": "seller",
        "price": {"amount": 500, "currency": "EUR"},
        "quantity": 1,
        "status": status,
        "parent_offer_id": None,
        "round": 1,
        "version": version,
        **more,
    }


def negotiation(on_the_table: Mapping[str, Any], version: int, **more: Any) -> dict[str, Any]:
    ids = {key: on_the_table[key] for key in ("negotiation_id", "listing_id", "buyer_id", "seller_id")}
    stands = {"status": "open", "turn": "seller", "rounds_left": 9, "version": version}
    return {**ids, **stands, "current_offer": on_the_table, **more}


def deal(of: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    ids = {key: of[key] for key in ("offer_id", "negotiation_id", "listing_id", "buyer_id", "seller_id")}
    return {
        "transaction_id": f"of {of['offer_id']}",
        "status": "pending",
        "version": 1,
        "subtotal": of["price"],
        **ids,
    } | more


class Table:
    """One piece for sale, and what its seller and two buyers hear; both buyers have an offer on the table."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.deals = Deals(self.faults)
        self.deals.listed("l", "seller", 1)
        self.tell(offer("x", 1, "pending"), "seller", "amina")
        self.tell(offer("y", 1, "pending"), "seller", "bilal")

    def tell(self, said: Mapping[str, Any], *names: str, is_late: bool = False) -> None:
        """These are told of an offer, a negotiation, or a deal."""
        type_ = Transaction if "transaction_id" in said else Offer if "offer_id" in said else Negotiation
        for name in names:
            self.deals.hear(name, packets.read(said, type_), said, is_late=is_late)

    def move(self, who: str, how: str, offer_id: str, data: Mapping[str, Any], **asked: Any) -> None:
        """A move on an offer that was on the table is acked."""
        seen = packets.read(offer(offer_id, 1, "pending"), Offer)
        self.deals.moved(Made(who, how, {"offer_id": offer_id, "version": 1, **asked}, seen), data)

    def accept(self, which: str, /, *told: str, after: Mapping[str, Any] | None = None, **of_deal: Any) -> None:
        """The seller accepts a buyer's offer, and of all that came of it these are told."""
        then = after or offer(which, 2, "accepted")
        made = deal(then, **of_deal)
        stands = negotiation(then, 2, status="agreed", turn="none")
        self.move("seller", "accept", which, {"offer": then, "negotiation": stands, "transaction": made})
        for said in (then, made, stands):
            self.tell(said, *(told or ("seller", BUYERS[which])))

    def counter(self, *told: str, **wrong: Any) -> None:
        """The seller counters Amina's offer, and of both offers these are told."""
        fields = {"maker_id": "seller", "parent_offer_id": "x", "round": 2, "price": {"amount": 600, "currency": "EUR"}}
        child = offer("z", 1, "pending") | fields | wrong
        stands = negotiation(child, 2, turn="buyer")
        asked = {"client_id": "1", "price": fields["price"]}
        self.move("seller", "counter", "x", {"offer": child, "negotiation": stands}, **asked)
        for said in (offer("x", 2, "rejected"), child, stands):
            self.tell(said, *(told or ("seller", "amina")))

    def found(self) -> set[Fault]:
        """What is wrong when all is over."""
        self.deals.close()
        return set(self.faults.found)


def test_a_deal_of_which_both_sides_are_told_is_right() -> None:
    table = Table()
    table.accept("x")
    table.tell(offer("y", 2, "rejected"), "seller", "bilal")
    assert table.deals.is_settled
    assert table.found() == set()
    assert table.deals.agreed == 1


def test_a_counter_of_which_both_sides_are_told_is_right() -> None:
    table = Table()
    table.counter()
    assert table.deals.is_settled
    assert table.found() == set()


def test_a_piece_that_is_sold_twice_is_found() -> None:
    table = Table()
    table.accept("x")
    table.accept("y")
    assert table.found() == {Fault.OVERSOLD}


def test_two_deals_in_one_negotiation_are_found() -> None:
    table = Table()
    table.deals.listed("l", "seller", 9)
    table.accept("x")
    table.tell(offer("z", 2, "accepted", round=2), "seller", "amina")
    assert table.found() == {Fault.TWO_DEALS}


def test_two_moves_that_win_at_one_version_are_found() -> None:
    table = Table()
    table.accept("x")
    after = offer("x", 2, "cancelled")
    table.move("amina", "withdraw", "x", {"offer": after, "negotiation": negotiation(after, 3)})
    assert Fault.TWO_WINNERS in table.found()


def test_two_counters_of_one_person_at_one_version_are_two_moves() -> None:
    table = Table()
    table.counter()
    table.move(
        "seller",
        "counter",
        "x",
        {"offer": offer("z", 1, "pending", maker_id="seller"), "negotiation": negotiation(offer("z", 1, "pending"), 2)},
        client_id="2",
        price=offer("z", 1, "pending")["price"],
    )
    assert Fault.TWO_WINNERS in table.found()


def test_a_version_that_does_not_go_up_is_found() -> None:
    table = Table()
    table.accept("x")
    table.tell(offer("x", 1, "pending"), "amina")
    assert table.found() == {Fault.VERSION}


def test_what_was_missed_may_come_behind_what_is_newer() -> None:
    table = Table()
    table.tell(negotiation(offer("x", 1, "pending"), 1), "seller")
    table.tell(negotiation(offer("x", 1, "pending"), 2), "seller", "amina")
    assert not table.deals.is_settled
    table.tell(negotiation(offer("x", 1, "pending"), 1), "amina", is_late=True)
    assert table.found() == set()


def test_sides_that_are_told_differently_are_found() -> None:
    table = Table()
    table.tell(offer("x", 2, "rejected"), "seller")
    table.tell(offer("x", 2, "expired"), "amina")
    assert table.found() == {Fault.SIDES_DIFFER}


def test_a_push_that_says_other_than_the_answer_is_found() -> None:
    table = Table()
    after = offer("x", 2, "rejected")
    table.move("seller", "decline", "x", {"offer": after, "negotiation": negotiation(after, 2)})
    table.tell(after | {"message": "no"}, "seller", "amina")
    table.tell(negotiation(after, 2), "seller", "amina")
    assert table.found() == {Fault.SIDES_DIFFER}


@pytest.mark.parametrize("told", [("seller",), ("amina",)])
def test_a_move_of_which_one_side_alone_is_told_is_found(told: tuple[str, ...]) -> None:
    for move in (lambda table: table.accept("x", *told), lambda table: table.counter(*told)):
        table = Table()
        move(table)
        assert not table.deals.is_settled
        assert table.found() == {Fault.UNTOLD}
        assert table.faults.count(Fault.UNTOLD) == 3


def test_a_move_of_which_nobody_is_told_is_found() -> None:
    table = Table()
    after = offer("y", 2, "cancelled")
    table.move("bilal", "withdraw", "y", {"offer": after, "negotiation": negotiation(after, 2)})
    assert not table.deals.is_settled
    assert table.found() == {Fault.UNTOLD}


def test_what_the_clock_does_has_to_reach_both_sides_as_well() -> None:
    table = Table()
    table.tell(offer("x", 2, "expired"), "seller")
    assert table.found() == {Fault.SIDES_DIFFER}


def test_an_outsider_who_hears_in_a_sides_place_is_found() -> None:
    table = Table()
    table.accept("x", "seller", "bilal")
    assert table.found() == {Fault.OUTSIDER, Fault.UNTOLD}
    assert set(table.faults.found) <= set(DEALS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"price": {"amount": 501, "currency": "EUR"}},
        {"price": {"amount": 500, "currency": "USD"}},
        {"quantity": 2},
        {"maker_id": "seller"},
        {"status": "pending"},
        {"version": 3},
        {"seller_id": "bilal"},
    ],
)
def test_an_offer_that_was_accepted_otherwise_than_it_was_seen_is_found(wrong: dict[str, Any]) -> None:
    table = Table()
    table.deals.listed("l", "seller", 9)
    table.accept("x", after=offer("x", 2, "accepted") | wrong)
    assert Fault.TERMS in table.found()


@pytest.mark.parametrize(
    "wrong",
    [
        {"subtotal": {"amount": 499, "currency": "EUR"}},
        {"buyer_id": "bilal"},
        {"seller_id": "bilal"},
        {"offer_id": "y"},
        {"negotiation_id": "of bilal"},
    ],
)
def test_a_deal_that_is_not_what_was_agreed_is_found(wrong: dict[str, Any]) -> None:
    table = Table()
    table.accept("x", **wrong)
    assert Fault.TERMS in table.found()


def test_an_accept_without_a_deal_is_found() -> None:
    table = Table()
    after = offer("x", 2, "accepted")
    table.move("seller", "accept", "x", {"offer": after, "negotiation": negotiation(after, 2)})
    assert Fault.TERMS in table.found()


@pytest.mark.parametrize(
    "wrong",
    [
        {"price": {"amount": 601, "currency": "EUR"}},
        {"quantity": 2},
        {"maker_id": "amina"},
        {"parent_offer_id": None},
        {"parent_offer_id": "y"},
        {"round": 3},
        {"version": 2},
        {"status": "accepted"},
        {"seller_id": "bilal"},
    ],
)
def test_a_counter_that_is_not_what_was_asked_is_found(wrong: dict[str, Any]) -> None:
    table = Table()
    table.counter(**wrong)
    assert Fault.TERMS in table.found()


def test_two_offers_of_one_round_are_found() -> None:
    table = Table()
    table.tell(offer("z", 1, "pending"), "seller", "amina")
    assert table.found() == {Fault.TERMS}


def test_a_move_that_is_not_theirs_and_was_acked_is_found() -> None:
    table = Table()
    table.deals.tolerated("amina", "accept", "it is their own", "x")
    assert table.found() == {Fault.ILLEGAL}


def test_what_one_side_alone_is_told_of_a_transaction_is_no_difference() -> None:
    table, paid = Table(), deal(offer("x", 2, "accepted"), transaction_id="t")
    table.tell(paid | {"client_secret": None}, "seller")
    table.tell(paid | {"client_secret": "s"}, "amina")
    table.tell(paid | {"client_secret": "s", "version": 2}, "seller", "amina")
    assert table.found() == set()
