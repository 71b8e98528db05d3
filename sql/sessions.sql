-- Sessions of devices and the refresh tokens that renew them.
-- Locks: lock_token takes the token's row `for update`, so that of two uses at once one is the second; lock_expired the
-- sessions' rows, but those that somebody holds.

-- name: create_session(user_id, device, address, scope)$
insert into user_sessions (user_id, device, address, scope) values (:user_id, :device, :address, :scope)
returning session_id;

-- name: find_session(session_id, user_id)^
-- record_class: LiveSession
-- A session that still stands, of a person who is active.
select s.session_id, s.user_id, u.roles, s.last_seen_at < now() - interval '1 minute' as stale
  from user_sessions s
  join users u using (user_id)
 where s.session_id = :session_id and s.user_id = :user_id and s.ended_at is null and u.status = 'active';

-- name: touch_session(session_id)!
update user_sessions set last_seen_at = now() where session_id = :session_id;

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
-- Sessions that stand, though the one token that could renew them has expired.
select s.session_id, s.user_id
  from auth_tokens t
  join user_sessions s using (session_id)
 where t.type = 'refresh' and t.status = 'active' and t.expires_at <= now() and s.ended_at is null
 order by t.expires_at limit :most
   for update of s skip locked;

-- name: create_token(session_id, hash, ttl_s)!
insert into auth_tokens (session_id, type, hash, expires_at)
values (:session_id, 'refresh', :hash, now() + make_interval(secs => :ttl_s::float8));

-- name: lock_token(hash)^
-- record_class: RefreshToken
select t.token_id, t.session_id, s.user_id, s.scope, t.status, t.expires_at <= now() as expired,
       s.ended_at is null and u.status = 'active' as live
  from auth_tokens t
  join user_sessions s using (session_id)
  join users u on u.user_id = s.user_id
 where t.hash = :hash and t.type = 'refresh'
   for update of t;

-- name: spend_token(token_id)!
update auth_tokens set status = 'revoked', spent_at = now() where token_id = :token_id;

-- name: revoke_tokens(session_id)!
update auth_tokens set status = 'revoked' where session_id = :session_id and status = 'active';

-- name: revoke_persons_tokens(user_id)!
update auth_tokens set status = 'revoked'
 where session_id in (select session_id from user_sessions where user_id = :user_id) and status = 'active';

-- name: find_admission(user_id, session_id, most)
-- record_class: Admission
-- All that a connect has to know, in one snapshot: the session, the clock, the person's own room and the unarchived
-- conversations they take part in, the most recently active first, one more than `most` to tell that there are more.
select s.session_id, s.last_seen_at < now() - interval '1 minute' as stale, u.roles,
       clock_timestamp() as server_time, d.epoch, r.room_id, r.kind, r.last_seq, r.floor
  from user_sessions s
  join users u using (user_id)
 cross join deployment d
 cross join lateral (
        select room_id, kind, last_seq, 0::bigint as floor, 'infinity'::timestamptz as last_at
          from rooms where room_id = u.user_id
        union all
        select * from (
            select r.room_id, r.kind, r.last_seq, p.joined_seq, r.last_at
              from conversation_participants p
              join rooms r on r.room_id = p.conversation_id
             where p.user_id = u.user_id and p.left_at is null and not p.archived
             order by r.last_at desc, r.room_id
             limit :most + 1) recent) r
 where s.session_id = :session_id and s.user_id = :user_id and s.ended_at is null and u.status = 'active'
 order by r.last_at desc, r.room_id;
