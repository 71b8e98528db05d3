-- The room log and its machinery: ids, epoch, rooms, their ordered events, the memory of client keys.

-- PostgreSQL 18 brings uuidv7(); before it, the same layout (RFC 9562: 48 bits of milliseconds, version, random) from a v4.
do $$
begin
    if to_regproc('pg_catalog.uuidv7') is null then
        create function uuidv7() returns uuid language sql volatile parallel safe as $body$
            select encode(
                set_bit(set_bit(
                    overlay(
                        uuid_send(gen_random_uuid())
                        placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                        from 1 for 6),
                    52, 1), 53, 1),
                'hex')::uuid
        $body$;
    end if;
end $$;

-- A time as the contract spells it: RFC 3339, UTC, milliseconds.
create function wire_time(at timestamptz) returns text language sql stable strict parallel safe as $$
    select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

-- What this database is. The epoch changes only when a backup has been restored; the digest key outlives every
-- PARLEY_SECRET, so that rotating secrets never makes an old client_id look new.
create table deployment (
    only_row boolean primary key default true check (only_row),
    epoch uuid not null default gen_random_uuid(),
    digest_key bytea not null default uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
);
insert into deployment default values;

-- One row a room. Its row lock makes the order of the room's events total. No index but the key: every append updates
-- the row, and an index on what it changes would end HOT updates.
create table rooms (
    room_id uuid primary key,
    kind text not null check (kind in ('user', 'conversation', 'thread', 'listing', 'live')),
    last_seq bigint not null default 0 check (last_seq >= 0),
    last_at timestamptz not null default now()
) with (fillfactor = 70);

-- What was pushed, in order, without holes. `json` and not `jsonb`: live and replayed payloads are equal to the byte.
-- No foreign key to rooms: append_events and append_messages hold the room's row when they write here.
create table room_events (
    room_id uuid not null,
    seq bigint not null check (seq > 0),
    at timestamptz not null,
    name text not null,
    payload json not null,
    message_id uuid,
    xid xid8 not null default pg_current_xact_id(),
    primary key (room_id, seq)
);
-- The comparison of every second reads what has been committed since the last one.
create index room_events_xid on room_events (xid);
-- An erasure blanks the logged payloads of a message.
create index room_events_message_id on room_events (message_id) where message_id is not null;
-- The sweep deletes the oldest; rows arrive in order of time, so a BRIN costs an insert next to nothing.
create index room_events_at on room_events using brin (at) with (pages_per_range = 32);

-- Who created what under which client_id, for good. A key found again answers with the object it made.
create table command_keys (
    user_id uuid not null,
    command text not null,
    client_id text not null check (length(client_id) between 1 and 64),
    body_hmac bytea not null,
    result_id uuid not null default uuidv7(),
    at timestamptz not null default now(),
    primary key (user_id, command, client_id)
);

-- Appends events to their rooms' logs, in the order given: rooms locked in order of id, then numbered and written.
-- `at` is the clock after the locks, so that a later seq never has an earlier time but for a clock set back.
create function append_events(room_ids uuid[], names text[], payloads text[], message_ids uuid[])
returns table (ord bigint, seq bigint, at timestamptz) language plpgsql as $$
#variable_conflict use_column
declare
    moment timestamptz;
begin
    perform from rooms where room_id = any (room_ids) order by room_id for no key update;
    moment := date_trunc('milliseconds', clock_timestamp());
    return query
    with input as materialized (
        select *
          from unnest(room_ids, names, payloads, message_ids) with ordinality
               as t (room_id, name, payload, message_id, ord)
    ), bumped as (
        update rooms r
           set last_seq = r.last_seq + c.n, last_at = moment
          from (select room_id, count(*) as n from input group by room_id) c
         where r.room_id = c.room_id and r.room_id = any (room_ids)  -- however the plan was made, only these are read
        returning r.room_id, r.last_seq - c.n as before
    ), placed as materialized (
        select i.*, b.before + row_number() over (partition by i.room_id order by i.ord) as seq
          from input i
          join bumped b using (room_id)
    ), logged as (
        insert into room_events (room_id, seq, at, name, payload, message_id)
        select room_id, seq, moment, name, payload::json, message_id from placed
    )
    select placed.ord, placed.seq, moment from placed order by placed.ord;
end $$;
