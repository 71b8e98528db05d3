"""What owners make of their matches, and what comes of it when both want the same."""

from functools import partial
from typing import Annotated, Any
from uuid import UUID

import msgspec

from handlers.bargaining import Changes
from handlers.matching import match_changed, match_mutual, tell
from handlers.seats import begin, check_open
from rules.listings import ListingKind
from rules.matches import MatchAction, MatchStatus, is_mutual, is_shown
from server.commands.context import Context, Work, encode
from server.commands.pages import within
from server.commands.registry import Limit, Payload, Permission, command, signed_in
from server.errors import Conflict, NotFound, TooLarge
from server.rooms.names import user_room
from storage import listings, matches, matching, rooms, users
from storage.listings import LockedListing
from storage.matches import Match, MutualMatch, SeenRow

LIST_PAGE = 50
LOOK, LOOKS = 100, 10  # matches of one look for a page's, and looks of one call
METADATA_BYTES = 4 * 1024
WANTS = (MatchAction.INTERESTED, MatchAction.CONTACTED)

owner_of_either_listing = Permission("owner_of_either_listing")
"""The owners of a match's two listings, each in the other's thread; judged by the handler behind its lock."""


class ListMatches(Payload, frozen=True):
    listing_id: UUID | None = None
    status: MatchStatus | None = None
    before: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_PAGE)] = 20


class Matches(msgspec.Struct, frozen=True):
    """A page of matches; `next` is the `before` of the page behind it."""

    matches: list[Match]
    next: UUID | None


@command("match:list", allow=signed_in, limit=Limit.READS, reads=True)
async def list_(ctx: Context, p: ListMatches) -> Matches:
    """List the matches of one's listings, or of one listing, the newest first.

    New and viewed ones are listed while both listings are to be had and there are 40 points; dismissed ones where
    their status is asked for; those with somebody who is blocked only once they are mutual. A page may be short where
    much was passed over: `next: null` alone ends the list.
    """
    found, behind = await _gather(ctx, p)
    page = within(await matches.show(ctx.db, found[: p.limit]))
    if page and len(page) < len(found):
        return Matches(page, page[-1].match_id)
    return Matches(page, behind)


async def _gather(ctx: Context, p: ListMatches) -> tuple[list[SeenRow], UUID | None]:
    """What is to be listed, one more than fits where there is one; and, where not all was looked at, up to which."""
    me, before = ctx.user.user_id, p.before
    found: list[SeenRow] = []
    for _ in range(LOOKS):
        ids = await matches.page_matches(ctx.db, me, p.listing_id, before, LOOK)
        found += [
            row
            for row in await matches.list_seen(ctx.db, [(me, id_) for id_ in ids])
            if is_shown(row.status, row.score, p.status, is_open=row.is_open, is_blocked=row.is_blocked)
        ]
        if len(ids) < LOOK:
            return found, None
        before = ids[-1]
        if len(found) > p.limit:
            break
    return found, before


