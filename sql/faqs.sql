-- Questions about listings, answered by their owners, and what others reply.
-- Locks: none of its own: who writes holds the listing's row, `for share`, or to accept `for no key update`.

-- name: create_faq(faq_id, listing_id, user_id, question_id, parent_id, type, text)!
insert into listing_faqs (faq_id, listing_id, user_id, question_id, parent_id, type, text, at)
values (:faq_id, :listing_id, :user_id, :question_id, :parent_id, :type, :text, date_trunc('milliseconds', clock_timestamp()));

-- name: get_faq(faq_id)^
-- record_class: FaqRow
select faq_id, listing_id, user_id, question_id, parent_id, type, text, is_accepted, at
  from listing_faqs where faq_id = :faq_id;

-- name: list_faqs(listing_id, question_id, faq_id, most)
-- record_class: FaqRow
-- The newest question first, each before what was said to it, in the order of time; from behind a place on.
select faq_id, listing_id, user_id, question_id, parent_id, type, text, is_accepted, at
  from listing_faqs
 where listing_id = :listing_id
   and (:question_id::uuid is null
        or question_id <= :question_id::uuid and (question_id < :question_id::uuid or faq_id > :faq_id::uuid))
 order by question_id desc, faq_id limit :most;

-- name: accept_nothing(parent_id)!
update listing_faqs set is_accepted = false where parent_id = :parent_id and is_accepted;

-- name: accept_faq(faq_id)!
update listing_faqs set is_accepted = true where faq_id = :faq_id;
