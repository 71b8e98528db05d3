-- Negotiations: one for each listing and buyer at a time.
-- Locks: rows are taken `for update`, in order of id, behind their listing's and before their offers'.

-- name: create_negotiation(listing_id, buyer_id, conversation_id, max_rounds)!
insert into negotiations (negotiation_id, listing_id, buyer_id, seller_id, conversation_id, max_rounds)
select uuidv7() as negotiation_id, l.listing_id, :buyer_id::uuid as buyer_id, l.user_id as seller_id,
       :conversation_id::uuid as conversation_id, :max_rounds::int as max_rounds
  from listings l where l.listing_id = :listing_id
on conflict (listing_id, buyer_id) where status in ('open', 'agreed') do nothing;

-- name: lock_negotiation(negotiation_id)^
-- record_class: LockedNegotiation
select negotiation_id, listing_id, buyer_id, seller_id, conversation_id, status, turn, round, max_rounds, current_offer_id
  from negotiations where negotiation_id = :negotiation_id for update;

-- name: lock_live(listing_id, buyer_id)^
-- record_class: LockedNegotiation
select negotiation_id, listing_id, buyer_id, seller_id, conversation_id, status, turn, round, max_rounds, current_offer_id
  from negotiations where listing_id = :listing_id and buyer_id = :buyer_id and status in ('open', 'agreed') for update;

-- name: lock_open(listing_id)
-- record_class: LockedNegotiation
select negotiation_id, listing_id, buyer_id, seller_id, conversation_id, status, turn, round, max_rounds, current_offer_id
  from negotiations where listing_id = :listing_id and status = 'open' order by negotiation_id for update;

-- name: lock_between(one_id, other_id)
-- record_class: LockedNegotiation
select negotiation_id, listing_id, buyer_id, seller_id, conversation_id, status, turn, round, max_rounds, current_offer_id
  from negotiations
 where status = 'open'
   and ((buyer_id = :one_id::uuid and seller_id = :other_id::uuid)
        or (buyer_id = :other_id::uuid and seller_id = :one_id::uuid))
 order by negotiation_id for update;

-- name: list_ended(after, most)
-- Those in which the time of what is on the table is over.
select negotiation_id from offers
 where status = 'pending' and expires_at <= now()    -- which an index can be asked by
   and negotiation_id > :after
 order by negotiation_id limit :most;

-- name: lock_ended(negotiation_ids)
-- record_class: LockedNegotiation
-- Those of them in which it is over still; what somebody else is at is passed by.
select n.negotiation_id, n.listing_id, n.buyer_id, n.seller_id, n.conversation_id, n.status, n.turn, n.round, n.max_rounds,
       n.current_offer_id
  from offers o
  join negotiations n using (negotiation_id)
 where o.negotiation_id = any (:negotiation_ids::uuid[]) and o.status = 'pending' and o.expires_at <= now()
 order by n.negotiation_id
   for update of n skip locked;

-- name: list_open_of(user_id, most)
select negotiation_id from negotiations where buyer_id = :user_id and status = 'open' order by negotiation_id limit :most;

-- name: find_spent(listing_id, buyer_id)$
-- The last one, where it was closed with no round left.
select negotiation_id
  from (select negotiation_id, status, round, max_rounds from negotiations
         where listing_id = :listing_id and buyer_id = :buyer_id
         order by negotiation_id desc limit 1) latest
 where status = 'closed' and round = max_rounds;

-- name: advance(negotiation_id, status, turn, offer_id)!
update negotiations
   set status = :status, turn = :turn, version = version + 1,
       round = round + case when :offer_id::uuid is null then 0 else 1 end,
       current_offer_id = coalesce(:offer_id::uuid, current_offer_id)
 where negotiation_id = :negotiation_id;

-- name: list_negotiations(negotiation_ids)
-- record_class: Negotiation
select negotiation_id, listing_id, buyer_id, seller_id, conversation_id, status, turn, round, rounds_left,
       null::bigint as rivals, current_offer, version, at
  from negotiation_objects where negotiation_id = any (:negotiation_ids::uuid[]);

-- name: list_seen(user_id, negotiation_ids)
-- record_class: Negotiation
-- The rivals are counted once a listing: the other buyers who have an offer of their own on the table there.
with asked as materialized (
    select negotiation_id, listing_id, seller_id from negotiations
     where negotiation_id = any (:negotiation_ids::uuid[]) and :user_id::uuid in (buyer_id, seller_id)
), tables as materialized (
    select l.listing_id,
           (select count(*) from offers o
             where o.listing_id = l.listing_id and o.status = 'pending' and o.expires_at > now()
               and o.maker_id <> :user_id::uuid) as offers
      from (select distinct listing_id from asked where seller_id = :user_id::uuid) l
)
select n.negotiation_id, n.listing_id, n.buyer_id, n.seller_id, n.conversation_id, n.status, n.turn, n.round, n.rounds_left,
       (t.offers - (
           select count(*) from offers o
            where o.negotiation_id = n.negotiation_id and o.status = 'pending' and o.expires_at > now()
              and o.maker_id <> :user_id::uuid)) as rivals,
       n.current_offer, n.version, n.at
  from asked a
  join negotiation_objects n on n.negotiation_id = a.negotiation_id
  left join tables t on t.listing_id = n.listing_id;

-- name: page_negotiations(user_id, side, status, listing_id, before, most)
-- Each side by its own index, a page at most of each.
select negotiation_id from (
    (select negotiation_id from negotiations
      where seller_id = :user_id and :side::text is distinct from 'buyer'
        and (:status::text is null or status = :status::text)
        and (:listing_id::uuid is null or listing_id = :listing_id::uuid)
        and (:before::uuid is null or negotiation_id < :before::uuid)
      order by negotiation_id desc limit :most)
    union all
    (select negotiation_id from negotiations
      where buyer_id = :user_id and :side::text is distinct from 'seller'
        and (:status::text is null or status = :status::text)
        and (:listing_id::uuid is null or listing_id = :listing_id::uuid)
        and (:before::uuid is null or negotiation_id < :before::uuid)
      order by negotiation_id desc limit :most)) both_sides
 order by negotiation_id desc limit :most;

-- name: lock_offered(listing_id, below, most)
-- record_class: LockedNegotiation
-- Those of a listing in which a buyer's offer is on the table, below a price where one is given.
select n.negotiation_id, n.listing_id, n.buyer_id, n.seller_id, n.conversation_id, n.status, n.turn, n.round, n.max_rounds,
       n.current_offer_id
  from offers o
  join negotiations n using (negotiation_id)
 where o.listing_id = :listing_id and o.status = 'pending' and o.maker_id = n.buyer_id and o.expires_at > clock_timestamp()
   and (:below::bigint is null or o.price_amount < :below::bigint)
 order by n.negotiation_id limit :most
   for update of n;
