-- Conversations and what their viewer sees of them.
-- Locks: lock_conversation takes the conversation's row `for no key update` (messages' foreign keys take `key share`), before
-- any room's.

-- name: create_conversation(conversation_id, kind, title, listing_id, thread_id, low_user_id, high_user_id, created_by)$
-- No row where this pair has a private conversation about this listing already.
insert into conversations (conversation_id, kind, title, listing_id, thread_id, low_user_id, high_user_id, created_by)
values (:conversation_id, :kind, :title, :listing_id, :thread_id, :low_user_id, :high_user_id, :created_by)
on conflict (low_user_id, high_user_id, listing_id) where low_user_id is not null and detached_at is null do nothing
returning conversation_id;

-- name: find_private(low_user_id, high_user_id, listing_id)$
select conversation_id from conversations
 where kind = 'private' and low_user_id = :low_user_id and high_user_id = :high_user_id
   and listing_id is not distinct from :listing_id and detached_at is null;

-- name: lock_conversation(conversation_id)^
-- record_class: Header
select kind, title, version, changed_by from conversations where conversation_id = :conversation_id for no key update;

-- name: rename(conversation_id, title, changed_by)!
update conversations set title = :title, version = version + 1, changed_by = :changed_by
 where conversation_id = :conversation_id;

-- name: get_mine(user_id, conversation_id)^
-- record_class: Mine
select p.conversation_id, p.read_seq, p.delivered_seq,
       unread(p.conversation_id, p.user_id, greatest(p.read_seq, p.joined_seq)) as unread_count, p.muted_until, p.archived,
       p.pinned
  from conversation_participants p
  join conversations c using (conversation_id)
 where p.conversation_id = :conversation_id and p.user_id = :user_id and p.left_at is null and c.closed_at is null;

-- name: set_mine(user_id, conversation_id, archived, muted_until, pinned)!
update conversation_participants
   set archived = :archived, muted_until = :muted_until::timestamptz, pinned = :pinned
 where conversation_id = :conversation_id and user_id = :user_id;

-- name: mark(user_id, conversation_id, read, delivered)$
-- Never backwards and never beyond the head; what is read has been delivered.
update conversation_participants p
   set read_seq = greatest(p.read_seq, least(:read::bigint, r.last_seq)),
       delivered_seq = greatest(p.delivered_seq, least(greatest(:read::bigint, :delivered::bigint), r.last_seq))
  from rooms r
 where p.conversation_id = :conversation_id and p.user_id = :user_id and p.left_at is null
   and r.room_id = p.conversation_id
   and (p.read_seq < least(:read::bigint, r.last_seq)
        or p.delivered_seq < least(greatest(:read::bigint, :delivered::bigint), r.last_seq))
returning p.user_id;

-- name: is_crowd(conversation_id, people)$
select count(*) > :people::bigint as crowd from (
    select from conversation_participants
     where conversation_id = :conversation_id and left_at is null limit :people::bigint + 1) counted;

-- name: find_talk(conversation_id)^
-- record_class: Talk
select c.kind,
       c.kind = 'private' and exists (
           select from user_blocks b
            where (b.blocker_id = c.low_user_id and b.blocked_id = c.high_user_id)
               or (b.blocker_id = c.high_user_id and b.blocked_id = c.low_user_id)) as is_blocked
  from conversations c
 where c.conversation_id = :conversation_id;

-- name: list_conversations(user_id, conversation_ids)
-- record_class: ConversationRow
-- A thread may have so many members that they are not counted here.
select c.conversation_id, c.kind, c.title, c.listing_id, c.thread_id, r.last_seq as head_seq, c.version, c.at,
       p.read_seq, p.delivered_seq, p.muted_until, p.archived, p.pinned,
       case c.kind
           when 'thread' then (select t.member_count from threads t where t.thread_id = c.thread_id)
           else (select count(*) from conversation_participants o
                  where o.conversation_id = c.conversation_id and o.left_at is null)
       end as participant_count,
       unread(c.conversation_id, p.user_id, greatest(p.read_seq, p.joined_seq)) as unread_count
  from conversation_participants p
  join conversations c using (conversation_id)
  join rooms r on r.room_id = c.conversation_id
 where p.user_id = :user_id and p.left_at is null and p.conversation_id = any (:conversation_ids::uuid[])
   and c.closed_at is null;

-- name: page_conversations(user_id, archived, before_at, before_id, most)
-- record_class: Place
-- The viewer's conversations by latest activity, from behind a place on.
select p.conversation_id, r.last_at
  from conversation_participants p
  join rooms r on r.room_id = p.conversation_id
 where p.user_id = :user_id and p.left_at is null and p.archived = :archived
   and (:before_at::timestamptz is null
        or (date_trunc('milliseconds', r.last_at), p.conversation_id) < (:before_at::timestamptz, :before_id::uuid))
 order by date_trunc('milliseconds', r.last_at) desc, p.conversation_id desc
 limit :most;

-- name: wake(conversation_id)
-- Brings a conversation back to those who have archived it and not muted it; the caller holds its room and theirs.
update conversation_participants
   set archived = false
 where conversation_id = :conversation_id and archived and left_at is null
   and (muted_until is null or muted_until <= clock_timestamp())
returning user_id;
