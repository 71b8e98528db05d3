"""Matches as they are stored, and as each of their two owners sees them."""

from collections.abc import Iterable, Sequence
from uuid import UUID

import msgspec

from rules.matches import MatchAction, MatchQuality, MatchReason, MatchStatus, MutualStatus, status_for
from storage import listings
from storage._db import Connection, Time, load
from storage.listings import SharedListing


class Reason(msgspec.Struct, frozen=True):
    """What speaks for a match, and how many of its points it gave."""

    reason: MatchReason
    points: int


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """Something wanted and something for sale that may belong together, as one of the two owners sees it.

    `source_listing` is the one that was new, or had changed, when it was found. `score` is the sum of the reasons'
    points; under 40 it is a match no more, without `quality`, and comes back if it rises. `status` is the viewer's own.
    """

    match_id: UUID
    source_listing: SharedListing
    matched_listing: SharedListing
    score: int
    quality: MatchQuality | None
    reasons: list[Reason]
    status: MatchStatus
    at: Time


class MutualMatch(msgspec.Struct, frozen=True, kw_only=True):
    """Two who want to deal with each other: what is wanted is the buyer's listing, what is for sale the seller's."""

    mutual_match_id: UUID
    buyer_listing_id: UUID
    seller_listing_id: UUID
    buyer_user_id: UUID
    seller_user_id: UUID
    conversation_id: UUID
    negotiation_id: UUID | None
    is_mutual: bool
    status: MutualStatus
    at: Time


class Parties(msgspec.Struct, frozen=True):
    """What has to be held to judge a match."""

    source_listing_id: UUID
    matched_listing_id: UUID
    source_user_id: UUID
    matched_user_id: UUID
    thread_ids: list[UUID]


class SeenRow(msgspec.Struct, frozen=True, kw_only=True):
    """A match for its viewer; `for_both` says new, until both want it. `acts` are the viewer's, the last comes last."""

    viewer_id: UUID
    match_id: UUID
    source_listing_id: UUID
    matched_listing_id: UUID
    other_user_id: UUID
    score: int
    quality: MatchQuality | None
    reasons: msgspec.Raw
    for_both: MatchStatus
    acts: list[MatchAction]
    is_open: bool
    is_blocked: bool
    at: Time

    @property
    def status(self) -> MatchStatus:
        """What it is to the viewer."""
        return self.status_after()

    def status_after(self, *acts: MatchAction) -> MatchStatus:
        """What it would be to the viewer if they acted so."""
        return status_for(MatchStatus(self.for_both), [MatchAction(act) for act in (*self.acts, *acts)])


class Dealt(msgspec.Struct, frozen=True):
    """A match that has become a deal, and its two owners."""

    match_id: UUID
    buyer_user_id: UUID
    seller_user_id: UUID


sql = load("matches", MutualMatch, Parties, SeenRow, Dealt)

_decode_reasons = msgspec.json.Decoder(list[Reason]).decode


async def find_parties(db: Connection, user_id: UUID, match_id: UUID) -> Parties | None:
    """What has to be held to judge a match; None for who owns neither listing."""
    found: Parties | None = await sql.find_parties(db, match_id=match_id, user_id=user_id)
    return found


async def lock_match(db: Connection, match_id: UUID) -> bool:
    """Lock a match until the transaction ends, behind its listings; False where it is gone."""
    return await sql.lock_match(db, match_id=match_id) is not None


async def list_seen(db: Connection, asked: Iterable[tuple[UUID, UUID]]) -> list[SeenRow]:
    """Matches as their viewers see them, of (viewer, match), in the order given; without what a viewer may not see."""
    pairs = list(asked)
    viewer_ids, match_ids = [viewer for viewer, _ in pairs], [match for _, match in pairs]
    return [row async for row in sql.list_seen(db, viewer_ids=viewer_ids, match_ids=match_ids)]


async def show(db: Connection, rows: Sequence[SeenRow]) -> list[Match]:
    """The matches with their listings, but for those whose listing has just gone."""
    return [match for _, match in await show_each(db, rows)]


