-- Who likes which listing, and the counts of likes and views, which are written in batches.
-- Locks: lock_counted takes listings' rows `for no key update`, in order of id, and passes by what is held; no room is locked.

-- name: create_like(user_id, listing_id)$
insert into wishlists (user_id, listing_id) values (:user_id, :listing_id)
on conflict (user_id, listing_id) do nothing
returning listing_id;

-- name: delete_like(user_id, listing_id)$
delete from wishlists where user_id = :user_id and listing_id = :listing_id
returning listing_id;

-- name: count_likes(listing_id)$
select count(*) as likes from wishlists where listing_id = :listing_id;

-- name: lock_counted(listing_ids)
-- record_class: Counted
-- Those that there are; of them those that nobody holds are locked.
with locked as materialized (
    select listing_id from listings
     where listing_id = any (:listing_ids::uuid[])
     order by listing_id for no key update skip locked
)
select l.listing_id, k.listing_id is not null as is_locked
  from listings l
  left join locked k using (listing_id)
 where l.listing_id = any (:listing_ids::uuid[]);

-- name: add_views(listing_ids, views)!
update listings l set views = l.views + seen.views
  from unnest(:listing_ids::uuid[], :views::bigint[]) as seen (listing_id, views)
 where l.listing_id = seen.listing_id;

-- name: recount_likes(listing_ids)!
-- As they are behind the lock: of two instances the one that writes later has seen no less.
update listings l
   set likes = (select count(*) from wishlists w where w.listing_id = l.listing_id)
 where l.listing_id = any (:listing_ids::uuid[]);
