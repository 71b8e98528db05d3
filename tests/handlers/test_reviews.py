"""Reviews: once a side of a completed deal, and what they make of somebody's rating."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.handlers.test_transactions import Deal, act, agreed, completed, reason
from tests.market import listed, refused
from tests.people import PASSWORD, Instance, Person, Refusal


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def review(author: Person, deal: Deal, rating: int = 5, **more: Any) -> dict[str, Any]:
    asked = {"transaction_id": deal["transaction_id"], "rating": rating, "client_id": uuid4().hex, **more}
    written: dict[str, Any] = await author.post("review:create", **asked)
    return written


@pytest.mark.both_postgres
async def test_both_sides_review_each_other_once(amina: Person, bilal: Person) -> None:
    deal, phone, hers = await completed(amina, bilal), await bilal.connect(), await amina.connect()
    asked = {"transaction_id": deal["transaction_id"], "rating": 4, "text": "As said.", "client_id": "mine"}
    written = await bilal.post("review:create", **asked)
    assert (written["author_id"], written["subject_id"], written["rating"]) == (bilal.user_id, amina.user_id, 4)
    assert await bilal.post("review:create", **asked) == written
    assert (await refused(bilal, "review:create", **{**asked, "rating": 5}))["reason"] == "key_reuse"
    error = await refused(bilal, "review:create", **{**asked, "client_id": "another"})
    assert (error["reason"], error["current"]) == ("taken", written)
    for device in (phone, hers):
        assert (await device.hearing("review:created")).payload == written
    assert (await hers.hearing("user:updated")).payload["seller_rating"] == 4.0
    theirs = await review(amina, deal, 5)
    assert (await bilal.post("review:list", user_id=amina.user_id))["reviews"] == [written]
    assert (await amina.post("review:list", user_id=bilal.user_id))["reviews"] == [theirs]


async def test_a_rating_is_the_mean_to_the_hundredth(parley: Instance, amina: Person, bilal: Person) -> None:
    lamp = await listed(amina, quantity=9)
    assert (await amina.post("account:me"))["seller_rating"] is None
    deals = []
    for rating in (5, 5, 4):
        deals.append(await completed(amina, bilal, lamp))
        await review(bilal, deals[-1], rating)
    await review(amina, deals[0], 1)  # says nothing of the seller
    me = await amina.post("account:me")
    assert (me["seller_rating"], me["total_sales"]) == (4.67, 3)
    shown = await bilal.post("user:get", user_id=amina.user_id)
    assert (shown["seller_rating"], shown["total_sales"]) == (4.67, 3)
    [found] = (await bilal.post("user:search", query=amina.username))["users"]
    assert found == shown
    changed = await amina.post("account:update", full_name="Amina")
    assert (changed["seller_rating"], changed["total_sales"]) == (4.67, 3)
    assert (await bilal.post("account:me"))["seller_rating"] == 1.0
    page = await bilal.post("review:list", user_id=amina.user_id, limit=2)
    rest = await bilal.post("review:list", user_id=amina.user_id, before=page["next"])
    assert [each["rating"] for each in page["reviews"] + rest["reviews"]] == [4, 5, 5]
    assert rest["next"] is None


async def test_completed_deals_alone_are_reviewed(amina: Person, bilal: Person) -> None:
    deal = (await agreed(amina, bilal))["transaction"]
    for how in ("pending", "cancelled"):
        if how == "cancelled":
            await act(bilal, "cancel", deal)
        error = await refused(
            bilal, "review:create", transaction_id=deal["transaction_id"], rating=1, client_id=uuid4().hex
        )
        assert (error["reason"], error["current"]["status"]) == ("not_pending", how)
    done = await completed(amina, bilal)
    await act(amina, "refund", done)
    error = await refused(
        bilal, "review:create", transaction_id=done["transaction_id"], rating=1, client_id=uuid4().hex
    )
    assert error["reason"] == "not_pending"


async def test_who_had_no_part_in_it_reviews_nobody(parley: Instance, amina: Person, bilal: Person) -> None:
    deal, stranger = await completed(amina, bilal), await parley.person("chadi")
    asked = {"transaction_id": deal["transaction_id"], "rating": 1, "client_id": "1"}
    assert (await refused(stranger, "review:create", **asked))["code"] == "not_found"
    for rating in (0, 6, 4.5, "5", True):
        assert (await refused(bilal, "review:create", **{**asked, "rating": rating}))["code"] == "invalid"
    assert (await refused(bilal, "review:list", user_id=str(uuid4())))["code"] == "not_found"


async def test_at_one_instant_one_review_is_written(amina: Person, bilal: Person) -> None:
    deal = await completed(amina, bilal)
    answers = await asyncio.gather(*(review(bilal, deal, rating) for rating in (1, 2, 3)), return_exceptions=True)
    [written] = [answer for answer in answers if isinstance(answer, dict)]
    assert all(each.error["reason"] == "taken" for each in answers if isinstance(each, Refusal))
    assert (await amina.post("account:me"))["seller_rating"] == written["rating"]


async def test_whoever_deletes_their_account_leaves_deals_and_ratings_but_no_words(parley: Instance) -> None:
    amina, bilal = await parley.register("amina"), await parley.register("bilal")
    lamp = await listed(amina, quantity=9)
    deal = await completed(amina, bilal, lamp)
    written = await review(bilal, deal, 2, text="cardamom")
    said = (await agreed(amina, bilal, lamp, message="cardamom"))["transaction"]
    chat = (await amina.post("negotiation:get", negotiation_id=said["negotiation_id"]))["conversation_id"]
    phone = await amina.connect()
    await bilal.post("account:delete", password=PASSWORD)
    gone = await amina.post("transaction:get", transaction_id=said["transaction_id"])
    assert gone["status"] == "cancelled"
    assert (await phone.hearing("transaction:changed", status="cancelled")).payload == gone
    negotiation = await amina.post("negotiation:get", negotiation_id=said["negotiation_id"])
    assert (negotiation["status"], negotiation["current_offer"]["message"]) == ("closed", None)
    kept = await amina.post("transaction:receipt", transaction_id=deal["transaction_id"])
    assert kept["parties"] == {"buyer_id": bilal.user_id, "seller_id": amina.user_id}
    [left] = (await amina.post("review:list", user_id=amina.user_id))["reviews"]
    assert left == {**written, "text": None}
    assert (await amina.post("account:me"))["seller_rating"] == 2.0
    told = await phone.until(
        lambda heard: [p for p in heard if p.name == "offer:changed" and p.payload["message"] is None], "no message"
    )
    assert told[-1].payload == negotiation["current_offer"]
    for room in (f"user:{amina.user_id}", f"conversation:{chat}"):
        log = await amina.post("room:sync", room=room, after=0, limit=1_000)
        assert log["events"]
        assert "cardamom" not in str(log)
    page = await amina.post("message:history", conversation_id=chat)
    assert [m["deleted_at"] for m in page["messages"] if m["type"] == "offer"] == [None] * len(page["messages"])
    assert "cardamom" not in str(page)


async def test_a_seller_who_is_gone_sells_nothing_more(parley: Instance, bilal: Person) -> None:
    amina = await parley.register("amina")
    deal = (await agreed(amina, bilal))["transaction"]
    await amina.post("account:delete", password=PASSWORD)
    gone = await bilal.post("transaction:get", transaction_id=deal["transaction_id"])
    assert gone["status"] == "cancelled"
    assert await reason(bilal, "confirm", deal) == "not_pending"
    negotiation = await bilal.post("negotiation:get", negotiation_id=deal["negotiation_id"])
    assert negotiation["status"] == "closed"
