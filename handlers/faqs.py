"""Questions about listings: asked by anybody, answered by the owner, replied to, and an answer accepted."""

import base64
import binascii
from typing import Annotated
from uuid import UUID

import msgspec

from handlers.listings import as_seen as listing_as_seen
from handlers.permissions import owner_of_the_listing, viewer_of_the_listing
from rules.faqs import FaqType
from server.commands.context import Context
from server.commands.pages import within
from server.commands.registry import ClientId, Limit, Payload, Permission, Push, command, push
from server.errors import Conflict, Forbidden, Invalid, NotFound
from server.rooms.names import listing_room, user_room
from storage import blocks, faqs, listings, users
from storage.faqs import Faq, FaqRow, Place
from storage.listings import LockedListing

LIST_PAGE = 100

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]

faq_posted = push(
    "faq:posted", Faq, "Something was asked, answered or replied about a listing.", rooms=("listing", "user")
)
faq_accepted = push(
    "faq:accepted",
    Faq,
    "An answer is the accepted one of its question; the one before it, if there was one, is no more.",
    rooms=("listing", "user"),
)

asker_or_owner = Permission("asker_or_owner")
"""Who asked the question, and the listing's owner, judged by the handler behind the listing's lock."""


async def as_posted(ctx: Context, faq_id: UUID) -> Faq:
    """What was said, as it is now. Raises `NotFound`, where its listing is gone too."""
    row = await _row(ctx, faq_id)
    await listing_as_seen(ctx, row.listing_id)
    return row.faq()


async def _row(ctx: Context, faq_id: UUID) -> FaqRow:
    row = await faqs.get_faq(ctx.db, faq_id)
    if row is None:
        raise NotFound
    return row


async def _hold(ctx: Context, listing_id: UUID, *, share: bool = True) -> LockedListing:
    """Lock the listing that is talked about; people stay as they are meanwhile. Raises `NotFound`."""
    if not await users.lock_active(ctx.db, [ctx.user.user_id]):
        raise NotFound
    listing = await listings.lock_listing(ctx.db, listing_id, share=share)
    await listing_as_seen(ctx, listing_id)
    if listing is None:
        raise NotFound
    return listing


async def _hold_unblocked(ctx: Context, listing_id: UUID) -> LockedListing:
    listing = await _hold(ctx, listing_id)
    if await blocks.between(ctx.db, ctx.user.user_id, [listing.user_id]):
        raise Conflict("blocked", "One of you has blocked the other.", await listing_as_seen(ctx, listing_id))
    return listing


async def _post(ctx: Context, listing: LockedListing, text: str, type_: FaqType, parent: FaqRow | None = None) -> Faq:
    await faqs.create_faq(ctx.db, ctx.new_id, listing.listing_id, ctx.user.user_id, text, type_, parent)
    return await _tell(ctx, listing, ctx.new_id, faq_posted)


async def _tell(ctx: Context, listing: LockedListing, faq_id: UUID, how: Push[Faq]) -> Faq:
    faq = (await _row(ctx, faq_id)).faq()
    heard_in = (listing_room(listing.listing_id), user_room(listing.user_id))
    await ctx.lock(*heard_in)
    for room in heard_in:
        ctx.push(how, faq, to=room, message_id=faq_id)
    return faq


class AskQuestion(Payload, frozen=True):
    listing_id: UUID
    text: Text
    client_id: ClientId


@command("faq:ask", allow=viewer_of_the_listing, limit=Limit.WRITES, again=as_posted)
async def ask(ctx: Context, p: AskQuestion) -> Faq:
    """Ask something about a listing, for everybody to read; not across a block between oneself and its owner."""
    return await _post(ctx, await _hold_unblocked(ctx, p.listing_id), p.text, FaqType.QUESTION)


class SayMore(Payload, frozen=True):
    parent_id: UUID
    text: Text
    client_id: ClientId


@command("faq:answer", allow=owner_of_the_listing, limit=Limit.WRITES, again=as_posted)
async def answer(ctx: Context, p: SayMore) -> Faq:
    """Answer a question about one's own listing, as often as one likes."""
    parent = await _row(ctx, p.parent_id)
    listing = await _hold(ctx, parent.listing_id)
    if listing.user_id != ctx.user.user_id:
        raise Forbidden("The listing's owner alone answers; others reply.")
    if parent.type != FaqType.QUESTION:
        raise Invalid({"parent_id": "not a question: reply to it instead"})
    return await _post(ctx, listing, p.text, FaqType.ANSWER, parent)


@command("faq:reply", allow=viewer_of_the_listing, limit=Limit.WRITES, again=as_posted)
async def reply(ctx: Context, p: SayMore) -> Faq:
    """Reply to a question, an answer or another reply; not across a block between oneself and the listing's owner."""
    parent = await _row(ctx, p.parent_id)
    listing = await _hold_unblocked(ctx, parent.listing_id)
    return await _post(ctx, listing, p.text, FaqType.REPLY, parent)


class AcceptAnswer(Payload, frozen=True):
    faq_id: UUID


@command("faq:accept", allow=asker_or_owner, limit=Limit.WRITES)
async def accept(ctx: Context, p: AcceptAnswer) -> Faq:
    """Let an answer be the accepted one of its question, in place of another that was."""
    found = await _row(ctx, p.faq_id)
    listing = await _hold(ctx, found.listing_id, share=False)
    found = await _row(ctx, p.faq_id)
    question = await _row(ctx, found.question_id)
    if ctx.user.user_id not in (listing.user_id, question.user_id):
        raise Forbidden("Who asked and the listing's owner alone accept an answer.")
    if found.type != FaqType.ANSWER:
        raise Invalid({"faq_id": "not an answer"})
    if found.is_accepted:
        return found.faq()
    await faqs.accept(ctx.db, found)
    return await _tell(ctx, listing, p.faq_id, faq_accepted)


class ListFaqs(Payload, frozen=True):
    listing_id: UUID
    before: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_PAGE)] = 50


class Faqs(msgspec.Struct, frozen=True):
    """A page of questions, answers and replies; `next` is the `before` of the page behind it."""

    faqs: list[Faq]
    next: str | None


@command("faq:list", allow=viewer_of_the_listing, limit=Limit.READS, reads=True)
async def list_(ctx: Context, p: ListFaqs) -> Faqs:
    """List what was asked about a listing: the newest question first, each followed by all that was said to it.

    That is in the order of time, so that a parent precedes what hangs on it; a page may end in the middle of it.
    """
    await listing_as_seen(ctx, p.listing_id)
    before = None if p.before is None else _read_cursor(p.before)
    found = await faqs.list_faqs(ctx.db, p.listing_id, before, p.limit + 1)
    page = within([row.faq() for row in found[: p.limit]])
    return Faqs(page, _cursor(found[len(page) - 1]) if len(page) < len(found) else None)


def _cursor(row: FaqRow) -> str:
    place = Place(row.question_id, row.faq_id)
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _read_cursor(text: str) -> Place:
    """Where a page begins. Raises `Invalid` for what no page has answered."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text), type=Place)
    except (binascii.Error, ValueError):
        raise Invalid({"before": "not a place that a page's next has named"}) from None
