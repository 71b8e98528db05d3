"""Offers: who makes them, who answers them, what becomes of them, and what both sides hear."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from rules.users import Scope
from server.rooms.bus import LocalBus, LocalHub
from tests.market import conflict, counter, eur, listed, move, offer, refused, run_out, set_, settled, stock
from tests.people import Instance, Person

NewInstance = Callable[..., Awaitable[Instance]]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def test_an_offer_is_countered_accepted_and_stands_in_the_conversation(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    lamp, phone = await listed(amina), await bilal.connect()
    first = await offer(bilal, lamp, 8_000, message="Today?")
    assert (first["offer"]["status"], first["offer"]["round"], first["offer"]["changes"]) == ("pending", 1, [])
    assert (first["negotiation"]["turn"], first["negotiation"]["rounds_left"]) == ("seller", 9)
    second = await counter(amina, first, 9_500)
    assert second["offer"]["parent_offer_id"] == first["offer"]["offer_id"]
    assert second["offer"]["changes"] == ["price", "message"]
    assert (second["negotiation"]["turn"], second["negotiation"]["round"]) == ("buyer", 2)
    done = await move(bilal, "accept", second)
    assert (done["offer"]["status"], done["negotiation"]["status"]) == ("accepted", "agreed")
    deal = done["transaction"]
    assert (deal["status"], deal["subtotal"], deal["platform_fee"]["amount"]) == ("pending", eur(9_500), 475)
    assert deal["platform_fee"]["amount"] + deal["seller_payout"]["amount"] == 9_500
    assert await stock(parley, lamp) == (1, 0, "reserved")
    chat = done["negotiation"]["conversation_id"]
    page = await amina.post("message:history", conversation_id=chat)
    assert [(m["type"], m["offer"]["offer_id"], m["sender_id"]) for m in page["messages"]] == [
        ("offer", first["offer"]["offer_id"], bilal.user_id),
        ("offer", second["offer"]["offer_id"], amina.user_id),
    ]
    assert page["messages"][1]["offer"] == done["offer"]
    agreed = await phone.hearing("negotiation:changed", status="agreed")
    assert agreed.payload == {**done["negotiation"], "rivals": None}
    told = [push.payload["status"] for push in phone.of(f"conversation:{chat}") if push.name == "offer:changed"]
    assert told == ["pending", "rejected", "pending", "accepted"]
    await phone.hearing("transaction:changed", transaction_id=deal["transaction_id"])


async def test_history_shows_every_offer_and_its_hash_moves_with_it(amina: Person, bilal: Person) -> None:
    first = await offer(bilal, await listed(amina), 8_000)
    asked = {"negotiation_id": first["negotiation"]["negotiation_id"]}
    early = await amina.post("negotiation:history", **asked)
    assert early["offers"] == [first["offer"]]
    await counter(amina, first, 9_000)
    late = await bilal.post("negotiation:history", **asked)
    assert [o["price"]["amount"] for o in late["offers"]] == [8_000, 9_000]
    assert late == await amina.post("negotiation:history", **asked)
    assert late["history_sha256"] != early["history_sha256"]


async def test_the_same_command_again_is_the_same_offer_and_the_same_move(amina: Person, bilal: Person) -> None:
    lamp = await listed(amina)
    asked = {"listing_id": lamp["listing_id"], "listing_version": 1, "price": eur(8_000), "client_id": "mine"}
    made = await bilal.post("offer:make", **asked)
    assert await bilal.post("offer:make", **asked) == made
    assert (await refused(bilal, "offer:make", **{**asked, "price": eur(8_001)}))["reason"] == "key_reuse"
    declined = await move(amina, "decline", made)
    assert await move(amina, "decline", made) == declined
    assert await conflict(bilal, "withdraw", made) == "not_pending"
    again = await offer(bilal, lamp)
    accepted = await move(amina, "accept", again)
    assert await move(amina, "accept", again) == accepted
    assert await conflict(bilal, "accept", again) == "not_pending"


async def test_the_maker_withdraws_and_the_other_side_answers(amina: Person, bilal: Person) -> None:
    lamp = await listed(amina)
    made = await offer(bilal, lamp)
    for how in ("accept", "decline"):
        assert await conflict(bilal, how, made) == "not_your_turn"
    assert await conflict(bilal, "counter", made, price=eur(1), client_id="1") == "not_your_turn"
    assert await conflict(amina, "withdraw", made) == "not_your_turn"
    gone = await move(bilal, "withdraw", made)
    assert (gone["offer"]["status"], gone["offer"]["close_reason"]) == ("cancelled", "withdrawn")
    assert (gone["negotiation"]["status"], gone["negotiation"]["turn"]) == ("open", "none")
    await offer(amina, lamp, buyer_id=bilal.user_id)  # either may make the next


async def test_one_offer_is_on_the_table_at_a_time(amina: Person, bilal: Person) -> None:
    lamp = await listed(amina)
    made = await offer(bilal, lamp)
    asked = {"listing_id": lamp["listing_id"], "listing_version": 1, "price": eur(1), "client_id": uuid4().hex}
    for person, more in ((bilal, {}), (amina, {"buyer_id": bilal.user_id})):
        error = await refused(person, "offer:make", **asked, **more)
        assert (error["reason"], error["current"]["offer_id"]) == ("not_your_turn", made["offer"]["offer_id"])
    await move(amina, "decline", made)
    error = await refused(amina, "offer:make", **{**asked, "client_id": "2"}, buyer_id=bilal.user_id)
    assert (error["reason"], error["current"]["turn"]) == ("not_your_turn", "buyer")


async def test_an_old_version_moves_nothing(amina: Person, bilal: Person) -> None:
    made = await offer(bilal, await listed(amina))
    for version in (0, 2):
        assert await conflict(amina, "accept", made, version=version) == "version"


async def test_rounds_are_counted_and_end(parley: Instance, amina: Person, bilal: Person) -> None:
    lamp = await listed(amina)
    await amina.post("autorule:set", listing_id=lamp["listing_id"], enabled=True, max_rounds=3)
    made = await offer(bilal, lamp)
    assert made["negotiation"]["rounds_left"] == 2
    made = await counter(amina, made, 9_500)
    made = await counter(bilal, made, 9_300)
    assert made["negotiation"]["rounds_left"] == 0
    assert await conflict(amina, "counter", made, price=eur(9_400), client_id="1") == "rounds_spent"
    done = await move(amina, "decline", made)
    assert (done["negotiation"]["status"], done["negotiation"]["turn"]) == ("closed", "none")
    asked = {"listing_id": lamp["listing_id"], "listing_version": 1, "price": eur(1), "client_id": "1"}
    assert (await refused(bilal, "offer:make", **asked))["reason"] == "rounds_spent"


@pytest.mark.parametrize("how", ["accept", "decline", "withdraw", "counter"])
async def test_whose_time_is_over_moves_no_more_and_nothing_is_written(
    parley: Instance, amina: Person, bilal: Person, how: str
) -> None:
    lamp = await listed(amina)
    made = await offer(bilal, lamp)
    await run_out(parley, made)
    more = {"price": eur(9_500), "client_id": "1"} if how == "counter" else {}
    assert await conflict(bilal if how == "withdraw" else amina, how, made, **more) == "expired"
    assert await stock(parley, lamp) == (0, 0, "active")


async def test_the_clock_ends_offers_and_both_may_make_the_next(parley: Instance, amina: Person, bilal: Person) -> None:
    lamp, phone = await listed(amina), await bilal.connect()
    made = await offer(bilal, lamp)
    await run_out(parley, made)
    await parley.parley.jobs.expire_offers()
    ended = await phone.hearing("offer:changed", status="expired")
    assert (ended.payload["close_reason"], ended.payload["version"]) == ("timeout", 2)
    stands = await phone.hearing("negotiation:changed", turn="none")
    assert stands.payload["status"] == "open"
    assert await conflict(amina, "accept", made) == "expired"
    made = await offer(amina, lamp, buyer_id=bilal.user_id)
    await run_out(parley, made)
    again = await offer(bilal, lamp)  # which writes the end of the one before
    assert again["negotiation"]["round"] == 3


async def test_both_are_warned_an_hour_and_five_minutes_before_the_end(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    made = await offer(bilal, await listed(amina))
    short = await offer(bilal, await listed(amina), expires_in_s=300)
    phone, ends = await amina.connect(), made["offer"]["offer_id"]

    def warnings() -> list[str]:
        return [push.payload["offer_id"] for push in phone.heard if push.name == "offer:expiring"]

    await parley.parley.jobs.warn_of_ends()
    for left, told in (("59 minutes", 1), ("59 minutes", 1), ("4 minutes", 2), ("3 minutes", 2)):
        await set_(parley, f"update offers set expires_at = now() + interval '{left}' where offer_id = $1", ends)
        await parley.parley.jobs.warn_of_ends()
        await settled(phone, amina)
        assert warnings() == [ends] * told
    assert short["offer"]["offer_id"] not in warnings()


async def test_whoever_missed_the_first_warning_has_one_and_what_is_over_none(
    monkeypatch: pytest.MonkeyPatch, parley: Instance, amina: Person, bilal: Person
) -> None:
    monkeypatch.setattr("handlers.endings.BATCH", 1)
    made, phone = [await offer(bilal, await listed(amina)) for _ in range(4)], await amina.connect()
    for each, left in zip(made, ("4 minutes", "50 minutes", "4 minutes", "-1 seconds"), strict=True):
        late = f"update offers set expires_at = now() + interval '{left}' where offer_id = $1"
        await set_(parley, late, each["offer"]["offer_id"])
    for _ in range(2):
        await parley.parley.jobs.warn_of_ends()
    await settled(phone, amina)
    warned = [push.payload["offer_id"] for push in phone.heard if push.name == "offer:expiring"]
    assert sorted(warned) == sorted(each["offer"]["offer_id"] for each in made[:3])


async def test_rivals_are_other_buyers_whose_own_offers_stand(
    new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.jobs.CLOCK_EVERY_S", 3_600.0)
    parley = await new_instance()
    amina = await parley.person("amina")
    lamp = await listed(amina, quantity=9)
    made = [await offer(await parley.person(f"buyer{n}"), lamp) for n in range(4)]
    await counter(amina, made[0], 9_500)
    await run_out(parley, made[1])
    desk = (await amina.post("negotiation:list"))["negotiations"]
    rivals = {each["negotiation_id"]: each["rivals"] for each in desk}
    assert [rivals[each["negotiation"]["negotiation_id"]] for each in made] == [2, 2, 1, 1]


async def test_what_is_offered_must_be_the_listings_currency_and_there(amina: Person, bilal: Person) -> None:
    lamp = await listed(amina, quantity=2)
    asked = {"listing_id": lamp["listing_id"], "listing_version": 1, "price": eur(1), "client_id": "1"}
    for more, where in (
        ({"price": {"amount": 1, "currency": "USD"}}, "price.currency"),
        ({"price": {"amount": 2**53 - 1, "currency": "EUR"}, "quantity": 2}, "price.amount"),
        ({"price": {"amount": True, "currency": "EUR"}}, "price.amount"),
        ({"price": {"amount": 0, "currency": "EUR"}}, "price.amount"),
        ({"price": {"amount": 1.5, "currency": "EUR"}}, "price.amount"),
        ({"price": {"amount": "1", "currency": "EUR"}}, "price.amount"),
        ({"expires_in_s": 299}, "expires_in_s"),
        ({"quantity": 0}, "quantity"),
    ):
        error = await refused(bilal, "offer:make", **{**asked, **more})
        assert (error["code"], list(error["fields"])) == ("invalid", [where]), more
    assert (await refused(bilal, "offer:make", **asked, quantity=3))["reason"] == "sold"
    assert (await refused(bilal, "offer:make", **{**asked, "listing_version": 2}))["reason"] == "listing_changed"
    assert (await refused(bilal, "offer:make", **{**asked, "listing_id": str(uuid4())}))["code"] == "not_found"


async def test_offers_are_made_on_what_is_for_sale_in_the_community_and_not_ones_own(
    amina: Person, bilal: Person
) -> None:
    for terms, code in (({"kind": "wtb"}, "forbidden"), ({"feed": "discover"}, "forbidden")):
        listing = await listed(amina, **terms)
        asked = {"listing_id": listing["listing_id"], "listing_version": 1, "price": eur(1), "client_id": "1"}
        assert (await refused(bilal, "offer:make", **asked))["code"] == code
    lamp = await listed(amina)
    asked = {"listing_id": lamp["listing_id"], "listing_version": 1, "price": eur(1), "client_id": "1"}
    assert (await refused(amina, "offer:make", **asked))["fields"].keys() == {"buyer_id"}
    assert (await refused(amina, "offer:make", **asked, buyer_id=amina.user_id))["code"] == "forbidden"
    assert (await refused(bilal, "offer:make", **asked, buyer_id=amina.user_id))["code"] == "forbidden"


async def test_a_seller_offers_to_who_liked_or_wrote_and_to_nobody_else(amina: Person, bilal: Person) -> None:
    lamp = await listed(amina)
    asked = {"listing_id": lamp["listing_id"], "listing_version": 1, "price": eur(1), "buyer_id": bilal.user_id}
    assert (await refused(amina, "offer:make", **asked, client_id="1"))["code"] == "forbidden"
    await bilal.post("listing:like", listing_id=lamp["listing_id"], on=True)
    made = await offer(amina, lamp, buyer_id=bilal.user_id)
    assert (made["offer"]["maker_id"], made["negotiation"]["turn"]) == (amina.user_id, "buyer")
    other = await listed(amina)
    chat = await bilal.post("conversation:create", kind="private", user_ids=[amina.user_id], client_id="c")
    asked = {**asked, "listing_id": other["listing_id"]}
    assert (await refused(amina, "offer:make", **asked, client_id="2"))["code"] == "forbidden"
    await bilal.post("message:send", conversation_id=chat["conversation_id"], client_id="m", text="Still there?")
    assert (await offer(amina, other, buyer_id=bilal.user_id))["offer"]["status"] == "pending"


async def test_another_offer_replaces_ones_own_when_the_listing_has_changed(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    lamp = await listed(amina)
    made = await offer(bilal, lamp)
    lamp = await amina.post("listing:update", listing_id=lamp["listing_id"], version=1, price=eur(12_000))
    again = await offer(bilal, lamp)
    assert (again["offer"]["listing_version"], again["offer"]["round"]) == (2, 2)
    history = await bilal.post("negotiation:history", negotiation_id=again["negotiation"]["negotiation_id"])
    assert [(o["status"], o["close_reason"]) for o in history["offers"]] == [
        ("cancelled", "superseded"),
        ("pending", None),
    ]
    assert await conflict(amina, "accept", made) == "not_pending"


async def test_a_buyer_accepts_no_offer_on_terms_that_have_changed_and_a_seller_may(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    lamp = await listed(amina)
    theirs = await counter(amina, await offer(bilal, lamp), 9_500)
    lamp = await amina.post("listing:update", listing_id=lamp["listing_id"], version=1, price=eur(12_000))
    assert await conflict(bilal, "accept", theirs) == "listing_changed"
    mine = await counter(bilal, theirs, 9_400)
    lamp = await amina.post("listing:update", listing_id=lamp["listing_id"], version=2, price=eur(13_000))
    assert (await move(amina, "accept", mine))["offer"]["status"] == "accepted"


async def test_when_the_last_piece_is_promised_the_rivals_are_told_and_see_nothing_of_each_other(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    lamp, dalia = await listed(amina, quantity=2), await parley.person("dalia")
    phone = await dalia.connect()
    one, two = await offer(bilal, lamp, 9_000), await offer(dalia, lamp, 9_100)
    seen = await amina.post("negotiation:get", negotiation_id=one["negotiation"]["negotiation_id"])
    assert (seen["rivals"], one["negotiation"]["rivals"]) == (1, None)
    for command in ("negotiation:get", "negotiation:history"):
        error = await refused(dalia, command, negotiation_id=one["negotiation"]["negotiation_id"])
        assert error["code"] == "not_found"
    for how in ("accept", "decline", "withdraw"):
        error = await refused(dalia, f"offer:{how}", offer_id=one["offer"]["offer_id"], version=1)
        assert error["code"] == "not_found"
    await move(amina, "accept", one)
    assert await stock(parley, lamp) == (1, 0, "active")
    carim = await parley.person("carim")
    three = await offer(carim, lamp, 9_200)
    await move(amina, "accept", three)
    assert await stock(parley, lamp) == (2, 0, "reserved")
    ended = await phone.hearing("offer:changed", offer_id=two["offer"]["offer_id"], status="cancelled")
    assert ended.payload["close_reason"] == "listing_sold"
    await phone.hearing("negotiation:changed", status="closed")
    assert await conflict(amina, "accept", two) == "sold"
    asked = {"listing_id": lamp["listing_id"], "listing_version": 1, "price": eur(1), "client_id": "1"}
    assert (await refused(dalia, "offer:make", **asked))["reason"] == "sold"
    assert {push.room for push in phone.heard if push.name == "offer:changed"} == {
        f"conversation:{two['negotiation']['conversation_id']}"
    }


async def test_of_two_who_accept_at_the_same_instant_one_wins(
    new_instance: NewInstance, amina: Person, bilal: Person
) -> None:
    hub = LocalHub()
    one, two = await new_instance(bus=LocalBus(hub)), await new_instance(bus=LocalBus(hub))
    for n in range(5):
        lamp, dalia = await listed(amina), await one.person(f"dalia{n}")
        offers = [await offer(bilal, lamp), await offer(dalia, lamp)]
        answers = await asyncio.gather(
            *(
                at.post("offer:accept", {"offer_id": made["offer"]["offer_id"], "version": 1}, token=amina.token)
                for at, made in zip((one, two), offers, strict=True)
            )
        )
        won = [body["data"] for status, body in answers if status == 200]
        lost = [body["error"] for status, body in answers if status != 200]
        assert (len(won), [error["reason"] for error in lost]) == (1, ["sold"])
        assert lost[0]["current"]["close_reason"] == "listing_sold"
        assert await stock(one, lamp) == (1, 0, "reserved")


async def test_a_block_ends_what_the_two_negotiate(parley: Instance, amina: Person, bilal: Person) -> None:
    lamp, phone = await listed(amina), await bilal.connect()
    made = await offer(bilal, lamp)
    await amina.post("user:block", user_id=bilal.user_id)
    ended = await phone.hearing("offer:changed", status="cancelled")
    assert ended.payload["close_reason"] == "blocked"
    assert (await phone.hearing("negotiation:changed", status="closed")).payload["turn"] == "none"
    for person, how in ((amina, "accept"), (amina, "decline"), (bilal, "withdraw")):
        assert await conflict(person, how, made) == "blocked"
    assert await conflict(amina, "counter", made, price=eur(1), client_id="1") == "blocked"
    asked = {"listing_id": lamp["listing_id"], "listing_version": 1, "price": eur(1), "client_id": "1"}
    error = await refused(bilal, "offer:make", **asked)
    assert (error["reason"], error["current"]) == (
        "blocked",
        await bilal.post("listing:get", listing_id=lamp["listing_id"]),
    )


@pytest.mark.parametrize(("how", "reason"), [("closed", "listing_changed"), ("expired", "expired")])
async def test_of_an_offer_that_went_with_its_listing_it_is_said_why(
    parley: Instance, amina: Person, bilal: Person, how: str, reason: str
) -> None:
    lamp = await listed(amina)
    made = await offer(bilal, lamp)
    if how == "closed":
        await amina.post("listing:close", listing_id=lamp["listing_id"])
    else:
        late = "update listings set expires_at = now() - interval '1 s' where listing_id = $1"
        await set_(parley, late, lamp["listing_id"])
        assert await conflict(amina, "accept", made) == reason  # as before it is written
        await parley.parley.jobs.expire_listings()
    for person, move_ in ((amina, "accept"), (amina, "decline"), (bilal, "withdraw")):
        assert await conflict(person, move_, made) == reason


async def test_where_an_edit_leaves_nothing_to_others_their_offers_end_as_with_the_last_piece(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    lamp, dalia, carim = await listed(amina, quantity=3), await parley.person("dalia"), await parley.person("carim")
    mine, theirs = await offer(bilal, lamp), await offer(dalia, lamp)
    deal = (await move(amina, "accept", mine))["transaction"]
    phone, watcher = await dalia.connect(), await carim.connect()
    await watcher.call("room:join", room=f"listing:{lamp['listing_id']}")
    lamp = await amina.post("listing:update", listing_id=lamp["listing_id"], version=1, quantity=2)
    assert (await dalia.post("negotiation:list"))["negotiations"][0]["status"] == "open"
    lamp = await amina.post("listing:update", listing_id=lamp["listing_id"], version=2, quantity=1)
    assert (lamp["status"], lamp["quantity"], lamp["reserved"]) == ("reserved", 1, 1)
    ended = (await phone.hearing("offer:changed", offer_id=theirs["offer"]["offer_id"], status="cancelled")).payload
    assert ended["close_reason"] == "listing_sold"
    await phone.hearing("negotiation:changed", status="closed")
    assert (await watcher.hearing("listing:changed", quantity=1)).payload["status"] == "reserved"
    assert await conflict(amina, "accept", theirs) == "sold"
    stands = await bilal.post("negotiation:get", negotiation_id=deal["negotiation_id"])
    assert stands["status"] == "agreed"


async def test_many_offers_are_declined_at_once(
    monkeypatch: pytest.MonkeyPatch, parley: Instance, amina: Person
) -> None:
    monkeypatch.setattr("handlers.offers.DECLINED_AT_ONCE", 2)
    lamp = await listed(amina)
    buyers = [await parley.person(f"buyer{n}") for n in range(5)]
    made = [await offer(buyer, lamp, 1_000 * (n + 1)) for n, buyer in enumerate(buyers)]
    countered = await counter(amina, made[0], 9_900)
    error = await refused(buyers[0], "offer:decline_all", listing_id=lamp["listing_id"])
    assert error["code"] == "forbidden"
    assert await amina.post("offer:decline_all", listing_id=lamp["listing_id"], below=eur(4_000)) == {"declined": 2}
    desk = await amina.post("negotiation:list", listing_id=lamp["listing_id"])
    offers = {each["buyer_id"]: each["current_offer"]["status"] for each in desk["negotiations"]}
    assert [offers[buyer.user_id] for buyer in buyers] == ["pending", "rejected", "rejected", "pending", "pending"]
    assert await amina.post("offer:decline_all", listing_id=lamp["listing_id"]) == {"declined": 2}
    assert await amina.post("offer:decline_all", listing_id=lamp["listing_id"]) == {"declined": 0}
    assert (await move(buyers[0], "accept", countered))["offer"]["status"] == "accepted"


async def test_the_desk_lists_both_sides_in_pages_and_its_pushes_keep_it_exact(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    phone = await amina.connect()
    made = [await offer(bilal, await listed(amina)) for _ in range(3)]
    mine = await offer(amina, await listed(bilal))
    await move(amina, "decline", made[0])
    await counter(amina, made[1], 9_500)
    await move(amina, "accept", made[2])
    pages, before = [], None
    while True:
        more = {} if before is None else {"before": before}
        page = await amina.post("negotiation:list", limit=1, **more)
        pages += page["negotiations"]
        before = page["next"]
        if before is None:
            break
    ids = [each["negotiation"]["negotiation_id"] for each in (mine, *reversed(made))]
    assert [each["negotiation_id"] for each in pages] == ids
    for asked, expected in (
        ({"role": "buyer"}, ids[:1]),
        ({"role": "seller"}, ids[1:]),
        ({"status": "agreed"}, ids[1:2]),
        ({"role": "seller", "status": "open"}, ids[2:]),
        ({"listing_id": made[0]["offer"]["listing_id"]}, ids[3:]),
    ):
        page = await amina.post("negotiation:list", **asked)
        assert [each["negotiation_id"] for each in page["negotiations"]] == expected, asked
    await settled(phone, amina)
    pushed: dict[str, Any] = {}
    for push in phone.heard:
        if push.name == "negotiation:changed":
            pushed[push.payload["negotiation_id"]] = push.payload
    assert pushed == {each["negotiation_id"]: {**each, "rivals": None} for each in pages}


async def test_a_rule_answers_in_the_same_transaction_and_says_so(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    lamp = await listed(amina)
    rule = {"accept_at": eur(9_000), "decline_below": eur(5_000), "counter_step": eur(500)}
    set_rule = await amina.post("autorule:set", listing_id=lamp["listing_id"], enabled=True, **rule)
    assert set_rule == await amina.post("autorule:get", listing_id=lamp["listing_id"])
    low = await offer(bilal, lamp, 4_999)
    assert (low["offer"]["status"], low["offer"]["close_reason"], low["offer"]["by"]) == (
        "rejected",
        "auto_declined",
        "rule",
    )
    assert low["negotiation"]["turn"] == "buyer"
    between = await offer(bilal, lamp, 8_000)
    answer = between["negotiation"]["current_offer"]
    assert (answer["price"], answer["by"], answer["maker_id"]) == (eur(9_500), "rule", amina.user_id)
    assert (between["offer"]["close_reason"], between["offer"]["by"]) == ("countered", "rule")
    again = await counter(bilal, {"offer": answer}, 8_500)
    answer = again["negotiation"]["current_offer"]
    assert answer["price"] == eur(9_000)
    met = await counter(bilal, {"offer": answer}, 9_000)
    assert (met["offer"]["status"], met["offer"]["by"], met["negotiation"]["status"]) == ("accepted", "rule", "agreed")
    assert await stock(parley, lamp) == (1, 0, "reserved")
    history = await bilal.post("negotiation:history", negotiation_id=met["negotiation"]["negotiation_id"])
    assert [o["by"] for o in history["offers"]] == ["rule"] * 6  # made or answered by it, whatever came after
    chat = met["negotiation"]["conversation_id"]
    page = await bilal.post("message:history", conversation_id=chat)
    assert [m["offer"]["price"]["amount"] for m in page["messages"]] == [4_999, 8_000, 9_500, 8_500, 9_000, 9_000]


async def test_a_rule_asks_for_no_more_than_the_listing_does(amina: Person, bilal: Person) -> None:
    lamp = await listed(amina)
    await amina.post("autorule:set", listing_id=lamp["listing_id"], enabled=True, counter_step=eur(500))
    made = await offer(bilal, lamp, 5_000)
    answer = made["negotiation"]["current_offer"]
    assert answer["price"] == eur(9_500)
    changed = {"listing_id": lamp["listing_id"], "version": lamp["version"], "price": eur(8_000)}
    await amina.post("listing:update", **changed)
    again = await counter(bilal, {"offer": answer}, 6_000)
    assert again["negotiation"]["current_offer"]["price"] == eur(7_500)
    tried = await amina.post("autorule:test", listing_id=lamp["listing_id"], counter_step=eur(500))
    assert [each["price"] for each in tried["decisions"]] == [eur(7_500), eur(7_500)]


async def test_a_rule_asks_for_no_sum_that_nobody_can_count(amina: Person, bilal: Person) -> None:
    lamp = await listed(amina, quantity=2, price={"amount": 2**53 - 1, "currency": "EUR"})
    await amina.post("autorule:set", listing_id=lamp["listing_id"], enabled=True, counter_step=eur(1))
    made = await offer(bilal, lamp, 5_000, quantity=2)
    assert (made["offer"]["status"], made["negotiation"]["turn"]) == ("pending", "seller")


async def test_a_rule_that_is_off_or_gone_too_far_answers_nothing(amina: Person, bilal: Person) -> None:
    lamp = await listed(amina)
    await amina.post("autorule:set", listing_id=lamp["listing_id"], enabled=False, accept_at=eur(1))
    made = await offer(bilal, lamp)
    assert made["offer"]["status"] == "pending"
    tried = await amina.post("autorule:test", listing_id=lamp["listing_id"], accept_at=eur(1))
    assert tried["decisions"] == [
        {"offer_id": made["offer"]["offer_id"], "offered": eur(9_000), "decision": "accept", "price": None}
    ]
    tried = await amina.post("autorule:test", listing_id=lamp["listing_id"], counter_step=eur(100))
    assert tried["decisions"][0]["price"] == eur(9_900)
    assert (await amina.post("negotiation:list"))["negotiations"][0]["current_offer"]["status"] == "pending"


async def test_a_rule_is_its_owners_and_does_not_contradict_itself(amina: Person, bilal: Person) -> None:
    lamp = await listed(amina)
    asked = {"listing_id": lamp["listing_id"], "enabled": True}
    assert (await refused(bilal, "autorule:set", **asked))["code"] == "forbidden"
    for command in ("autorule:get", "autorule:test"):
        assert (await refused(bilal, command, listing_id=lamp["listing_id"]))["code"] in ("not_found", "forbidden")
    for wrong, where in (
        ({"accept_at": eur(1), "decline_below": eur(2)}, "decline_below"),
        ({"accept_at": {"amount": 1, "currency": "USD"}}, "accept_at.currency"),
    ):
        error = await refused(amina, "autorule:set", **asked, **wrong)
        assert (error["code"], list(error["fields"])) == ("invalid", [where])


async def test_offers_need_a_token_of_full_scope(parley: Instance, amina: Person) -> None:
    limited, lamp = await parley.person("limited", scope=Scope.LIMITED), await listed(amina)
    asked = {"listing_id": lamp["listing_id"], "listing_version": 1, "price": eur(1), "client_id": "1"}
    assert (await refused(limited, "offer:make", **asked))["code"] == "forbidden"


async def test_an_offers_message_is_neither_edited_nor_deleted(amina: Person, bilal: Person) -> None:
    made = await offer(bilal, await listed(amina))
    chat = made["negotiation"]["conversation_id"]
    [said] = (await bilal.post("message:history", conversation_id=chat))["messages"]
    for command, more in (("message:edit", {"text": "less", "version": 1}), ("message:delete", {})):
        assert (await refused(bilal, command, message_id=said["message_id"], **more))["code"] == "forbidden"
    await amina.post("message:react", message_id=said["message_id"], emoji="👍", on=True)


async def test_an_offer_brings_the_conversation_back_from_the_archive(amina: Person, bilal: Person) -> None:
    lamp = await listed(amina)
    made = await offer(bilal, lamp)
    chat = made["negotiation"]["conversation_id"]
    await amina.post("conversation:update", conversation_id=chat, archived=True)
    phone = await amina.connect()
    await counter(amina, made, 9_500)
    back = await phone.hearing("conversation:mine", conversation_id=chat)
    assert (back.payload["archived"], back.payload["head_seq"]) == (False, 2)
    await phone.hearing("offer:changed", status="pending")


async def test_no_instances_clock_decides(
    monkeypatch: pytest.MonkeyPatch, parley: Instance, amina: Person, bilal: Person
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3_600)
    made = await offer(bilal, await listed(amina), expires_in_s=300)
    await parley.parley.jobs.expire_offers()
    assert (await move(amina, "accept", made))["offer"]["status"] == "accepted"


async def test_an_offer_and_its_deal_are_one_transaction(
    monkeypatch: pytest.MonkeyPatch, parley: Instance, amina: Person, bilal: Person
) -> None:
    lamp = await listed(amina)
    made = await offer(bilal, lamp)

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr("storage.transactions.create_transaction", broken)
    error = await refused(amina, "offer:accept", offer_id=made["offer"]["offer_id"], version=1)
    assert error["code"] == "internal"
    monkeypatch.undo()
    assert await stock(parley, lamp) == (0, 0, "active")
    assert (await move(amina, "accept", made))["offer"]["status"] == "accepted"
