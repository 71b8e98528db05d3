"""What a payment provider tells us, once each and in whatever order, and what it is asked behind our moves."""

from functools import partial
from uuid import UUID

import structlog

from handlers.bargaining import Changes
from handlers.settling import Deal, lock_deal, settle
from rules.transactions import Errand, Party, TransactionMove, TransactionStatus
from server.adapters.payments import PaymentEvent, Told
from server.commands.context import Services, Work, work
from server.errors import ParleyError, Unavailable
from storage import payments, transactions
from storage.payments import DueErrand

BATCH = 20  # errands of one look, one after the other

logger = structlog.get_logger("parley.payments")


async def take(services: Services, event: PaymentEvent) -> None:
    """Let a deal follow what its provider tells, in one transaction with the memory of having been told."""
    await work(services, partial(_take, event))


async def _take(event: PaymentEvent, at_work: Work) -> None:
    transaction_id = await transactions.find_by_intent(at_work.db, event.provider, event.intent_id)
    if transaction_id is None:
        logger.info("payment_of_nobody", type=event.type, intent_id=event.intent_id)
        return
    if not await payments.note_event(at_work.db, event.provider, event.event_id, event.type):
        return
    deal = await lock_deal(at_work, transaction_id)
    assert deal is not None
    changes = Changes(at_work)
    if event.told is Told.PAID:
        await _paid(changes, deal, event)
    elif event.told is Told.CANCELLED and _is(deal, TransactionStatus.PENDING):
        await settle(changes, deal, Party.PROVIDER, TransactionMove.FAIL)
    elif event.told is Told.REFUNDED:
        await _given_back(changes, deal, event)
    elif event.told is Told.NOT_REFUNDED:
        await _bounced(changes, deal, event)
    await changes.tell()


async def _paid(changes: Changes, deal: Deal, event: PaymentEvent) -> None:
    """Complete a deal; what comes too late, or is another sum, is given back."""
    db, row = changes.work.db, deal.transaction
    if row.status in (TransactionStatus.COMPLETED, TransactionStatus.REFUNDED):
        return
    if event.charge_id is not None:
        await transactions.set_charge(db, row.transaction_id, event.charge_id)
        deal = deal._replace(transaction=await transactions.lock_transaction(db, row.transaction_id))
    is_right = (event.amount, event.currency) == (row.subtotal, row.currency)
    if not is_right:
        logger.error("payment_of_another_sum", transaction_id=str(row.transaction_id), intent_id=event.intent_id)
    is_pending = row.status == TransactionStatus.PENDING
    if is_pending and row.has_lapsed:
        await settle(changes, deal, Party.CLOCK, TransactionMove.LAPSE)
    elif is_pending and is_right:
        await settle(changes, deal, Party.PROVIDER, TransactionMove.COMPLETE)
        return
    await payments.ask(db, row.transaction_id, Errand.REFUND)


async def _given_back(changes: Changes, deal: Deal, event: PaymentEvent) -> None:
    """Write that all was given back, unless that is an old story: it has come back to us since."""
    if not await payments.note_refund(changes.work.db, deal.transaction.transaction_id, event.told_at):
        return
    if _is(deal, TransactionStatus.COMPLETED):
        await settle(changes, deal, Party.PROVIDER, TransactionMove.REFUND)
    elif _is(deal, TransactionStatus.PENDING):  # its payment is told of later
        await settle(changes, deal, Party.PROVIDER, TransactionMove.FAIL)


async def _bounced(changes: Changes, deal: Deal, event: PaymentEvent) -> None:
    """Remember a refund that has failed, once; a deal that it had ended is completed as before, to be refunded anew.

    Of one that was not paid in time the money stays with us: somebody has to give it back by other ways.
    """
    row = deal.transaction
    failed = (row.provider, event.refund_id, row.transaction_id, event.why, event.told_at)
    if not await payments.note_failed_refund(changes.work.db, *failed):
        return
    about = {"transaction_id": str(row.transaction_id), "status": row.status, "reason": event.why}
    logger.error("refund_failed", refund_id=event.refund_id, **about)
    if _is(deal, TransactionStatus.REFUNDED):
        await settle(changes, deal, Party.PROVIDER, TransactionMove.BOUNCE)


def _is(deal: Deal, status: TransactionStatus) -> bool:
    return deal.transaction.status == status


async def run_errands(services: Services) -> int:
    """Ask the provider what is to be asked of it; how many errands were done. What fails is due again, ever later."""
    if services.payments is None:
        return 0
    async with services.database.connection() as db:
        due = await payments.claim_errands(db, BATCH)
    done = 0
    for errand in due:
        try:
            done += await _run(services, errand)
        except ParleyError as error:
            about = {"transaction_id": str(errand.transaction_id), "errand": errand.errand}
            logger.warning("errand_failed", **about, attempts=errand.attempts, error=error.message)
    return done


async def _run(services: Services, due: DueErrand) -> bool:
    if services.payments is None:
        raise Unavailable("No payment provider is set.")
    is_paid = False
    if due.errand == Errand.CANCEL:
        is_paid = not await services.payments.cancel_intent(due.intent_id)
    else:
        # By a key of its own each time: under the last one's the provider would repeat its refusal.
        await services.payments.refund(due.intent_id, f"refund-{due.transaction_id}-{due.attempts}")
    await work(services, partial(_done, due.transaction_id, Errand(due.errand), is_paid))
    return True


async def _done(transaction_id: UUID, errand: Errand, is_paid: bool, at_work: Work) -> None:
    """Note it; what was paid at the moment of its cancelling is given back, whether or not its webhook comes."""
    await payments.finish_errand(at_work.db, transaction_id, errand)
    if is_paid:
        await payments.ask(at_work.db, transaction_id, Errand.REFUND)
