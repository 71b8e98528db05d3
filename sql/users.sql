-- People: the account, and what others see of it. No lock is taken but by the writes themselves.

-- name: create_user(username, email, password_hash, full_name, full_name_ar, phone, whatsapp_number, locale)$
insert into users (username, email, password_hash, full_name, full_name_ar, phone, whatsapp_number, locale)
values (:username, :email, :password_hash, :full_name, :full_name_ar, :phone, :whatsapp_number, :locale)
returning user_id;

-- name: get_user(user_id)^
-- record_class: User
-- Nobody is verified, rated or has sold anything before verifications and deals exist: these three will derive from them.
select user_id, username, email, full_name, full_name_ar, phone, whatsapp_number, profile_picture_url, locale, roles,
       status, false as verified, null::float8 as seller_rating, 0 as total_sales, preferences,
       notification_channels, at
  from users where user_id = :user_id;

-- name: find_login(login)^
-- record_class: Login
-- By username or address: a username has no @, so the two never meet.
select user_id, password_hash, status from users
 where lower(username) = lower(:login) or lower(email) = lower(:login);

-- name: find_user_id(username)$
select user_id from users where lower(username) = lower(:username);

-- name: touch_login(user_id)!
update users set last_login_at = now() where user_id = :user_id;

-- name: list_active(user_ids)
select user_id from users where user_id = any (:user_ids::uuid[]) and status = 'active';
