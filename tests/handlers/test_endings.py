"""Ends of more negotiations than one transaction writes: they have ended at once, and are written behind it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import structlog

from handlers import endings
from server.commands.context import Context
from server.errors import Unavailable
from server.rooms.bus import LocalBus, LocalHub
from storage import offers
from tests.locks import Holder
from tests.market import counter, eur, listed, move, offer, refused, run_out, set_, stock
from tests.negotiation_checker import breaches
from tests.people import PASSWORD, Instance, Person
from tests.servers import fetch

NewInstance = Callable[..., Awaitable[Instance]]

MANY = 1_500
AT_ONCE_S = 5.0  # that closing takes at most here: a fraction of it, but for what else the machine does

# People with an offer each on a listing, as if they had made it: a conversation with its message, and the log of that.
CROWD = """
with buyers as materialized (
    select gen_random_uuid() as buyer_id, uuidv7() as chat, uuidv7() as negotiation_id, uuidv7() as offer_id, n
      from generate_series(1, $2::int) n
), people as (
    insert into users (user_id, username, email)
    select buyer_id, 'crowd.' || replace(buyer_id::text, '-', ''), buyer_id || '@example.org' from buyers
), own_rooms as (
    insert into rooms (room_id, kind) select buyer_id, 'user' from buyers
), chat_rooms as (
    insert into rooms (room_id, kind, last_seq) select chat, 'conversation', 1 from buyers
), chats as (
    insert into conversations (conversation_id, kind, listing_id, low_user_id, high_user_id, created_by)
    select b.chat, 'private', l.listing_id, least(b.buyer_id, l.user_id), greatest(b.buyer_id, l.user_id), b.buyer_id
      from buyers b, listings l where l.listing_id = $1
), parts as (
    insert into conversation_participants (conversation_id, user_id)
    select b.chat, p.user_id from buyers b, listings l, unnest(array[b.buyer_id, l.user_id]) p (user_id)
     where l.listing_id = $1
), negotiating as (
    insert into negotiations (negotiation_id, listing_id, buyer_id, seller_id, conversation_id, turn, round, max_rounds)
    select b.negotiation_id, l.listing_id, b.buyer_id, l.user_id, b.chat, 'seller', 1, 10
      from buyers b, listings l where l.listing_id = $1
), offering as (
    insert into offers (offer_id, negotiation_id, listing_id, listing_version, maker_id, price_amount, price_currency,
                        quantity, round, expires_at, at)
    select offer_id, negotiation_id, $1, 1, buyer_id, 5000 + n, 'EUR', 1, 1, now() + interval '1 day', now() from buyers
), saying as (
    insert into messages (message_id, conversation_id, seq, sender_id, client_id, body_hmac, type, offer_id, at)
    select uuidv7(), chat, 1, buyer_id, 'offer:' || offer_id, sha256(uuid_send(offer_id)), 'offer', offer_id, now()
      from buyers
)
insert into room_events (room_id, seq, at, name, payload) select chat, 1, now(), 'message:created', '{}' from buyers
"""
CURRENT = (
    "update negotiations n set current_offer_id = o.offer_id from offers o where o.negotiation_id = n.negotiation_id"
)

TOLD = """
select room_id, payload ->> 'negotiation_id' as negotiation_id, count(*) as times from room_events
 where name = 'negotiation:changed' and payload ->> 'status' = 'closed' group by 1, 2
"""


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock looks when it is told to."""
    monkeypatch.setattr("server.jobs.CLOCK_EVERY_S", 3_600.0)
    monkeypatch.setattr("server.jobs.WARN_EVERY_S", 3_600.0)


