-- What is left of a person who has deleted their account.
-- Blanking answers with the rooms whose logs were touched.
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
-- Their own; those who have blocked them are told (delete_blocks_of).
delete from user_blocks where blocker_id = :user_id;

-- name: list_blockers(user_id, most)
select blocker_id from user_blocks where blocked_id = :user_id order by blocker_id limit :most;

-- name: delete_blocks_of(user_id, blocker_ids)
-- The caller holds the blockers' rooms.
delete from user_blocks where blocked_id = :user_id and blocker_id = any (:blocker_ids::uuid[]) returning blocker_id;

-- name: find_listing(user_id)$
select listing_id from listings where user_id = :user_id and deleted_at is null limit 1;

-- name: blank_listing(listing_id)!
-- The caller holds it. What people agreed about it stays: kind, price, counts.
update listings
   set title = 'deleted', description = '', images = '[]', video = null, thumbnail = null, lat = null, lng = null,
       metadata = '{}', version = version + 1
 where listing_id = :listing_id;

-- name: delete_listing(listing_id)!
update listings set deleted_at = now() where listing_id = :listing_id;

-- name: blank_acts(user_id)!
-- What their phones wrote beside their acts on matches.
update match_interactions set metadata = '{}' where user_id = :user_id and metadata <> '{}';

-- name: list_posted(user_id, most)
-- record_class: Posted
select f.faq_id, f.listing_id, l.user_id as owner_id
  from listing_faqs f
  join listings l using (listing_id)
 where f.user_id = :user_id and f.text is not null
 order by f.faq_id limit :most;

-- name: blank_posted(faq_ids)
-- The caller holds the rooms in which they were told.
with blanked as (
    update listing_faqs set text = null where faq_id = any (:faq_ids::uuid[]) returning faq_id
)
update room_events e
   set payload = jsonb_set(e.payload::jsonb, '{text}', 'null', false)::json
  from blanked b
 where e.message_id = b.faq_id
returning e.room_id;

-- name: delete_likes(user_id)
-- A thousand at most; of which listings.
with liked as (
    select user_id, listing_id from wishlists where user_id = :user_id limit 1000
), gone as (
    delete from wishlists w using liked l where w.user_id = l.user_id and w.listing_id = l.listing_id
    returning w.listing_id
)
select listing_id from gone;

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
       set name = 'event:erased', payload = '{}', message_id = null
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
-- In the order of the index that makes a send the same send: no other is needed for this. What was offered stays said.
select message_id, conversation_id, client_id from messages
 where sender_id = :user_id and client_id > :after and deleted_at is null and type <> 'offer'
 order by client_id limit :most;

-- name: find_worded(user_id)$
-- A negotiation in which they wrote something with an offer.
select negotiation_id from offers where maker_id = :user_id and message is not null limit 1;

-- name: blank_offers(negotiation_id, user_id)
-- The caller holds the negotiation.
update offers set message = null, version = version + 1
 where negotiation_id = :negotiation_id and maker_id = :user_id and message is not null
returning offer_id;

-- name: blank_offer_events(offer_ids)
-- What the log keeps of it, wherever an offer stands in a payload.
update room_events
   set payload = jsonb_set(jsonb_set(jsonb_set(payload::jsonb,
           '{message}', 'null', false), '{offer,message}', 'null', false), '{current_offer,message}', 'null', false)::json
 where message_id = any (
    :offer_ids::uuid[] || array(select m.message_id from messages m where m.offer_id = any (:offer_ids::uuid[])))
returning room_id;

-- name: list_reviews(user_id, most)
-- record_class: Reviewed
select review_id, author_id, subject_id from reviews
 where author_id = :user_id and text is not null
 order by review_id limit :most;

-- name: blank_reviews(review_ids)
-- The caller holds the rooms in which they were told.
with blanked as (
    update reviews set text = null where review_id = any (:review_ids::uuid[]) returning review_id
)
update room_events e
   set payload = jsonb_set(e.payload::jsonb, '{text}', 'null', false)::json
  from blanked b
 where e.message_id = b.review_id
returning e.room_id;

-- name: note_finished(user_id)!
update users set erased_at = now() where user_id = :user_id;

-- name: list_unfinished(most)
select user_id from users where status = 'deleted' and erased_at is null order by user_id limit :most;
