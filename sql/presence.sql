-- Who is there, as the instances that live say. No locks but the rows' own.

-- name: renew(instance_id, seconds)$
insert into presence_instances (instance_id, expires_at)
values (:instance_id, clock_timestamp() + make_interval(secs => :seconds::float8))
on conflict (instance_id) do update set expires_at = excluded.expires_at
returning xmax = 0 as is_new;

-- name: bury(instance_id)!
-- An instance that has gone, or every one that lives no more (null), with all it said of people.
with gone as (
    select instance_id from presence_instances
     where instance_id = :instance_id::uuid or (:instance_id::uuid is null and expires_at < clock_timestamp())
       for update skip locked
), seen as (
    update users u
       set last_seen_at = clock_timestamp()
      from presences p
     where p.instance_id in (select instance_id from gone) and u.user_id = p.user_id
)
delete from presence_instances where instance_id in (select instance_id from gone);

-- name: set_states(instance_id, user_ids, states)!
insert into presences (user_id, instance_id, state)
select user_id, :instance_id::uuid, state from unnest(:user_ids::uuid[], :states::text[]) as t (user_id, state)
on conflict (user_id, instance_id) do update set state = excluded.state;

-- name: set_offline(instance_id, user_ids)!
with gone as (
    delete from presences where instance_id = :instance_id and user_id = any (:user_ids::uuid[]) returning user_id
)
update users set last_seen_at = clock_timestamp() where user_id in (select user_id from gone);

-- name: list_presences(user_ids)
-- record_class: Presence
-- Online on one instance is online, whatever the others say ('online' comes behind 'away').
select u.user_id, coalesce(p.state, 'offline') as state, case when p.state is null then u.last_seen_at end as last_seen_at
  from users u
 cross join lateral (
        select max(p.state) as state
          from presences p
          join presence_instances i using (instance_id)
         where p.user_id = u.user_id and i.expires_at > clock_timestamp()) p
 where u.user_id = any (:user_ids::uuid[]) and u.status = 'active';

-- name: list_near(watcher_id, user_ids)
-- record_class: Near
-- Those with whom the watcher shares a conversation; `hidden` says that one of the two has blocked the other.
select o.user_id,
       exists (
           select from user_blocks b
            where (b.blocker_id = o.user_id and b.blocked_id = :watcher_id::uuid)
               or (b.blocker_id = :watcher_id::uuid and b.blocked_id = o.user_id)) as hidden
  from unnest(:user_ids::uuid[]) as o (user_id)
 where exists (
    select from conversation_participants mine
      join conversation_participants theirs using (conversation_id)
     where mine.user_id = :watcher_id::uuid and mine.left_at is null
       and theirs.user_id = o.user_id and theirs.left_at is null);
