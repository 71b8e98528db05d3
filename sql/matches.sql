-- Matches: as each owner sees them, what they make of them, and what becomes of it.
-- Locks: lock_match, lock_matches and lock_mutual take the matches' rows `for no key update`, in order of id, behind their
-- listings, before any negotiation and any room; what writes a mutual match holds the match, or its negotiation.

-- name: find_parties(match_id, user_id)^
-- record_class: Parties
-- For one of the two owners.
select m.source_listing_id, m.matched_listing_id, s.user_id as source_user_id, o.user_id as matched_user_id,
       array_remove(array[s.thread_id, o.thread_id], null) as thread_ids
  from listing_matches m
  join listings s on s.listing_id = m.source_listing_id
  join listings o on o.listing_id = m.matched_listing_id
 where m.match_id = :match_id and :user_id::uuid in (s.user_id, o.user_id);

-- name: lock_match(match_id)$
select match_id from listing_matches where match_id = :match_id for no key update;

-- name: list_seen(viewer_ids, match_ids)
-- record_class: SeenRow
-- Each match as its viewer sees it, who owns one of its listings and is in the other's thread, where it has one, unless both
-- want it. `acts` are the viewer's own, the last comes last.
select a.viewer_id, m.match_id, m.source_listing_id, m.matched_listing_id, t.user_id as other_user_id,
       m.score, m.quality, m.reasons, m.status as for_both, done.acts,
       s.status in ('active', 'reserved') and s.expires_at > clock_timestamp()
           and o.status in ('active', 'reserved') and o.expires_at > clock_timestamp() as is_open,
       exists (select from user_blocks b where b.blocker_id = s.user_id and b.blocked_id = o.user_id)
           or exists (select from user_blocks b where b.blocker_id = o.user_id and b.blocked_id = s.user_id) as is_blocked,
       m.at
  from unnest(:viewer_ids::uuid[], :match_ids::uuid[]) with ordinality as a (viewer_id, match_id, ord)
  join listing_matches m on m.match_id = a.match_id
  join listings s on s.listing_id = m.source_listing_id and s.deleted_at is null
  join listings o on o.listing_id = m.matched_listing_id and o.deleted_at is null
  cross join lateral (
       select other.user_id, other.thread_id
         from (values (s.user_id, o.user_id, o.thread_id), (o.user_id, s.user_id, s.thread_id))
              as other (viewer_id, user_id, thread_id)
        where other.viewer_id = a.viewer_id) t
  cross join lateral (
       select coalesce(array_agg(i.action order by i.at, i.action), '{}') as acts
         from match_interactions i where i.match_id = m.match_id and i.user_id = a.viewer_id) done
 where (m.status <> 'new' or t.thread_id is null
        or exists (select from thread_members j where j.thread_id = t.thread_id and j.user_id = a.viewer_id))
   and not exists (
       select from threads d where d.thread_id in (s.thread_id, o.thread_id) and d.deleted_at is not null)
 order by a.ord;

-- name: page_matches(viewer_id, before, most)
-- Of the viewer's listings, the newest first.
select match_id from matches_of(:viewer_id, :before, :most);

-- name: page_matches_about(viewer_id, listing_id, before, most)
-- Of one listing: all of its, where it is the viewer's, and else those with theirs.
select match_id from matches_about(:viewer_id, :listing_id, :before, :most);

-- name: lock_matches(listing_ids, most)
-- Some of those that are nothing to both yet; the caller holds the listings.
select m.match_id
  from listing_matches m
 where m.match_id = any (array(
        select s.match_id
          from unnest(:listing_ids::uuid[]) as l (listing_id)
         cross join lateral (
               (select match_id from listing_matches
                 where source_listing_id = l.listing_id and status = 'new' order by match_id limit :most)
               union all
               (select match_id from listing_matches
                 where matched_listing_id = l.listing_id and status = 'new' order by match_id limit :most)) s
         limit :most))
   and m.status = 'new'
 order by m.match_id for no key update;

