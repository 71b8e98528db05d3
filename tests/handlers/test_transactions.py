"""Deals: bought, confirmed, cancelled, lapsed, refunded; their stock, their papers, and who hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from rules.history import history_sha256
from rules.users import Role, Scope
from server.rooms.bus import LocalBus, LocalHub
from storage import users
from tests.market import counter, eur, listed, move, offer, refused, set_, settled, stock
from tests.people import Instance, Person, Refusal

NewInstance = Callable[..., Awaitable[Instance]]
Deal = dict[str, Any]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def agreed(seller: Person, buyer: Person, lamp: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """An offer that its seller has accepted, with its deal."""
    made = await offer(buyer, lamp or await listed(seller), **more)
    return await move(seller, "accept", made)


async def act(person: Person, how: str, deal: Deal, **more: Any) -> Deal:
    """A move with a deal, at the version that is given."""
    asked = {"transaction_id": deal["transaction_id"], "version": deal["version"], **more}
    answer: Deal = await person.post(f"transaction:{how}", **asked)
    return answer


async def reason(person: Person, how: str, deal: Deal, **more: Any) -> str:
    """The reason for which a move is refused; the deal comes along as it is now."""
    asked = {"transaction_id": deal["transaction_id"], "version": deal["version"], **more}
    error = await refused(person, f"transaction:{how}", **asked)
    assert error["code"] == "conflict", error
    assert error["current"] == await person.post("transaction:get", transaction_id=deal["transaction_id"])
    return str(error["reason"])


async def seen(person: Person, deal: Deal) -> Deal:
    answer: Deal = await person.post("transaction:get", transaction_id=deal["transaction_id"])
    return answer


async def lapse(parley: Instance, deal: Deal) -> None:
    """Let the time to pay be over, by the database's clock."""
    late = "update transactions set pay_by = now() - interval '1 second' where transaction_id = $1"
    await set_(parley, late, deal["transaction_id"])


async def buy(person: Person, lamp: dict[str, Any], **more: Any) -> Deal:
    asked = {"listing_id": lamp["listing_id"], "version": lamp["version"], "client_id": uuid4().hex, **more}
    answer: Deal = (await person.post("listing:buy", **asked))["transaction"]
    return answer


async def completed(seller: Person, buyer: Person, lamp: dict[str, Any] | None = None) -> Deal:
    """A deal that both have confirmed."""
    deal = (await agreed(seller, buyer, lamp))["transaction"]
    return await act(seller, "confirm", await act(buyer, "confirm", deal))


async def reservation(parley: Instance, deal: Deal) -> str:
    async with parley.parley.database.connection() as db:
        found = "select status from reservations where transaction_id = $1"
        return str(await db.fetchval(found, UUID(deal["transaction_id"])))


# paid among themselves


@pytest.mark.both_postgres
async def test_with_both_sides_words_a_deal_is_completed(parley: Instance, amina: Person, bilal: Person) -> None:
    lamp, phone = await listed(amina), await amina.connect()
    await phone.call("room:join", room=f"listing:{lamp['listing_id']}")
    done = await agreed(amina, bilal, lamp)
    deal = done["transaction"]
    first = await act(bilal, "pay", deal)  # the buyer's payment is their word
    assert (first["status"], first["version"], first["paid_at"]) == ("pending", 2, None)
    assert await stock(parley, lamp) == (1, 0, "reserved")
    last = await act(amina, "confirm", first)
    assert (last["status"], last["version"]) == ("completed", 3)
    assert last["paid_at"] == last["paid_out_at"] is not None
    assert last == await seen(bilal, deal)
    assert await stock(parley, lamp) == (0, 1, "sold")
    assert await reservation(parley, deal) == "sold"
    negotiation = await bilal.post("negotiation:get", negotiation_id=deal["negotiation_id"])
    assert (negotiation["status"], negotiation["turn"]) == ("completed", "none")
    assert negotiation["current_offer"]["status"] == "accepted"
    assert (await amina.post("account:me"))["total_sales"] == 1
    assert (await bilal.post("user:get", user_id=amina.user_id))["total_sales"] == 1
    assert (await amina.post("user:get", user_id=bilal.user_id))["total_sales"] == 0
    await settled(phone, amina)
    told = [push.payload for push in phone.of(f"user:{amina.user_id}") if push.name == "transaction:changed"]
    assert [(t["status"], t["version"]) for t in told] == [("pending", 1), ("pending", 2), ("completed", 3)]
    assert told[-1] == last
    await phone.hearing("negotiation:changed", status="completed")
    assert (await phone.hearing("user:updated")).payload["total_sales"] == 1
    assert (await phone.hearing("listing:sold")).payload["sold"] == 1


