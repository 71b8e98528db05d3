"""What ends without anybody's move: an offer whose time is over, negotiations whose listing or partner is gone."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

import msgspec
import structlog

from handlers.bargaining import Changes
from rules.offers import Move, Mover
from server.commands.context import Services, Work, work
from server.commands.registry import push
from server.errors import ParleyError
from server.rooms.names import user_room
from storage import Time, negotiations, offers
from storage.offers import Expiring

BATCH = 100  # offers of one look
EXPIRED_AT_ONCE = 20  # of one transaction, which holds their negotiations meanwhile
WARNINGS_S = (3_600, 300)  # before an offer's end

logger = structlog.get_logger("parley.offers")


class OfferExpiring(msgspec.Struct, frozen=True):
    """An offer that ends soon."""

    offer_id: UUID
    negotiation_id: UUID
    expires_at: Time


offer_expiring = push(
    "offer:expiring", OfferExpiring, "An offer ends in an hour, and then in five minutes.", rooms=("user",)
)


async def expire_offers(services: Services) -> int:
    """Write the end of offers whose time is over by the database's clock; how many they were."""
    done, after = 0, UUID(int=0)
    while True:
        async with services.database.connection() as db:
            found = await negotiations.list_ended(db, after, EXPIRED_AT_ONCE)
        done += await _expire_some(services, found)
        if len(found) < EXPIRED_AT_ONCE:
            return done
        after = found[-1]


async def _expire_some(services: Services, found: Sequence[UUID]) -> int:
    """Let these expire at once; where that fails, one by one, but for what fails by itself: it comes again."""
    try:
        return await work(services, partial(_expire, found)) if found else 0
    except ParleyError as error:
        if len(found) == 1:
            logger.warning("expiry_failed", negotiation_id=str(found[0]), error=error.message)
            return 0
    return sum([await _expire_some(services, [each]) for each in found])


async def _expire(found: Sequence[UUID], at_work: Work) -> int:
    """Let those expire that nobody else is at, in one transaction."""
    ended = await negotiations.lock_ended(at_work.db, found)
    changes, pending = Changes(at_work), await offers.lock_pending(at_work.db, [each.negotiation_id for each in ended])
    for each in ended:
        offer = pending.get(each.negotiation_id)
        if offer is not None and offer.has_expired:
            await changes.apply(each, offer, Mover.CLOCK, Move.EXPIRE)
    await changes.tell()
    return len(ended)


async def warn_of_ends(services: Services) -> int:
    """Tell both sides of offers that end within the hour, and within five minutes; how many they were."""
    warned = 0
    for stage, within_s in reversed(
        [*enumerate(WARNINGS_S, start=1)]
    ):  # the last one stands for those that were missed
        found = BATCH
        while found == BATCH:
            found = await work(services, partial(_warn, stage, within_s))
            warned += found
    return warned


async def _warn(stage: int, within_s: int, at_work: Work) -> int:
    soon: Sequence[Expiring] = await offers.warn(at_work.db, stage, within_s, BATCH)
    await at_work.lock(*{user_room(user_id) for each in soon for user_id in (each.buyer_id, each.seller_id)})
    for each in soon:
        for user_id in (each.buyer_id, each.seller_id):
            told = OfferExpiring(each.offer_id, each.negotiation_id, each.expires_at)
            at_work.push(offer_expiring, told, to=user_room(user_id))
    return len(soon)


async def end_between(at_work: Work, one_id: UUID, other_id: UUID) -> Changes:
    """End what two people negotiate, one of whom has blocked the other; to be told by the caller, rooms last."""
    changes = Changes(at_work)
    await changes.end_all(await negotiations.lock_between(at_work.db, one_id, other_id), Move.BLOCK)
    return changes


async def leave_negotiations(services: Services, user_id: UUID) -> None:
    """End what somebody who is gone wanted to buy; what they sold ends with their listings."""

    async def leave(negotiation_id: UUID, at_work: Work) -> None:
        changes = Changes(at_work)
        locked = await negotiations.lock_negotiation(at_work.db, negotiation_id)
        await changes.end_all([locked], Move.LEAVE)
        await changes.tell()

    while True:
        async with services.database.connection() as db:
            found = await negotiations.list_open_of(db, user_id, BATCH)
        for negotiation_id in found:
            await work(services, partial(leave, negotiation_id))
        if not found:
            return