-- name: delete_matches(match_ids)!
delete from listing_matches where match_id = any (:match_ids::uuid[]);

-- name: lock_mutual(listing_ids, after, most)
-- Those that both want or wanted, in order of id, from behind one on; the caller holds the listings.
select m.match_id
  from listing_matches m
 where m.match_id = any (array(
        select u.match_id from mutual_matches u where u.buyer_listing_id = any (:listing_ids::uuid[])
         union all
        select u.match_id from mutual_matches u where u.seller_listing_id = any (:listing_ids::uuid[])))
   and m.match_id > :after::uuid
 order by m.match_id limit :most for no key update;

-- name: write_act(match_id, user_id, action, metadata)!
insert into match_interactions (match_id, user_id, action, metadata)
values (:match_id, :user_id, :action, :metadata)
on conflict (match_id, user_id, action) do update set metadata = excluded.metadata, at = clock_timestamp();

-- name: create_mutual(mutual_match_id, match_id, wish_id, offer_id, conversation_id, negotiation_id)!
-- The caller holds the match.
with joined as (
    update listing_matches set status = 'mutual', version = version + 1 where match_id = :match_id
    returning match_id
)
insert into mutual_matches (
    mutual_match_id, match_id, buyer_listing_id, seller_listing_id, buyer_user_id, seller_user_id, conversation_id,
    negotiation_id, at)
select :mutual_match_id::uuid as mutual_match_id, j.match_id, w.listing_id as buyer_listing_id, o.listing_id as seller_listing_id,
       w.user_id as buyer_user_id, o.user_id as seller_user_id, :conversation_id::uuid as conversation_id,
       :negotiation_id::uuid as negotiation_id, date_trunc('milliseconds', clock_timestamp()) as at
  from joined j
  join listings w on w.listing_id = :wish_id
  join listings o on o.listing_id = :offer_id;

-- name: find_mutual(match_id)^
-- record_class: MutualMatch
select mutual_match_id, buyer_listing_id, seller_listing_id, buyer_user_id, seller_user_id, conversation_id, negotiation_id,
       is_mutual, status, at
  from mutual_matches where match_id = :match_id;

-- name: page_mutual(user_id, before, most)
-- record_class: MutualMatch
-- The newest first, each side by its own index.
select mutual_match_id, buyer_listing_id, seller_listing_id, buyer_user_id, seller_user_id, conversation_id, negotiation_id,
       is_mutual, status, at
  from (
    (select * from mutual_matches
      where buyer_user_id = :user_id and mutual_match_id < coalesce(:before::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
      order by mutual_match_id desc limit :most)
    union all
    (select * from mutual_matches
      where seller_user_id = :user_id and mutual_match_id < coalesce(:before::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
      order by mutual_match_id desc limit :most)) both_sides
 order by mutual_match_id desc limit :most;

-- name: note_deal(listing_id, buyer_id)
-- record_class: Dealt
-- What the buyer of a listing and its owner matched by, if they did, in whichever way they have dealt; the caller holds both.
with dealt as (
    update mutual_matches set status = 'deal_made'
     where seller_listing_id = :listing_id and buyer_user_id = :buyer_id and status <> 'deal_made'
    returning match_id, buyer_user_id, seller_user_id
)
update listing_matches m
   set status = 'deal_made', version = m.version + 1
  from dealt d
 where m.match_id = d.match_id
returning d.match_id, d.buyer_user_id, d.seller_user_id;

-- name: close_mutual(negotiation_ids)
-- record_class: MutualMatch
-- Negotiations have ended without a deal, and the caller holds them.
update mutual_matches set status = 'closed'
 where negotiation_id = any (:negotiation_ids::uuid[]) and status = 'active'
returning mutual_match_id, buyer_listing_id, seller_listing_id, buyer_user_id, seller_user_id, conversation_id, negotiation_id,
          is_mutual, status, at;
