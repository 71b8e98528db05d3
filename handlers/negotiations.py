"""The desk: one's negotiations, whose turn it is in each, and how each came about."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec

from rules.history import history_sha256
from rules.offers import NegotiationStatus, Side
from server.commands.context import Context
from server.commands.pages import within
from server.commands.registry import Limit, Payload, Permission, command, signed_in
from server.errors import NotFound
from storage import negotiations, offers
from storage.negotiations import Negotiation
from storage.offers import Offer

LIST_PAGE = 100

party_to_the_negotiation = Permission("party_to_the_negotiation")
"""Its buyer and its seller, judged by the statement itself."""


class GetNegotiation(Payload, frozen=True):
    negotiation_id: UUID


@command("negotiation:get", allow=party_to_the_negotiation, limit=Limit.READS, reads=True)
async def get(ctx: Context, p: GetNegotiation) -> Negotiation:
    """Look at a negotiation; its seller sees how many rivals have an offer on the table."""
    found = await negotiations.get_seen(ctx.db, ctx.user.user_id, p.negotiation_id)
    if found is None:
        raise NotFound
    return found


class ListNegotiations(Payload, frozen=True):
    role: Literal["buyer", "seller"] | None = None
    status: NegotiationStatus | None = None
    listing_id: UUID | None = None
    before: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_PAGE)] = 50


class Negotiations(msgspec.Struct, frozen=True):
    """A page of negotiations; `next` is the `before` of the page behind it."""

    negotiations: list[Negotiation]
    next: UUID | None


@command("negotiation:list", allow=signed_in, limit=Limit.READS, reads=True)
async def list_(ctx: Context, p: ListNegotiations) -> Negotiations:
    """List one's negotiations, the newest first. `negotiation:changed` in one's own room keeps the list exact."""
    found = await negotiations.page_negotiations(
        ctx.db,
        ctx.user.user_id,
        side=p.role and Side(p.role),
        status=p.status,
        listing_id=p.listing_id,
        before=p.before,
        most=p.limit + 1,
    )
    page = within(found[: p.limit])
    return Negotiations(page, page[-1].negotiation_id if len(page) < len(found) else None)


class ReadNegotiation(Payload, frozen=True):
    negotiation_id: UUID


class History(msgspec.Struct, frozen=True):
    """All offers in their order, each with what differs from its parent, and the SHA-256 of their terms."""

    offers: list[Offer]
    history_sha256: str


@command("negotiation:history", allow=party_to_the_negotiation, limit=Limit.READS, reads=True)
async def history(ctx: Context, p: ReadNegotiation) -> History:
    """Read all that was offered in a negotiation, for good."""
    if await negotiations.get_seen(ctx.db, ctx.user.user_id, p.negotiation_id) is None:
        raise NotFound
    found = await offers.list_history(ctx.db, p.negotiation_id)
    return History(found, history_sha256([offers.hashed(offer) for offer in found]))