@pytest.fixture
def by_twos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two negotiations are as many as a transaction ends."""
    monkeypatch.setattr("handlers.endings.ENDED_AT_ONCE", 2)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch, by_twos: None) -> None:
    """Whatever is to be done behind an answer is not done: the instance has died by then."""
    monkeypatch.setattr(Context, "then", lambda *_: None)


class Fair:
    """A listing of Amina's, and people with an offer on it."""

    def __init__(self, parley: Instance, amina: Person, lamp: dict[str, Any]) -> None:
        self.parley, self.amina, self.lamp = parley, amina, lamp
        self.buyers: list[Person] = []
        self.made: list[dict[str, Any]] = []

    async def crowd(self, count: int) -> None:
        """So many more offers, of new people."""
        for _ in range(count):
            self.buyers.append(await self.parley.person("buyer"))
            self.made.append(await offer(self.buyers[-1], self.lamp))

    async def stands(self) -> list[tuple[str, str | None]]:
        """How each negotiation that was begun by `crowd` stands, and why its offer is not on the table any more."""
        desk = (await self.amina.post("negotiation:list", listing_id=self.lamp["listing_id"]))["negotiations"]
        by_id = {each["negotiation_id"]: each for each in desk}
        found = [by_id[each["negotiation"]["negotiation_id"]] for each in self.made]
        return [(each["status"], each["current_offer"]["close_reason"]) for each in found]

    async def finish(self) -> int:
        """Let the job look."""
        return await self.parley.parley.jobs.finish_endings()

    async def told_once(self) -> None:
        """Nobody has been told of an end twice; and the whole database obeys the laws."""
        assert Counter(row[2] for row in await fetch(self.parley.dsn, TOLD)).keys() <= {1}
        assert await breaches(self.parley.dsn) == []
        assert await fetch(self.parley.dsn, "select from endings") == []


@pytest.fixture
async def fair(parley: Instance, amina: Person) -> Fair:
    """A listing of which there is one."""
    return Fair(parley, amina, await listed(amina))


OPEN = ("open", None)


async def test_what_ends_with_a_listing_is_written_right_behind_the_answer(by_twos: None, fair: Fair) -> None:
    await fair.crowd(5)
    phone = await fair.amina.connect()
    assert (await fair.amina.post("listing:close", listing_id=fair.lamp["listing_id"]))["status"] == "closed"
    for made in fair.made:
        await phone.hearing("offer:changed", offer_id=made["offer"]["offer_id"], close_reason="listing_closed")
    assert await fair.stands() == [("closed", "listing_closed")] * 5
    await fair.finish()
    await fair.told_once()


async def close(fair: Fair) -> None:
    await fair.amina.post("listing:close", listing_id=fair.lamp["listing_id"])


async def sell(fair: Fair) -> None:
    dalia = await fair.parley.person("dalia")
    await dalia.post("listing:buy", listing_id=fair.lamp["listing_id"], version=1, client_id="1")


async def accept(fair: Fair) -> None:
    dalia = await fair.parley.person("dalia")
    await move(fair.amina, "accept", await offer(dalia, fair.lamp))


async def answer_by_rule(fair: Fair) -> None:
    dalia = await fair.parley.person("dalia")
    await fair.amina.post("autorule:set", listing_id=fair.lamp["listing_id"], accept_at=eur(9_500), enabled=True)
    await offer(dalia, fair.lamp, 9_500)


async def expire(fair: Fair) -> None:
    await set_(
        fair.parley,
        "update listings set expires_at = now() - interval '1 s' where listing_id = $1",
        fair.lamp["listing_id"],
    )
    assert await fair.parley.parley.jobs.expire_listings() == 1


async def heads(fair: Fair) -> list[tuple[Any, ...]]:
    return await fetch(fair.parley.dsn, "select room_id, last_seq from rooms order by room_id")


@pytest.mark.parametrize("end", [close, sell, accept, answer_by_rule, expire], ids=lambda end: end.__name__)
async def test_before_an_end_is_written_every_move_is_refused_as_after_it(
    killed: None, fair: Fair, end: Callable[[Fair], Awaitable[None]]
) -> None:
    await fair.crowd(5)
    await end(fair)
    assert (await fair.stands())[-1] == OPEN
    made, buyer = fair.made[-1], fair.buyers[-1]
    asked = {"offer_id": made["offer"]["offer_id"], "version": 1}
    answer = {**asked, "price": eur(9_100)}
    make = {"listing_id": fair.lamp["listing_id"], "listing_version": 1, "price": eur(9_200)}

    async def refusals() -> list[tuple[Any, ...]]:
        errors = [
            await refused(fair.amina, "offer:accept", **asked),
            await refused(fair.amina, "offer:decline", **asked),
            await refused(buyer, "offer:withdraw", **asked),
            await refused(fair.amina, "offer:counter", client_id="c", **answer),
            await refused(buyer, "offer:make", client_id="m", **make),
        ]
        return [(each["code"], each["reason"], each["current"]) for each in errors]

    before, seqs = await refusals(), await heads(fair)
    assert await fair.amina.post("offer:decline_all", listing_id=fair.lamp["listing_id"]) == {"declined": 0}
    assert (await fair.stands())[-1] == OPEN
    assert await heads(fair) == seqs
    assert {code for code, *_ in before} == {"conflict"}
    assert await fair.finish() == 3
    assert await refusals() == before
    ends = {status for status, _ in await fair.stands()}
    assert ends == {"closed"}
    await fair.told_once()