async def test_each_sides_word_is_one_however_often_it_is_said(amina: Person, bilal: Person) -> None:
    deal = (await agreed(amina, bilal))["transaction"]
    first = await act(amina, "confirm", deal)
    assert await act(amina, "confirm", deal) == first
    assert await reason(amina, "confirm", first) == "not_your_turn"
    assert await reason(bilal, "confirm", deal) == "version"
    last = await act(bilal, "confirm", first)
    for person, version in ((amina, 1), (bilal, 2)):
        assert await act(person, "confirm", {**deal, "version": version}) == last
    assert await act(bilal, "pay", first) == last
    assert await reason(amina, "confirm", last) == "not_pending"
    assert (await amina.post("account:me"))["total_sales"] == 1


async def test_the_sellers_word_is_no_payment(amina: Person, bilal: Person) -> None:
    deal = (await agreed(amina, bilal))["transaction"]
    assert (await refused(amina, "transaction:pay", transaction_id=deal["transaction_id"], version=1))["code"] == (
        "forbidden"
    )


# ended otherwise


@pytest.mark.parametrize("who", ["buyer", "seller"])
async def test_either_cancels_what_is_not_paid_and_they_go_on(
    parley: Instance, amina: Person, bilal: Person, who: str
) -> None:
    lamp = await listed(amina)
    done = await agreed(amina, bilal, lamp)
    deal, person = done["transaction"], {"buyer": bilal, "seller": amina}[who]
    gone = await act(person, "cancel", deal)
    assert (gone["status"], gone["version"]) == ("cancelled", 2)
    assert await act(person, "cancel", deal) == gone
    for other, how in ((amina, "confirm"), (bilal, "confirm"), (bilal, "pay")):
        assert await reason(other, how, gone) == "not_pending"
    assert await stock(parley, lamp) == (0, 0, "active")
    assert await reservation(parley, deal) == "released"
    negotiation = await bilal.post("negotiation:get", negotiation_id=deal["negotiation_id"])
    assert (negotiation["status"], negotiation["turn"]) == ("open", "none")
    over = negotiation["current_offer"]
    assert (over["status"], over["close_reason"]) == ("cancelled", "withdrawn")
    assert (await offer(bilal, lamp))["negotiation"]["negotiation_id"] == deal["negotiation_id"]


async def test_a_cancelled_deal_of_the_last_round_closes_the_negotiation(amina: Person, bilal: Person) -> None:
    lamp = await listed(amina)
    await amina.post("autorule:set", listing_id=lamp["listing_id"], enabled=True, max_rounds=1)
    deal = (await agreed(amina, bilal, lamp))["transaction"]
    await act(amina, "cancel", deal)
    negotiation = await bilal.post("negotiation:get", negotiation_id=deal["negotiation_id"])
    assert negotiation["status"] == "closed"


async def test_a_deal_cancelled_after_its_listing_was_closed_leaves_nothing_open(
    parley: Instance, amina: Person, bilal: Person
) -> None:
    lamp = await listed(amina)
    deal = (await agreed(amina, bilal, lamp))["transaction"]
    await amina.post("listing:close", listing_id=lamp["listing_id"])
    await act(bilal, "cancel", deal)
    assert await stock(parley, lamp) == (0, 0, "closed")
    negotiation = await bilal.post("negotiation:get", negotiation_id=deal["negotiation_id"])
    assert negotiation["status"] == "closed"


