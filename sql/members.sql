-- Who has joined a thread, and so takes part in its conversation: the two are written together.
-- Locks: writers hold the thread's row, then its room: what is sent there is judged by the participants alone.

-- name: create_owner(thread_id, user_id)!
-- Of a thread that has just been made.
with joined as (
    insert into thread_members (thread_id, user_id) values (:thread_id, :user_id)
), counted as (
    update threads set member_count = 1 where thread_id = :thread_id
)
insert into conversation_participants (conversation_id, user_id, role) values (:thread_id, :user_id, 'owner');

-- name: add_member(thread_id, user_id, head)!
-- Newcomers see all of it; what was said before them counts as read.
with joined as (
    insert into thread_members (thread_id, user_id) values (:thread_id, :user_id)
), counted as (
    update threads set member_count = member_count + 1 where thread_id = :thread_id
)
insert into conversation_participants (conversation_id, user_id, read_seq, delivered_seq)
values (:thread_id, :user_id, :head, :head)
on conflict (conversation_id, user_id) do update
   set role = excluded.role, joined_at = now(), joined_seq = 0, read_seq = excluded.read_seq,
       delivered_seq = excluded.delivered_seq, muted_until = null, archived = false, pinned = false, left_at = null;

-- name: remove_member(thread_id, user_id)!
with gone as (
    delete from thread_members where thread_id = :thread_id and user_id = :user_id
), counted as (
    update threads set member_count = member_count - 1 where thread_id = :thread_id
)
update conversation_participants set left_at = now()
 where conversation_id = :thread_id and user_id = :user_id and left_at is null;

-- name: is_member(thread_id, user_id)$
select exists (select from thread_members where thread_id = :thread_id and user_id = :user_id) as joined;

-- name: count_joined(user_id)$
select count(*) from thread_members where user_id = :user_id;

-- name: find_heir(thread_id)$
-- Who owns a thread when its owner has gone: whoever has stood in it the longest.
select user_id from conversation_participants
 where conversation_id = :thread_id and left_at is null and role <> 'owner'
 order by joined_at, user_id limit 1;

-- name: set_favorite(thread_id, user_id, is_favorite)$
update thread_members set is_favorite = :is_favorite where thread_id = :thread_id and user_id = :user_id
returning thread_id;

-- name: find_thread(user_id)$
-- One that the person has joined and that stands.
select m.thread_id
  from thread_members m
  join threads t using (thread_id)
 where m.user_id = :user_id and t.deleted_at is null
 order by m.thread_id limit 1;