async def test_what_has_ended_runs_out_of_no_time_and_nobody_is_warned_of_it(killed: None, fair: Fair) -> None:
    await fair.crowd(4)
    await close(fair)
    await run_out(fair.parley, fair.made[2])
    await set_(
        fair.parley,
        "update offers set expires_at = now() + interval '2 minutes' where offer_id = $1",
        fair.made[3]["offer"]["offer_id"],
    )
    assert await fair.parley.parley.jobs.expire_offers() == 0
    assert await fair.parley.parley.jobs.warn_of_ends() == 0
    assert await fair.finish() == 2
    assert await fair.stands() == [("closed", "listing_closed")] * 4


async def test_a_listing_that_is_to_be_had_again_revives_nothing_that_had_ended(killed: None, fair: Fair) -> None:
    await fair.crowd(5)
    await expire(fair)
    lamp = await fair.amina.post("listing:extend", listing_id=fair.lamp["listing_id"])
    assert lamp["status"] == "active"
    asked = {"offer_id": fair.made[3]["offer"]["offer_id"], "version": 1}
    assert (await refused(fair.amina, "offer:accept", **asked))["current"]["close_reason"] == "listing_closed"
    again = await offer(fair.buyers[4], lamp, 9_100)  # in the fifth's, of which the end is not written
    assert again["negotiation"]["negotiation_id"] != fair.made[4]["negotiation"]["negotiation_id"]
    assert (again["offer"]["round"], again["negotiation"]["rounds_left"]) == (1, 9)
    assert await fair.stands() == [("closed", "listing_closed")] * 2 + [OPEN] * 2 + [("closed", "listing_closed")]
    assert await fair.finish() == 2
    assert await fair.stands() == [("closed", "listing_closed")] * 5
    assert (await move(fair.amina, "accept", again))["negotiation"]["status"] == "agreed"
    await fair.told_once()


async def test_an_end_with_no_round_left_is_spent_before_it_is_written_too(killed: None, fair: Fair) -> None:
    await fair.crowd(3)
    await set_(fair.parley, "update negotiations set max_rounds = round where status = $1", "open")
    await expire(fair)
    await fair.amina.post("listing:extend", listing_id=fair.lamp["listing_id"])
    asked = {"listing_id": fair.lamp["listing_id"], "listing_version": 1, "price": eur(1), "client_id": "1"}
    before = await refused(fair.buyers[2], "offer:make", **asked)
    assert (before["reason"], before["current"]["status"]) == ("rounds_spent", "closed")
    assert (await fair.stands())[2] == OPEN
    assert await fair.finish() == 1
    assert await refused(fair.buyers[2], "offer:make", **asked) == before


async def test_a_deal_that_is_stepped_back_from_is_negotiated_on_while_its_rivals_still_end(
    killed: None, parley: Instance, amina: Person
) -> None:
    fair = Fair(parley, amina, await listed(amina, quantity=2))
    await fair.crowd(6)
    deals = [(await move(amina, "accept", made))["transaction"] for made in fair.made[4:]]
    for deal, buyer in zip(
        deals, fair.buyers[4:], strict=True
    ):  # the one before nothing was left, and the one by which
        await buyer.post("transaction:cancel", transaction_id=deal["transaction_id"], version=deal["version"])
    assert await stock(parley, fair.lamp) == (0, 0, "active")
    asked = {"offer_id": fair.made[3]["offer"]["offer_id"], "version": 1}
    assert (await refused(amina, "offer:accept", **asked))["reason"] == "sold"
    again = await offer(fair.buyers[4], fair.lamp)
    assert again["negotiation"]["negotiation_id"] == fair.made[4]["negotiation"]["negotiation_id"]
    assert await fair.finish() == 2
    assert await fair.stands() == [("closed", "listing_sold")] * 4 + [OPEN, ("open", "withdrawn")]
    assert (await move(amina, "accept", again))["negotiation"]["status"] == "agreed"
    await fair.told_once()