class ActOnMatch(Payload, frozen=True):
    match_id: UUID
    action: MatchAction
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class ActedOn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A match as it is now, and the mutual match where both want it."""

    match: Match
    mutual_match: MutualMatch | None = None


class Held(msgspec.Struct, frozen=True):
    """A match whose row is held, as its viewer sees it, and its listings, which stand still."""

    mine: SeenRow
    wish: LockedListing
    offer: LockedListing


@command("match:act", allow=owner_of_either_listing, limit=Limit.WRITES, raises=(Conflict,))
async def act(ctx: Context, p: ActOnMatch) -> ActedOn:
    """Say what a match is to oneself: the last word counts, but to have viewed it takes none back.

    When both owners are interested, or have contacted each other, it becomes mutual: they have a private conversation
    about what is for sale, and a negotiation. Until then neither hears of the other's acts. Nobody is newly interested
    in what has fallen under 40 points.
    """
    me, metadata = ctx.user.user_id, encode(p.metadata)
    if len(metadata) > METADATA_BYTES:
        raise TooLarge(f"metadata: more than {METADATA_BYTES} bytes of JSON.", METADATA_BYTES)
    held = await _hold(ctx, p.match_id)
    was, becomes = held.mine.status, held.mine.status_after(p.action)
    if p.action in WANTS and becomes is not was:
        await _check_wanted(ctx, held)
    await matches.write_act(ctx.db, p.match_id, me, p.action, metadata.decode())
    both = await matches.list_seen(ctx.db, [(each, p.match_id) for each in (me, held.mine.other_user_id)])
    if p.action in WANTS and len(both) == 2 and is_mutual(*(each.status for each in both)):
        await _begin(Changes(ctx), held)
    elif becomes is not was:
        await ctx.lock(user_room(me))
        await _tell(ctx, [(me, p.match_id)])
    [match] = await matches.show(ctx.db, await matches.list_seen(ctx.db, [(me, p.match_id)]))
    return ActedOn(match, await matches.find_mutual(ctx.db, p.match_id))


async def _hold(ctx: Context, match_id: UUID) -> Held:
    """Hold a match, and all that it is judged by. Raises `NotFound` for who may not see it."""
    me, db = ctx.user.user_id, ctx.db
    parties = await matches.find_parties(db, me, match_id)
    if parties is None or me not in await users.lock_active(db, [parties.source_user_id, parties.matched_user_id]):
        raise NotFound
    await matching.share_threads(db, parties.thread_ids)
    ids = sorted((parties.source_listing_id, parties.matched_listing_id))
    locked = [await listings.lock_listing(db, listing_id, share=True) for listing_id in ids]
    if not await matches.lock_match(db, match_id):
        raise NotFound
    seen = await matches.list_seen(db, [(me, match_id)])
    pair = {listing.kind: listing for listing in locked if listing is not None}
    if not seen or len(pair) < 2:
        raise NotFound
    return Held(seen[0], pair[ListingKind.WTB], pair[ListingKind.FOR_SALE])


async def _check_wanted(ctx: Context, held: Held) -> None:
    """Raises `Conflict` where the two can't deal, a listing is not to be had, or they do not match any more."""
    if held.mine.is_blocked:
        [match] = await matches.show(ctx.db, [held.mine])
        raise Conflict("blocked", "One of you has blocked the other.", match)
    if not await users.lock_active(ctx.db, [held.mine.other_user_id]):
        raise NotFound
    for listing in (held.wish, held.offer):
        [current] = await listings.list_listings(ctx.db, ctx.user.user_id, [listing.listing_id])
        check_open(listing, listing.version, 1, current)
    if held.mine.quality is None:
        [match] = await matches.show(ctx.db, [held.mine])
        raise Conflict("listing_changed", "The two do not match any more: look at them again.", match)


async def _begin(changes: Changes, held: Held) -> None:
    """Let both have what they want, their conversation and their negotiation, and tell them."""
    db, match_id = changes.work.db, held.mine.match_id
    wish, offer = held.wish, held.offer
    negotiation = await begin(changes, offer, wish.user_id, changes.work.services.market.rounds)
    changes.touched(negotiation)
    await matches.create_mutual(
        db,
        await rooms.new_id(db),
        match_id,
        wish_id=wish.listing_id,
        offer_id=offer.listing_id,
        conversation_id=negotiation.conversation_id,
        negotiation_id=negotiation.negotiation_id,
    )
    pair = (wish.user_id, offer.user_id)

    async def tell_both() -> None:
        mutual = await matches.find_mutual(db, match_id)
        assert mutual is not None  # made above
        for user_id in pair:
            changes.work.push(match_mutual, mutual, to=user_room(user_id))
        await _tell(changes.work, [(user_id, match_id) for user_id in pair])

    changes.along([user_room(user_id) for user_id in pair], tell_both)
    await changes.tell()


async def _tell(at_work: Work, asked: list[tuple[UUID, UUID]]) -> None:
    """Push matches as they are now to (viewer, match), whose rooms are locked."""
    seen = await matches.list_seen(at_work.db, asked)
    await tell(at_work, seen, {each.match_id: match_changed for each in seen})


async def deal_made(changes: Changes, listing_id: UUID, buyer_id: UUID) -> None:
    """Let what two matched by be a deal, their transaction being paid; they are told with all else.

    By whichever negotiation they agreed, or without one. The caller holds the listing and the matches, and no room yet.
    """
    for dealt in await matches.note_deal(changes.work.db, listing_id, buyer_id):
        asked = [(user_id, dealt.match_id) for user_id in (dealt.buyer_user_id, dealt.seller_user_id)]
        changes.along([user_room(user_id) for user_id, _ in asked], partial(_tell, changes.work, asked))


class ListMutual(Payload, frozen=True):
    before: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_PAGE)] = 20


class MutualMatches(msgspec.Struct, frozen=True):
    """A page of mutual matches; `next` is the `before` of the page behind it."""

    mutual_matches: list[MutualMatch]
    next: UUID | None


@command("mutual:list", allow=signed_in, limit=Limit.READS, reads=True)
async def list_mutual(ctx: Context, p: ListMutual) -> MutualMatches:
    """List what one and somebody else both want, the newest first."""
    found = await matches.page_mutual(ctx.db, ctx.user.user_id, p.before, p.limit + 1)
    page = found[: p.limit]
    return MutualMatches(page, page[-1].mutual_match_id if len(page) < len(found) else None)