async def test_a_deal_cancelled_after_a_block_leaves_nothing_open(amina: Person, bilal: Person) -> None:
    deal = (await agreed(amina, bilal))["transaction"]
    await bilal.post("user:block", user_id=amina.user_id)
    await act(amina, "cancel", deal)
    negotiation = await bilal.post("negotiation:get", negotiation_id=deal["negotiation_id"])
    assert (negotiation["status"], negotiation["turn"]) == ("closed", "none")


@pytest.mark.both_postgres
async def test_a_deal_that_nobody_pays_lapses(parley: Instance, amina: Person, bilal: Person) -> None:
    lamp, phone = await listed(amina), await bilal.connect()
    deal = (await agreed(amina, bilal, lamp))["transaction"]
    await lapse(parley, deal)
    for person, how in ((bilal, "pay"), (amina, "confirm"), (amina, "cancel")):  # written or not
        assert await reason(person, how, deal) == "expired"
    await parley.parley.jobs.lapse_deals()
    assert (await phone.hearing("transaction:changed", status="cancelled")).payload == await seen(bilal, deal)
    assert await stock(parley, lamp) == (0, 0, "active")
    negotiation = await bilal.post("negotiation:get", negotiation_id=deal["negotiation_id"])
    over = negotiation["current_offer"]
    assert (negotiation["status"], over["status"], over["close_reason"]) == ("closed", "cancelled", "payment_lapsed")
    assert await reason(bilal, "confirm", deal) == "expired"
    await offer(bilal, lamp)  # anew


async def test_a_lapse_is_written_within_two_seconds(parley: Instance, amina: Person, bilal: Person) -> None:
    deal, phone = (await agreed(amina, bilal))["transaction"], await bilal.connect()
    await lapse(parley, deal)
    async with asyncio.timeout(2):
        await phone.hearing("transaction:changed", status="cancelled")


async def test_the_seller_gives_back_and_the_stock_stays_sold(parley: Instance, amina: Person, bilal: Person) -> None:
    lamp = await listed(amina, quantity=2)
    deal = await completed(amina, bilal, lamp)
    assert await stock(parley, lamp) == (0, 1, "active")
    assert (await refused(bilal, "transaction:refund", transaction_id=deal["transaction_id"], version=3))["code"] == (
        "forbidden"
    )
    assert await reason(amina, "refund", deal, version=2) == "version"
    back = await act(amina, "refund", deal)
    assert (back["status"], back["version"], back["paid_at"]) == ("refunded", 4, deal["paid_at"])
    assert await act(amina, "refund", deal) == back
    assert await reason(amina, "refund", back) == "not_pending"
    assert await stock(parley, lamp) == (0, 1, "active")
    assert (await amina.post("account:me"))["total_sales"] == 0


async def test_what_is_not_completed_is_not_given_back(amina: Person, bilal: Person) -> None:
    deal = (await agreed(amina, bilal))["transaction"]
    assert await reason(amina, "refund", deal) == "not_pending"


async def test_administrators_look_and_give_back_and_do_no_more(parley: Instance, amina: Person, bilal: Person) -> None:
    deal, admin = await completed(amina, bilal), await parley.person("admin")
    asked = {"transaction_id": deal["transaction_id"]}
    assert (await refused(admin, "transaction:refund", **asked, version=3))["code"] == "not_found"
    async with parley.parley.database.connection() as db:
        await users.set_roles(db, UUID(admin.user_id), [Role.ADMIN])
    for how in ("get", "receipt"):
        assert await admin.post(f"transaction:{how}", **asked) == await amina.post(f"transaction:{how}", **asked)
    assert (await admin.post("transaction:list"))["transactions"] == []
    assert (await refused(admin, "review:create", **asked, rating=1, client_id="1"))["code"] == "not_found"
    for how in ("pay", "confirm", "cancel"):
        assert (await refused(admin, f"transaction:{how}", **asked, version=3))["code"] == "not_found"
    assert (await act(admin, "refund", deal))["status"] == "refunded"