async def test_each_ends_by_what_came_first(killed: None, parley: Instance, amina: Person) -> None:
    fair = Fair(parley, amina, await listed(amina))
    await fair.crowd(7)
    deal = (await move(amina, "accept", fair.made.pop()))["transaction"]
    await amina.post("transaction:cancel", transaction_id=deal["transaction_id"], version=deal["version"])
    await fair.crowd(3)
    await close(fair)
    assert await fair.finish() == 5 + 1  # the one who had agreed, too, is at the table again
    assert await fair.stands() == [("closed", "listing_sold")] * 6 + [("closed", "listing_closed")] * 3
    await fair.told_once()


async def test_what_begins_behind_an_end_that_it_waited_for_has_not_ended(killed: None, fair: Fair) -> None:
    await fair.crowd(1)
    connection = await asyncpg.connect(fair.parley.dsn)
    try:
        async with connection.transaction():  # as if the listing's time were over, and more had been given at once
            await connection.execute("select from listings for update")
            making = asyncio.create_task(fair.crowd(1))
            await Holder(connection).stands_in_the_way_of()
            asked = "insert into endings (move, listing_id) values ('close_listing', $1)"
            await connection.execute(asked, UUID(fair.lamp["listing_id"]))
        await making
    finally:
        await connection.close()
    assert await fair.finish() == 1
    assert await fair.stands() == [("closed", "listing_closed"), OPEN]
    assert (await move(fair.amina, "accept", fair.made[1]))["negotiation"]["status"] == "agreed"
    await fair.told_once()


@pytest.mark.parametrize("who", ["the seller", "the buyer"])
async def test_an_unblock_revives_nothing_that_the_block_had_ended(
    killed: None, parley: Instance, amina: Person, bilal: Person, who: str
) -> None:
    lamps = [await listed(amina) for _ in range(3)]
    made = [await offer(bilal, lamp) for lamp in lamps]
    theirs, another = [await listed(bilal) for _ in range(2)]
    made += [await offer(amina, each) for each in (theirs, another)]  # the other way round
    one, other = (amina, bilal) if who == "the seller" else (bilal, amina)
    await one.post("user:block", user_id=other.user_id)
    asked = {"offer_id": made[2]["offer"]["offer_id"], "version": 1}
    before = await refused(amina, "offer:accept", **asked)
    assert before["current"]["close_reason"] == "blocked"
    await one.post("user:unblock", user_id=other.user_id)
    assert await refused(amina, "offer:accept", **asked) == before
    again = await offer(amina, theirs)
    assert again["negotiation"]["negotiation_id"] != made[3]["negotiation"]["negotiation_id"]
    assert await parley.parley.jobs.finish_endings() == 2
    assert await refused(amina, "offer:accept", **asked) == before
    desk = (await amina.post("negotiation:list"))["negotiations"]
    assert Counter(each["status"] for each in desk) == {"closed": 5, "open": 1}
    assert (await move(bilal, "accept", again))["negotiation"]["status"] == "agreed"
    await Fair(parley, amina, theirs).told_once()


