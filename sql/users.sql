-- People: the account, and what others see of it.
-- Locks: lock_user takes the person's row `for no key update`, lock_active people's `for share`, in order of id; both before
-- any session's, any conversation's and any room's.

-- name: find_taken(username, email, phone, whatsapp_number)$
-- The constraint that would be in the way of such a person.
select case
           when exists (select from users where lower(username) = lower(:username)) then 'users_username_key'
           when exists (select from users where lower(email) = lower(:email)) then 'users_email_key'
           when exists (select from users where phone = :phone) then 'users_phone_key'
           when exists (select from users where whatsapp_number = :whatsapp_number) then 'users_whatsapp_number_key'
       end as constraint_name;

-- name: create_user(username, email, password_hash, full_name, full_name_ar, phone, whatsapp_number, locale)$
insert into users (username, email, password_hash, full_name, full_name_ar, phone, whatsapp_number, locale)
values (:username, :email, :password_hash, :full_name, :full_name_ar, :phone, :whatsapp_number, :locale)
returning user_id;

-- name: get_user(user_id)^
-- record_class: User
-- Nobody is verified before verifications exist.
select user_id, username, email, full_name, full_name_ar, phone, whatsapp_number, profile_picture_url, locale, roles,
       status, false as verified, seller_rating(ratings, rating_sum) as seller_rating, total_sales, preferences,
       notification_channels, at
  from users where user_id = :user_id;

-- name: lock_users(user_ids)
select user_id from users where user_id = any (:user_ids::uuid[]) order by user_id for no key update;

-- name: lock_user(user_id)^
-- record_class: User
select user_id, username, email, full_name, full_name_ar, phone, whatsapp_number, profile_picture_url, locale, roles,
       status, false as verified, seller_rating(ratings, rating_sum) as seller_rating, total_sales, preferences,
       notification_channels, at
  from users where user_id = :user_id
   for no key update;

-- name: update_user(account)^
-- record_class: User
-- All that people write of themselves at once; no row where nothing of it is new.
update users u
   set username = a.username, email = a.email, full_name = a.full_name, full_name_ar = a.full_name_ar, phone = a.phone,
       whatsapp_number = a.whatsapp_number, profile_picture_url = a.profile_picture_url, locale = a.locale,
       roles = a.roles, preferences = a.preferences, notification_channels = a.notification_channels, updated_at = now()
  from jsonb_populate_record(null::users, :account::jsonb) a
 where u.user_id = a.user_id
   and (u.username, u.email, u.full_name, u.full_name_ar, u.phone, u.whatsapp_number, u.profile_picture_url, u.locale,
        u.roles, u.preferences, u.notification_channels)
       is distinct from
       (a.username, a.email, a.full_name, a.full_name_ar, a.phone, a.whatsapp_number, a.profile_picture_url, a.locale,
        a.roles, a.preferences, a.notification_channels)
returning u.user_id, u.username, u.email, u.full_name, u.full_name_ar, u.phone, u.whatsapp_number, u.profile_picture_url,
          u.locale, u.roles, u.status, false as verified, seller_rating(u.ratings, u.rating_sum) as seller_rating,
          u.total_sales, u.preferences, u.notification_channels, u.at;

-- name: count_sales(user_id, by)!
-- The caller holds the row.
update users set total_sales = total_sales + :by::int where user_id = :user_id;

-- name: set_status(user_id, status, reason)!
update users set status = :status, status_reason = :reason, updated_at = now() where user_id = :user_id;

-- name: find_status_reason(user_id)$
select status_reason from users where user_id = :user_id;

-- name: has_role(user_id, role)$
select exists (select from users where user_id = :user_id and status = 'active' and :role = any (roles)) as held;

-- name: set_roles(user_id, roles)!
update users set roles = :roles, updated_at = now() where user_id = :user_id;

-- name: list_usernames(role)
-- Of those who hold a role.
select username from users where :role = any (roles) and status <> 'deleted' order by lower(username);

-- name: set_password(user_id, password_hash)!
update users set password_hash = :password_hash, updated_at = now() where user_id = :user_id;

-- name: find_password(user_id)$
select password_hash from users where user_id = :user_id and status = 'active';

-- name: list_public(user_ids)
-- record_class: PublicUser
-- In the order given.
select u.user_id, u.username, u.full_name, u.full_name_ar, u.profile_picture_url, u.roles, false as verified,
       seller_rating(u.ratings, u.rating_sum) as seller_rating, u.total_sales
  from unnest(:user_ids::uuid[]) with ordinality as asked (user_id, ord)
  join users u using (user_id)
 where u.status <> 'deleted'
 order by asked.ord;

-- name: search_users(query, pattern, candidates, most)
-- Those whose username begins with the query, in its order; then those whose names contain it; then those who have words
-- like it. Each is bounded before anything is sorted: a query that everybody fits is no dearer than others, and one of signs
-- alone, for which the index would be read whole, finds no names.
with by_username as (
    select user_id, 0 as rank, 1::real as closeness, lower(username) collate "C" as place
      from users
     where status = 'active'
       and lower(username) collate "C" >= lower(:query::text) collate "C"
       and lower(username) collate "C" < (lower(:query::text) || chr(1114111)) collate "C"
     order by lower(username) collate "C" limit :most
), by_name as (
    select user_id, case when names like lower(:pattern::text) then 1 else 2 end as rank,
           word_similarity(lower(:query::text), names) as closeness, lower(username) collate "C" as place
      from (select user_id, names, username from users
             where status = 'active' and show_trgm(:query::text) <> '{}'
               and (names like lower(:pattern::text) or names %> lower(:query::text))
             limit :candidates) u
)
select user_id
  from (select user_id, rank, closeness, place from by_username
         union all
        select user_id, rank, closeness, place from by_name
         where user_id not in (select b.user_id from by_username b)) found
 order by rank, closeness desc, place limit :most;

-- name: list_talk_rooms(user_id, most)
-- record_class: TalkRoom
-- The rooms of the conversations and threads that the person takes part in, the most recently active first.
select r.room_id, r.kind
  from conversation_participants p
  join rooms r on r.room_id = p.conversation_id
 where p.user_id = :user_id and p.left_at is null and r.kind in ('conversation', 'thread')
 order by r.last_at desc limit :most;

-- name: find_login(login)^
-- record_class: Login
-- By username or address: a username has no @, so the two never meet.
select user_id, password_hash, status from users
 where lower(username) = lower(:login) or lower(email) = lower(:login);

-- name: find_user_id(username)$
select user_id from users where lower(username) = lower(:username) and status <> 'deleted';

-- name: touch_login(user_id, password_hash)$
-- No row where they have been suspended, have gone or have another password meanwhile. The row's lock stands between this
-- and whoever ends all of their sessions.
update users set last_login_at = now()
 where user_id = :user_id and status = 'active' and password_hash = :password_hash
returning user_id;

-- name: lock_active(user_ids)
-- Nobody of them is deleted before the transaction ends: whoever deletes them sees what it did.
select user_id from users where user_id = any (:user_ids::uuid[]) and status = 'active' order by user_id for share;
