-- Sessions of devices and the refresh tokens that renew them.
-- Locks: lock_renewed takes the session's row `for no key update`, so that of two uses of a token at once one is the second,
-- and whoever ends the session comes before or behind them; lock_expired the sessions' rows, but those that somebody holds.
-- A session's row is locked before those of its tokens.

-- name: create_session(user_id, device, address, scope, ttl_s)$
insert into user_sessions (user_id, device, address, scope, ends_at)
values (:user_id, :device, :address, :scope, now() + make_interval(secs => :ttl_s::float8))
returning session_id;

-- name: find_session(session_id, user_id)^
-- record_class: LiveSession
-- A session that still stands, of a person who is active.
select s.session_id, s.user_id, u.roles, s.last_seen_at < now() - interval '1 minute' as stale
  from user_sessions s
  join users u using (user_id)
 where s.session_id = :session_id and s.user_id = :user_id and s.ended_at is null and u.status = 'active';

-- name: touch_sessions(session_ids)!
-- Not those that somebody holds, who may be touching them too.
update user_sessions set last_seen_at = now()
 where session_id in (
       select session_id from user_sessions where session_id = any(:session_ids::uuid[]) for no key update skip locked);

-- name: end_session(session_id, reason)$
update user_sessions set ended_at = now(), end_reason = :reason
 where session_id = :session_id and ended_at is null
returning session_id;

-- name: end_sessions(user_id, reason)
-- All of a person's.
update user_sessions set ended_at = now(), end_reason = :reason
 where user_id = :user_id and ended_at is null
returning session_id;

-- name: has_session(session_id, user_id)$
select exists (select from user_sessions where session_id = :session_id and user_id = :user_id) as found;

-- name: list_sessions(user_id, current_id, most)
-- record_class: Session
-- Those that stand, the last seen first.
select session_id, device, address, started_at, last_seen_at, session_id = :current_id as current
  from user_sessions
 where user_id = :user_id and ended_at is null
 order by session_id = :current_id desc, last_seen_at desc, session_id limit :most;

-- name: lock_expired(most)
-- record_class: ExpiredSession
-- Sessions that stand beyond their end.
select session_id, user_id from user_sessions
 where ended_at is null and ends_at <= now()
 order by ends_at limit :most
   for no key update skip locked;

-- name: forget_devices(days, most)$
-- What sessions were on and where, so long after their end; how many.
with forgotten as (
    update user_sessions set device = null, address = null
     where session_id = any (array(
            select session_id from user_sessions
             where ended_at <= now() - make_interval(days => :days)
               and ended_at is not null and (device is not null or address is not null)
             order by ended_at limit :most for no key update skip locked))
    returning session_id
)
select count(*) from forgotten;

-- name: sweep_tokens(reset_days, most)$
-- How many went. A spent refresh token is kept until it would have expired: its second use is a copy's. A reset token is
-- kept some days longer.
with swept as (
    delete from auth_tokens
     where token_id = any (array(
            select token_id from auth_tokens
             where expires_at <= now() and (type = 'refresh' or expires_at <= now() - make_interval(days => :reset_days))
             order by expires_at limit :most for update skip locked))
    returning token_id
)
select count(*) from swept;

-- name: move_end(session_id, ttl_s)!
update user_sessions set ends_at = now() + make_interval(secs => :ttl_s::float8) where session_id = :session_id;

-- name: create_token(session_id, hash, ttl_s)!
insert into auth_tokens (session_id, type, hash, expires_at)
values (:session_id, 'refresh', :hash, now() + make_interval(secs => :ttl_s::float8));

-- name: lock_renewed(hash)$
select s.session_id
  from auth_tokens t
  join user_sessions s using (session_id)
 where t.hash = :hash and t.type = 'refresh'
   for no key update of s;

-- name: find_token(hash)^
-- record_class: RefreshToken
select t.token_id, t.session_id, s.user_id, s.scope, t.status, t.expires_at <= now() as expired,
       s.ended_at is null and u.status = 'active' as live
  from auth_tokens t
  join user_sessions s using (session_id)
  join users u on u.user_id = s.user_id
 where t.hash = :hash and t.type = 'refresh';

-- name: spend_token(token_id)!
update auth_tokens set status = 'revoked', spent_at = now() where token_id = :token_id;

-- name: revoke_tokens(session_id)!
update auth_tokens set status = 'revoked' where session_id = :session_id and status = 'active';

-- name: revoke_persons_tokens(user_id)!
update auth_tokens set status = 'revoked'
 where session_id in (select session_id from user_sessions where user_id = :user_id) and status = 'active';

-- name: find_admissions(user_ids, session_ids, most)
-- record_class: Admission
-- All that some connects have to know, in one snapshot, a row each: the session, the clock, and in arrays the person's own
-- room, the unarchived conversations they take part in and the threads they have joined, archived or not, the most recently
-- active first, one more than `most` to tell that there are more. What is looked up stands in laterals that can only be
-- probes of an index, whatever a kept plan was made for.
select a.n, s.stale, u.roles, clock_timestamp() as server_time, d.epoch, r.room_ids, r.kinds, r.heads, r.floors
  from unnest(:user_ids::uuid[], :session_ids::uuid[]) with ordinality a (user_id, session_id, n)
 cross join deployment d
 cross join lateral (
        select last_seen_at < now() - interval '1 minute' as stale
          from user_sessions
         where session_id = a.session_id and user_id = a.user_id and ended_at is null
        offset 0) s
 cross join lateral (select roles from users where user_id = a.user_id and status = 'active' offset 0) u
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
                     limit :most + 1) recent
                 order by last_at desc, room_id) ordered) r
 order by a.n;