async def test_a_block_ends_them_all_though_some_end_while_it_waits_for_them(
    killed: None, parley: Instance, amina: Person, bilal: Person
) -> None:
    made = [await offer(bilal, await listed(amina)) for _ in range(4)]
    first = made[0]["negotiation"]["negotiation_id"]
    connection = await asyncpg.connect(parley.dsn)
    try:
        async with connection.transaction():  # as if it ran out of time with its last round
            await connection.execute("select from negotiations where negotiation_id = $1 for update", UUID(first))
            blocking = asyncio.create_task(amina.post("user:block", user_id=bilal.user_id))
            await Holder(connection).stands_in_the_way_of()
            await connection.execute(
                "update offers set status = 'expired', close_reason = 'timeout', closed_at = now()"
                " where negotiation_id = $1",
                UUID(first),
            )
            await connection.execute("update negotiations set status = 'closed' where negotiation_id = $1", UUID(first))
        await blocking
    finally:
        await connection.close()
    await parley.parley.jobs.finish_endings()
    desk = (await amina.post("negotiation:list"))["negotiations"]
    assert Counter(each["current_offer"]["close_reason"] for each in desk) == {"timeout": 1, "blocked": 3}
    assert {each["status"] for each in desk} == {"closed"}


async def test_two_instances_end_everything_once(killed: None, new_instance: NewInstance) -> None:
    hub = LocalHub()
    one, two = [await new_instance(bus=LocalBus(hub)) for _ in range(2)]
    amina = await one.person("amina")
    fair = Fair(one, amina, await listed(amina))
    await fair.crowd(12)
    await close(fair)
    await asyncio.gather(*(each.parley.jobs.finish_endings() for each in (one, two, one)))
    await fair.finish()  # which of them could not hold it, to forget it, leaves it to the next look
    assert await fair.stands() == [("closed", "listing_closed")] * 12
    await fair.told_once()


async def test_an_end_that_another_instance_is_at_is_left_to_it(killed: None, fair: Fair) -> None:
    await fair.crowd(4)
    await close(fair)
    connection = await asyncpg.connect(fair.parley.dsn)
    try:
        async with connection.transaction():
            await connection.execute("select from endings for update")
            with structlog.testing.capture_logs() as logged:
                assert await fair.finish() == 0
            assert logged == []  # nobody has waited for it
    finally:
        await connection.close()
    assert await fair.stands() == [("closed", "listing_closed")] * 2 + [OPEN] * 2
    assert await fair.finish() == 2
    await fair.told_once()


