"""Listings find their counterparts: after the answer that wrote them, and by a job where an instance was stopped."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple
from uuid import UUID

import structlog

from rules.matches import LEAST, MatchStatus, Points, score, total
from server.commands.context import Services, Work, work
from server.commands.registry import Push, push
from server.errors import ParleyError
from server.rooms.names import user_room
from storage import matches, matching, users
from storage.matches import Match, MutualMatch, SeenRow
from storage.matching import SubjectRow

FOUND = 50  # new matches of one look, the best
AT_ONCE = 10  # pairs of one transaction: it holds both listings of each, and their owners' rooms
LEFT = 100  # listings of one look at what is left

match_found = push("match:found", Match, "A listing of one's own and another belong together.", rooms=("user",))
match_changed = push(
    "match:changed", Match, "A match has other points, or is something else to oneself now.", rooms=("user",)
)
match_mutual = push("match:mutual", MutualMatch, "Both want a match, or what they began has ended.", rooms=("user",))

logger = structlog.get_logger("parley.matches")


class Pair(NamedTuple):
    """A listing that may belong with the one that is looked at, and what they have in common."""

    other: SubjectRow
    points: Points


async def match_all(services: Services) -> int:
    """Look for what was left: by an instance that was stopped, or since a listing is to be had again."""
    done, after, found = 0, UUID(int=0), [UUID(int=0)]
    while found:
        async with services.database.connection() as db:
            found = await matching.list_unmatched(db, after, LEFT)
        for after in found:
            try:
                done += await match_listing(services, after)
            except ParleyError as error:  # the others are not made to wait for it; it comes again
                logger.warning("matching_failed", listing_id=str(after), error=error.message)
    return done


async def match_listing(services: Services, listing_id: UUID) -> bool:
    """Find a listing's counterparts, and tell the owners; False where it was done already, or has to be done again.

    What is to be had is read without a lock and compared; each batch is judged again behind its locks. Done twice it
    changes nothing, so that instances need not know of each other.
    """
    async with services.database.connection() as db:
        source = await matching.find_unmatched(db, listing_id)
        others = [] if source is None else await matching.list_counterparts(db, source)
    if source is None:
        return False
    pairs = _likely(source, others)
    for first in range(0, len(pairs), AT_ONCE):
        if not await work(services, partial(_write, source, pairs[first : first + AT_ONCE])):
            return False
    async with services.database.connection() as db:
        await matching.note_matched(db, source.listing_id, source.edition)
    return True


def _likely(source: SubjectRow, others: Sequence[SubjectRow]) -> list[Pair]:
    """The best of those that are not matched yet, and all that are, whatever they have in common now."""
    subject = source.subject()
    pairs = [Pair(other, score(subject, other.subject())) for other in others]
    new = [pair for pair in pairs if not pair.other.is_matched and total(pair.points) >= LEAST]
    new.sort(key=lambda pair: (-total(pair.points), pair.other.listing_id))
    return new[:FOUND] + [pair for pair in pairs if pair.other.is_matched]


async def _write(source: SubjectRow, pairs: Sequence[Pair], at_work: Work) -> bool:
    """Store a batch; False where the listing is not what it was, and nothing is done."""
    db, everything = at_work.db, (source, *(pair.other for pair in pairs))
    active = await users.lock_active(db, list({each.user_id for each in everything}))
    await matching.share_threads(db, list({each.thread_id for each in everything if each.thread_id}))
    stands = await matching.share_listings(db, [each.listing_id for each in everything])
    # One that has changed meanwhile looks for its counterparts itself, and one that is not to be had when it is again.
    fresh = {
        each.listing_id: stands[each.listing_id].is_open
        for each in everything
        if each.user_id in active and each.listing_id in stands and stands[each.listing_id].edition == each.edition
    }
    if not fresh.get(source.listing_id):
        return False
    kept = [
        (pair.other.listing_id, pair.points)
        for pair in pairs
        if fresh.get(pair.other.listing_id, False) or (pair.other.is_matched and pair.other.listing_id in fresh)
    ]
    written = {each.match_id: each.is_new for each in await matching.write_matches(db, source.listing_id, kept)}
    asked = [(viewer_id, match_id) for match_id in written for viewer_id in active]
    # Nobody hears again of what they have dismissed, nor of whom they have blocked.
    seen = [
        each
        for each in await matches.list_seen(db, asked)
        if each.status is not MatchStatus.DISMISSED and not each.is_blocked
    ]
    await at_work.lock(*{user_room(each.viewer_id) for each in seen})
    await tell(at_work, seen, {id_: match_found if is_new else match_changed for id_, is_new in written.items()})
    return True


async def tell(at_work: Work, seen: Sequence[SeenRow], how: Mapping[UUID, Push[Match]]) -> None:
    """Push matches to those who see them, whose rooms are locked; not one whose listing has gone since it was read."""
    for row, match in await matches.show_each(at_work.db, seen):
        # Found by the match when one of the two listings goes.
        at_work.push(how[row.match_id], match, to=user_room(row.viewer_id), message_id=row.match_id)
