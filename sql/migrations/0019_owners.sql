-- Both owners of a match; what may be reported; and the words that go from the log along with what they were about.

-- Whose the two listings are, so that a page of somebody's matches is one walk along an index, however many they have.
alter table listing_matches
    add source_user_id uuid references users (user_id),
    add matched_user_id uuid references users (user_id);
update listing_matches m
   set source_user_id = s.user_id, matched_user_id = o.user_id
  from listings s, listings o
 where s.listing_id = m.source_listing_id and o.listing_id = m.matched_listing_id;
alter table listing_matches
    alter source_user_id set not null,
    alter matched_user_id set not null;
create index listing_matches_source_user_id on listing_matches (source_user_id, match_id);
create index listing_matches_matched_user_id on listing_matches (matched_user_id, match_id);
-- Of a listing of somebody else's those with one's own: there may be few among many.
create index listing_matches_source_other on listing_matches (source_listing_id, matched_user_id, match_id);
create index listing_matches_matched_other on listing_matches (matched_listing_id, source_user_id, match_id);

-- A page of somebody's matches, the newest first, from behind one on: on each side a walk along its index, whatever the planner
-- believed of how many there are when the plan was made.
create function matches_of(viewer uuid, before uuid, most int) returns table (match_id uuid) language plpgsql stable
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
as $$
#variable_conflict use_column
begin
    before := coalesce(before, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
    return query
    select p.match_id from (
        (select m.match_id from listing_matches m where m.source_user_id = viewer and m.match_id < before
          order by m.match_id desc limit most)
        union all
        (select m.match_id from listing_matches m where m.matched_user_id = viewer and m.match_id < before
          order by m.match_id desc limit most)) p
     order by p.match_id desc limit most;
end $$;

-- The same of one listing: all of its, where it is the viewer's, and else those with theirs.
create function matches_about(viewer uuid, listing uuid, before uuid, most int) returns table (match_id uuid) language plpgsql
stable set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
as $$
#variable_conflict use_column
begin
    before := coalesce(before, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
    if exists (select from listings l where l.listing_id = listing and l.user_id = viewer) then
        return query
        select p.match_id from (
            (select m.match_id from listing_matches m where m.source_listing_id = listing and m.match_id < before
              order by m.match_id desc limit most)
            union all
            (select m.match_id from listing_matches m where m.matched_listing_id = listing and m.match_id < before
              order by m.match_id desc limit most)) p
         order by p.match_id desc limit most;
    else
        return query
        select p.match_id from (
            (select m.match_id from listing_matches m
              where m.source_listing_id = listing and m.matched_user_id = viewer and m.match_id < before
              order by m.match_id desc limit most)
            union all
            (select m.match_id from listing_matches m
              where m.matched_listing_id = listing and m.source_user_id = viewer and m.match_id < before
              order by m.match_id desc limit most)) p
         order by p.match_id desc limit most;
    end if;
end $$;

alter table reports drop constraint reports_subject_kind_check;
alter table reports add constraint reports_subject_kind_check
    check (subject_kind in ('user', 'message', 'conversation', 'listing', 'faq'));

comment on column room_events.message_id is
    'the object whose words the payload holds: a message, thread, listing, faq, match, offer or review';

-- A logged payload without the words of what goes: of a listing, of one as a side of a match, of a question, answer or reply, of
-- a thread. What is left is what the push is declared to carry, and the seq stays.
create function without_words(name text, payload jsonb, gone uuid[]) returns jsonb language sql immutable as $$
select case
    when name like 'listing:%' then payload || l.blank
    when name like 'match:%' then payload
        || case when (payload #>> '{source_listing,listing_id}')::uuid = any (gone)
                then jsonb_build_object('source_listing', (payload -> 'source_listing') || l.blank) else '{}' end
        || case when (payload #>> '{matched_listing,listing_id}')::uuid = any (gone)
                then jsonb_build_object('matched_listing', (payload -> 'matched_listing') || l.blank) else '{}' end
    when name like 'faq:%' then payload || '{"text": null}'
    when name = 'thread:changed' then payload || '{"title": "deleted", "description": null}'
    when name = 'conversation:created' then payload || '{"title": null}'
    when name = 'participant:added' then jsonb_set(payload, '{conversation,title}', 'null', false)
    else payload end
  from (select '{"title": "deleted", "description": "", "images": [], "video": null, "thumbnail": null,
                 "location": null}'::jsonb as blank) l
$$;

-- Events that hold the words of one of these objects, some of them at a time. Not by what the planner believes of how common an
-- object is: each is a look into the index.
create function worded_events(objects uuid[], most int) returns table (room_id uuid, seq bigint) language plpgsql stable
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off
as $$
begin
    return query
    select e.room_id, e.seq
      from unnest(objects) as o (object_id)
     cross join lateral (
           select r.room_id, r.seq from room_events r where r.message_id = o.object_id limit most) e
     limit most;
end $$;

-- In the log so far: matches stood under the other owner's listing, and what told of a thread's conversation under nothing.
update room_events set message_id = (payload ->> 'match_id')::uuid where name in ('match:found', 'match:changed');
update room_events set message_id = (payload ->> 'conversation_id')::uuid
 where (name = 'conversation:created' and payload ->> 'kind' = 'thread')
    or (name = 'participant:added' and payload #>> '{conversation,kind}' = 'thread');
-- What is gone already goes from there too: of threads by the job that empties them, of listings here.
update threads set emptied_at = null where emptied_at is not null;
update room_events e
   set payload = without_words(e.name, e.payload::jsonb, g.gone)::json,
       message_id = (
        select l.listing_id from listings l
         where l.listing_id in ((e.payload #>> '{source_listing,listing_id}')::uuid,
                                (e.payload #>> '{matched_listing,listing_id}')::uuid))    -- the other side of a match
  from (
    select b.room_id, b.seq,
           array(select a.listing_id
                   from unnest(array[b.payload ->> 'listing_id', b.payload #>> '{source_listing,listing_id}',
                                     b.payload #>> '{matched_listing,listing_id}']::uuid[]) as a (listing_id)
                  where a.listing_id is not null
                    and not exists (select from listings l where l.listing_id = a.listing_id)) as gone
      from room_events b
     where b.name like 'listing:%' or b.name like 'faq:%' or b.name in ('match:found', 'match:changed')) g
 where e.room_id = g.room_id and e.seq = g.seq and g.gone <> '{}';
