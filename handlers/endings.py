"""What ends without anybody's move: an offer whose time is over, negotiations whose listing or partner is gone.

Of negotiations that end together some are written by the transaction that decides it; it notes that the others have
ended, so that nobody moves in them any more, and they are written in batches behind it.
"""

from collections.abc import Awaitable, Callable, Sequence
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
from storage import Time, endings, negotiations, offers
from storage.offers import Expiring

BATCH = 100  # offers of one look
EXPIRED_AT_ONCE = 20  # of one transaction, which holds their negotiations meanwhile
ENDED_AT_ONCE = 50  # negotiations of one transaction, each with rooms of its own
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
        done += await _write_some(services, _expire, found)
        if len(found) < EXPIRED_AT_ONCE:
            return done
        after = found[-1]


async def _write_some(
    services: Services, write: Callable[[Sequence[UUID], Work], Awaitable[int]], found: Sequence[UUID]
) -> int:
    """Write these at once; where that fails, one by one, but for what fails by itself: it comes again."""
    try:
        return await work(services, partial(write, found)) if found else 0
    except ParleyError as error:
        if len(found) == 1:
            logger.warning("end_failed", negotiation_id=str(found[0]), error=error.message)
            return 0
    return sum([await _write_some(services, write, [each]) for each in found])


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
        after, found = UUID(int=0), [UUID(int=0)] * BATCH
        while len(found) == BATCH:
            async with services.database.connection() as db:
                found = await offers.list_unwarned(db, stage, within_s, after, BATCH)
            warned += await _write_some(services, partial(_warn, stage, within_s), found)
            after = found[-1] if found else after
    return warned


async def _warn(stage: int, within_s: int, found: Sequence[UUID], at_work: Work) -> int:
    soon: Sequence[Expiring] = await offers.warn(at_work.db, stage, within_s, found)
    await at_work.lock(*{user_room(user_id) for each in soon for user_id in (each.buyer_id, each.seller_id)})
    for each in soon:
        for user_id in (each.buyer_id, each.seller_id):
            told = OfferExpiring(each.offer_id, each.negotiation_id, each.expires_at)
            at_work.push(offer_expiring, told, to=user_room(user_id))
    return len(soon)


async def end_about(changes: Changes, listing_id: UUID, move: Move) -> None:
    """End what is negotiated about a listing, whose row is held; to be told by the caller, rooms last."""
    db = changes.work.db
    found = await negotiations.lock_open(db, listing_id, ENDED_AT_ONCE)
    await changes.end_all(found, move)
    if len(found) == ENDED_AT_ONCE:
        _go_on(changes.work, await endings.create_ending(db, move, listing_id=listing_id))


async def end_between(at_work: Work, one_id: UUID, other_id: UUID) -> Changes:
    """End what two people negotiate, one of whom has blocked the other; to be told by the caller, rooms last.

    The caller holds both people's rows.
    """
    changes = Changes(at_work)
    found = await negotiations.list_between(at_work.db, one_id, other_id, ENDED_AT_ONCE)
    await changes.end_all(await negotiations.lock_rest(at_work.db, found), Move.BLOCK)
    if len(found) == ENDED_AT_ONCE:  # whatever became of these before they were locked: there may be others
        _go_on(at_work, await endings.create_ending(at_work.db, Move.BLOCK, pair=(one_id, other_id)))
    return changes


def _go_on(at_work: Work, moment: int) -> None:
    at_work.then(partial(finish_ending, at_work.services, moment))


async def finish_endings(services: Services) -> int:
    """Write the ends that were more than one transaction's; how many negotiations they were."""
    done, after, found = 0, 0, [0]
    while found:
        async with services.database.connection() as db:
            found = await endings.list_endings(db, after, BATCH)
        for after in found:
            try:
                done += await finish_ending(services, after)
            except ParleyError as error:  # the others are not made to wait for it; it comes again
                logger.warning("end_failed", moment=after, error=error.message)
    return done


async def finish_ending(services: Services, moment: int) -> int:
    """Write an end, batch by batch, and forget it when all is written; how many negotiations that were here.

    What another instance is at is left to it, and whatever fails is left to the next look.
    """
    done, found = 0, [UUID(int=0)]
    while found:
        async with services.database.connection() as db:
            found = await endings.list_rest(db, moment, found[-1], ENDED_AT_ONCE)
        done += await _write_some(services, partial(_end, moment), found)
    await work(services, partial(_forget, moment))
    return done


async def _end(moment: int, found: Sequence[UUID], at_work: Work) -> int:
    """End those that nobody has ended meanwhile, in one transaction."""
    move = await endings.lock_ending(at_work.db, moment)
    if move is None:
        return 0
    ended, changes = await negotiations.lock_rest(at_work.db, found), Changes(at_work)
    await changes.end_all(ended, move)
    await changes.tell()
    return len(ended)


async def _forget(moment: int, at_work: Work) -> None:
    is_held = await endings.lock_ending(at_work.db, moment) is not None
    if is_held and not await endings.list_rest(at_work.db, moment, UUID(int=0), 1):
        await endings.delete_ending(at_work.db, moment)


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