async def test_strangers_and_narrow_tokens_are_kept_out(parley: Instance, amina: Person, bilal: Person) -> None:
    deal, stranger = (await agreed(amina, bilal))["transaction"], await parley.person("chadi")
    narrow = await parley.person("dima", scope=Scope.LIMITED)
    for how in ("get", "receipt"):
        asked = {"transaction_id": deal["transaction_id"]}
        assert (await refused(stranger, f"transaction:{how}", **asked))["code"] == "not_found"
    for how in ("pay", "confirm", "cancel", "refund"):
        asked = {"transaction_id": deal["transaction_id"], "version": 1}
        assert (await refused(stranger, f"transaction:{how}", **asked))["code"] == "not_found"
        assert (await refused(narrow, f"transaction:{how}", **asked))["code"] == "forbidden"
        nothing = {"transaction_id": str(uuid4()), "version": 1}
        assert await refused(stranger, f"transaction:{how}", **nothing) == await refused(
            stranger, f"transaction:{how}", **asked
        )


async def test_at_one_instant_one_move_wins(parley: Instance, amina: Person, bilal: Person) -> None:
    for _ in range(8):
        lamp = await listed(amina)
        deal = await act(bilal, "confirm", (await agreed(amina, bilal, lamp))["transaction"])
        sales = (await amina.post("account:me"))["total_sales"]
        answers = await asyncio.gather(
            act(amina, "confirm", deal), act(bilal, "cancel", deal), act(amina, "cancel", deal), return_exceptions=True
        )
        won = [answer for answer in answers if isinstance(answer, dict)]
        lost = [answer for answer in answers if isinstance(answer, Refusal)]
        now = await seen(amina, deal)
        assert (won, len(lost)) == ([now], 2)
        assert all((each.error["reason"], each.error["current"]["version"]) == ("not_pending", 3) for each in lost)
        is_done = now["status"] == "completed"
        assert await stock(parley, lamp) == ((0, 1, "sold") if is_done else (0, 0, "active"))
        assert (await amina.post("account:me"))["total_sales"] == sales + is_done


async def test_confirm_against_lapse_has_one_winner_on_two_instances(
    new_instance: NewInstance, postgres_dsn: str
) -> None:
    hub = LocalHub()
    one, two = await new_instance(bus=LocalBus(hub)), await new_instance(bus=LocalBus(hub))
    amina, bilal = await one.person("amina"), await two.person("bilal")
    phone = await amina.connect()
    for _ in range(6):
        lamp = await listed(amina)
        deal = await act(bilal, "confirm", (await agreed(amina, bilal, lamp))["transaction"])
        late = "update transactions set pay_by = clock_timestamp() + interval '30 ms' where transaction_id = $1"
        await set_(one, late, deal["transaction_id"])

        async def sweep(instance: Instance) -> None:
            for _ in range(8):
                await instance.parley.jobs.lapse_deals()
                await asyncio.sleep(0.01)

        await asyncio.gather(sweep(one), sweep(two), act(amina, "confirm", deal), return_exceptions=True)
        now = await seen(bilal, deal)
        assert (now["status"], now["version"]) in (("completed", 3), ("cancelled", 3))
        await phone.hearing("transaction:changed", transaction_id=deal["transaction_id"], version=3)
        assert await stock(one, lamp) == ((0, 1, "sold") if now["status"] == "completed" else (0, 0, "active"))


# lists and papers


