"""Payments by Stripe: prepared, told of by webhooks in whatever order, given back, and not lost in any crash."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

import server.adapters.stripe as adapter
from server.rooms.bus import LocalBus, LocalHub
from tests.handlers.test_transactions import Deal, act, agreed, buy, lapse, reason, seen
from tests.market import eur, listed, refused, set_, settled, stock
from tests.people import Instance, Person, Refusal
from tests.servers import execute
from tests.stripe_stand_in import SECRET, StripeStandIn, event, signed, tell

NewInstance = Callable[..., Awaitable[Instance]]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


@pytest.fixture(autouse=True)
async def nothing_left_over(shared_database: str) -> None:
    """What earlier tests left to be asked of their own stand-ins is nobody's to do."""
    await execute(shared_database, "update payment_errands set done_at = now() where done_at is null")


@pytest.fixture
async def stripe() -> AsyncIterator[StripeStandIn]:
    stand_in = await StripeStandIn().start()
    yield stand_in
    await stand_in.stop()


@pytest.fixture
async def parley(new_instance: NewInstance, stripe: StripeStandIn, monkeypatch: pytest.MonkeyPatch) -> Instance:
    """An instance whose deals are paid by Stripe, and that does its errands when it is told to."""
    instance = await new_instance(**stripe.environ)
    monkeypatch.setattr("stripe.HTTPClient.INITIAL_DELAY", 0.001)
    return instance


async def begun(stripe: StripeStandIn, seller: Person, buyer: Person, **more: Any) -> tuple[Deal, str]:
    """A deal whose payment is prepared, and the payment's id."""
    deal = await act(buyer, "pay", (await agreed(seller, buyer, **more))["transaction"])
    [intent_id] = [i for i, intent in stripe.intents.items() if intent["client_secret"] == deal["client_secret"]]
    return deal, intent_id


async def run_errands(instance: Instance) -> None:
    """Do what is due, and what has failed before too."""
    await set_(instance, "update payment_errands set due_at = now() where done_at is null")
    await instance.parley.jobs.run_errands()


async def errand(instance: Instance, deal: Deal, which: str) -> bool | None:
    """Whether an errand is done; None where there is none."""
    async with instance.parley.database.connection() as db:
        done: bool | None = await db.fetchval(
            "select done_at is not null from payment_errands where transaction_id = $1 and errand = $2",
            UUID(deal["transaction_id"]),
            which,
        )
    return done


# paying


