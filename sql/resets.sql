-- Tokens that let somebody who forgot their password choose another.
-- Locks: lock_person and lock_holder take the person's row `for no key update`, before any token's.

-- name: lock_person(email)^
-- record_class: Forgetful
select user_id, username, email, locale from users
 where lower(email) = lower(:email) and status = 'active' for no key update;

-- name: spend_resets(user_id)!
update auth_tokens set status = 'revoked', spent_at = now() where user_id = :user_id and status = 'active';

-- name: create_reset(user_id, hash, ttl_s)!
insert into auth_tokens (user_id, type, hash, expires_at)
values (:user_id, 'reset', :hash, now() + make_interval(secs => :ttl_s::float8));

-- name: lock_holder(hash)$
select u.user_id
  from auth_tokens t
  join users u using (user_id)
 where t.hash = :hash and u.status = 'active' for no key update of u;

-- name: spend_reset(hash)$
-- No row where it is spent or has expired: of two uses at once one is the second.
update auth_tokens set status = 'revoked', spent_at = now()
 where hash = :hash and type = 'reset' and status = 'active' and expires_at > now()
returning user_id;