async def test_deals_are_listed_by_role_and_status(amina: Person, bilal: Person) -> None:
    lamp = await listed(amina, quantity=5)
    deals = [await buy(bilal, lamp) for _ in range(3)]
    theirs = await buy(amina, await listed(bilal))
    gone = await act(bilal, "cancel", deals[0])
    page = await bilal.post("transaction:list", limit=2)
    assert page["transactions"] == [await seen(bilal, theirs), deals[2]]
    rest = await bilal.post("transaction:list", before=page["next"])
    assert (rest["transactions"], rest["next"]) == ([deals[1], gone], None)
    assert (await bilal.post("transaction:list", role="seller"))["transactions"] == [theirs]
    assert (await bilal.post("transaction:list", role="buyer", status="cancelled"))["transactions"] == [gone]
    assert (await amina.post("transaction:list", role="buyer"))["transactions"] == [theirs]


async def test_a_receipt_says_what_was_agreed_and_how(amina: Person, bilal: Person) -> None:
    lamp = await listed(amina, quantity=4)
    first = await offer(bilal, lamp, 8_000, quantity=3)
    done = await move(bilal, "accept", await counter(amina, first, 9_000))
    deal = await act(amina, "confirm", await act(bilal, "confirm", done["transaction"]))
    paper = await bilal.post("transaction:receipt", transaction_id=deal["transaction_id"])
    history = await bilal.post("negotiation:history", negotiation_id=deal["negotiation_id"])
    times = paper.pop("times")
    assert paper == {
        "transaction_id": deal["transaction_id"],
        "terms": {
            "listing_id": lamp["listing_id"],
            "listing_version": 1,
            "price": eur(9_000),
            "quantity": 3,
            "subtotal": eur(27_000),
            "platform_fee": eur(1_350),
            "seller_payout": eur(25_650),
            "provider": "manual",
        },
        "parties": {"buyer_id": bilal.user_id, "seller_id": amina.user_id},
        **history,
    }
    assert [times[name] for name in ("agreed_at", "pay_by", "paid_at", "paid_out_at", "ended_at")] == [
        deal["at"],
        deal["pay_by"],
        deal["paid_at"],
        deal["paid_out_at"],
        None,
    ]
    assert deal["at"] <= times["buyer_confirmed_at"] <= times["seller_confirmed_at"] <= deal["paid_at"]


# bought at the asked price


async def test_what_is_for_sale_is_bought_at_the_asked_price(parley: Instance, amina: Person, bilal: Person) -> None:
    lamp = await listed(amina, quantity=3, feed="discover")
    phone = await bilal.connect()
    asked = {"listing_id": lamp["listing_id"], "version": 1, "quantity": 2, "client_id": "mine"}
    bought = await bilal.post("listing:buy", **asked)
    deal = bought["transaction"]
    assert await bilal.post("listing:buy", **asked) == bought
    assert (await refused(bilal, "listing:buy", **{**asked, "quantity": 1}))["reason"] == "key_reuse"
    assert (deal["negotiation_id"], deal["offer_id"], deal["subtotal"]) == (None, None, eur(20_000))
    assert await stock(parley, lamp) == (2, 0, "active")
    assert (await phone.hearing("transaction:changed")).payload == deal
    paper = await amina.post("transaction:receipt", transaction_id=deal["transaction_id"])
    assert (paper["offers"], paper["history_sha256"]) == ([], history_sha256([]))
    assert paper["terms"]["price"] == eur(10_000)
    await act(amina, "confirm", await act(bilal, "confirm", deal))
    assert await stock(parley, lamp) == (0, 2, "active")


