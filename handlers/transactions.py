"""Deals: looked at, paid, confirmed, cancelled, refunded, and on paper."""

from functools import partial
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from handlers.bargaining import Changes
from handlers.settling import Deal, lock_deal, settle
from rules.offers import Side
from rules.transactions import (
    Errand,
    Party,
    Provider,
    TransactionMove,
    TransactionStatus,
    is_made_under,
    may_ever,
    outcome,
)
from rules.users import Role, Scope
from server.adapters.payments import Intent, Payments
from server.commands.context import Context
from server.commands.pages import within
from server.commands.registry import Limit, Payload, Permission, command, signed_in
from server.errors import Conflict, Forbidden, NotFound, Unavailable
from storage import payments, transactions, users
from storage.transactions import LockedTransaction, Transaction

LIST_PAGE = 100

party_to_the_deal = Permission("party_to_the_deal")
"""Its buyer and its seller, each for what is theirs to do; judged by the handler behind its lock."""

party_or_administrator = Permission("party_or_administrator")
"""The deal's buyer and seller, and administrators, who may have to give it back; judged by the handler."""

buyer_of_the_deal = Permission("buyer_of_the_deal")
"""The deal's buyer, judged by the handler behind its lock."""

seller_or_administrator = Permission("seller_or_administrator")
"""The deal's seller, and administrators; judged by the handler behind its lock."""


class GetTransaction(Payload, frozen=True):
    transaction_id: UUID


async def as_seen(ctx: Context, transaction_id: UUID) -> Transaction:
    """A deal as one of its two sees it now. Raises `NotFound`."""
    me = ctx.user.user_id
    for row in await transactions.list_transactions(ctx.db, [transaction_id]):
        if me in (row.buyer_id, row.seller_id):
            return row.seen_by(me)
    raise NotFound


async def as_shown(ctx: Context, transaction_id: UUID) -> Transaction:
    """A deal as one of its two sees it now, or an administrator, who sees no secret. Raises `NotFound`."""
    me = ctx.user.user_id
    for row in await transactions.list_transactions(ctx.db, [transaction_id]):
        if me in (row.buyer_id, row.seller_id) or await users.has_role(ctx.db, me, Role.ADMIN):
            return row.seen_by(me)
    raise NotFound


@command("transaction:get", allow=party_or_administrator, limit=Limit.READS, reads=True)
async def get(ctx: Context, p: GetTransaction) -> Transaction:
    """Look at a deal, as one of its two or an administrator; its buyer alone sees the secret to pay it with."""
    return await as_shown(ctx, p.transaction_id)


class ListTransactions(Payload, frozen=True):
    role: Literal["buyer", "seller"] | None = None
    status: TransactionStatus | None = None
    before: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_PAGE)] = 50


class Transactions(msgspec.Struct, frozen=True):
    """A page of deals; `next` is the `before` of the page behind it."""

    transactions: list[Transaction]
    next: UUID | None


@command("transaction:list", allow=signed_in, limit=Limit.READS, reads=True)
async def list_(ctx: Context, p: ListTransactions) -> Transactions:
    """List one's deals, the newest first. `transaction:changed` in one's own room keeps the list exact."""
    me, side = ctx.user.user_id, p.role and Side(p.role)
    found = await transactions.page_transactions(
        ctx.db, me, side=side, status=p.status, before=p.before, most=p.limit + 1
    )
    page = within([row.seen_by(me) for row in found[: p.limit]])
    return Transactions(page, page[-1].transaction_id if len(page) < len(found) else None)


class MoveTransaction(Payload, frozen=True):
    transaction_id: UUID
    version: int


@command("transaction:confirm", allow=party_to_the_deal, limit=Limit.OFFER_MOVES, scope=Scope.FULL)
async def confirm(ctx: Context, p: MoveTransaction) -> Transaction:
    """Say that the money has changed hands, where the two settle it among themselves; with both words it is done."""
    deal, party = await _sit_down(ctx, p, TransactionMove.CONFIRM)
    return await _move(ctx, p, deal, party, TransactionMove.CONFIRM)


