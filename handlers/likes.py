"""Likes, and the counts of likes and views, which are written in batches and never pushed."""

from functools import partial
from uuid import UUID

import msgspec

from handlers.listings import as_seen
from handlers.permissions import viewer_of_the_listing
from server.commands.context import Context, Services
from server.commands.registry import Limit, Payload, command
from server.commands.tallies import Tallies
from storage import Connection, likes
from storage.likes import Counted
from storage.listings import Listing

BATCH = 500  # listings of one transaction


class LikeListing(Payload, frozen=True):
    listing_id: UUID
    on: bool


@command("listing:like", allow=viewer_of_the_listing, limit=Limit.WRITES)
async def like(ctx: Context, p: LikeListing) -> Listing:
    """Put a listing on one's wishlist, or take it off; `likes` is exact in the answer, elsewhere within two seconds."""
    listing = await as_seen(ctx, p.listing_id)
    if await likes.set_like(ctx.db, ctx.user.user_id, p.listing_id, on=p.on):
        await _recount(ctx.services, p.listing_id)  # now, or an instance that stops would forget it,
        ctx.then(partial(_recount, ctx.services, p.listing_id))  # and committed: who counts from here on counts it
    return msgspec.structs.replace(listing, liked=p.on, likes=await likes.count_likes(ctx.db, p.listing_id))


async def _recount(services: Services, listing_id: UUID) -> None:
    services.tallies.liked.add(listing_id)


async def write_counts(services: Services) -> int:
    """Write the views and likes that this instance has seen; how many listings' were written.

    What somebody holds just now waits for the next time; what has been deleted since is dropped.
    """
    written, held, taken = 0, Tallies(), BATCH
    try:
        while taken == BATCH:
            views, liked = services.tallies.take(BATCH)
            taken = len(views.keys() | liked)
            if not taken:
                break
            try:
                counted = await services.database.transaction(partial(_write, views, liked))
            except BaseException:
                services.tallies.put_back(views, liked)
                raise
            written += sum(each.is_locked for each in counted)
            left = {each.listing_id for each in counted if not each.is_locked}
            held.put_back({id_: views[id_] for id_ in left if id_ in views}, liked & left)
    finally:
        services.tallies.put_back(held.views, held.liked)
    return written


async def _write(views: dict[UUID, int], liked: set[UUID], db: Connection) -> list[Counted]:
    counted = await likes.lock_counted(db, [*(views.keys() | liked)])
    locked = {each.listing_id for each in counted if each.is_locked}
    await likes.add_views(db, {id_: count for id_, count in views.items() if id_ in locked})
    await likes.recount_likes(db, [*(liked & locked)])
    return counted
