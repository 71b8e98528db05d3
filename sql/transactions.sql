-- Deals: begun, paid, ended.
-- Locks: lock_matches takes matches' rows `for no key update`, in order of id, behind their listing and before any negotiation; a
-- transaction's row is taken behind its listing, negotiation and offer, before any room.

-- name: create_transaction(deal, pay_within_s)!
-- The seller is the listing's owner; the version that of what was offered about, else the listing's.
insert into transactions (transaction_id, negotiation_id, offer_id, listing_id, listing_version, buyer_id, seller_id, quantity,
                          currency, subtotal, platform_fee, seller_payout, provider, pay_by)
select d.transaction_id, d.negotiation_id, d.offer_id, l.listing_id, coalesce(o.listing_version, l.version) as listing_version,
       d.buyer_id, l.user_id as seller_id, d.quantity, d.currency, d.subtotal, d.platform_fee,
       d.subtotal - d.platform_fee as seller_payout, d.provider,
       clock_timestamp() + make_interval(secs => :pay_within_s::int) as pay_by
  from jsonb_populate_record(null::transactions, :deal::jsonb) d
  join listings l using (listing_id)
  left join offers o on o.offer_id = d.offer_id;

-- name: create_reservation(transaction_id, listing_id, quantity)!
insert into reservations (transaction_id, listing_id, quantity) values (:transaction_id, :listing_id, :quantity);

-- name: list_transactions(transaction_ids)
-- record_class: TransactionRow
select transaction_id, negotiation_id, offer_id, listing_id, buyer_id, seller_id, currency, subtotal, platform_fee, seller_payout,
       status, provider, client_secret, pay_by, paid_at, paid_out_at, version, at
  from transactions where transaction_id = any (:transaction_ids::uuid[]) order by transaction_id;

-- name: find_of_offer(offer_id)^
-- record_class: TransactionRow
select transaction_id, negotiation_id, offer_id, listing_id, buyer_id, seller_id, currency, subtotal, platform_fee, seller_payout,
       status, provider, client_secret, pay_by, paid_at, paid_out_at, version, at
  from transactions where offer_id = :offer_id;

-- name: find_parties(transaction_id)^
-- record_class: Parties
-- What never changes of a deal, read before anything of it is locked.
select listing_id, negotiation_id, offer_id, buyer_id, seller_id from transactions where transaction_id = :transaction_id;

-- name: lock_transaction(transaction_id)^
-- record_class: LockedTransaction
select transaction_id, negotiation_id, offer_id, listing_id, buyer_id, seller_id, quantity, currency, subtotal, status, provider,
       intent_id, charge_id, buyer_confirmed_version, seller_confirmed_version, moved_by, move, moved_version, version,
       pay_by <= clock_timestamp() as has_lapsed
  from transactions where transaction_id = :transaction_id for update;

-- name: note_word(transaction_id, side)!
-- A side says that the money has changed hands.
update transactions
   set buyer_confirmed_at = case :side::text when 'buyer' then clock_timestamp() else buyer_confirmed_at end,
       buyer_confirmed_version = case :side::text when 'buyer' then version else buyer_confirmed_version end,
       seller_confirmed_at = case :side::text when 'seller' then clock_timestamp() else seller_confirmed_at end,
       seller_confirmed_version = case :side::text when 'seller' then version else seller_confirmed_version end
 where transaction_id = :transaction_id;

-- name: move_transaction(transaction_id, status, move, moved_by)!
-- Among themselves what is paid has been paid out. What nobody has moved leaves the last person's move remembered.
update transactions
   set status = :status, version = version + 1, moved_by = coalesce(:moved_by::uuid, moved_by),
       move = case when :moved_by::uuid is null then move else :move::text end,
       moved_version = case when :moved_by::uuid is null then moved_version else version end,
       paid_at = case when :status::text = 'completed' then coalesce(paid_at, clock_timestamp()) else paid_at end,
       paid_out_at = case when :status::text = 'completed' and provider = 'manual' then clock_timestamp() else paid_out_at end,
       ended_at = case when :status::text in ('cancelled', 'failed', 'refunded') then clock_timestamp() end
 where transaction_id = :transaction_id;

-- name: set_intent(transaction_id, intent_id, client_secret)!
update transactions set intent_id = :intent_id, client_secret = :client_secret where transaction_id = :transaction_id;

-- name: set_charge(transaction_id, charge_id)!
update transactions set charge_id = :charge_id where transaction_id = :transaction_id;

-- name: find_by_intent(provider, intent_id)$
select transaction_id from transactions where provider = :provider and intent_id = :intent_id;

-- name: end_reservation(transaction_id, status)!
update reservations set status = :status, ended_at = clock_timestamp() where transaction_id = :transaction_id;

-- name: page_transactions(user_id, side, status, before, most)
-- Each side by its own index, a page at most of each.
select transaction_id from (
    (select transaction_id from transactions
      where seller_id = :user_id and :side::text is distinct from 'buyer'
        and (:status::text is null or status = :status::text)
        and (:before::uuid is null or transaction_id < :before::uuid)
      order by transaction_id desc limit :most)
    union all
    (select transaction_id from transactions
      where buyer_id = :user_id and :side::text is distinct from 'seller'
        and (:status::text is null or status = :status::text)
        and (:before::uuid is null or transaction_id < :before::uuid)
      order by transaction_id desc limit :most)) both_sides
 order by transaction_id desc limit :most;

-- name: get_paper(transaction_id)^
-- record_class: Paper
-- What a receipt says beside the deal itself.
select t.quantity, t.listing_version, t.buyer_confirmed_at, t.seller_confirmed_at, t.ended_at,
       (select max(f.at) from failed_refunds f where f.transaction_id = t.transaction_id) as refund_failed_at
  from transactions t where t.transaction_id = :transaction_id;

-- name: list_lapsed(most)
select transaction_id from transactions
 where status = 'pending' and pay_by <= now()    -- which an index can be asked by
 order by pay_by limit :most;

-- name: list_pending_of(user_id, most)
-- By either side's index.
(select transaction_id from transactions where buyer_id = :user_id and status = 'pending' order by transaction_id limit :most)
union all
(select transaction_id from transactions where seller_id = :user_id and status = 'pending' order by transaction_id limit :most);

-- name: lock_matches(listing_id, buyer_id)!
-- By which the buyer and the listing's owner have found each other, if they have: behind the listing, before any negotiation.
select
  from mutual_matches mm
  join listing_matches m using (match_id)
 where mm.seller_listing_id = :listing_id and mm.buyer_user_id = :buyer_id
 order by m.match_id for no key update of m;
