-- Which threads are hot: whose hundredth-latest event is younger than a day.
-- Locks: set_hot's caller holds the thread's row, and its room.

-- name: list_turning(after, most)
-- record_class: Turning
-- A page of the threads, by id: those of them that have to turn. Only those are looked at that are hot, or were active within
-- a day. The last row says where the page ends.
with page as materialized (
    select thread_id, is_hot from threads
     where deleted_at is null and (:after::uuid is null or thread_id > :after::uuid)
     order by thread_id limit :most
), turning as (
    select p.thread_id
      from page p
      join rooms r on r.room_id = p.thread_id
     where (p.is_hot or r.last_at > clock_timestamp() - interval '1 day') and p.is_hot <> is_hot(p.thread_id)
)
select p.thread_id, t.thread_id is not null as turns
  from page p
  left join turning t on t.thread_id = p.thread_id
 where t.thread_id is not null or p.thread_id = (select l.thread_id from page l order by l.thread_id desc limit 1)
 order by p.thread_id;

-- name: is_hot(thread_id)$
select is_hot(:thread_id::uuid) as hot;

-- name: set_hot(thread_id, is_hot)!
update threads set is_hot = :is_hot where thread_id = :thread_id;
