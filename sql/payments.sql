-- What a payment provider has told us, and what it is still to be asked.
-- Locks: an errand's row is taken by whoever does it, for that statement alone; note_event's lasts to the transaction's end.

-- name: note_event(provider, event_id, told)$
-- Null where it was told before; a transaction that is at it right now is waited for.
insert into payment_events (provider, event_id, told) values (:provider, :event_id, :told)
on conflict (provider, event_id) do nothing
returning event_id;

-- name: note_refund(transaction_id, told_at)$
-- All was given back, said so at that second of the provider's clock. Null where it has said of a refund since, or in that
-- very second, that it has failed: that is what holds. The caller holds the deal.
update transactions t
   set refund_told_at = greatest(t.refund_told_at, to_timestamp(:told_at::bigint))
 where t.transaction_id = :transaction_id
   and not exists (
       select from failed_refunds f where f.transaction_id = t.transaction_id and f.at >= to_timestamp(:told_at::bigint))
returning t.transaction_id;

-- name: note_failed_refund(provider, refund_id, transaction_id, reason, told_at)$
-- Whether that is the provider's last word on what it gives back; null where it was known. The caller holds the deal.
with failed as (
    insert into failed_refunds (provider, refund_id, transaction_id, reason, at)
    values (:provider, :refund_id, :transaction_id, :reason, to_timestamp(:told_at::bigint))
    on conflict (provider, refund_id) do nothing
    returning transaction_id, at
)
select coalesce(t.refund_told_at <= f.at, true) as is_last
  from failed f
  join transactions t using (transaction_id);

-- name: has_failed(provider, refund_id)$
select exists (select from failed_refunds where provider = :provider and refund_id = :refund_id) as failed;

-- name: ask(transaction_id, errand)!
insert into payment_errands (transaction_id, errand) values (:transaction_id, :errand)
on conflict (transaction_id, errand) do nothing;

-- name: claim_errands(most)
-- record_class: DueErrand
-- Taken for a while: what is not done by then, since it failed or its instance died, is due again, ever later.
with due as (
    select transaction_id, errand from payment_errands
     where done_at is null and due_at <= clock_timestamp()
     order by due_at limit :most
       for update skip locked
)
update payment_errands e
   set attempts = e.attempts + 1, due_at = clock_timestamp() + make_interval(secs => least(3600, 30 * 2 ^ least(e.attempts, 10)))
  from due d, transactions t
 where e.transaction_id = d.transaction_id and e.errand = d.errand and t.transaction_id = d.transaction_id
returning e.transaction_id, e.errand, e.attempts, t.intent_id;

-- name: finish_errand(transaction_id, errand)!
update payment_errands set done_at = clock_timestamp() where transaction_id = :transaction_id and errand = :errand;
