-- Threads: made, found, changed, deleted.
-- Locks: lock_thread takes the thread's row `for no key update`, before its conversation's, its listings' and any room's;
-- share_thread `for share`: nobody leaves the thread and nobody deletes it until the transaction ends.

-- name: create_thread(thread_id, owner_id, title, description, category)!
insert into threads (thread_id, owner_id, title, description, category)
values (:thread_id, :owner_id, :title, :description, :category);

-- name: lock_thread(thread_id)^
-- record_class: LockedThread
select thread_id, title, description, category, owner_id, member_count, boost_level, boost_points, is_hot, is_pinned, version,
       at, changed_by, deleted_at is not null as is_deleted
  from threads where thread_id = :thread_id
   for no key update;

-- name: share_thread(thread_id)$
select thread_id from threads where thread_id = :thread_id and deleted_at is null for share;

-- name: list_threads(viewer_id, thread_ids)
-- record_class: Thread
select t.thread_id, t.title, t.description, t.category, t.owner_id, t.member_count, t.boost_level, t.boost_points, t.is_hot,
       t.is_pinned, t.version, t.at, m.user_id is not null as joined, coalesce(m.is_favorite, false) as favorite
  from threads t
  left join thread_members m on m.thread_id = t.thread_id and m.user_id = :viewer_id
 where t.thread_id = any (:thread_ids::uuid[]) and t.deleted_at is null;

-- name: page_threads(viewer_id, joined, before_pinned, before_id, most)
-- record_class: Place
-- Pinned ones first, then the newest; all of them, or those that the viewer has joined, or has not.
select t.thread_id, t.is_pinned
  from threads t
 where t.deleted_at is null
   and (:before_id::uuid is null or (t.is_pinned, t.thread_id) < (:before_pinned::boolean, :before_id::uuid))
   and (:joined::boolean is null
        or exists (
            select from thread_members m where m.thread_id = t.thread_id and m.user_id = :viewer_id::uuid) = :joined)
 order by t.is_pinned desc, t.thread_id desc
 limit :most;

-- name: page_category(category, viewer_id, joined, before_pinned, before_id, most)
-- record_class: Place
-- The same of one category.
select t.thread_id, t.is_pinned
  from threads t
 where t.category = :category and t.deleted_at is null
   and (:before_id::uuid is null or (t.is_pinned, t.thread_id) < (:before_pinned::boolean, :before_id::uuid))
   and (:joined::boolean is null
        or exists (
            select from thread_members m where m.thread_id = t.thread_id and m.user_id = :viewer_id::uuid) = :joined)
 order by t.is_pinned desc, t.thread_id desc
 limit :most;

-- name: page_joined(viewer_id, category, before_pinned, before_id, most)
-- record_class: Place
-- Those that the viewer has joined, of whom there is a bounded number: by way of these, however many others there are.
select t.thread_id, t.is_pinned
  from thread_members m
  join threads t using (thread_id)
 where m.user_id = :viewer_id and t.deleted_at is null
   and (:category::text is null or t.category = :category)
   and (:before_id::uuid is null or (t.is_pinned, t.thread_id) < (:before_pinned::boolean, :before_id::uuid))
 order by t.is_pinned desc, t.thread_id desc
 limit :most;

-- name: update_thread(thread_id, title, description, category, is_pinned, changed_by)!
-- A thread's conversation has its title and its version.
with changed as (
    update threads
       set title = :title, description = :description, category = :category, is_pinned = :is_pinned,
           version = version + 1, changed_by = :changed_by
     where thread_id = :thread_id
    returning thread_id, title, version
)
update conversations c
   set title = t.title, version = t.version
  from changed t
 where c.conversation_id = t.thread_id;

-- name: hand_over(thread_id, owner_id)!
with changed as (
    update threads
       set owner_id = :owner_id, version = version + 1, changed_by = null
     where thread_id = :thread_id
    returning thread_id, version
)
update conversations c
   set version = t.version
  from changed t
 where c.conversation_id = t.thread_id;

-- name: delete_thread(thread_id, deleted_by)!
-- Marked: nobody sees it from here on, and nothing is said in it. The caller holds its room.
with gone as (
    update threads
       set deleted_at = clock_timestamp(), changed_by = :deleted_by
     where thread_id = :thread_id
    returning thread_id, deleted_at
)
update conversations c
   set closed_at = g.deleted_at
  from gone g
 where c.conversation_id = g.thread_id;
