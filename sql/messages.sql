-- Messages. append_messages locks the rooms' rows in order of id and judges behind the lock: see its migration.

-- name: append_messages(conversation_ids, sender_ids, client_ids, body_hmacs, texts, reply_to_ids, bodies, wait)
-- record_class: Appended
select ord, outcome, message_id, seq, at, payload
  from append_messages(
       :conversation_ids::uuid[], :sender_ids::uuid[], :client_ids::text[], :body_hmacs::bytea[],
       :texts::text[], :reply_to_ids::uuid[], :bodies::text[], :wait::boolean);

-- name: list_before(reader_id, conversation_id, before_seq, most)
-- record_class: Message
-- The page that ends below `before_seq`, latest first, from the reader's joining on. Their part is judged in the same
-- statement: what came after a removal is nobody's to read.
select m.conversation_id, m.sender_id, m.client_id, m.type, m.text, m.reply_to_id, m.version, m.edited_at, m.deleted_at,
       m.message_id, m.seq, m.at
  from conversation_participants p
  join messages m on m.conversation_id = p.conversation_id and m.seq > p.joined_seq
 where p.conversation_id = :conversation_id and p.user_id = :reader_id and p.left_at is null
   and (:before_seq::bigint is null or m.seq < :before_seq)
 order by m.seq desc limit :most;

-- name: list_after(reader_id, conversation_id, after_seq, most)
-- record_class: Message
select m.conversation_id, m.sender_id, m.client_id, m.type, m.text, m.reply_to_id, m.version, m.edited_at, m.deleted_at,
       m.message_id, m.seq, m.at
  from conversation_participants p
  join messages m on m.conversation_id = p.conversation_id and m.seq > p.joined_seq
 where p.conversation_id = :conversation_id and p.user_id = :reader_id and p.left_at is null
   and m.seq > :after_seq::bigint
 order by m.seq limit :most;

-- name: list_latest(user_id, conversation_ids)
-- record_class: Message
-- The last message of each conversation that the person may see.
select m.conversation_id, m.sender_id, m.client_id, m.type, m.text, m.reply_to_id, m.version, m.edited_at, m.deleted_at,
       m.message_id, m.seq, m.at
  from conversation_participants p
 cross join lateral (
        select * from messages where conversation_id = p.conversation_id and seq > p.joined_seq
         order by seq desc limit 1) m
 where p.user_id = :user_id and p.conversation_id = any (:conversation_ids::uuid[]) and p.left_at is null;
