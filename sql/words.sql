-- What the log says of threads, listings, questions and matches, taken out of it before these go.
-- Locks: the caller holds what goes, so that nobody tells of it any more, and the rooms of the events that are blanked.

-- name: list_worded(object_ids, most)
-- record_class: Worded
select room_id, seq from worded_events(:object_ids::uuid[], :most);

-- name: blank_worded(room_ids, seqs, object_ids, gone)!
-- A match's event that keeps the words of one side stands under that listing from now on, and goes with it.
update room_events e
   set payload = without_words(e.name, e.payload::jsonb, :gone::uuid[])::json,
       message_id = case
           when e.name like 'match:%' and e.message_id <> all (:gone::uuid[]) then (
               select listing_id
                 from unnest(array[e.payload #>> '{source_listing,listing_id}',
                                   e.payload #>> '{matched_listing,listing_id}']::uuid[]) as side (listing_id)
                where listing_id <> all (:gone::uuid[]) limit 1) end
  from unnest(:room_ids::uuid[], :seqs::bigint[]) as p (room_id, seq)
 where e.room_id = p.room_id and e.seq = p.seq and e.message_id = any (:object_ids::uuid[]);
