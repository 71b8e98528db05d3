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
select n, stale, roles, server_time, epoch, room_ids, kinds, heads, floors
  from find_admissions(:user_ids::uuid[], :session_ids::uuid[], :most);
