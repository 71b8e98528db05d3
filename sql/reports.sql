-- Reports: what somebody wants looked at, and what that is now.
-- Locks: lock_report takes the report's row `for update`, so that of two resolutions one is the second; create_report its
-- reporter's `for share`, so that whoever deletes them sees it.

-- name: create_report(report_id, reporter_id, subject_kind, subject_id, reason, text)$
-- No row where the reporter can't see the subject, or has been deleted.
insert into reports (report_id, reporter_id, subject_kind, subject_id, reason, text)
select :report_id::uuid, reporter.user_id, :subject_kind::text, :subject_id::uuid, :reason::text, :text::text
  from users reporter
 where reporter.user_id = :reporter_id::uuid and reporter.status <> 'deleted'
   and case :subject_kind::text
           when 'user' then exists (
               select from users where user_id = :subject_id::uuid and status <> 'deleted')
           when 'conversation' then exists (
               select from conversation_participants p
                 join conversations c using (conversation_id)
                where conversation_id = :subject_id::uuid and p.user_id = :reporter_id::uuid and p.left_at is null
                  and c.closed_at is null)
           when 'message' then exists (
               select from messages m
                 join conversations c using (conversation_id)
                 join conversation_participants p using (conversation_id)
                where m.message_id = :subject_id::uuid and p.user_id = :reporter_id::uuid and p.left_at is null
                  and m.seq > p.joined_seq and c.closed_at is null)
           when 'listing' then exists (
               select from listings l
                where l.listing_id = :subject_id::uuid and l.deleted_at is null
                  and not exists (select from threads t where t.thread_id = l.thread_id and t.deleted_at is not null))
           when 'faq' then exists (
               select from listing_faqs f
                 join listings l using (listing_id)
                where f.faq_id = :subject_id::uuid and f.text is not null and l.deleted_at is null
                  and not exists (select from threads t where t.thread_id = l.thread_id and t.deleted_at is not null))
       end
   for share of reporter
returning report_id;

-- name: get_report(report_id)^
-- record_class: ReportRow
select report_id, reporter_id, subject_kind, subject_id, reason, text, status, resolution, at, resolved_at, resolved_by
  from reports where report_id = :report_id;

-- name: lock_report(report_id)^
-- record_class: ReportRow
select report_id, reporter_id, subject_kind, subject_id, reason, text, status, resolution, at, resolved_at, resolved_by
  from reports where report_id = :report_id for update;

-- name: list_reports(status, before, most)
-- record_class: ReportRow
-- The newest first: ids are made in the order of time.
select report_id, reporter_id, subject_kind, subject_id, reason, text, status, resolution, at, resolved_at, resolved_by
  from reports
 where (:status::text is null or status = :status::text) and (:before::uuid is null or report_id < :before::uuid)
 order by report_id desc limit :most;

-- name: resolve_report(report_id, status, resolution, resolved_by)^
-- record_class: ReportRow
update reports
   set status = :status, resolution = :resolution, resolved_at = now(), resolved_by = :resolved_by
 where report_id = :report_id
returning report_id, reporter_id, subject_kind, subject_id, reason, text, status, resolution, at, resolved_at, resolved_by;

-- name: list_messages(message_ids)
-- record_class: Message
-- Those that still say something, whoever reads.
select conversation_id, sender_id, client_id, type, text, attachments, reply_to_id, offer, reactions,
       version, edited_at, deleted_at, message_id, seq, at
  from message_objects
 where message_id = any (:message_ids::uuid[]) and deleted_at is null;

-- name: list_conversations(conversation_ids)
-- record_class: ReportedConversation
select conversation_id, kind, title from conversations where conversation_id = any (:conversation_ids::uuid[]);

-- name: list_faqs(faq_ids)
-- record_class: Faq
-- Those that still say something, whoever reads, of listings that there still are.
select f.faq_id, f.listing_id, f.user_id, f.parent_id, f.type, f.text, f.is_accepted, f.at
  from listing_faqs f
  join listings l using (listing_id)
 where f.faq_id = any (:faq_ids::uuid[]) and f.text is not null and l.deleted_at is null
   and not exists (select from threads t where t.thread_id = l.thread_id and t.deleted_at is not null);