async def test_one_that_can_not_end_holds_up_no_other_and_stays_ended(
    killed: None, fair: Fair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fair.crowd(7)
    await close(fair)
    moved, stuck = offers.move_offer, UUID(fair.made[4]["offer"]["offer_id"])

    async def move_offer(db: asyncpg.Connection, offer_id: UUID, *what: Any, **more: Any) -> None:
        if offer_id == stuck:
            raise Unavailable
        await moved(db, offer_id, *what, **more)

    monkeypatch.setattr(offers, "move_offer", move_offer)
    assert await fair.finish() == 4
    assert [status for status, _ in await fair.stands()] == ["closed"] * 4 + ["open"] + ["closed"] * 2
    asked = {"offer_id": fair.made[4]["offer"]["offer_id"], "version": 1}
    assert (await refused(fair.amina, "offer:accept", **asked))["current"]["close_reason"] == "listing_closed"
    monkeypatch.setattr(offers, "move_offer", moved)
    assert await fair.finish() == 1
    await fair.told_once()


async def test_of_two_who_take_the_last_piece_at_once_one_does_and_all_others_end(killed: None, fair: Fair) -> None:
    await fair.crowd(6)
    asked = [{"offer_id": made["offer"]["offer_id"], "version": 1} for made in fair.made[4:]]
    dalia = await fair.parley.person("dalia")
    answers = await asyncio.gather(
        *(fair.parley.post("offer:accept", each, token=fair.amina.token) for each in asked),
        fair.parley.post(
            "listing:buy",
            {"listing_id": fair.lamp["listing_id"], "version": 1, "client_id": "1"},
            token=dalia.token,
        ),
    )
    assert sorted(status for status, _ in answers) == [200, 409, 409]
    assert {answer["error"]["reason"] for _, answer in answers if not answer["ok"]} == {"sold"}
    await fair.finish()
    won = Counter(status for status, _ in await fair.stands())
    assert won in (Counter(closed=6), Counter(closed=5, agreed=1))
    await fair.told_once()


async def test_a_listing_is_closed_while_what_a_sale_ended_is_being_written(killed: None, fair: Fair) -> None:
    await fair.crowd(9)
    deal = (await move(fair.amina, "accept", fair.made[8]))["transaction"]
    writing = asyncio.create_task(fair.finish())
    await close(fair)
    await fair.buyers[8].post("transaction:cancel", transaction_id=deal["transaction_id"], version=deal["version"])
    await writing
    await fair.finish()
    assert await fair.stands() == [("closed", "listing_sold")] * 8 + [("closed", "withdrawn")]
    await fair.told_once()


async def test_what_an_edit_sells_out_ends_too(killed: None, fair: Fair) -> None:
    await fair.crowd(4)
    await set_(fair.parley, "update listings set quantity = 2 where listing_id = $1", fair.lamp["listing_id"])
    dalia = await fair.parley.person("dalia")
    asked = {"listing_id": fair.lamp["listing_id"], "version": 1, "client_id": "1"}
    deal = (await dalia.post("listing:buy", **asked))["transaction"]
    for version, person in enumerate((dalia, fair.amina), start=1):
        await person.post("transaction:confirm", transaction_id=deal["transaction_id"], version=version)
    sold = await fair.amina.post("listing:update", listing_id=fair.lamp["listing_id"], version=1, quantity=1)
    assert sold["status"] == "sold"
    assert await fair.finish() == 2
    assert await fair.stands() == [("closed", "listing_sold")] * 4
    await fair.told_once()


async def test_what_an_erased_seller_negotiated_ends_with_their_wares(by_twos: None, parley: Instance) -> None:
    amina = await parley.register("amina")
    fair = Fair(parley, amina, await listed(amina))
    await fair.crowd(5)
    await amina.post("account:delete", password=PASSWORD)
    assert await fair.finish() == 3
    found = await fetch(
        parley.dsn, "select n.status, o.close_reason from negotiations n join offers o using (negotiation_id)"
    )
    assert Counter(found) == {("closed", "listing_closed"): 5}
    await fair.told_once()


async def test_a_rival_who_has_countered_is_told_by_both_sides_rooms(by_twos: None, fair: Fair) -> None:
    await fair.crowd(4)
    answered = await counter(fair.amina, fair.made[3], 9_500)
    phone = await fair.buyers[3].connect()
    await close(fair)
    ended = await phone.hearing("offer:changed", offer_id=answered["offer"]["offer_id"], status="cancelled")
    assert (ended.payload["close_reason"], ended.payload["by"]) == ("listing_closed", "person")
    told = await phone.hearing("negotiation:changed", status="closed")
    assert told.payload["current_offer"] == ended.payload


async def test_a_listing_of_which_very_many_want_the_last_piece_is_closed_at_once(
    parley: Instance, amina: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    lamp, phone = await listed(amina), await amina.connect()
    connection = await asyncpg.connect(parley.dsn)
    try:
        await connection.execute(CROWD, UUID(lamp["listing_id"]), MANY)
        await connection.execute(CURRENT)
    finally:
        await connection.close()
    finishing: list[asyncio.Task[int]] = []

    async def finish(*what: Any) -> int:
        finishing.append(asyncio.create_task(finish_ending(*what)))
        return await finishing[-1]

    finish_ending = endings.finish_ending
    monkeypatch.setattr(endings, "finish_ending", finish)
    began = time.monotonic()
    assert (await amina.post("listing:close", listing_id=lamp["listing_id"]))["status"] == "closed"
    took_s = time.monotonic() - began
    await phone.hearing("negotiation:changed", status="closed")
    assert await finishing[0] == MANY - endings.ENDED_AT_ONCE
    assert took_s < AT_ONCE_S
    states = await fetch(
        parley.dsn,
        "select n.status, n.turn, o.status, o.close_reason, count(*) from negotiations n join offers o using"
        " (negotiation_id) group by 1, 2, 3, 4",
    )
    assert states == [("closed", "none", "cancelled", "listing_closed", MANY)]
    told = await fetch(parley.dsn, TOLD)
    assert {times for *_, times in told} == {1}
    assert len(told) == 2 * MANY  # either side
    assert sum(room_id == UUID(amina.user_id) for room_id, *_ in told) == MANY
    await Fair(parley, amina, lamp).told_once()
