-- What hangs on a thread that has been deleted: taken away in batches, by whoever comes first.
-- Locks: lock_unemptied takes the thread's row `for no key update`, unless somebody holds it; lock_conversations those about
-- listings, then lock_listings the listings, each in order of id; all before their matches and any room.

-- name: list_unemptied(most)
select thread_id from threads where deleted_at is not null and emptied_at is null order by thread_id limit :most;

-- name: lock_unemptied(thread_id)$
select thread_id from threads
 where thread_id = :thread_id and deleted_at is not null and emptied_at is null
   for no key update skip locked;

-- name: empty_members(thread_id, most)
-- Who they were.
with gone as (
    delete from thread_members
     where thread_id = :thread_id
       and user_id = any (array(
            select user_id from thread_members where thread_id = :thread_id order by user_id limit :most))
    returning user_id
), left_with as (
    update conversation_participants set left_at = now()
     where conversation_id = :thread_id and user_id in (select user_id from gone) and left_at is null
)
select user_id from gone;

-- name: list_listings(thread_id, most)
select listing_id from listings where thread_id = :thread_id order by listing_id limit :most;

-- name: lock_conversations(listing_ids)!
select from conversations where listing_id = any (:listing_ids::uuid[]) order by conversation_id for no key update;

-- name: lock_listings(listing_ids)
-- record_class: Doomed
-- `is_dealt`: something is, or was, negotiated or bought, so it has to stay.
select l.listing_id,
       exists (select from negotiations n where n.listing_id = l.listing_id)
           or exists (select from transactions t where t.listing_id = l.listing_id)
           or exists (
               select from mutual_matches m
                where m.negotiation_id is not null and (m.buyer_listing_id = l.listing_id or m.seller_listing_id = l.listing_id))
           as is_dealt
  from listings l
 where l.listing_id = any (:listing_ids::uuid[])
 order by l.listing_id for update;

-- name: detach_listings(listing_ids)!
update listings set thread_id = null where listing_id = any (:listing_ids::uuid[]);

-- name: delete_likes(listing_ids, most)$
-- How many of them have gone.
with gone as (
    delete from wishlists w
     using (select user_id, listing_id from wishlists where listing_id = any (:listing_ids::uuid[]) limit :most) some_of_them
     where w.user_id = some_of_them.user_id and w.listing_id = some_of_them.listing_id
    returning w.user_id
)
select count(*) from gone;

-- name: list_faqs(listing_ids, most)
-- The latest first, since what was said to one goes along with it.
select faq_id from listing_faqs where listing_id = any (:listing_ids::uuid[])
 order by listing_id desc, faq_id desc limit :most;

-- name: delete_faqs(faq_ids)!
delete from listing_faqs where faq_id = any (:faq_ids::uuid[]);

-- name: detach_conversations(listing_ids)
-- record_class: Detached
-- The viewer is anybody who takes part; nobody does where all have left.
update conversations c
   set listing_id = null, detached_at = clock_timestamp()
 where c.listing_id = any (:listing_ids::uuid[])
returning c.conversation_id,
          (select p.user_id from conversation_participants p
            where p.conversation_id = c.conversation_id and p.left_at is null
            order by p.joined_at, p.user_id limit 1) as viewer_id;

-- name: delete_listings(listing_ids)!
delete from listings where listing_id = any (:listing_ids::uuid[]);

-- name: note_emptied(thread_id)!
-- Nothing is left of it; what it said of itself goes along.
with emptied as (
    update threads
       set emptied_at = clock_timestamp(), title = 'deleted', description = null, member_count = 0
     where thread_id = :thread_id
    returning thread_id
)
update conversations c set title = null from emptied e where c.conversation_id = e.thread_id;
