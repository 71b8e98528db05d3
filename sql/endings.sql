-- Ends of more negotiations than one transaction writes: noted by the one that decides, done by a job.
-- Locks: create_ending is called behind the listing's row or the two people's; lock_ending passes by what another instance is at.

-- name: create_ending(move, listing_id, one_id, other_id)$
insert into endings (move, listing_id, low_user_id, high_user_id)
values (:move, :listing_id::uuid, least(:one_id::uuid, :other_id::uuid), greatest(:one_id::uuid, :other_id::uuid))
returning moment;

-- name: list_endings(after, most)
select moment from endings where moment > :after::bigint order by moment limit :most;

-- name: lock_ending(moment)$
select move from endings where moment = :moment::bigint for update skip locked;

-- name: list_rest(moment, after, most)
-- The negotiations that have ended by it and are open still, in order of id, each by its own index.
select found.negotiation_id
  from endings e
 cross join lateral (
       (select n.negotiation_id from negotiations n
         where n.listing_id = e.listing_id and n.status = 'open' and n.negotiation_id > :after::uuid and n.opened < e.moment
         order by n.negotiation_id limit :most)
       union all
       (select n.negotiation_id from negotiations n
         where n.buyer_id = e.low_user_id and n.seller_id = e.high_user_id and n.status = 'open'
           and n.negotiation_id > :after::uuid and n.opened < e.moment
         order by n.negotiation_id limit :most)
       union all
       (select n.negotiation_id from negotiations n
         where n.buyer_id = e.high_user_id and n.seller_id = e.low_user_id and n.status = 'open'
           and n.negotiation_id > :after::uuid and n.opened < e.moment
         order by n.negotiation_id limit :most)) found
 where e.moment = :moment::bigint
 order by found.negotiation_id limit :most;

-- name: delete_ending(moment)!
delete from endings where moment = :moment::bigint;