@command("transaction:cancel", allow=party_to_the_deal, limit=Limit.OFFER_MOVES, scope=Scope.FULL)
async def cancel(ctx: Context, p: MoveTransaction) -> Transaction:
    """Step back from a deal that is not paid: its stock is to be had again, and the two may go on negotiating."""
    deal, party = await _sit_down(ctx, p, TransactionMove.CANCEL)
    return await _move(ctx, p, deal, party, TransactionMove.CANCEL)


@command("transaction:pay", allow=buyer_of_the_deal, limit=Limit.OFFER_MOVES, scope=Scope.FULL, transaction=False)
async def pay(ctx: Context, p: MoveTransaction) -> Transaction:
    """Begin to pay: the answer has the provider's secret, with which the buyer pays.

    Where the two settle it among themselves it is the buyer's word that the money has changed hands.
    """
    begun = await ctx.retried(partial(_look, ctx, p))
    if isinstance(begun, Transaction):
        return begun
    intent = await _provider(ctx).create_intent(begun.transaction_id, begun.subtotal, begun.currency)
    answer = await ctx.retried(partial(_begin, ctx, p, intent))
    if isinstance(answer, Conflict):
        raise answer
    return answer


async def _look(ctx: Context, p: MoveTransaction) -> LockedTransaction | Transaction:
    """The deal to prepare a payment for; or the answer, where there is nothing to prepare."""
    deal, party = await _sit_down(ctx, p, TransactionMove.PAY)
    if deal.transaction.provider == Provider.MANUAL:
        return await _move(ctx, p, deal, party, TransactionMove.CONFIRM)
    if not _is_repeat(ctx, deal, TransactionMove.PAY, p.version):
        await _judge(ctx, deal, party, TransactionMove.PAY, p.version)
    if deal.transaction.intent_id is not None:  # paid by the same secret, however often that has failed
        return await _answer(ctx, deal)
    return deal.transaction


async def _begin(ctx: Context, p: MoveTransaction, intent: Intent) -> Transaction | Conflict:
    """Keep a payment that was prepared; where the deal has ended meanwhile, so that nobody can pay it.

    That conflict is the answer, and not raised here: what is kept and asked for stays.
    """
    deal, party = await _sit_down(ctx, p, TransactionMove.PAY)
    row, changes = deal.transaction, Changes(ctx)
    is_ours = row.intent_id is None  # else it was oneself at the same moment, and it is the same one
    is_open = row.status == TransactionStatus.PENDING and not row.is_late
    if is_ours:
        await transactions.set_intent(ctx.db, row.transaction_id, intent.intent_id, intent.client_secret)
    if is_ours and not is_open:
        await payments.ask(ctx.db, row.transaction_id, Errand.CANCEL)
    if row.status == TransactionStatus.PENDING and row.is_late:
        await settle(changes, deal, Party.CLOCK, TransactionMove.LAPSE)
    elif is_ours and is_open:
        await settle(changes, deal, party, TransactionMove.PAY, moved_by=ctx.user.user_id)
    await changes.tell()
    return await _answer(ctx, deal) if is_open else _over(row, await _answer(ctx, deal))


@command(
    "transaction:refund", allow=seller_or_administrator, limit=Limit.OFFER_MOVES, scope=Scope.FULL, transaction=False
)
async def refund(ctx: Context, p: MoveTransaction) -> Transaction:
    """Give back what was paid, all of it. The stock does not come back by itself."""
    paid = await ctx.retried(partial(_look_back, ctx, p))
    if isinstance(paid, Transaction):
        return paid
    if paid.intent_id is None:
        raise Unavailable("The payment is not known.")
    refund_id = await _provider(ctx).refund(paid.intent_id)
    return await ctx.retried(partial(_give_back, ctx, p, refund_id))


async def _look_back(ctx: Context, p: MoveTransaction) -> LockedTransaction | Transaction:
    """The deal whose payment its provider is to give back; or the answer, where there is nothing to ask of it."""
    deal, party = await _sit_down(ctx, p, TransactionMove.REFUND)
    if deal.transaction.provider == Provider.MANUAL or _is_repeat(ctx, deal, TransactionMove.REFUND, p.version):
        return await _move(ctx, p, deal, party, TransactionMove.REFUND)
    await _judge(ctx, deal, party, TransactionMove.REFUND, p.version)
    return deal.transaction


