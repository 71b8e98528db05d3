-- Which listings belong together: looked for and stored.
-- Locks: share_threads takes threads `for share`, share_listings listings `for share`, each in order of id; write_matches the
-- matches' rows behind them, in the order of the pairs; all before any room.

-- name: list_unmatched(after, most)
-- Whose counterparts have not been looked for as they are now; in order of id, from behind one on. Those of who is suspended
-- wait until they are back.
select l.listing_id
  from listings l
  join users u on u.user_id = l.user_id and u.status = 'active'
 where l.matched_edition <> l.edition and l.status = 'active' and l.deleted_at is null and l.expires_at > clock_timestamp()
   and l.listing_id > :after::uuid
 order by l.listing_id limit :most;

-- name: find_unmatched(listing_id)^
-- record_class: SubjectRow
-- One of these, unless its owner is not active.
select l.listing_id, l.user_id, l.thread_id, l.kind, searchable(lower(l.title)) as title,
       leading_words(ts_filter(l.words, '{a}')) as title_words, leading_words(l.words) as words, l.price_amount, l.price_currency,
       l.category, l.condition, l.lat, l.lng, l.edition, false as is_matched
  from listings l
  join users u on u.user_id = l.user_id and u.status = 'active'
 where l.listing_id = :listing_id and l.matched_edition <> l.edition and l.status = 'active' and l.deleted_at is null
   and l.expires_at > clock_timestamp();

-- name: list_counterparts(listing_id, sought, most)
-- record_class: SubjectRow
-- Who may belong with a listing, and the latest of those that are matched with it already.
with matched as (
    select case m.source_listing_id when :listing_id then m.matched_listing_id else m.source_listing_id end as listing_id
      from ((select match_id, source_listing_id, matched_listing_id from listing_matches
              where source_listing_id = :listing_id order by match_id desc limit :most)
            union all
            (select match_id, source_listing_id, matched_listing_id from listing_matches
              where matched_listing_id = :listing_id order by match_id desc limit :most)) m
     order by m.match_id desc limit :most
), found as (
    select listing_id, bool_or(is_matched) as is_matched
      from (select listing_id, true as is_matched from matched
             union all
            select listing_id, false as is_matched from find_counterparts(:listing_id, :sought)) every_one
     group by listing_id
)
select l.listing_id, l.user_id, l.thread_id, l.kind, searchable(lower(l.title)) as title,
       leading_words(ts_filter(l.words, '{a}')) as title_words, leading_words(l.words) as words, l.price_amount, l.price_currency,
       l.category, l.condition, l.lat, l.lng, l.edition, f.is_matched
  from found f
  join listings l using (listing_id)
 where l.deleted_at is null and l.status in ('active', 'reserved');

-- name: share_threads(thread_ids)!
-- Nobody leaves them until the transaction ends.
select from threads where thread_id = any (:thread_ids::uuid[]) order by thread_id for share;

-- name: share_listings(listing_ids)
-- record_class: Standing
select listing_id, edition, status = 'active' and expires_at > clock_timestamp() as is_open from listings
 where listing_id = any (:listing_ids::uuid[]) and deleted_at is null
 order by listing_id for share;

-- name: write_matches(source_id, matched_ids, scores, reasons, least)
-- record_class: Written
-- A pair with points enough is a match; one that is a match already stays one. Those that are new or stand otherwise.
insert into listing_matches as m (
    match_id, source_listing_id, matched_listing_id, source_user_id, matched_user_id, score, reasons, at)
select uuidv7() as match_id, s.listing_id as source_listing_id, l.listing_id as matched_listing_id, s.user_id as source_user_id,
       l.user_id as matched_user_id, p.score, p.reasons::jsonb, date_trunc('milliseconds', clock_timestamp()) as at
  from unnest(:matched_ids::uuid[], :scores::int[], :reasons::text[]) as p (matched_id, score, reasons)
  join listings s on s.listing_id = :source_id
  join listings l on l.listing_id = p.matched_id
 where p.score >= :least::int
    or exists (
       select from listing_matches o
        where least(o.source_listing_id, o.matched_listing_id) = least(:source_id::uuid, p.matched_id)
          and greatest(o.source_listing_id, o.matched_listing_id) = greatest(:source_id::uuid, p.matched_id))
 order by least(:source_id::uuid, p.matched_id), greatest(:source_id::uuid, p.matched_id)
on conflict (least(source_listing_id, matched_listing_id), greatest(source_listing_id, matched_listing_id)) do update
   set score = excluded.score, reasons = excluded.reasons, version = m.version + 1
 where (m.score, m.reasons) is distinct from (excluded.score, excluded.reasons)
returning m.match_id, m.version = 1 as is_new;

-- name: note_matched(listing_id, edition)!
-- What has changed meanwhile stays to be looked for.
update listings set matched_edition = edition
 where listing_id = :listing_id and edition = :edition and matched_edition <> edition;
