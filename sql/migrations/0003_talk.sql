-- Conversations, who takes part in them, and their messages.

create table conversations (
    conversation_id uuid primary key,
    kind text not null check (kind in ('private', 'group', 'ai', 'thread', 'live')),
    title text check (length(title) <= 200),
    listing_id uuid,
    thread_id uuid,
    -- The two people of a private conversation, the lower id first.
    low_user_id uuid references users (user_id),
    high_user_id uuid references users (user_id),
    created_by uuid not null references users (user_id),
    version int not null default 1,
    at timestamptz not null default now(),
    check ((kind = 'private') = (low_user_id is not null and high_user_id is not null)),
    check (low_user_id < high_user_id)
);
-- A private conversation is unique for (pair, listing): two phones that open it at the same moment open the same one.
create unique index conversations_pair_key on conversations (low_user_id, high_user_id, listing_id) nulls not distinct
    where low_user_id is not null;
create index conversations_high_user_id on conversations (high_user_id) where high_user_id is not null;
create index conversations_created_by on conversations (created_by);

create table conversation_participants (
    conversation_id uuid not null references conversations (conversation_id),
    user_id uuid not null references users (user_id),
    role text not null default 'member' check (role in ('owner', 'admin', 'member')),
    joined_at timestamptz not null default now(),
    joined_seq bigint not null default 0,            -- history and replay begin behind it
    read_seq bigint not null default 0,
    delivered_seq bigint not null default 0,
    muted_until timestamptz,
    archived boolean not null default false,
    pinned boolean not null default false,
    left_at timestamptz,
    primary key (conversation_id, user_id)
);
create index conversation_participants_user_id on conversation_participants (user_id, conversation_id);

create table messages (
    message_id uuid primary key,
    conversation_id uuid not null references conversations (conversation_id),
    seq bigint not null check (seq > 0),             -- its message:created in the room's log
    sender_id uuid not null references users (user_id),
    client_id text not null check (length(client_id) between 1 and 64),
    body_hmac bytea not null,                        -- of the payload that made it: an edit must not make a resend look new
    type text not null check (type in ('text', 'image', 'offer', 'system', 'ai')),
    text text,
    reply_to_id uuid references messages (message_id),
    version int not null default 1,
    at timestamptz not null,
    edited_at timestamptz,
    deleted_at timestamptz,
    -- One row for each send, for good: the promise "never doubled" rests on it.
    constraint messages_client_id_key unique (sender_id, client_id),
    constraint messages_seq_key unique (conversation_id, seq)
);
create index messages_reply_to_id on messages (reply_to_id) where reply_to_id is not null;

-- Stores a batch of messages in one round trip: rooms locked in order of id, then, on a fresh snapshot (a volatile function
-- takes one for each statement in READ COMMITTED), repeats and membership judged, order given, messages and log written.
-- A send that waited behind a removal is judged after it.
--
-- `wait` false skips the rooms that somebody holds and says `busy`; true waits for them, up to lock_timeout.
-- `body` is the message as JSON without message_id, seq and at, which are known here alone; `payload` is the whole.
-- outcome: sent · repeat · key_reuse · not_found (the room, or one's part in it) · no_reply (the message replied to) · busy.
--
-- The plan is made once a connection and kept: left to itself the planner may plan the whole anew for every call (measured
-- on single sends: 912 → 295 µs of PostgreSQL's CPU). So its shape must not hang on what the tables held at that moment:
-- sequential scans and the joins that need them are off, and each lookup stands in a lateral of its own (`offset 0`), which
-- can only be one probe of an index a row. As plain joins, a plan made while messages was empty read the whole of it for
-- every batch afterwards (850 ms at 90,000 messages).
create function append_messages(
    conversation_ids uuid[], sender_ids uuid[], client_ids text[], body_hmacs bytea[],
    texts text[], reply_to_ids uuid[], bodies text[], wait boolean
) returns table (ord bigint, outcome text, message_id uuid, seq bigint, at timestamptz, payload text)
language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    held uuid[];
    moment timestamptz;
begin
    if wait then
        select array_agg(room_id) into held from (
            select room_id from rooms where room_id = any (conversation_ids) order by room_id for no key update) r;
    else
        select array_agg(room_id) into held from (
            select room_id from rooms where room_id = any (conversation_ids)
             order by room_id for no key update skip locked) r;
    end if;
    held := coalesce(held, '{}');
    moment := date_trunc('milliseconds', clock_timestamp());
    return query
    with input as materialized (
        select *
          from unnest(conversation_ids, sender_ids, client_ids, body_hmacs, texts, reply_to_ids, bodies) with ordinality
               as t (conversation_id, sender_id, client_id, body_hmac, text, reply_to_id, body, ord)
    ), judged as materialized (
        select i.*, old.message_id as old_id, old.seq as old_seq, old.at as old_at,
               case
                   when i.conversation_id <> all (held)
                        and exists (select from rooms r where r.room_id = i.conversation_id) then 'busy'
                   when old.body_hmac = i.body_hmac then 'repeat'
                   when old.message_id is not null then 'key_reuse'
                   when p.user_id is null then 'not_found'
                   when i.reply_to_id is not null and not exists (
                        select from (select m.conversation_id, m.seq from messages m
                                      where m.message_id = i.reply_to_id offset 0) r
                         where r.conversation_id = i.conversation_id and r.seq > p.joined_seq) then 'no_reply'
                   else 'sent'
               end as outcome
          from input i
          left join lateral (
                 select m.message_id, m.seq, m.at, m.body_hmac from messages m
                  where m.sender_id = i.sender_id and m.client_id = i.client_id offset 0) old on true
          left join lateral (
                 select q.user_id, q.joined_seq from conversation_participants q
                  where q.conversation_id = i.conversation_id and q.user_id = i.sender_id and q.left_at is null
                 offset 0) p on true
    ), bumped as (
        update rooms r
           set last_seq = r.last_seq + c.n, last_at = moment
          from (select conversation_id, count(*) as n from judged where outcome = 'sent' group by conversation_id) c
         where r.room_id = c.conversation_id and r.room_id = any (held)
        returning r.room_id, r.last_seq - c.n as before
    ), numbered as materialized (
        select j.*, uuidv7() as new_id,
               b.before + row_number() over (partition by j.conversation_id order by j.ord) as new_seq
          from judged j
          join bumped b on b.room_id = j.conversation_id
         where j.outcome = 'sent'
    ), placed as materialized (
        select n.*,
               left(n.body, -1) || ',"message_id":"' || n.new_id || '","seq":' || n.new_seq
                   || ',"at":"' || wire_time(moment) || '"}' as payload
          from numbered n
    ), stored as (
        insert into messages
               (message_id, conversation_id, seq, sender_id, client_id, body_hmac, type, text, reply_to_id, at)
        select new_id, conversation_id, new_seq, sender_id, client_id, body_hmac, 'text', text, reply_to_id, moment
          from placed order by ord
    ), logged as (
        insert into room_events (room_id, seq, at, name, payload, message_id)
        select conversation_id, new_seq, moment, 'message:created', payload::json, new_id from placed order by ord
    )
    select ord, outcome, new_id, new_seq, moment, payload from placed
    union all
    select ord, outcome, old_id, old_seq, old_at, null from judged where outcome <> 'sent'
    order by 1;
end $$;
