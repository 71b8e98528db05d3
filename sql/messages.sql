-- Messages. append_messages locks the rooms' rows in order of id and judges behind the lock: see its migration. Whatever
-- changes a message holds its conversation's room, so that no row of a message is locked by itself.

-- name: append_messages(conversation_ids, sender_ids, client_ids, body_hmacs, types, texts, reply_to_ids, attached, bodies, wait)
-- record_class: Appended
select ord, outcome, room_id, kind, message_id, seq, at, payload
  from append_messages(
       :conversation_ids::uuid[], :sender_ids::uuid[], :client_ids::text[], :body_hmacs::bytea[], :types::text[],
       :texts::text[], :reply_to_ids::uuid[], :attached::text[], :bodies::text[], :wait::boolean);

-- name: create_offer_message(conversation_id, seq, sender_id, offer_id)$
-- The caller holds the room. Its client_id is nobody's to choose: an offer's id is not known before it is made.
insert into messages (message_id, conversation_id, seq, sender_id, client_id, body_hmac, type, offer_id, at)
values (uuidv7(), :conversation_id, :seq, :sender_id, 'offer:' || :offer_id::uuid, sha256(uuid_send(:offer_id::uuid)), 'offer',
        :offer_id::uuid, date_trunc('milliseconds', clock_timestamp()))
returning message_id;

-- name: get_message(reader_id, message_id)^
-- record_class: Message
-- A message that the reader may see now; nobody sees those of a thread that has been deleted.
select m.conversation_id, m.sender_id, m.client_id, m.type, m.text, m.attachments, m.reply_to_id, m.offer, m.reactions,
       m.version, m.edited_at, m.deleted_at, m.message_id, m.seq, m.at
  from message_objects m
  join conversation_participants p on p.conversation_id = m.conversation_id and m.seq > p.joined_seq
  join conversations c on c.conversation_id = m.conversation_id
 where m.message_id = :message_id and p.user_id = :reader_id and p.left_at is null and c.closed_at is null;

-- name: keep_revision(message_id)!
insert into message_revisions (message_id, version, text, at)
select message_id, version, text, coalesce(edited_at, at) as since from messages
 where message_id = :message_id and text is not null;

-- name: edit_message(message_id, text)!
update messages
   set text = :text, version = version + 1, edited_at = date_trunc('milliseconds', clock_timestamp())
 where message_id = :message_id;

-- name: has_revision(message_id, version, text)$
select exists (
    select from message_revisions
     where message_id = :message_id and version = :version and text = :text) as said_once;

-- name: list_revisions(message_id)
-- record_class: Revision
select version, text, at from message_revisions where message_id = :message_id order by version;

-- name: blank_messages(message_ids)
update messages
   set text = null, version = version + 1, deleted_at = date_trunc('milliseconds', clock_timestamp())
 where message_id = any (:message_ids::uuid[]) and deleted_at is null
returning message_id;

-- name: list_messages(message_ids)
-- record_class: Message
select conversation_id, sender_id, client_id, type, text, attachments, reply_to_id, offer, reactions,
       version, edited_at, deleted_at, message_id, seq, at
  from message_objects
 where message_id = any (:message_ids::uuid[])
 order by message_id;

-- name: blank_revisions(message_ids)!
delete from message_revisions where message_id = any (:message_ids::uuid[]);

-- name: blank_reactions(message_ids)!
delete from message_reactions where message_id = any (:message_ids::uuid[]);

-- name: blank_events(message_ids)!
-- What the log keeps of it; the seqs stay.
update room_events
   set payload = (payload::jsonb || '{"text": null, "attachments": [], "reactions": []}')::json
 where message_id = any (:message_ids::uuid[]);

-- name: detach(message_ids)
-- The files are the caller's to delete; the sweep takes what is left behind.
delete from message_attachments where message_id = any (:message_ids::uuid[]) returning file_id;

-- name: react(message_id, user_id, emoji)$
insert into message_reactions (message_id, user_id, emoji) values (:message_id, :user_id, :emoji)
on conflict (message_id, user_id, emoji) do nothing
returning message_id;

-- name: unreact(message_id, user_id, emoji)$
delete from message_reactions where message_id = :message_id and user_id = :user_id and emoji = :emoji
returning message_id;

-- name: count_emoji(message_id)$
select count(distinct emoji) from message_reactions where message_id = :message_id;

-- name: list_before(reader_id, conversation_id, before_seq, most)
-- record_class: Message
-- The page that ends below `before_seq`, latest first, from the reader's joining on. Their part is judged in the same
-- statement: what came after a removal is nobody's to read.
select m.conversation_id, m.sender_id, m.client_id, m.type, m.text, m.attachments, m.reply_to_id, m.offer, m.reactions,
       m.version, m.edited_at, m.deleted_at, m.message_id, m.seq, m.at
  from conversation_participants p
  join message_objects m on m.conversation_id = p.conversation_id and m.seq > p.joined_seq
 where p.conversation_id = :conversation_id and p.user_id = :reader_id and p.left_at is null
   and (:before_seq::bigint is null or m.seq < :before_seq)
 order by m.seq desc limit :most;

-- name: list_after(reader_id, conversation_id, after_seq, most)
-- record_class: Message
select m.conversation_id, m.sender_id, m.client_id, m.type, m.text, m.attachments, m.reply_to_id, m.offer, m.reactions,
       m.version, m.edited_at, m.deleted_at, m.message_id, m.seq, m.at
  from conversation_participants p
  join message_objects m on m.conversation_id = p.conversation_id and m.seq > p.joined_seq
 where p.conversation_id = :conversation_id and p.user_id = :reader_id and p.left_at is null
   and m.seq > :after_seq::bigint
 order by m.seq limit :most;

-- name: list_latest(user_id, conversation_ids)
-- record_class: Message
-- The last message of each conversation that the person may see.
select m.conversation_id, m.sender_id, m.client_id, m.type, m.text, m.attachments, m.reply_to_id, m.offer, m.reactions,
       m.version, m.edited_at, m.deleted_at, m.message_id, m.seq, m.at
  from conversation_participants p
 cross join lateral (
        select * from message_objects where conversation_id = p.conversation_id and seq > p.joined_seq
         order by seq desc limit 1) m
 where p.user_id = :user_id and p.conversation_id = any (:conversation_ids::uuid[]) and p.left_at is null;

-- name: search(reader_id, query, conversation_id, before_id, most)
-- record_class: Message
select m.conversation_id, m.sender_id, m.client_id, m.type, m.text, m.attachments, m.reply_to_id, m.offer, m.reactions,
       m.version, m.edited_at, m.deleted_at, m.message_id, m.seq, m.at
  from search_messages(:reader_id::uuid, :query::text, :conversation_id::uuid, :before_id::uuid, :most::int)
       with ordinality as found (message_id, ord)
  join message_objects m using (message_id)
 order by found.ord;
