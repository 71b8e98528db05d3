-- Who is there, as the instances that live say. No locks but the rows' own.

-- name: create_instance(instance_id, seconds)!
insert into presence_instances (instance_id, expires_at)
values (:instance_id, clock_timestamp() + make_interval(secs => :seconds::float8));

-- name: renew(instance_id, seconds)$
-- Not one that is closed: what it said is being forgotten.
update presence_instances
   set expires_at = clock_timestamp() + make_interval(secs => :seconds::float8)
 where instance_id = :instance_id and expires_at > '-infinity'
returning true as lives;

-- name: close_instances(instance_id)
-- One, or every one that lives no more (null), those included that are closed already.
update presence_instances
   set expires_at = '-infinity'
 where instance_id = :instance_id::uuid or (:instance_id::uuid is null and expires_at < clock_timestamp())
returning instance_id;

-- name: bury(instance_id, most)$
-- The people are locked in order of id. Whoever buries at the same moment takes others.
with dead as (
    select user_id, instance_id from presences where instance_id = :instance_id limit :most for update skip locked
), gone as (
    delete from presences p using dead d where p.user_id = d.user_id and p.instance_id = d.instance_id returning p.user_id
), held as (
    select user_id from users where user_id in (select user_id from gone) order by user_id for no key update
), seen as (
    update users u set last_seen_at = clock_timestamp() from held h where u.user_id = h.user_id
)
select count(*) from gone;

-- name: delete_instance(instance_id)!
delete from presence_instances i
 where i.instance_id = :instance_id and not exists (select from presences p where p.instance_id = i.instance_id);

-- name: set_states(instance_id, user_ids, states)$
-- Nothing, and null, of an instance that is closed, or has gone in a crash of PostgreSQL: the table is unlogged.
with own as (
    select instance_id from presence_instances where instance_id = :instance_id and expires_at > '-infinity' for key share
), said as (
    insert into presences (user_id, instance_id, state)
    select t.user_id, own.instance_id, t.state
      from own
     cross join unnest(:user_ids::uuid[], :states::text[]) as t (user_id, state)
    on conflict (user_id, instance_id) do update set state = excluded.state
)
select true as lives from own;

-- name: set_offline(instance_id, user_ids)!
-- The people are locked in order of id.
with gone as (
    delete from presences where instance_id = :instance_id and user_id = any (:user_ids::uuid[]) returning user_id
), held as (
    select user_id from users where user_id in (select user_id from gone) order by user_id for no key update
)
update users u set last_seen_at = clock_timestamp() from held h where u.user_id = h.user_id;

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
-- Those with whom the watcher shares a conversation that there still is; `hidden` says that one of the two has blocked the other.
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
       and theirs.user_id = o.user_id and theirs.left_at is null
       and not exists (
           select from conversations c where c.conversation_id = mine.conversation_id and c.closed_at is not null));

-- name: list_apart(watcher_ids, user_ids)
-- record_class: Pair
-- Of pairs those that share no conversation, or of which one has blocked the other. (`offset 0` keeps each look at blocks a
-- look into the key's index: else all blocks there are would be read into a hash, or all of somebody whom many have blocked.)
select o.watcher_id, o.user_id
  from unnest(:watcher_ids::uuid[], :user_ids::uuid[]) as o (watcher_id, user_id)
 where exists (select from user_blocks b where b.blocker_id = o.watcher_id and b.blocked_id = o.user_id offset 0)
    or exists (select from user_blocks b where b.blocker_id = o.user_id and b.blocked_id = o.watcher_id offset 0)
    or not exists (
    select from conversation_participants mine
      join conversation_participants theirs using (conversation_id)
     where mine.user_id = o.watcher_id and mine.left_at is null
       and theirs.user_id = o.user_id and theirs.left_at is null
       and not exists (
           select from conversations c
            where c.conversation_id = mine.conversation_id and c.closed_at is not null offset 0));
