-- What is left of a person who has deleted their account.
-- Locks: the caller holds the person's row, and, for blank_events, their own room's.

-- name: erase_user(user_id)!
-- What others' messages and deals point to stays, under a name that says nothing.
update users
   set status = 'deleted', username = 'deleted-' || replace(user_id::text, '-', ''),
       email = replace(user_id::text, '-', '') || '@deleted.invalid', password_hash = null, full_name = null,
       full_name_ar = null, phone = null, whatsapp_number = null, profile_picture_url = null, locale = 'en', roles = '{}',
       status_reason = null, preferences = '{}', notification_channels = '{}', last_login_at = null, last_seen_at = null,
       updated_at = now()
 where user_id = :user_id;

-- name: erase_devices(user_id)!
update user_sessions set device = null, address = null where user_id = :user_id;

-- name: delete_tokens(user_id)!
delete from auth_tokens
 where user_id = :user_id or session_id in (select session_id from user_sessions where user_id = :user_id);

-- name: delete_blocks(user_id)!
delete from user_blocks where blocker_id = :user_id or blocked_id = :user_id;

-- name: erase_reports(user_id)!
-- What they wrote in their own words; a report has a reason.
update reports set text = null, reason = 'erased' where reporter_id = :user_id;

-- name: blank_events(user_id, after, most)$
-- A page of what their own devices were told, but for the ends of sessions, on which the sockets' closing hangs. Under a name
-- that no client knows, since clients pass over what they do not know, and nothing is made of an empty payload. The
-- seq up to which it went, null behind the last.
with page as (
    select seq from room_events where room_id = :user_id and seq > :after::bigint order by seq limit :most
), blanked as (
    update room_events e
       set name = 'event:erased', payload = '{}'
      from page p
     where e.room_id = :user_id and e.seq = p.seq and e.name <> 'session:revoked'
)
select max(seq) as seq from page;

-- name: list_rooms(user_id, after, most)
-- Where the person takes part, by id.
select conversation_id from conversation_participants
 where user_id = :user_id and left_at is null and conversation_id > :after::uuid
 order by conversation_id limit :most;

-- name: find_group(user_id)$
select p.conversation_id
  from conversation_participants p
  join conversations c using (conversation_id)
 where p.user_id = :user_id and p.left_at is null and c.kind = 'group'
 order by p.conversation_id limit 1;

-- name: list_messages(user_id, after, most)
-- record_class: Said
-- In the order of the index that makes a send the same send: no other is needed for this.
select message_id, conversation_id, client_id from messages
 where sender_id = :user_id and client_id > :after and deleted_at is null
 order by client_id limit :most;

-- name: note_finished(user_id)!
update users set erased_at = now() where user_id = :user_id;

-- name: list_unfinished(most)
select user_id from users where status = 'deleted' and erased_at is null order by user_id limit :most;
