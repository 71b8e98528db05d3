-- Listings: their terms, their stock, their end, and who sees them.
-- Locks: lock_listing takes the listing's row `for no key update`, as does lock_expired, which passes by what is held;
-- share_listing `for share`, keep_visible `for key share`; behind its thread's, before its negotiations, offers and any room.
-- Before the row they take an advisory lock of the same strength. Who shares a row's lock passes by whoever waits to have it
-- alone, so that on a listing that many bid for an accept waited for a gap; advisory locks are given in the order asked for.

-- name: find_end(asked, days, most_days, ends_at)$
-- When a listing's time is over, to the millisecond: as asked, or after so many days; never before it was to end already. Null
-- where that is past, or too far ahead.
select date_trunc('milliseconds', found.ends_at) as ends_at
  from (select coalesce(
                   :asked::timestamptz,
                   greatest(clock_timestamp() + make_interval(days => :days), :ends_at::timestamptz)) as ends_at) found
 where found.ends_at > clock_timestamp() and found.ends_at <= clock_timestamp() + make_interval(days => :most_days)
   and (:ends_at::timestamptz is null or found.ends_at >= :ends_at::timestamptz);

-- name: create_listing(listing_id, user_id, thread_id, kind, terms, feed, video, thumbnail, lat, lng, expires_at)!
insert into listings (
    listing_id, user_id, thread_id, kind, title, description, price_amount, price_currency, category, condition, quantity,
    images, feed, video, thumbnail, lat, lng, expires_at, at)
select :listing_id::uuid as listing_id, :user_id::uuid as user_id, :thread_id::uuid as thread_id, :kind::text as kind, t.title,
       t.description, t.price_amount, t.price_currency, t.category, t.condition, t.quantity, t.images, :feed::text as feed,
       :video::text as video, :thumbnail::text as thumbnail, :lat::float8 as lat, :lng::float8 as lng,
       :expires_at::timestamptz as expires_at, date_trunc('milliseconds', clock_timestamp()) as at
  from jsonb_populate_record(null::listings, :terms::jsonb) t;

-- name: update_listing(listing_id, terms, version, feed, video, thumbnail, lat, lng)!
update listings l
   set title = t.title, description = t.description, price_amount = t.price_amount, price_currency = t.price_currency,
       category = t.category, condition = t.condition, quantity = t.quantity, images = t.images, version = :version,
       feed = :feed, video = :video, thumbnail = :thumbnail, lat = :lat, lng = :lng,
       edition = l.edition + ((l.title, l.description, l.price_amount, l.category, l.condition, l.lat, l.lng)
           is distinct from (t.title, t.description, t.price_amount, t.category, t.condition, :lat, :lng))::int
  from jsonb_populate_record(null::listings, :terms::jsonb) t
 where l.listing_id = :listing_id;

-- name: lock_listing(listing_id)^
-- record_class: LockedListing
with gate as materialized (select pg_advisory_xact_lock(hashtextextended(:listing_id::uuid::text, 0)) as turn)
select listing_id, user_id, thread_id, kind, price_amount, price_currency, quantity, reserved, sold, feed, status, version,
       expires_at <= clock_timestamp() as has_expired
  from listings l cross join gate
 where l.listing_id = :listing_id and deleted_at is null
   for no key update of l;

-- name: share_listing(listing_id)^
-- record_class: LockedListing
with gate as materialized (select pg_advisory_xact_lock_shared(hashtextextended(:listing_id::uuid::text, 0)) as turn)
select listing_id, user_id, thread_id, kind, price_amount, price_currency, quantity, reserved, sold, feed, status, version,
       expires_at <= clock_timestamp() as has_expired
  from listings l cross join gate
 where l.listing_id = :listing_id and deleted_at is null
   for share of l;

