"""Reviews: what the two of a completed deal say of each other, once each."""

from typing import Annotated
from uuid import UUID

import msgspec

from handlers.accounts import user_updated
from handlers.transactions import as_seen, party_to_the_deal
from rules.transactions import TransactionStatus
from server.commands.context import Context
from server.commands.pages import within
from server.commands.registry import ClientId, Limit, Payload, command, push, signed_in
from server.errors import Conflict, NotFound, Unauthenticated
from server.rooms.names import user_room
from storage import reviews, transactions, users
from storage.reviews import Review

LIST_PAGE = 100

review_created = push("review:created", Review, "One of the two of a deal has reviewed the other.", rooms=("user",))


class CreateReview(Payload, frozen=True):
    transaction_id: UUID
    rating: Annotated[int, msgspec.Meta(ge=1, le=5)]
    client_id: ClientId
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)] | None = None


async def as_written(ctx: Context, review_id: UUID) -> Review:
    """A review as it is now. Raises `NotFound`."""
    found = await reviews.get_review(ctx.db, review_id)
    if found is None:
        raise NotFound
    return found


@command("review:create", allow=party_to_the_deal, limit=Limit.WRITES, again=as_written)
async def create(ctx: Context, p: CreateReview) -> Review:
    """Review the other side of a deal that is completed; once, and for good."""
    me, deal = ctx.user.user_id, await as_seen(ctx, p.transaction_id)
    subject_id = deal.seller_id if me == deal.buyer_id else deal.buyer_id
    # The other's rating is counted, and one's own account is not closed meanwhile: what it wrote is blanked then.
    await users.lock_users(ctx.db, [me, subject_id])
    if not await users.lock_active(ctx.db, [me]):
        raise Unauthenticated("This account is closed.")
    locked = await transactions.lock_transaction(ctx.db, p.transaction_id)
    known = await reviews.find_review(ctx.db, p.transaction_id, me)
    if known is not None:
        raise Conflict("taken", "You have reviewed this deal.", known)
    if locked.status != TransactionStatus.COMPLETED:
        current = await as_seen(ctx, p.transaction_id)
        raise Conflict("not_pending", "Completed deals alone are reviewed.", current)
    await reviews.create_review(ctx.db, ctx.new_id, p.transaction_id, me, subject_id, rating=p.rating, text=p.text)
    review = await as_written(ctx, ctx.new_id)
    await ctx.lock(user_room(me), user_room(subject_id))
    for user_id in (me, subject_id):
        ctx.push(review_created, review, to=user_room(user_id), message_id=review.review_id)
    subject = await users.get_user(ctx.db, subject_id)
    if subject is not None:
        ctx.push(user_updated, subject, to=user_room(subject_id))
    return review


class ListReviews(Payload, frozen=True):
    user_id: UUID
    before: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_PAGE)] = 50


class Reviews(msgspec.Struct, frozen=True):
    """A page of reviews; `next` is the `before` of the page behind it."""

    reviews: list[Review]
    next: UUID | None


@command("review:list", allow=signed_in, limit=Limit.READS, reads=True)
async def list_(ctx: Context, p: ListReviews) -> Reviews:
    """List what was said of somebody, the newest first."""
    if not await users.list_public(ctx.db, [p.user_id]):
        raise NotFound
    found = await reviews.page_reviews(ctx.db, p.user_id, p.before, p.limit + 1)
    page = within(found[: p.limit])
    return Reviews(page, page[-1].review_id if len(page) < len(found) else None)