async def test_buying_is_guarded_as_offers_are(parley: Instance, amina: Person, bilal: Person) -> None:
    lamp, chadi = await listed(amina, quantity=2), await parley.person("chadi")

    async def error(person: Person, listing: dict[str, Any] = lamp, **more: Any) -> tuple[str, str | None]:
        asked = {"listing_id": listing["listing_id"], "version": 1, "client_id": uuid4().hex, **more}
        said = await refused(person, "listing:buy", **asked)
        assert "current" not in said or said["current"]["listing_id"] == listing["listing_id"]
        return said["code"], said.get("reason")

    assert await error(amina) == ("forbidden", None)
    assert await error(bilal, {"listing_id": str(uuid4())}) == ("not_found", None)
    assert await error(bilal, quantity=3) == ("conflict", "sold")
    assert await error(bilal, version=2) == ("conflict", "listing_changed")
    wanted = await listed(amina, kind="wtb")
    assert await error(bilal, wanted) == ("forbidden", None)
    dear = await listed(amina, quantity=2, price=eur(2**53 - 1))
    assert await error(bilal, dear, quantity=2) == ("invalid", None)
    await chadi.post("user:block", user_id=amina.user_id)
    assert await error(chadi) == ("conflict", "blocked")
    await amina.post("listing:close", listing_id=lamp["listing_id"])
    assert await error(bilal) == ("conflict", "listing_changed")
    gone = await listed(amina)
    await set_(parley, "update listings set expires_at = now() where listing_id = $1", gone["listing_id"])
    assert await error(bilal, gone) == ("conflict", "expired")


async def test_who_buys_the_last_ends_the_rivals(parley: Instance, amina: Person, bilal: Person) -> None:
    chadi, lamp = await parley.person("chadi"), await listed(amina)
    rival = await offer(chadi, lamp)
    await buy(bilal, lamp)
    ended = await chadi.post("negotiation:get", negotiation_id=rival["negotiation"]["negotiation_id"])
    assert (ended["status"], ended["current_offer"]["close_reason"]) == ("closed", "listing_sold")
    assert (await refused(chadi, "listing:buy", listing_id=lamp["listing_id"], version=1, client_id="1"))[
        "reason"
    ] == "sold"


async def test_of_many_buyers_at_once_as_many_win_as_there_are_pieces(parley: Instance, amina: Person) -> None:
    lamp = await listed(amina, quantity=3)
    buyers = [await parley.person(f"buyer{number}") for number in range(8)]
    answers = await asyncio.gather(*(buy(person, lamp) for person in buyers), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in answers) == 3
    assert all(each.error["reason"] == "sold" for each in answers if isinstance(each, Refusal))
    assert await stock(parley, lamp) == (3, 0, "reserved")


async def test_a_match_that_comes_to_its_deal_says_so(parley: Instance, amina: Person, bilal: Person) -> None:
    lamp, wish = await listed(amina), await listed(bilal, kind="wtb")
    deal = (await agreed(amina, bilal, lamp))["transaction"]
    negotiation = await bilal.post("negotiation:get", negotiation_id=deal["negotiation_id"])
    match, mutual = str(uuid4()), str(uuid4())
    await set_(parley, "delete from listing_matches where matched_listing_id = $1", lamp["listing_id"])
    await set_(
        parley,
        "insert into listing_matches (match_id, source_listing_id, matched_listing_id, source_user_id, matched_user_id,"
        " score, status) values ($1, $2, $3, $4, $5, 90, 'mutual')",
        match,
        wish["listing_id"],
        lamp["listing_id"],
        bilal.user_id,
        amina.user_id,
    )
    await set_(
        parley,
        "insert into mutual_matches (mutual_match_id, match_id, buyer_listing_id, seller_listing_id, buyer_user_id,"
        " seller_user_id, conversation_id, negotiation_id) values ($1, $2, $3, $4, $5, $6, $7, $8)",
        mutual,
        match,
        wish["listing_id"],
        lamp["listing_id"],
        bilal.user_id,
        amina.user_id,
        negotiation["conversation_id"],
        deal["negotiation_id"],
    )
    await act(amina, "confirm", await act(bilal, "confirm", deal))
    async with parley.parley.database.connection() as db:
        found = await db.fetch(
            "select m.status, u.status from listing_matches m join mutual_matches u using (match_id)"
            " where match_id = $1",
            UUID(match),
        )
    assert [tuple(row) for row in found] == [("deal_made", "deal_made")]
