-- What connects have to know, of as many as come at once.

-- A row each, in one snapshot: `n`, its place among those asked for; whether the session was last seen over a minute ago; and
-- in arrays the person's own room, the unarchived conversations they take part in and the threads they have joined, archived or
-- not, the most recently active first, one more than `most` to tell that there are more. No row for a session that has ended,
-- or whose person is not active.
--
-- The plan is kept, whatever the tables held when it was made: sequential scans and the joins that need them are off, and each
-- lookup stands in a lateral of its own (`offset 0`), which can only be a probe of an index. 64 at once cost a tenth each of
-- what one alone does.
create function find_admissions(user_ids uuid[], session_ids uuid[], most int)
returns table (
    n bigint, stale boolean, roles text[], server_time timestamptz, epoch uuid,
    room_ids uuid[], kinds text[], heads bigint[], floors bigint[])
language plpgsql stable
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
begin
    return query
    select a.n, s.stale, u.roles, clock_timestamp(), d.epoch, r.room_ids, r.kinds, r.heads, r.floors
      from unnest(user_ids, session_ids) with ordinality a (user_id, session_id, n)
     cross join deployment d
     cross join lateral (
            select user_id, ended_at, last_seen_at < now() - interval '1 minute' as stale
              from user_sessions where session_id = a.session_id offset 0) s
     cross join lateral (select roles, status from users where user_id = a.user_id offset 0) u
     cross join lateral (
            select array_agg(room_id) as room_ids, array_agg(kind) as kinds,
                   array_agg(last_seq) as heads, array_agg(floor) as floors
              from (
                    select room_id, kind, last_seq, 0::bigint as floor, 'infinity'::timestamptz as last_at
                      from rooms where room_id = a.user_id
                    union all
                    select * from (
                        select r.room_id, r.kind, r.last_seq, p.joined_seq, r.last_at
                          from conversation_participants p
                         cross join lateral (
                                select room_id, kind, last_seq, last_at
                                  from rooms where room_id = p.conversation_id offset 0) r
                         where p.user_id = a.user_id and p.left_at is null
                           and case r.kind
                                   when 'thread' then exists (
                                       select from threads t where t.thread_id = r.room_id and t.deleted_at is null)
                                   else not p.archived
                               end
                         order by r.last_at desc, r.room_id
                         limit most + 1) recent
                     order by last_at desc, room_id) ordered) r
     where s.user_id = a.user_id and s.ended_at is null and u.status = 'active'
     order by a.n;
end $$;
