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
select n.negotiation_id, n.listing_id, n.buyer_id, n.seller_id, n.conversation_id, n.status, n.turn, n.round, n.max_rounds,
       n.current_offer_id, ending_of(n) as ending
  from negotiations n where n.negotiation_id = :negotiation_id for update;

-- name: lock_live(listing_id, buyer_id)^
-- record_class: LockedNegotiation
select n.negotiation_id, n.listing_id, n.buyer_id, n.seller_id, n.conversation_id, n.status, n.turn, n.round, n.max_rounds,
       n.current_offer_id, ending_of(n) as ending
  from negotiations n
 where n.listing_id = :listing_id and n.buyer_id = :buyer_id and n.status in ('open', 'agreed') for update;

-- name: lock_open(listing_id, most)
-- record_class: LockedNegotiation
select n.negotiation_id, n.listing_id, n.buyer_id, n.seller_id, n.conversation_id, n.status, n.turn, n.round, n.max_rounds,
       n.current_offer_id, ending_of(n) as ending
  from negotiations n where n.listing_id = :listing_id and n.status = 'open' order by n.negotiation_id limit :most for update;

-- name: list_between(one_id, other_id, most)
-- Open ones, each of the two as the buyer, by an index.
select negotiation_id from (
    (select negotiation_id from negotiations
      where buyer_id = :one_id and seller_id = :other_id and status = 'open' order by negotiation_id limit :most)
    union all
    (select negotiation_id from negotiations
      where buyer_id = :other_id and seller_id = :one_id and status = 'open' order by negotiation_id limit :most)) both_ways
 order by negotiation_id limit :most;

-- name: lock_rest(negotiation_ids)
-- record_class: LockedNegotiation
-- Those of them that are open still.
select n.negotiation_id, n.listing_id, n.buyer_id, n.seller_id, n.conversation_id, n.status, n.turn, n.round, n.max_rounds,
       n.current_offer_id, ending_of(n) as ending
  from negotiations n
 where n.negotiation_id = any (:negotiation_ids::uuid[]) and n.status = 'open' order by n.negotiation_id for update;

-- name: list_ended(after, most)
-- Those in which the time of what is on the table is over.
with due as materialized (    -- by its end, and never by walking all negotiations in their order
    select negotiation_id from offers
     where status = 'pending' and expires_at <= now()    -- which an index can be asked by
)
select negotiation_id from due where negotiation_id > :after order by negotiation_id limit :most;

-- name: lock_ended(negotiation_ids)
-- record_class: LockedNegotiation
-- Those of them in which it is over still and that had not ended before; what somebody else is at is passed by.
select n.negotiation_id, n.listing_id, n.buyer_id, n.seller_id, n.conversation_id, n.status, n.turn, n.round, n.max_rounds,
       n.current_offer_id, ending_of(n) as ending
  from offers o
  join negotiations n using (negotiation_id)
 where o.negotiation_id = any (:negotiation_ids::uuid[]) and o.status = 'pending' and o.expires_at <= now()
   and ending_of(n) is null
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
-- What was agreed and is open again has begun anew, behind all ends before.
update negotiations
   set status = :status, turn = :turn, version = version + 1,
       opened = case when status = 'agreed' and :status = 'open' then nextval('moments') else opened end,
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
       n.current_offer_id, ending_of(n) as ending
  from offers o
  join negotiations n using (negotiation_id)
 where o.listing_id = :listing_id and o.status = 'pending' and o.maker_id = n.buyer_id and o.expires_at > clock_timestamp()
   and (:below::bigint is null or o.price_amount < :below::bigint) and ending_of(n) is null
 order by n.negotiation_id limit :most
   for update of n;
