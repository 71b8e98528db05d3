-- Conversations and what their viewer sees of them.
-- Locks: lock_conversation takes the conversation's row `for no key update` (messages' foreign keys take `key share`), before
-- any room's.

-- name: create_conversation(conversation_id, kind, title, listing_id, low_user_id, high_user_id, created_by)$
-- No row where this pair has a private conversation about this listing already.
insert into conversations (conversation_id, kind, title, listing_id, low_user_id, high_user_id, created_by)
values (:conversation_id, :kind, :title, :listing_id, :low_user_id, :high_user_id, :created_by)
on conflict (low_user_id, high_user_id, listing_id) where low_user_id is not null do nothing
returning conversation_id;

-- name: find_private(low_user_id, high_user_id, listing_id)$
select conversation_id from conversations
 where kind = 'private' and low_user_id = :low_user_id and high_user_id = :high_user_id
   and listing_id is not distinct from :listing_id;

-- name: lock_conversation(conversation_id)$
select kind from conversations where conversation_id = :conversation_id for no key update;

-- name: bump_version(conversation_id)!
update conversations set version = version + 1 where conversation_id = :conversation_id;

-- name: list_conversations(user_id, conversation_ids)
-- record_class: ConversationRow
-- unread: other people's messages behind one's read mark, counted to 1,000.
select c.conversation_id, c.kind, c.title, c.listing_id, c.thread_id, r.last_seq as head_seq, c.version, c.at,
       p.read_seq, p.delivered_seq, p.muted_until, p.archived, p.pinned,
       (select count(*) from conversation_participants o
         where o.conversation_id = c.conversation_id and o.left_at is null) as participant_count,
       (select count(*) from (
            select from messages m
             where m.conversation_id = c.conversation_id and m.seq > greatest(p.read_seq, p.joined_seq)
               and m.sender_id <> p.user_id and m.deleted_at is null
             limit 1000) unread) as unread_count
  from conversation_participants p
  join conversations c using (conversation_id)
  join rooms r on r.room_id = c.conversation_id
 where p.user_id = :user_id and p.left_at is null and p.conversation_id = any (:conversation_ids::uuid[]);

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
