-- Attachments: declared, uploaded, completed, found, swept.
-- Locks: whoever declares one holds their own row (users.sql, lock_user) before, so that of two declarations at once one
-- counts the other's bytes. lock_upload takes the attachment's row `for no key update`; record_upload writes it, so the two
-- come one after the other. append_messages takes those that a message is going to hold, in order of id. All come before any
-- room's row.

-- name: create_attachment(attachment_id, owner_id, name, content_type, size, sha256)!
insert into message_attachments (attachment_id, owner_id, name, content_type, size, sha256)
values (:attachment_id, :owner_id, :name, :content_type, :size, :sha256);

-- name: sum_unsent(owner_id)$
-- The bytes of what a person has declared and sent with no message, uploaded or not.
select coalesce(sum(size), 0)::bigint from message_attachments where owner_id = :owner_id and message_id is null;

-- name: find_own(attachment_id, owner_id)^
-- record_class: OwnAttachment
select attachment_id, name, content_type, size, encode(sha256, 'hex') as sha256, '/attachments/' || attachment_id as url,
       status = 'complete' as is_complete
  from message_attachments
 where attachment_id = :attachment_id and owner_id = :owner_id;

-- name: find_declared(attachment_id)^
-- record_class: Declared
select a.size, a.status = 'complete' as is_complete, u.status = 'active' as is_wanted
  from message_attachments a
  join users u on u.user_id = a.owner_id
 where a.attachment_id = :attachment_id;

-- name: record_upload(attachment_id, file_id, file_sha256, file_head)^
-- record_class: Recorded
-- No row where the attachment is complete by now, or gone.
with declared as (
    select attachment_id, file_id from message_attachments
     where attachment_id = :attachment_id and status = 'declared'
       for no key update
)
update message_attachments a
   set file_id = :file_id, file_sha256 = :file_sha256, file_head = :file_head
  from declared d
 where a.attachment_id = d.attachment_id
returning d.file_id as replaced_id;

-- name: lock_upload(attachment_id, owner_id)^
-- record_class: Upload
select content_type, size, sha256, status = 'complete' as is_complete, file_id, file_sha256, file_head
  from message_attachments
 where attachment_id = :attachment_id and owner_id = :owner_id
   for no key update;

-- name: complete_attachment(attachment_id)!
update message_attachments
   set status = 'complete', completed_at = now(), file_sha256 = null, file_head = null
 where attachment_id = :attachment_id and status = 'declared';

-- name: forget_upload(attachment_id)!
update message_attachments set file_id = null, file_sha256 = null, file_head = null where attachment_id = :attachment_id;

-- name: find_visible(attachment_id, user_id)$
-- Whether it is complete, for its owner and for those who may read the message that holds it; no row for everybody else, and
-- for whoever is not active.
select a.status = 'complete' as is_complete
  from message_attachments a
  join users u on u.user_id = :user_id and u.status = 'active'
 where a.attachment_id = :attachment_id
   and (a.owner_id = :user_id
        or exists (
            select from messages m
              join conversations c using (conversation_id)
              join conversation_participants p using (conversation_id)
             where m.message_id = a.message_id and m.deleted_at is null and c.closed_at is null
               and p.user_id = :user_id and p.left_at is null and m.seq > p.joined_seq));

-- name: find_file(attachment_id)^
-- record_class: File
select file_id, name, content_type, size, encode(sha256, 'hex') as sha256
  from message_attachments
 where attachment_id = :attachment_id and status = 'complete';

-- name: list_sendable(owner_ids, attachment_ids)
-- record_class: Sendable
-- Unlocked: append_messages locks them, and judges again whether they are the sender's and unsent.
select a.attachment_id, a.name, a.content_type, a.size, encode(a.sha256, 'hex') as sha256,
       '/attachments/' || a.attachment_id as url, a.owner_id
  from unnest(:owner_ids::uuid[], :attachment_ids::uuid[]) as asked (owner_id, attachment_id)
  join message_attachments a using (owner_id, attachment_id)
 where a.status = 'complete' and a.message_id is null;

-- name: sweep_unsent(hours, batch)
-- Deletes at most `batch` attachments that were never sent; answers with their files, null for those without one. One that
-- a send holds is passed over: it is a message's in a moment.
delete from message_attachments
 where attachment_id = any (array(
        select attachment_id from message_attachments
         where message_id is null and at < now() - make_interval(hours => :hours)
         order by at
         limit :batch
           for update skip locked))
returning file_id;

-- name: list_known_files(file_ids)
select file_id from message_attachments where file_id = any (:file_ids::uuid[]);