async def show_each(db: Connection, rows: Sequence[SeenRow]) -> list[tuple[SeenRow, Match]]:
    """The same, each along with whose it is."""
    ids = dict.fromkeys(id_ for row in rows for id_ in (row.source_listing_id, row.matched_listing_id))
    found = {each.listing_id: each.shared() for each in await listings.list_listings(db, UUID(int=0), list(ids))}
    return [
        (row, _match(row, found[row.source_listing_id], found[row.matched_listing_id]))
        for row in rows
        if row.source_listing_id in found and row.matched_listing_id in found
    ]


def _match(row: SeenRow, source: SharedListing, matched: SharedListing) -> Match:
    return Match(
        match_id=row.match_id,
        source_listing=source,
        matched_listing=matched,
        score=row.score,
        quality=row.quality,
        reasons=_decode_reasons(row.reasons),
        status=row.status,
        at=row.at,
    )


async def page_matches(
    db: Connection, viewer_id: UUID, listing_id: UUID | None, before: UUID | None, most: int
) -> list[UUID]:
    """A page of the matches of a person's listings, or of one listing with theirs, the newest first."""
    if listing_id is None:
        rows = sql.page_matches(db, viewer_id=viewer_id, before=before, most=most)
    else:
        rows = sql.page_matches_about(db, viewer_id=viewer_id, listing_id=listing_id, before=before, most=most)
    return [row["match_id"] async for row in rows]


async def lock_matches(db: Connection, listing_ids: Sequence[UUID], most: int) -> list[UUID]:
    """Lock some of the matches of listings, which the caller holds, that are nothing to both yet."""
    return [row["match_id"] async for row in sql.lock_matches(db, listing_ids=listing_ids, most=most)]


async def delete_matches(db: Connection, match_ids: Sequence[UUID]) -> None:
    """Delete matches, which the caller holds, and what their owners made of them."""
    await sql.delete_matches(db, match_ids=match_ids)


async def lock_mutual(db: Connection, listing_ids: Sequence[UUID], after: UUID, most: int) -> list[UUID]:
    """Lock the matches of listings, which the caller holds, that both wanted; in order, from behind one on."""
    rows = sql.lock_mutual(db, listing_ids=listing_ids, after=after, most=most)
    return [row["match_id"] async for row in rows]


async def write_act(db: Connection, match_id: UUID, user_id: UUID, action: MatchAction, metadata: str) -> None:
    """Remember what an owner makes of a match; `metadata` is JSON."""
    await sql.write_act(db, match_id=match_id, user_id=user_id, action=action, metadata=metadata)


async def create_mutual(
    db: Connection,
    mutual_match_id: UUID,
    match_id: UUID,
    *,
    wish_id: UUID,
    offer_id: UUID,
    conversation_id: UUID,
    negotiation_id: UUID,
) -> None:
    """Let a match be mutual; the caller holds it."""
    await sql.create_mutual(
        db,
        mutual_match_id=mutual_match_id,
        match_id=match_id,
        wish_id=wish_id,
        offer_id=offer_id,
        conversation_id=conversation_id,
        negotiation_id=negotiation_id,
    )


async def find_mutual(db: Connection, match_id: UUID) -> MutualMatch | None:
    """What a match has become, if both wanted it."""
    found: MutualMatch | None = await sql.find_mutual(db, match_id=match_id)
    return found


async def page_mutual(db: Connection, user_id: UUID, before: UUID | None, most: int) -> list[MutualMatch]:
    """A page of a person's mutual matches, the newest first."""
    return [row async for row in sql.page_mutual(db, user_id=user_id, before=before, most=most)]


async def note_deal(db: Connection, listing_id: UUID, buyer_id: UUID) -> list[Dealt]:
    """Let the mutual matches of a buyer and a listing be deals; the caller holds them. Those that were none yet."""
    return [row async for row in sql.note_deal(db, listing_id=listing_id, buyer_id=buyer_id)]


async def close_mutual(db: Connection, negotiation_ids: Sequence[UUID]) -> list[MutualMatch]:
    """Let the mutual matches of negotiations that have ended without a deal be closed; the caller holds these."""
    return [row async for row in sql.close_mutual(db, negotiation_ids=negotiation_ids)]
