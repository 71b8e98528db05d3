"""What offers wait for: deadlocks and long waits are run again unheard, and all is judged behind the locks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from server.embedded import SETTINGS
from server.errors import Unavailable
from storage import _db, offers
from tests.locks import Holder
from tests.market import conflict, counter, eur, listed, move, offer, refused, run_out, set_, settled, stock
from tests.people import Instance
from tests.servers import execute

NewInstance = Callable[..., Awaitable[Instance]]

LISTING = "select from listings where listing_id = $1 for update"
NEGOTIATION = "select from negotiations where negotiation_id = $1 for update"


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """What has failed in a transaction and was, or was not, run again."""
    seen: list[type] = []
    judge = _db.is_retryable

    def is_retryable(error: BaseException) -> bool:
        seen.append(type(error))
        return judge(error)

    monkeypatch.setattr(_db, "is_retryable", is_retryable)
    return seen


def test_a_deadlock_is_found_before_a_lock_times_out_and_that_before_its_statement() -> None:
    found_ms = int(SETTINGS["deadlock_timeout"].removesuffix("ms"))
    assert found_ms < _db.LOCK_TIMEOUT_MS < _db.STATEMENT_TIMEOUT_MS < _db.TRANSACTION_TIMEOUT_S * 1000


# Where PostgreSQL's own second is left to it, the lock's time-out comes before the deadlock is found.
@pytest.mark.parametrize(
    ("deadlock_timeout", "failure"),
    [("200ms", asyncpg.DeadlockDetectedError), ("1s", asyncpg.LockNotAvailableError)],
    ids=["found", "ended by the lock's time-out"],
)
@pytest.mark.parametrize("how", ["accept", "counter", "make"])
async def test_a_move_in_a_deadlock_is_made_all_the_same_and_once(
    new_instance: NewInstance,
    migrated_database: str,
    failures: list[type],
    how: str,
    deadlock_timeout: str,
    failure: type,
) -> None:
    name = migrated_database.partition("@/")[2].partition("?")[0]
    await execute(migrated_database, f"alter database {name} set deadlock_timeout = '{deadlock_timeout}'")
    parley = await new_instance()
    amina, bilal = [await parley.person(name) for name in ("amina", "bilal")]
    lamp = await listed(amina)
    made = await offer(bilal, lamp)
    offer_id, negotiation_id = made["offer"]["offer_id"], made["negotiation"]["negotiation_id"]
    payload = {"offer_id": offer_id, "version": 1}
    if how == "counter":
        payload |= {"price": eur(9_500), "client_id": uuid4().hex}
    if how == "make":
        await bilal.post("offer:withdraw", **payload)
        payload = {"listing_id": lamp["listing_id"], "listing_version": 1, "price": eur(1), "client_id": uuid4().hex}
    outsider = await asyncpg.connect(migrated_database)
    try:
        await outsider.execute("set deadlock_timeout = '30s'")  # it is not the one to give way
        async with outsider.transaction():
            await outsider.execute(NEGOTIATION, UUID(negotiation_id))
            moving = asyncio.create_task((bilal if how == "make" else amina).post(f"offer:{how}", **payload))
            await Holder(outsider).stands_in_the_way_of()
            await outsider.execute(LISTING, UUID(lamp["listing_id"]))  # they wait for each other; the move gives way
        answer = await moving
    finally:
        await outsider.close()
    assert failure in failures
    assert (answer["offer"]["offer_id"] == offer_id) == (how == "accept")
    assert await stock(parley, lamp) == ((1, 0, "reserved") if how == "accept" else (0, 0, "active"))
    history = await amina.post("negotiation:history", negotiation_id=negotiation_id)
    assert len(history["offers"]) == (1 if how == "accept" else 2)
    said = await amina.post("message:history", conversation_id=made["negotiation"]["conversation_id"])
    assert len(said["messages"]) == len(history["offers"])


async def test_a_move_that_waits_too_long_was_not_made(
    new_instance: NewInstance, migrated_database: str, failures: list[type]
) -> None:
    parley = await new_instance()
    amina, bilal = [await parley.person(name) for name in ("amina", "bilal")]
    lamp = await listed(amina)
    made = await offer(bilal, lamp)
    asked = {"offer_id": made["offer"]["offer_id"], "version": 1}
    outsider = await asyncpg.connect(migrated_database)
    try:
        async with outsider.transaction():
            await outsider.execute(LISTING, UUID(lamp["listing_id"]))
            status, answer = await parley.post("offer:accept", asked, token=amina.token)
    finally:
        await outsider.close()
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    assert set(failures) == {asyncpg.LockNotAvailableError}
    assert await stock(parley, lamp) == (0, 0, "active")
    assert (await amina.post("offer:accept", **asked))["offer"]["status"] == "accepted"


async def test_rounds_that_are_used_up_meanwhile_are_used_up(new_instance: NewInstance, migrated_database: str) -> None:
    parley = await new_instance()
    amina, bilal = [await parley.person(name) for name in ("amina", "bilal")]
    lamp = await listed(amina)
    made = await offer(bilal, lamp)
    await move(bilal, "withdraw", made)
    negotiation_id = UUID(made["negotiation"]["negotiation_id"])
    outsider = await asyncpg.connect(migrated_database)
    try:
        async with outsider.transaction():
            await outsider.execute(
                "update negotiations set status = 'closed', max_rounds = round where negotiation_id = $1",
                negotiation_id,
            )
            asked = {"listing_id": lamp["listing_id"], "listing_version": 1, "price": eur(1), "client_id": "1"}
            making = asyncio.create_task(refused(bilal, "offer:make", **asked))
            await Holder(outsider).stands_in_the_way_of()
        error = await making
    finally:
        await outsider.close()
    assert (error["reason"], error["current"]["status"]) == ("rounds_spent", "closed")
    assert len((await bilal.post("negotiation:list"))["negotiations"]) == 1


@pytest.mark.parametrize("how", ["make", "counter"])
async def test_a_rule_set_while_an_offer_waits_for_its_listing_answers_it(
    new_instance: NewInstance, migrated_database: str, how: str
) -> None:
    parley = await new_instance()
    amina, bilal = [await parley.person(name) for name in ("amina", "bilal")]
    lamp = await listed(amina)
    if how == "make":
        asked = {"listing_id": lamp["listing_id"], "listing_version": 1}
    else:
        theirs = await counter(amina, await offer(bilal, lamp, 5_000), 9_900)
        asked = {"offer_id": theirs["offer"]["offer_id"], "version": 1}
    outsider = await asyncpg.connect(migrated_database)
    try:
        async with outsider.transaction():  # as autorule:set does it
            await outsider.execute(f"{LISTING.removesuffix('update')}no key update", UUID(lamp["listing_id"]))
            await outsider.execute(
                "insert into auto_rules (listing_id, accept_at, enabled) values ($1, 9000, true)",
                UUID(lamp["listing_id"]),
            )
            moving = asyncio.create_task(bilal.post(f"offer:{how}", **asked, price=eur(9_500), client_id="1"))
            await Holder(outsider).stands_in_the_way_of()
        made = await moving
    finally:
        await outsider.close()
    assert (made["offer"]["status"], made["offer"]["by"], made["negotiation"]["status"]) == (
        "accepted",
        "rule",
        "agreed",
    )
    assert await stock(parley, lamp) == (1, 0, "reserved")
    history = await bilal.post("negotiation:history", negotiation_id=made["negotiation"]["negotiation_id"])
    assert len(history["offers"]) == (1 if how == "make" else 3)


async def test_what_somebody_withdraws_meanwhile_is_not_counted_as_declined(
    new_instance: NewInstance, migrated_database: str
) -> None:
    parley = await new_instance()
    amina, bilal = [await parley.person(name) for name in ("amina", "bilal")]
    lamp = await listed(amina)
    made = await offer(bilal, lamp)
    outsider = await asyncpg.connect(migrated_database)
    try:
        async with outsider.transaction():
            await outsider.execute(NEGOTIATION, UUID(made["negotiation"]["negotiation_id"]))
            declining = asyncio.create_task(amina.post("offer:decline_all", listing_id=lamp["listing_id"]))
            await Holder(outsider).stands_in_the_way_of()
            await outsider.execute(
                """update offers set status = 'cancelled', close_reason = 'withdrawn', closed_at = now()
                    where offer_id = $1""",
                UUID(made["offer"]["offer_id"]),
            )
        assert await declining == {"declined": 0}
    finally:
        await outsider.close()


async def test_many_are_declined_though_one_of_them_was_held_for_long(
    new_instance: NewInstance, migrated_database: str, failures: list[type]
) -> None:
    parley = await new_instance()
    amina, bilal = [await parley.person(name) for name in ("amina", "bilal")]
    lamp = await listed(amina)
    made = await offer(bilal, lamp)
    outsider = await asyncpg.connect(migrated_database)
    try:
        async with outsider.transaction():
            await outsider.execute(NEGOTIATION, UUID(made["negotiation"]["negotiation_id"]))
            declining = asyncio.create_task(amina.post("offer:decline_all", listing_id=lamp["listing_id"]))
            async with asyncio.timeout(5):
                while not failures:
                    await asyncio.sleep(0)
        assert await declining == {"declined": 1}
    finally:
        await outsider.close()
    assert set(failures) == {asyncpg.LockNotAvailableError}


async def test_more_offers_than_one_transaction_takes_expire_in_one_look(
    monkeypatch: pytest.MonkeyPatch, new_instance: NewInstance
) -> None:
    monkeypatch.setattr("server.jobs.CLOCK_EVERY_S", 3_600.0)
    monkeypatch.setattr("handlers.endings.EXPIRED_AT_ONCE", 2)
    parley = await new_instance()
    amina = await parley.person("amina")
    lamp = await listed(amina)
    for n in range(5):
        await run_out(parley, await offer(await parley.person(f"buyer{n}"), lamp))
    assert await parley.parley.jobs.expire_offers() == 5
    desk = (await amina.post("negotiation:list"))["negotiations"]
    assert {each["current_offer"]["status"] for each in desk} == {"expired"}


async def test_an_offer_that_can_not_expire_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, new_instance: NewInstance
) -> None:
    monkeypatch.setattr("server.jobs.CLOCK_EVERY_S", 3_600.0)
    monkeypatch.setattr("handlers.endings.EXPIRED_AT_ONCE", 2)
    parley = await new_instance()
    amina = await parley.person("amina")
    lamp = await listed(amina)
    made = [await offer(await parley.person(f"buyer{n}"), lamp) for n in range(5)]
    for each in made:
        await run_out(parley, each)
    moved, stuck = offers.move_offer, UUID(made[0]["offer"]["offer_id"])

    async def move_offer(db: asyncpg.Connection, offer_id: UUID, *what: Any, **more: Any) -> None:
        if offer_id == stuck:
            raise Unavailable
        await moved(db, offer_id, *what, **more)

    monkeypatch.setattr(offers, "move_offer", move_offer)
    assert await parley.parley.jobs.expire_offers() == 4
    desk = (await amina.post("negotiation:list"))["negotiations"]
    assert sorted(each["current_offer"]["status"] for each in desk) == [*["expired"] * 4, "pending"]
    monkeypatch.setattr(offers, "move_offer", moved)
    assert await parley.parley.jobs.expire_offers() == 1


async def test_a_warning_that_can_not_be_given_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, new_instance: NewInstance
) -> None:
    monkeypatch.setattr("server.jobs.WARN_EVERY_S", 3_600.0)
    monkeypatch.setattr("handlers.endings.BATCH", 2)
    parley = await new_instance()
    amina = await parley.person("amina")
    lamp, phone = await listed(amina), await amina.connect()
    made = [await offer(await parley.person(f"buyer{n}"), lamp, expires_in_s=3_700) for n in range(5)]
    for each in made:
        late = "update offers set expires_at = now() + interval '4 minutes' where offer_id = $1"
        await set_(parley, late, each["offer"]["offer_id"])
    warned, stuck = offers.warn, UUID(made[0]["negotiation"]["negotiation_id"])

    async def warn(db: asyncpg.Connection, stage: int, within_s: int, negotiation_ids: Sequence[UUID]) -> Any:
        if stuck in negotiation_ids:
            raise Unavailable
        return await warned(db, stage, within_s, negotiation_ids)

    monkeypatch.setattr(offers, "warn", warn)
    assert await parley.parley.jobs.warn_of_ends() == 4
    monkeypatch.setattr(offers, "warn", warned)
    assert await parley.parley.jobs.warn_of_ends() == 1
    await settled(phone, amina)
    told = [push.payload["offer_id"] for push in phone.heard if push.name == "offer:expiring"]
    assert sorted(told) == sorted(each["offer"]["offer_id"] for each in made)


async def test_what_is_in_a_deleted_thread_is_not_there_before_it_is_emptied(new_instance: NewInstance) -> None:
    parley = await new_instance()
    amina, bilal = [await parley.person(name) for name in ("amina", "bilal")]
    thread = await amina.post("thread:create", title="Lamps", category="home_decor", client_id="t")
    lamp = await listed(amina, thread_id=thread["thread_id"])
    await set_(
        parley, "update threads set deleted_at = now(), emptied_at = now() where thread_id = $1", thread["thread_id"]
    )
    asked = {"listing_id": lamp["listing_id"], "listing_version": 1, "price": eur(1), "client_id": "1"}
    assert (await refused(bilal, "offer:make", **asked))["code"] == "not_found"


async def test_a_counter_offer_for_more_than_is_left_shows_the_offer_that_it_answers(new_instance: NewInstance) -> None:
    parley = await new_instance()
    amina, bilal = [await parley.person(name) for name in ("amina", "bilal")]
    made = await offer(bilal, await listed(amina))
    assert await conflict(amina, "counter", made, price=eur(1), quantity=2, client_id="1") == "sold"