@pytest.mark.both_postgres
async def test_a_payment_is_prepared_once_and_its_webhook_completes_the_deal(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    lamp, phone, hers = await listed(amina), await bilal.connect(), await amina.connect()
    deal = (await agreed(amina, bilal, lamp))["transaction"]
    assert (deal["provider"], "client_secret" in deal) == ("stripe", False)
    paying = await act(bilal, "pay", deal)
    [intent] = stripe.intents.values()
    assert (intent["amount"], intent["currency"]) == (9_000, "eur")
    assert intent["metadata"] == {"transaction_id": deal["transaction_id"]}
    assert (paying["status"], paying["version"], paying["client_secret"]) == ("pending", 2, intent["client_secret"])
    assert await act(bilal, "pay", deal) == paying == await act(bilal, "pay", paying) == await seen(bilal, deal)
    assert [key for _, _, _, key in stripe.asked] == [deal["transaction_id"]]
    assert await tell(parley.url, stripe.pay(intent["id"])) == (200, {"ok": True, "data": {}})
    done = await seen(bilal, deal)
    assert (done["status"], done["version"], done["paid_out_at"]) == ("completed", 3, None)
    assert await stock(parley, lamp) == (0, 1, "sold")
    assert (await amina.post("account:me"))["total_sales"] == 1
    for device, person in ((phone, bilal), (hers, amina)):
        await settled(device, person)
        told = [push.payload for push in device.of(f"user:{person.user_id}") if push.name == "transaction:changed"]
        assert [t["status"] for t in told] == ["pending", "pending", "completed"]
        assert ["client_secret" in t for t in told] == [False, person is bilal, False]
        assert told[-1] == done
    async with parley.parley.database.connection() as db:
        charge = "select charge_id from transactions where transaction_id = $1"
        assert await db.fetchval(charge, UUID(deal["transaction_id"])) == intent["latest_charge"]


async def test_the_seller_neither_pays_nor_sees_the_secret_and_words_do_not_pay(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal, _ = await begun(stripe, amina, bilal)
    assert "client_secret" not in await seen(amina, deal)
    admin = await parley.person("admin")
    await set_(parley, "update users set roles = '{admin}' where user_id = $1", admin.user_id)
    assert await seen(admin, deal) == await seen(amina, deal)
    assert "client_secret" not in (await amina.post("transaction:list"))["transactions"][0]
    asked = {"transaction_id": deal["transaction_id"], "version": deal["version"]}
    assert (await refused(amina, "transaction:pay", **asked))["code"] == "forbidden"
    for person in (amina, bilal):
        error = await refused(person, "transaction:confirm", **asked)
        assert (error["code"], "transaction:pay" in error["message"]) == ("forbidden", True)


async def test_what_the_client_says_of_sums_is_refused(stripe: StripeStandIn, amina: Person, bilal: Person) -> None:
    deal = (await agreed(amina, bilal))["transaction"]
    asked = {"transaction_id": deal["transaction_id"], "version": 1, "amount": 1}
    assert (await refused(bilal, "transaction:pay", **asked))["code"] == "invalid"
    assert stripe.asked == []


@pytest.mark.parametrize("how", ["down", "refused", "cut", "garbage"])
async def test_where_stripe_fails_nothing_has_changed(
    stripe: StripeStandIn, amina: Person, bilal: Person, how: str
) -> None:
    deal = (await agreed(amina, bilal))["transaction"]
    stripe.broken = [how, how]
    asked = {"transaction_id": deal["transaction_id"], "version": 1}
    assert (await refused(bilal, "transaction:pay", **asked))["code"] == "unavailable"
    assert await seen(bilal, deal) == deal
    stripe.broken = []
    assert (await act(bilal, "pay", deal))["client_secret"]


async def test_an_answer_that_was_lost_is_asked_for_again_and_there_is_one_payment(
    stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal = (await agreed(amina, bilal))["transaction"]
    stripe.broken = ["done, then cut", "done, then cut"]
    asked = {"transaction_id": deal["transaction_id"], "version": 1}
    assert (await refused(bilal, "transaction:pay", **asked))["code"] == "unavailable"
    await act(bilal, "pay", deal)
    assert len(stripe.intents) == 1


async def test_stripe_is_not_waited_for_for_long_and_holds_nobody_up(
    new_instance: NewInstance, stripe: StripeStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe.HTTPClient.INITIAL_DELAY", 0.001)
    monkeypatch.setattr(adapter.StripePayments.__init__, "__kwdefaults__", {"timeout_s": 0.5})
    parley = await new_instance(**stripe.environ)
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    deal = (await agreed(amina, bilal))["transaction"]
    stripe.gate.clear()
    paying = asyncio.create_task(refused(bilal, "transaction:pay", transaction_id=deal["transaction_id"], version=1))
    while not stripe.asked:
        await asyncio.sleep(0)
    gone = await act(amina, "cancel", deal)  # no row is held meanwhile
    assert (await paying)["code"] == "unavailable"
    assert await seen(bilal, deal) == gone


async def test_a_deal_that_ends_while_its_payment_is_prepared_can_not_be_paid(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal = (await agreed(amina, bilal))["transaction"]
    stripe.gate.clear()
    paying = asyncio.create_task(refused(bilal, "transaction:pay", transaction_id=deal["transaction_id"], version=1))
    while not stripe.asked:
        await asyncio.sleep(0)
    await act(amina, "cancel", deal)
    stripe.gate.set()
    error = await paying
    assert (error["reason"], error["current"]["status"]) == ("not_pending", "cancelled")
    assert "client_secret" not in error["current"]
    await run_errands(parley)
    assert [intent["status"] for intent in stripe.intents.values()] == ["canceled"]


async def test_a_deal_that_lapses_while_its_payment_is_prepared_can_not_be_paid(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    lamp = await listed(amina)
    deal = (await agreed(amina, bilal, lamp))["transaction"]
    stripe.gate.clear()
    paying = asyncio.create_task(refused(bilal, "transaction:pay", transaction_id=deal["transaction_id"], version=1))
    while not stripe.asked:
        await asyncio.sleep(0)
    await lapse(parley, deal)
    stripe.gate.set()
    error = await paying
    assert (error["reason"], error["current"]["status"]) == ("expired", "cancelled")
    assert "client_secret" not in error["current"]
    assert await stock(parley, lamp) == (0, 0, "active")
    await run_errands(parley)
    assert [intent["status"] for intent in stripe.intents.values()] == ["canceled"]
    assert await reason(bilal, "pay", deal) == "expired"


async def test_beginning_to_pay_is_repeated_when_it_is_paid(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal = (await agreed(amina, bilal))["transaction"]
    await act(bilal, "pay", deal)
    [intent_id] = stripe.intents
    await tell(parley.url, stripe.pay(intent_id))
    again = await act(bilal, "pay", deal)  # whose answer was lost
    assert (again["status"], again) == ("completed", await seen(bilal, deal))


async def test_two_devices_that_pay_at_once_prepare_one_payment(
    stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal = (await agreed(amina, bilal))["transaction"]
    one, other = await asyncio.gather(act(bilal, "pay", deal), act(bilal, "pay", deal))
    assert one == other
    assert len(stripe.intents) == 1


@pytest.mark.parametrize(
    ("currency", "amount", "charged"),
    [
        ("EUR", 1234, 1234),
        ("JPY", 1234, 1234),
        ("ISK", 12, 1200),
        ("UGX", 12, 1200),
        ("MGA", 1200, 12),
        ("KWD", 10, 10),
    ],
)
def test_sums_are_counted_as_stripe_counts_them(currency: str, amount: int, charged: int) -> None:
    assert adapter.to_stripe(amount, currency) == charged
    assert adapter.from_stripe(charged, currency) == amount


@pytest.mark.parametrize(("currency", "amount"), [("MGA", 1201), ("KWD", 11)])
async def test_a_sum_that_stripe_does_not_move_is_not_asked_for(
    stripe: StripeStandIn, amina: Person, bilal: Person, currency: str, amount: int
) -> None:
    lamp = await listed(amina, price={"amount": amount, "currency": currency})
    deal = await buy(bilal, lamp)
    asked = {"transaction_id": deal["transaction_id"], "version": 1}
    error = await refused(bilal, "transaction:pay", **asked)
    assert (error["code"], f"{amount} minor units of {currency}" in error["message"]) == ("invalid", True)
    assert stripe.asked == []


async def test_what_stripe_will_never_take_is_not_to_be_sent_again(
    stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal = (await agreed(amina, bilal))["transaction"]
    stripe.broken = ["too small"]
    error = await refused(bilal, "transaction:pay", transaction_id=deal["transaction_id"], version=1)
    assert (error["code"], list(error["fields"])) == ("invalid", ["transaction_id"])
    assert await seen(bilal, deal) == deal


# webhooks


async def test_a_webhook_told_again_and_again_counts_once(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal, intent_id = await begun(stripe, amina, bilal)
    paid = stripe.pay(intent_id)
    answers = await asyncio.gather(*(tell(parley.url, paid) for _ in range(6)))
    assert [status for status, _ in answers] == [200] * 6
    assert (await tell(parley.url, {**paid, "id": "evt_another"}))[0] == 200  # of the same payment
    done = await seen(amina, deal)
    assert (done["status"], done["version"]) == ("completed", 3)
    assert (await amina.post("account:me"))["total_sales"] == 1
    assert await errand(parley, deal, "refund") is None
    async with parley.parley.database.connection() as db:
        known = "select event_id from payment_events where event_id in ('evt_another', $1) order by event_id"
        assert [row["event_id"] for row in await db.fetch(known, paid["id"])] == sorted(["evt_another", paid["id"]])


async def test_a_webhook_that_stripe_has_not_signed_changes_nothing(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal, intent_id = await begun(stripe, amina, bilal)
    body = json.dumps(stripe.pay(intent_id)).encode()
    forged = [
        "",
        "nonsense",
        signed(body, secret="whsec_of_somebody_else"),
        signed(body + b" "),
        signed(body, age_s=301),  # somebody's recording
        signed(body).partition(",")[0],
        signed(body).replace("v1=", "v0="),
    ]
    for signature in forged:
        status, answer = await tell(parley.url, body, signature)
        assert (status, answer["error"]["code"]) == (400, "invalid"), signature
    assert await seen(bilal, deal) == deal
    for junk in (b"", b"{}", b"[]", b"\xff", b'{"type": 7}', b'{"type": "payment_intent.succeeded"}'):
        assert (await tell(parley.url, junk))[0] == 400, junk
    assert (await tell(parley.url, body, signed(body, age_s=299)))[0] == 200
    assert (await seen(bilal, deal))["status"] == "completed"


async def test_what_does_not_concern_us_is_answered_and_left(parley: Instance, stripe: StripeStandIn) -> None:
    stranger = {"id": "pi_of_nobody", "object": "payment_intent", "amount_received": 5, "currency": "eur"}
    for told in (
        event("customer.created", {"id": "cus_1", "object": "customer"}),
        event("payment_intent.succeeded", stranger),
        event("charge.refunded", {"id": "ch_1", "object": "charge", "payment_intent": None, "refunded": True}),
    ):
        assert (await tell(parley.url, told))[0] == 200


async def test_without_stripe_there_is_no_webhook(new_instance: NewInstance) -> None:
    parley = await new_instance()
    status, answer = await tell(parley.url, event("payment_intent.succeeded", {"id": "pi", "object": "payment_intent"}))
    assert (status, answer["error"]["code"]) == (404, "not_found")


async def test_a_webhook_too_large_is_refused(parley: Instance) -> None:
    assert (await tell(parley.url, b" " * 1_100_000))[0] == 413


async def test_a_payment_that_failed_may_be_tried_again(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal, intent_id = await begun(stripe, amina, bilal)
    await tell(parley.url, event("payment_intent.payment_failed", stripe.intents[intent_id]))
    assert await seen(bilal, deal) == deal == await act(bilal, "pay", deal)
    await tell(parley.url, stripe.pay(intent_id))
    assert (await seen(bilal, deal))["status"] == "completed"


async def test_a_payment_that_was_cancelled_at_stripe_ends_the_deal(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    lamp = await listed(amina)
    deal, intent_id = await begun(stripe, amina, bilal, lamp=lamp)
    await tell(parley.url, event("payment_intent.canceled", {**stripe.intents[intent_id], "status": "canceled"}))
    assert (await seen(bilal, deal))["status"] == "failed"
    assert await reason(bilal, "pay", deal) == "not_pending"
    assert await stock(parley, lamp) == (0, 0, "active")
    negotiation = await bilal.post("negotiation:get", negotiation_id=deal["negotiation_id"])
    assert negotiation["status"] == "closed"


@pytest.mark.parametrize("received", [8_999, 9_001])
async def test_another_sum_completes_nothing_and_goes_back(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person, received: int
) -> None:
    deal, intent_id = await begun(stripe, amina, bilal)
    await tell(parley.url, stripe.pay(intent_id, amount=received))
    assert (await seen(bilal, deal))["status"] == "pending"
    await run_errands(parley)
    assert [refund["payment_intent"] for refund in stripe.refunds] == [intent_id]
    await tell(parley.url, stripe.refunded(intent_id))
    assert (await seen(bilal, deal))["status"] == "failed"


# too late


@pytest.mark.parametrize("how", ["cancelled", "lapsed", "lapsed, not written"])
async def test_what_is_paid_too_late_is_given_back(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person, how: str
) -> None:
    lamp = await listed(amina)
    deal, intent_id = await begun(stripe, amina, bilal, lamp=lamp)
    paid = stripe.pay(intent_id)  # at the very moment
    if how == "cancelled":
        await act(amina, "cancel", deal)
    else:
        await lapse(parley, deal)
        if how == "lapsed":
            await parley.parley.jobs.lapse_deals()
    stripe.broken = ["down"] * 40  # until the webhook has come
    assert (await tell(parley.url, paid))[0] == 200
    assert (await seen(bilal, deal))["status"] == "cancelled"
    assert await stock(parley, lamp) == (0, 0, "active")
    await run_errands(parley)
    assert stripe.refunds == []
    stripe.broken = []
    await run_errands(parley)
    await run_errands(parley)
    assert [refund["payment_intent"] for refund in stripe.refunds] == [intent_id]
    assert await errand(parley, deal, "refund") is True
    await tell(parley.url, stripe.refunded(intent_id))
    assert (await seen(bilal, deal))["status"] == "cancelled"
    assert (await amina.post("account:me"))["total_sales"] == 0


async def test_a_deal_that_ends_takes_its_payment_along(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal, intent_id = await begun(stripe, amina, bilal)
    await act(bilal, "cancel", deal)
    async with asyncio.timeout(3):  # by the job
        while stripe.intents[intent_id]["status"] != "canceled":
            await asyncio.sleep(0.02)
    await tell(parley.url, event("payment_intent.canceled", stripe.intents[intent_id]))  # which is told of
    assert (await seen(bilal, deal))["status"] == "cancelled"


async def test_what_was_paid_as_it_was_cancelled_goes_back_without_a_webhook(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal, intent_id = await begun(stripe, amina, bilal)
    stripe.pay(intent_id)
    await act(amina, "cancel", deal)
    await run_errands(parley)
    await run_errands(parley)
    assert [refund["payment_intent"] for refund in stripe.refunds] == [intent_id]


async def test_a_payment_under_way_is_cancelled_or_given_back_when_it_is_through(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal, intent_id = await begun(stripe, amina, bilal)
    stripe.intents[intent_id]["status"] = "processing"
    await act(amina, "cancel", deal)
    await run_errands(parley)
    assert await errand(parley, deal, "cancel") is False
    stripe.intents[intent_id]["status"] = "requires_payment_method"
    await run_errands(parley)
    assert await errand(parley, deal, "cancel") is True
    assert stripe.intents[intent_id]["status"] == "canceled"


async def test_an_errand_outlives_the_instance_that_was_at_it(
    new_instance: NewInstance, parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal, intent_id = await begun(stripe, amina, bilal)
    for task in parley.parley.jobs._tasks:
        task.cancel()
    await act(bilal, "cancel", deal)
    await tell(parley.url, stripe.pay(intent_id))
    async with parley.parley.database.connection() as db:  # taken, and then it died
        await db.execute(
            "update payment_errands set attempts = 1, due_at = now() + interval '30 s' where done_at is null"
        )
    other = await new_instance(**stripe.environ)
    await other.parley.jobs.run_errands()
    assert stripe.refunds == []  # the first may be at it still
    await run_errands(other)
    assert [refund["payment_intent"] for refund in stripe.refunds] == [intent_id]


# given back


async def test_the_seller_gives_back_through_stripe(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    lamp = await listed(amina)
    deal, intent_id = await begun(stripe, amina, bilal, lamp=lamp)
    await tell(parley.url, stripe.pay(intent_id))
    done = await seen(amina, deal)
    stripe.broken = ["down", "down"]
    asked = {"transaction_id": deal["transaction_id"], "version": done["version"]}
    assert (await refused(amina, "transaction:refund", **asked))["code"] == "unavailable"
    assert await seen(amina, deal) == done
    back = await act(amina, "refund", done)
    assert (back["status"], back["version"]) == ("refunded", 4)
    assert await act(amina, "refund", done) == back
    await tell(parley.url, stripe.refunded(intent_id))
    assert await seen(amina, deal) == back
    assert len(stripe.refunds) == 1
    assert await stock(parley, lamp) == (0, 1, "sold")
    assert (await amina.post("account:me"))["total_sales"] == 0


async def test_a_refund_whose_answer_was_lost_is_told_of_and_the_repeat_is_no_second(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal, intent_id = await begun(stripe, amina, bilal)
    await tell(parley.url, stripe.pay(intent_id))
    done = await seen(amina, deal)
    stripe.broken = ["done, then cut", "down"]
    asked = {"transaction_id": deal["transaction_id"], "version": done["version"]}
    assert (await refused(amina, "transaction:refund", **asked))["code"] == "unavailable"
    await tell(parley.url, stripe.refunded(intent_id))
    back = await seen(amina, deal)
    assert back["status"] == "refunded"
    assert await act(amina, "refund", done) == back
    assert len(stripe.refunds) == 1


async def test_stripes_own_refund_counts_and_a_part_of_one_does_not(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal, intent_id = await begun(stripe, amina, bilal)
    await tell(parley.url, stripe.pay(intent_id))
    await tell(parley.url, stripe.refunded(intent_id, whole=False))
    assert (await seen(bilal, deal))["status"] == "completed"
    await tell(parley.url, stripe.refunded(intent_id))
    assert (await seen(bilal, deal))["status"] == "refunded"
    assert (await amina.post("account:me"))["total_sales"] == 0


async def test_out_of_order_a_refund_before_its_payment_completes_nothing(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    lamp = await listed(amina)
    deal, intent_id = await begun(stripe, amina, bilal, lamp=lamp)
    paid = stripe.pay(intent_id)
    stripe.refunds.append({"payment_intent": intent_id, "status": "succeeded"})  # in Stripe's dashboard
    await tell(parley.url, stripe.refunded(intent_id))
    await tell(parley.url, paid)
    assert (await seen(bilal, deal))["status"] == "failed"
    assert await stock(parley, lamp) == (0, 0, "active")
    await run_errands(parley)
    assert await errand(parley, deal, "refund") is True  # it had been


async def given_back(parley: Instance, stripe: StripeStandIn, seller: Person, buyer: Person) -> tuple[Deal, str]:
    """A deal that was paid and refunded, and its payment's id."""
    deal, intent_id = await begun(stripe, seller, buyer)
    await tell(parley.url, stripe.pay(intent_id))
    return await act(seller, "refund", await seen(seller, deal)), intent_id


async def test_a_refund_that_fails_makes_the_deal_completed_again_and_it_is_given_back_anew(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    back, intent_id = await given_back(parley, stripe, amina, bilal)
    await tell(parley.url, stripe.refunded(intent_id))
    phones = [(await person.connect(), person) for person in (amina, bilal)]
    assert (await amina.post("account:me"))["total_sales"] == 0
    failed = stripe.bounced(intent_id, after_s=60)
    answers = await asyncio.gather(*(tell(parley.url, failed) for _ in range(4)))
    assert {status for status, _ in answers} == {200}
    stands = await seen(amina, back)
    assert (stands["status"], stands["version"]) == ("completed", back["version"] + 1)
    for phone, person in phones:
        await settled(phone, person)
        told = [push.payload for push in phone.heard if push.name == "transaction:changed"]
        assert told == [stands]
    assert (await amina.post("account:me"))["total_sales"] == 1
    times = (await bilal.post("transaction:receipt", transaction_id=back["transaction_id"]))["times"]
    assert times["refund_failed_at"] is not None
    assert (times["paid_at"], times["ended_at"]) == (stands["paid_at"], None)
    again = await act(amina, "refund", stands)
    assert (again["status"], len(stripe.refunds)) == ("refunded", 2)
    # What comes late, or is told once more, is of the first.
    for type_ in ("charge.refund.updated", "refund.updated", "refund.failed"):
        late = event(type_, {**stripe.refunds[0], "currency": "eur"}, after_s=90)
        assert (await tell(parley.url, late))[0] == 200
    assert await seen(amina, back) == again
    await tell(parley.url, stripe.bounced(intent_id, "charge.refund.updated", after_s=120))
    assert (await seen(amina, back))["status"] == "completed"


async def test_a_refund_that_goes_well_or_is_none_of_ours_fails_nothing(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    back, _ = await given_back(parley, stripe, amina, bilal)
    [refund] = stripe.refunds
    for type_, more in (
        ("refund.updated", {}),
        ("charge.refund.updated", {"status": "pending"}),
        ("refund.failed", {"payment_intent": None, "status": "failed"}),
        ("refund.failed", {"payment_intent": "pi_of_nobody", "status": "failed"}),
    ):
        assert (await tell(parley.url, event(type_, {**refund, **more})))[0] == 200
    assert await seen(amina, back) == back


async def test_what_is_told_of_refunds_in_whatever_order_comes_to_the_same(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal, intent_id = await begun(stripe, amina, bilal)
    await tell(parley.url, stripe.pay(intent_id))
    done = await seen(amina, deal)
    # In Stripe's dashboard, where nobody asks us: that it failed comes before that it was made.
    refund = {"id": "re_1", "object": "refund", "payment_intent": intent_id, "status": "succeeded"}
    stripe.refunds.append({**refund, "failure_reason": None})
    made = stripe.refunded(intent_id)
    await tell(parley.url, stripe.bounced(intent_id, after_s=60))
    await tell(parley.url, made)
    assert await seen(amina, deal) == done
    # The second one is told of before that the first has failed.
    await tell(parley.url, stripe.refunded(intent_id, after_s=120))
    back = await seen(amina, deal)
    assert (back["status"], back["version"]) == ("refunded", done["version"] + 1)
    await tell(parley.url, event("refund.failed", {**refund, "id": "re_0", "status": "failed"}, after_s=119))
    assert await seen(amina, deal) == back


async def test_what_has_failed_before_its_answer_was_written_is_not_refunded(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    deal, intent_id = await begun(stripe, amina, bilal)
    await tell(parley.url, stripe.pay(intent_id))
    done = await seen(amina, deal)
    real = adapter.StripePayments.refund

    async def refund(self: adapter.StripePayments, *about: Any) -> str | None:
        refund_id = await real(self, *about)
        await tell(parley.url, stripe.bounced(intent_id))
        return refund_id

    monkeypatch.setattr(adapter.StripePayments, "refund", refund)
    asked = {"transaction_id": done["transaction_id"], "version": done["version"]}
    assert (await refused(amina, "transaction:refund", **asked))["code"] == "unavailable"
    assert await seen(amina, deal) == done
    monkeypatch.undo()
    stripe.gives_back = "failed"  # at once
    assert (await refused(amina, "transaction:refund", **asked))["code"] == "unavailable"
    assert await seen(amina, deal) == done
    stripe.gives_back = "succeeded"
    assert (await act(amina, "refund", done))["status"] == "refunded"


async def test_a_second_refund_whose_answer_was_lost_is_the_repeat_of_none_but_itself(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    _, intent_id = await given_back(parley, stripe, amina, bilal)
    await tell(parley.url, stripe.bounced(intent_id))
    stands = (await amina.post("transaction:list"))["transactions"][0]
    stripe.broken = ["done, then cut", "down"]
    asked = {"transaction_id": stands["transaction_id"], "version": stands["version"]}
    assert (await refused(amina, "transaction:refund", **asked))["code"] == "unavailable"
    await tell(parley.url, stripe.refunded(intent_id, after_s=60))
    again = await act(amina, "refund", stands)
    assert (again["status"], again["version"]) == ("refunded", stands["version"] + 1)


async def test_a_late_payments_refund_that_fails_is_remembered_and_ends_nothing_anew(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    deal, intent_id = await begun(stripe, amina, bilal)
    paid = stripe.pay(intent_id)
    gone = await act(amina, "cancel", deal)
    await tell(parley.url, paid)
    await run_errands(parley)
    await run_errands(parley)
    await tell(parley.url, stripe.bounced(intent_id))
    assert await seen(amina, deal) == gone
    times = (await amina.post("transaction:receipt", transaction_id=deal["transaction_id"]))["times"]
    assert times["refund_failed_at"] is not None


async def test_payment_against_cancel_and_lapse_has_one_winner_on_two_instances(
    new_instance: NewInstance, stripe: StripeStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = LocalHub()
    one, two = [await new_instance(bus=LocalBus(hub), **stripe.environ) for _ in range(2)]
    amina, bilal = await one.person("amina"), await two.person("bilal")
    phone = await bilal.connect()
    completed = 0
    for _ in range(6):
        lamp = await listed(amina)
        deal, intent_id = await begun(stripe, amina, bilal, lamp=lamp)
        paid = stripe.pay(intent_id)
        first, second, cancelled = await asyncio.gather(
            tell(one.url, paid), tell(two.url, paid), act(amina, "cancel", deal), return_exceptions=True
        )
        assert (first[0], second[0]) == (200, 200)  # type: ignore[index]
        now = await seen(bilal, deal)
        assert now["version"] == 3
        is_done = now["status"] == "completed"
        completed += is_done
        assert isinstance(cancelled, Refusal) == is_done
        assert await stock(one, lamp) == ((0, 1, "sold") if is_done else (0, 0, "active"))
        await phone.hearing("transaction:changed", transaction_id=deal["transaction_id"], version=3)
        await run_errands(two)
        await run_errands(one)
        refunds = [refund for refund in stripe.refunds if refund["payment_intent"] == intent_id]
        assert len(refunds) == (0 if is_done else 1)
    assert (await amina.post("account:me"))["total_sales"] == completed


async def test_money_is_never_another_sum_than_was_agreed(
    parley: Instance, stripe: StripeStandIn, amina: Person, bilal: Person
) -> None:
    lamp = await listed(amina, quantity=3)
    deal = await act(bilal, "pay", await buy(bilal, lamp, quantity=3))
    assert deal["subtotal"] == eur(30_000)
    assert [intent["amount"] for intent in stripe.intents.values()] == [30_000]
    assert SECRET not in json.dumps(parley.parley._config.shown())
