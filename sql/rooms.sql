-- The room log: heads, events after a seq, what has moved, and the sweep.
-- Locks: lock_rooms and append_events take the rooms' rows `for no key update`, in order of id, after every domain row.

-- name: find_deployment()^
-- record_class: Deployment
select epoch, digest_key from deployment;

-- name: replace_epoch()$
update deployment set epoch = gen_random_uuid() returning epoch;

-- name: lift_timeout()$
-- For this connection's life: what follows reads and writes the whole log.
select set_config('statement_timeout', '0', false);

-- name: forget_xids()!
-- After a restore into another cluster the stored transaction ids mean nothing, and large ones would be read every second.
update room_events set xid = '0' where xid <> '0';

-- name: create_room(room_id, kind)!
insert into rooms (room_id, kind) values (:room_id, :kind) on conflict (room_id) do nothing;

-- name: lock_rooms(room_ids)
-- record_class: Head
select room_id, kind, last_seq from rooms where room_id = any (:room_ids::uuid[]) order by room_id for no key update;

-- name: list_heads(room_ids)
-- record_class: Head
select room_id, kind, last_seq from rooms where room_id = any (:room_ids::uuid[]);

-- name: append_events(room_ids, names, payloads, message_ids)
-- record_class: Placed
select ord, seq, at
  from append_events(:room_ids::uuid[], :names::text[], :payloads::text[], :message_ids::uuid[]);

-- name: list_events(room_ids, afters, room_rows, rows, bytes)
-- record_class: LoggedEvent
-- Of each room what follows `after`, in order: at most `room_rows` a room, and in all at most `rows` and `bytes` of payload
-- (one event at least, however large).
select room_id, seq, at, name, payload
  from (
    select e.room_id, e.seq, e.at, e.name, e.payload::text as payload,
           row_number() over (order by r.ord, e.seq) as n,
           sum(octet_length(e.payload::text)) over (order by r.ord, e.seq) as total
      from unnest(:room_ids::uuid[], :afters::bigint[]) with ordinality as r (room_id, after, ord)
     cross join lateral (
            select room_id, seq, at, name, payload from room_events
             where room_id = r.room_id and seq > r.after
             order by seq limit :room_rows) e) paged
 where n = 1 or (n <= :rows and total <= :bytes)
 order by n;

-- name: measure_events(room_ids, afters, heads)
-- record_class: Measured
-- How many events there are behind each `after` up to each head, and the bytes of their payloads; `n` is its place among those
-- asked for.
select r.n, m.events, m.bytes
  from unnest(:room_ids::uuid[], :afters::bigint[], :heads::bigint[]) with ordinality as r (room_id, after, head, n)
 cross join lateral (
        select count(*)::int as events, sum(octet_length(payload::text))::int as bytes
          from room_events where room_id = r.room_id and seq > r.after and seq <= r.head) m
 where m.events > 0;

-- name: count_events(room_id, after, head)$
select count(*)::int as events from room_events where room_id = :room_id and seq > :after and seq <= :head;

-- name: find_snapshot()$
-- Which transactions have ended, as text: what `list_moved` is asked with.
select pg_current_snapshot()::text as snapshot;

-- name: list_moved(since)
-- record_class: MovedRow
-- The rooms whose log has rows of transactions that had not ended in the snapshot `since`, with their highest seq, the highest
-- of a blanked one, and the snapshot to ask with next. One statement, one snapshot: what it does not see had not ended in the
-- one it gives.
-- Not by the oldest one running: while one runs for minutes that would be every row of these minutes, every second.
with snapshot as materialized (
    select pg_current_snapshot()::text as snapshot
), moved as (
    select e.room_id, r.kind, max(e.seq) as seq, max(e.seq) filter (where e.is_blanked) as blanked
      from room_events e
      join rooms r using (room_id)
     where e.xid >= pg_snapshot_xmax(:since::text::pg_snapshot)
        or e.xid = any (array(select pg_snapshot_xip(:since::text::pg_snapshot)))
     group by e.room_id, r.kind
)
select s.snapshot, d.epoch, m.room_id, m.kind, m.seq, m.blanked
  from snapshot s
 cross join deployment d
  left join moved m on true;

-- name: sweep_events(days, batch)!
-- Deletes what is older than `days`, oldest pages first, at most `batch` rows.
delete from room_events
 where ctid = any (array(
        select ctid from room_events where at < now() - make_interval(days => :days) limit :batch for update skip locked));

-- name: new_id()$
select uuidv7() as id;
