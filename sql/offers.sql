-- Offers: put on the table, moved, read.
-- Locks: whoever moves an offer holds its negotiation first (negotiations.sql), then the offer's row, in order of id.

-- name: find_seat(offer_id, user_id)^
-- record_class: Seat
select o.listing_id, o.negotiation_id, case n.buyer_id when :user_id::uuid then 'buyer' else 'seller' end as side, n.buyer_id,
       n.seller_id
  from offers o
  join negotiations n using (negotiation_id)
 where o.offer_id = :offer_id and :user_id::uuid in (n.buyer_id, n.seller_id);

-- name: lock_offer(offer_id)^
-- record_class: LockedOffer
select offer_id, negotiation_id, listing_version, maker_id, price_amount, price_currency, quantity, status, close_reason, round,
       version, moved_by, move, moved_version, expires_at <= clock_timestamp() as has_expired
  from offers where offer_id = :offer_id for update;

-- name: lock_pending(negotiation_ids)
-- record_class: LockedOffer
select offer_id, negotiation_id, listing_version, maker_id, price_amount, price_currency, quantity, status, close_reason, round,
       version, moved_by, move, moved_version, expires_at <= clock_timestamp() as has_expired
  from offers where negotiation_id = any (:negotiation_ids::uuid[]) and status = 'pending'
 order by offer_id for update;

-- name: create_offer(offer)!
-- Of the warnings before its end those are not given that would come at once.
insert into offers (offer_id, negotiation_id, listing_id, listing_version, maker_id, price_amount, price_currency, quantity,
                    message, by, parent_offer_id, round, expires_at, warned, at)
select o.offer_id, n.negotiation_id, n.listing_id, o.listing_version, o.maker_id, o.price_amount, o.price_currency, o.quantity,
       o.message, o.by, o.parent_offer_id, o.round, t.moment + make_interval(secs => o.lasts_s) as expires_at,
       case when o.lasts_s <= 300 then 2 when o.lasts_s <= 3600 then 1 else 0 end as warned, t.moment
  from jsonb_to_record(:offer::jsonb)
       as o (offer_id uuid, negotiation_id uuid, listing_version int, maker_id uuid, price_amount bigint, price_currency text,
             quantity int, message text, by text, parent_offer_id uuid, round int, lasts_s int)
  join negotiations n on n.negotiation_id = o.negotiation_id
 cross join (select date_trunc('milliseconds', clock_timestamp()) as moment) t;

-- name: move_offer(offer_id, status, close_reason, by, moved_by, move)!
update offers
   set status = :status, close_reason = :close_reason::text, by = case when :by = 'rule' then 'rule' else by end,
       moved_version = case when :move::text is null then moved_version else version end,
       moved_by = coalesce(:moved_by::uuid, moved_by), move = coalesce(:move::text, move),
       version = version + 1, closed_at = coalesce(closed_at, clock_timestamp())
 where offer_id = :offer_id;

-- name: list_offers(offer_ids)
-- record_class: Offer
select offer_id, negotiation_id, listing_id, listing_version, maker_id, buyer_id, seller_id, price, quantity, message, status,
       close_reason, by, parent_offer_id, changes, round, version, expires_at, at
  from offer_objects where offer_id = any (:offer_ids::uuid[]);

-- name: list_history(negotiation_id)
-- record_class: Offer
select offer_id, negotiation_id, listing_id, listing_version, maker_id, buyer_id, seller_id, price, quantity, message, status,
       close_reason, by, parent_offer_id, changes, round, version, expires_at, at
  from offer_objects where negotiation_id = :negotiation_id order by round;

-- name: list_unwarned(stage, within_s, after, most)
-- The negotiations in which what is on the table ends within so many seconds, and of which that has not been said.
with due as materialized (    -- by its end, and never by walking all negotiations in their order
    select negotiation_id from offers
     where status = 'pending' and warned < :stage
       and expires_at > now() and expires_at <= now() + make_interval(secs => :within_s::int)
)
select negotiation_id from due where negotiation_id > :after order by negotiation_id limit :most;

-- name: warn(stage, within_s, negotiation_ids)
-- record_class: Expiring
-- A warning stands for those before it that were missed. Of what has ended nobody is warned.
with due as (
    select o.offer_id from offers o
     where o.negotiation_id = any (:negotiation_ids::uuid[]) and o.status = 'pending' and o.warned < :stage
       and o.expires_at > now() and o.expires_at <= now() + make_interval(secs => :within_s::int)
       and (select ending_of(n) from negotiations n where n.negotiation_id = o.negotiation_id) is null
       for update skip locked
)
update offers o
   set warned = :stage
  from due d, negotiations n
 where o.offer_id = d.offer_id and n.negotiation_id = o.negotiation_id
returning o.offer_id, o.negotiation_id, o.expires_at, n.buyer_id, n.seller_id;

-- name: may_be_offered(listing_id, seller_id, buyer_id)$
select exists (select from wishlists where listing_id = :listing_id and user_id = :buyer_id)
    or exists (
       select from listing_matches m
         join listings l on l.listing_id in (m.source_listing_id, m.matched_listing_id)
        where (m.source_listing_id = :listing_id or m.matched_listing_id = :listing_id) and l.user_id = :buyer_id
          and (m.quality is not null or m.status <> 'new'))
    or exists (
       select from negotiations where listing_id = :listing_id and buyer_id = :buyer_id)
    or exists (
       select from conversations c
         join messages m on m.conversation_id = c.conversation_id
        where c.kind = 'private' and c.low_user_id = least(:seller_id::uuid, :buyer_id::uuid)
          and c.high_user_id = greatest(:seller_id::uuid, :buyer_id::uuid)
          and m.sender_id = :buyer_id) as may_be;

-- name: last_asked(negotiation_id)$
-- The seller's last price in a negotiation.
select o.price_amount
  from offers o
  join negotiations n using (negotiation_id)
 where o.negotiation_id = :negotiation_id and o.maker_id = n.seller_id
 order by o.round desc limit 1;
