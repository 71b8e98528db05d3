"""From a thread to a deal and its reviews, by the clients that phones have: the market's story from end to end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.browsers import Opens
from tests.market import eur
from tests.people import Device, Instance

LAMP = {"title": "Moon lamp, vintage", "category": "home_decor", "condition": "good"}


@pytest.mark.both_postgres
async def test_a_stranger_in_a_thread_becomes_a_buyer_with_a_receipt(
    new_instance: Callable[..., Awaitable[Instance]], browse: Opens
) -> None:
    parley = await new_instance()
    nadia, salim = [await parley.register(name) for name in ("nadia", "salim")]
    seller, buyer = await nadia.connect(), await browse(salim, "websocket")
    both = (seller, buyer)

    # Nadia opens a thread for old lamps. Salim finds it, joins, and both hear of it.
    thread = await seller.call(
        "thread:create", title="Old lamps", category="home_decor", description="All that glows", client_id="lamps"
    )
    found = await buyer.call("thread:list", category="home_decor")
    assert thread["thread_id"] in [each["thread_id"] for each in found["threads"]]
    joined = await buyer.call("thread:join", thread_id=thread["thread_id"])
    assert (joined["joined"], joined["member_count"]) == (True, 2)
    await seller.hearing("member:joined", user_id=salim.user_id)
    await seller.send(thread["thread_id"], "Welcome!")
    for device in both:
        assert (await device.hearing("message:created", text="Welcome!")).room == f"thread:{thread['thread_id']}"

    # Nadia lists her lamp there, Salim says what he looks for: the two are found to belong together.
    lamp = await seller.call(
        "listing:create",
        thread_id=thread["thread_id"],
        kind="for_sale",
        description="Works, a scratch on the base.",
        price=eur(10_000),
        client_id="my lamp",
        **LAMP,
    )
    assert (await buyer.hearing("listing:created")).payload["listing_id"] == lamp["listing_id"]
    wish = await buyer.call(
        "listing:create",
        thread_id=thread["thread_id"],
        kind="wtb",
        description="For my desk.",
        price=eur(11_000),
        client_id="my wish",
        **LAMP,
    )
    for device in both:
        match = (await device.hearing("match:found")).payload
        ends = {match["source_listing"]["listing_id"], match["matched_listing"]["listing_id"]}
        assert (ends, match["quality"], match["status"]) == (
            {lamp["listing_id"], wish["listing_id"]},
            "excellent",
            "new",
        )

    # Salim looks at the match and is interested; so is Nadia. That makes it mutual, with a conversation to talk in.
    listed = (await buyer.call("match:list", listing_id=wish["listing_id"]))["matches"]
    assert [each["match_id"] for each in listed] == [match["match_id"]]
    seen = await buyer.call("match:act", match_id=match["match_id"], action="viewed")
    assert seen["match"]["status"] == "viewed"
    await buyer.call("match:act", match_id=match["match_id"], action="interested")
    answer = await seller.call("match:act", match_id=match["match_id"], action="interested")
    mutual = answer["mutual_match"]
    assert (answer["match"]["status"], mutual["is_mutual"], mutual["status"]) == ("mutual", True, "active")
    assert (mutual["buyer_user_id"], mutual["seller_user_id"]) == (salim.user_id, nadia.user_id)
    for device in both:
        assert (await device.hearing("match:mutual")).payload == mutual
        await device.hearing("conversation:created", conversation_id=mutual["conversation_id"])

    # They talk.
    await buyer.send(mutual["conversation_id"], "Is it still there?")
    assert (await seller.hearing("message:created", text="Is it still there?")).payload["sender_id"] == salim.user_id
    await seller.send(mutual["conversation_id"], "It is.")

    # Salim asks, for all to read. Nadia answers, and he is content.
    await buyer.call("room:join", room=f"listing:{lamp['listing_id']}")
    question = await buyer.call("faq:ask", listing_id=lamp["listing_id"], text="Which bulb?", client_id="bulb")
    assert (await seller.hearing("faq:posted", faq_id=question["faq_id"])).payload["text"] == "Which bulb?"
    given = await seller.call("faq:answer", parent_id=question["faq_id"], text="E14.", client_id="e14")
    await buyer.hearing("faq:posted", faq_id=given["faq_id"], type="answer")
    assert (await buyer.call("faq:accept", faq_id=given["faq_id"]))["is_accepted"] is True

    # He offers, she counters, he accepts.
    first = await buyer.call(
        "offer:make",
        listing_id=lamp["listing_id"],
        listing_version=lamp["version"],
        price=eur(8_000),
        message="Cash, today",
        client_id="eighty",
    )
    assert first["negotiation"]["negotiation_id"] == mutual["negotiation_id"]
    offered = (await seller.hearing("offer:changed", offer_id=first["offer"]["offer_id"])).payload
    second = await seller.call(
        "offer:counter", offer_id=offered["offer_id"], version=offered["version"], price=eur(9_000), client_id="ninety"
    )
    offered = (await buyer.hearing("offer:changed", offer_id=second["offer"]["offer_id"])).payload
    assert (offered["price"], offered["changes"]) == (eur(9_000), ["price", "message"])
    agreed = await buyer.call("offer:accept", offer_id=offered["offer_id"], version=offered["version"])
    deal = agreed["transaction"]
    assert (agreed["negotiation"]["status"], deal["status"], deal["subtotal"]) == ("agreed", "pending", eur(9_000))
    assert (await seller.hearing("listing:changed", status="reserved")).payload["reserved"] == 1

    # He pays, she says so too: the lamp is sold, and the match has become a deal.
    paid = await buyer.call("transaction:pay", transaction_id=deal["transaction_id"], version=deal["version"])
    done = await seller.call("transaction:confirm", transaction_id=deal["transaction_id"], version=paid["version"])
    assert done["status"] == "completed"
    for device in both:
        await device.hearing("transaction:changed", status="completed")
        await device.hearing("negotiation:changed", status="completed")
        await device.hearing("match:changed", match_id=match["match_id"], status="deal_made")
    assert (await buyer.hearing("listing:sold")).payload["sold"] == 1
    receipts = [await device.call("transaction:receipt", transaction_id=deal["transaction_id"]) for device in both]
    history = await buyer.call("negotiation:history", negotiation_id=mutual["negotiation_id"])
    assert receipts[0] == receipts[1]
    assert (receipts[0]["offers"], receipts[0]["history_sha256"]) == (history["offers"], history["history_sha256"])

    # They thank each other, and the next buyer reads it.
    for device, words in ((buyer, "Glows as promised."), (seller, "Paid at once.")):
        await device.call(
            "review:create", transaction_id=deal["transaction_id"], rating=5, text=words, client_id="thanks"
        )
    await seller.hearing("review:created", author_id=salim.user_id)
    known = await buyer.call("user:get", user_id=nadia.user_id)
    assert (known["seller_rating"], known["total_sales"]) == (5.0, 1)
    read = await buyer.call("review:list", user_id=nadia.user_id)
    assert [review["text"] for review in read["reviews"]] == ["Glows as promised."]
    assert_in_order(*both)


def assert_in_order(*devices: Device) -> None:
    """Each has heard every room's events in their order, none missing, none twice."""
    for device in devices:
        rooms = {push.room for push in device.heard if "seq" in push.meta}
        for room in rooms:
            seqs = [push.seq for push in device.heard if push.room == room and "seq" in push.meta]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), room