-- name: lock_stock(listing_id)^
-- record_class: LockedListing
-- For deals, which outlive it: one that was deleted too.
with gate as materialized (select pg_advisory_xact_lock(hashtextextended(:listing_id::uuid::text, 0)) as turn)
select listing_id, user_id, thread_id, kind, price_amount, price_currency, quantity, reserved, sold, feed, status, version,
       expires_at <= clock_timestamp() as has_expired
  from listings l cross join gate
 where l.listing_id = :listing_id
   for no key update of l;

-- name: read_held(listing_id)^
-- record_class: LockedListing
-- One whose row the caller holds: who waits for its turn behind that would wait for who waits for the row.
select listing_id, user_id, thread_id, kind, price_amount, price_currency, quantity, reserved, sold, feed, status, version,
       expires_at <= clock_timestamp() as has_expired
  from listings where listing_id = :listing_id and deleted_at is null;

-- name: lock_expired(listing_id)^
-- record_class: LockedListing
-- None where somebody else has it, has ended it or has put its end off.
select listing_id, user_id, thread_id, kind, price_amount, price_currency, quantity, reserved, sold, feed, status, version,
       true as has_expired
  from listings
 where listing_id = :listing_id and status in ('active', 'reserved') and expires_at <= clock_timestamp()
   for no key update skip locked;

-- name: list_expired(most)
-- Whose time is over and who do not say so yet, the oldest end first.
-- (By `now()`, which an index can be asked by; clock_timestamp() would read all of it.)
select listing_id from listings
 where status in ('active', 'reserved') and expires_at <= now()
 order by expires_at limit :most;

-- name: find_owner(listing_id)$
select l.user_id from listings l
 where l.listing_id = :listing_id and l.deleted_at is null
   and not exists (select from threads t where t.thread_id = l.thread_id and t.deleted_at is not null);

-- name: keep_visible(listing_id)$
-- The id of a listing that everybody may see; it does not go before the transaction ends.
select l.listing_id from listings l
 where l.listing_id = :listing_id and l.deleted_at is null
   and not exists (select from threads t where t.thread_id = l.thread_id and t.deleted_at is not null)
   for key share;

-- name: list_heads(listing_ids)
-- record_class: Head
-- The rooms of those listings that everybody may see.
select r.room_id, r.kind, r.last_seq
  from listings l
  join rooms r on r.room_id = l.listing_id
 where l.listing_id = any (:listing_ids::uuid[]) and l.deleted_at is null
   and not exists (select from threads t where t.thread_id = l.thread_id and t.deleted_at is not null);

-- name: list_listings(viewer_id, listing_ids, lat, lng)
-- record_class: ListingRow
-- One whose time is over is shown as expired, whether or not the sweep has been there.
select l.listing_id, l.user_id, l.thread_id, l.kind, l.title, l.description, l.price_amount, l.price_currency, l.category,
       l.condition, l.quantity, l.reserved, l.sold, l.feed, l.images, l.video, l.thumbnail, l.lat, l.lng,
       case when l.status in ('active', 'reserved') and l.expires_at <= clock_timestamp() then 'expired' else l.status end
           as status,
       l.views, l.likes, l.version, l.expires_at, l.at,
       exists (select from wishlists w where w.user_id = :viewer_id::uuid and w.listing_id = l.listing_id) as liked,
       case when :lat::float8 is not null and l.lat is not null
            then round(metres(:lat::float8, :lng::float8, l.lat, l.lng))::int end as distance_m
  from listings l
 where l.listing_id = any (:listing_ids::uuid[]) and l.deleted_at is null
   and not exists (select from threads t where t.thread_id = l.thread_id and t.deleted_at is not null);

-- name: set_stock(listing_id, reserved, sold, status)!
-- One that is to be had again looks for its counterparts anew.
update listings
   set reserved = :reserved, sold = :sold, status = :status,
       edition = edition + (status <> 'active' and :status = 'active')::int
 where listing_id = :listing_id;

-- name: set_end(listing_id, expires_at, status)!
update listings
   set expires_at = :expires_at, status = :status,
       edition = edition + (status <> 'active' and :status = 'active')::int
 where listing_id = :listing_id;
