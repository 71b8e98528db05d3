"""Whether what people were told of an offer that they all moved is what the database says became of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.faults.racers import Answer, Asked

# Which end of an offer is whose doing: the move that wins, None where nobody's does.
WON_BY = {
    ("accepted", None): "accept",
    ("rejected", "countered"): "counter",
    ("rejected", "declined"): "decline",
    ("cancelled", "withdrawn"): "withdraw",
    ("expired", "timeout"): None,
    ("cancelled", "listing_sold"): None,
    ("cancelled", "listing_closed"): None,
    ("cancelled", "blocked"): None,
}
# Refusals of an offer that stays on the table.
STAYS = ("expired", "sold", "listing_changed", "rounds_spent")


def misjudged(row: Any, mine: Sequence[tuple[Asked, Answer]], heard: Sequence[tuple[Asked, Answer]]) -> Iterator[str]:
    """Where not one has won whose move ended the offer, or somebody has where something else did; and its deals.

    `mine` are the moves on the offer with their answers, `heard` are all of the round.
    """
    end = (row["status"], row["close_reason"])
    wins = {asked.key for asked, answer in mine if answer["ok"]}
    if row["status"] != "pending":
        winner = WON_BY.get(end, "nothing")
        all_declined = any(asked.command == "offer:decline_all" and answer["ok"] for asked, answer in heard)
        if {command.partition(":")[2] for _, command, _ in wins} != ({winner} if winner else set()) and not (
            winner == "decline" and all_declined and not wins
        ):
            yield f"it ended {end}, and won have {list(wins)}"
    elif wins:
        yield f"it is on the table still, and won have {list(wins)}"
    if len(wins) > 1:
        yield f"{len(wins)} have won: {list(wins)}"
    deals = deals_of(mine)
    if len(deals) != (row["status"] == "accepted"):
        yield f"{end}, and its deals are {deals}"


def deals_of(mine: Sequence[tuple[Asked, Answer]]) -> set[str]:
    """The transactions that those who moved an offer were told of."""
    told = [answer["data"] for _, answer in mine if answer["ok"]]
    return {data["transaction"]["transaction_id"] for data in told if "transaction" in data}


def is_told(asked: Asked, answer: Answer, row: Any) -> bool:
    """Whether a move won, or its conflict shows the offer as it is: as it ended, or on the table for a reason."""
    if answer["ok"]:
        return True
    error = answer["error"]
    if error["code"] != "conflict":
        return False
    current = error.get("current") or {}
    if current.get("offer_id") != asked.payload["offer_id"]:
        return False
    shown = (current["status"], current["close_reason"], current["version"])
    is_as_it_is: bool = shown == (row["status"], row["close_reason"], row["version"])
    return is_as_it_is or (error["reason"] in STAYS and shown == ("pending", None, 1))


def is_same(data: Answer, offer: Answer, row: Any, deals: set[str]) -> bool:
    """Whether a repeat is answered by the same object as it is now."""
    if data["offer"]["offer_id"] != offer["offer_id"]:
        return bool(data["offer"]["parent_offer_id"] == offer["offer_id"])
    deal = data.get("transaction")
    is_as_it_is = (data["offer"]["status"], data["offer"]["version"]) == (row["status"], row["version"])
    return is_as_it_is and deals == ({deal["transaction_id"]} if deal else set())