async def _give_back(ctx: Context, p: MoveTransaction, refund_id: str | None) -> Transaction:
    deal, party = await _sit_down(ctx, p, TransactionMove.REFUND)
    if refund_id is not None and await payments.has_failed(ctx.db, deal.transaction.provider, refund_id):
        raise Unavailable("The payment provider could not give it back: try again, or settle it otherwise.")
    return await _move(ctx, p, deal, party, TransactionMove.REFUND)


def _provider(ctx: Context) -> Payments:
    if ctx.services.payments is None:
        raise Unavailable("No payment provider is set.")
    return ctx.services.payments


async def _sit_down(ctx: Context, p: MoveTransaction, move: TransactionMove) -> tuple[Deal, Party]:
    """Lock a deal, and say as whom the caller moves it. Raises `NotFound`, and `Forbidden` where it is never theirs."""
    me = ctx.user.user_id
    parties = await transactions.find_parties(ctx.db, p.transaction_id)
    if parties is None:
        raise NotFound
    party = {parties.buyer_id: Party.BUYER, parties.seller_id: Party.SELLER}.get(me, Party.ADMIN)
    if party == Party.ADMIN and not (may_ever(party, move) and await users.has_role(ctx.db, me, Role.ADMIN)):
        raise NotFound
    if not may_ever(party, move):
        raise Forbidden("The buyer pays, and the seller gives back what was paid.")
    deal = await lock_deal(ctx, p.transaction_id)
    if deal is None:
        raise NotFound
    return deal, party


async def _move(ctx: Context, p: MoveTransaction, deal: Deal, party: Party, move: TransactionMove) -> Transaction:
    """Make a move, unless it is made already."""
    if not _is_repeat(ctx, deal, move, p.version):
        await _judge(ctx, deal, party, move, p.version)
        changes = Changes(ctx)
        await settle(changes, deal, party, move, moved_by=ctx.user.user_id)
        await changes.tell()
    return await _answer(ctx, deal)


async def _answer(ctx: Context, deal: Deal) -> Transaction:
    """The deal as it is now, for whoever has moved it."""
    [row] = await transactions.list_transactions(ctx.db, [deal.transaction.transaction_id])
    return row.seen_by(ctx.user.user_id)


def _is_repeat(ctx: Context, deal: Deal, move: TransactionMove, version: int) -> bool:
    """Whether this very move is the caller's already. Of a refund the provider may have been faster to tell."""
    row, me = deal.transaction, ctx.user.user_id
    if move == TransactionMove.CONFIRM:
        return row.confirmed_version(Side.BUYER if me == row.buyer_id else Side.SELLER) == version
    is_back = move == TransactionMove.REFUND and row.status == TransactionStatus.REFUNDED
    by_provider = is_back and row.moved_version != version and row.version == version + 1
    return (row.moved_by, row.move, row.moved_version) == (me, move, version) or by_provider


def _over(row: LockedTransaction, current: Transaction) -> Conflict:
    """Why a deal is not to be moved any more."""
    if row.is_late:
        return Conflict("expired", "The time to pay is over.", current)
    return Conflict("not_pending", f"The deal is {row.status}: look again.", current)


async def _judge(ctx: Context, deal: Deal, party: Party, move: TransactionMove, version: int) -> None:
    """Raises `Forbidden` or `Conflict` where a move is not to be made, or not now."""
    row = deal.transaction
    if not is_made_under(Provider(row.provider), move):
        raise Forbidden("This deal is paid by Stripe, whose word it waits for: the buyer pays it by transaction:pay.")
    is_over = outcome(row.status, party, move) is None
    if row.is_late or is_over:
        raise _over(row, await _answer(ctx, deal))
    if move == TransactionMove.CONFIRM and row.confirmed_version(Side(party)) is not None:
        why = "You have confirmed: it is for the other side to do so too."
        raise Conflict("not_your_turn", why, await _answer(ctx, deal))
    if row.version != version:
        raise Conflict("version", "The deal has changed: look again.", await _answer(ctx, deal))
