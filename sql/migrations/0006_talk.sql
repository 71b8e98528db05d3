-- What people do with messages beside sending them, and the sending itself.

-- The title's version was brought about by this person: a repeat of their change is no conflict.
alter table conversations add changed_by uuid references users (user_id);
create index conversations_changed_by on conversations (changed_by) where changed_by is not null;

-- A message wakes an archived conversation: there are few, and every send looks here.
create index conversation_participants_archived on conversation_participants (conversation_id) where archived;

-- What a message said before it was edited.
create table message_revisions (
    message_id uuid not null references messages (message_id),
    version int not null check (version > 0),
    text text not null,
    at timestamptz not null,
    primary key (message_id, version)
);

create table message_reactions (
    message_id uuid not null references messages (message_id),
    user_id uuid not null references users (user_id),
    emoji text not null check (length(emoji) between 1 and 32),
    at timestamptz not null default clock_timestamp(),
    primary key (message_id, user_id, emoji)
);
create index message_reactions_user_id on message_reactions (user_id);

-- Search. One configuration for both languages, chosen by each word's script: English words by their stem, all others by the
-- Arabic one, which leaves other scripts alone; no stop words, or "the who" would find nothing.
do $$ begin
    create text search dictionary parley_english (template = snowball, language = english);
    create text search dictionary parley_arabic (template = snowball, language = arabic);
    create text search configuration parley (copy = simple);
    alter text search configuration parley alter mapping for asciiword, asciihword, hword_asciipart with parley_english;
    alter text search configuration parley alter mapping for word, hword, hword_part with parley_arabic;
end $$;

-- Spelling that Arabic writers vary is one: the forms of alef; alef maqsura and yeh; heh at the end of a word and teh marbuta,
-- which the stemmer knows. Vowel signs and tatweel go.
create function searchable(text text) returns text language sql immutable strict parallel safe
return regexp_replace(
    translate(
        text,
        U&'\0623\0625\0622\0671\0649\0640\064B\064C\064D\064E\064F\0650\0651\0652',
        U&'\0627\0627\0627\0627\064A'),
    U&'\0647\005CM', U&'\0629', 'g');

-- The conversation stands among the words, so that a search within one, or within a person's own, reads no others.
-- Measured with 10 words a message: 24 µs of PostgreSQL's CPU a send. (As an index over the expression alone it would be 18,
-- but every row that is looked at and not found through the index would be parsed anew.)
create function message_words(conversation_id uuid, text text) returns tsvector language sql immutable parallel safe
return to_tsvector('parley'::regconfig, searchable(text)) || array_to_tsvector(array[conversation_id::text]);
alter table messages add words tsvector generated always as (message_words(conversation_id, text)) stored;
create index messages_words on messages using gin (words);

-- Finds messages by words, the latest first, from behind the message `before` on; ids alone.
--
-- What is common is found among the latest 2,000 of the conversation, what is not by the index: neither reads much. Each
-- statement is planned for what is asked (`execute`): a plan for any words would read every message.
create function search_messages(reader uuid, query text, conversation uuid, before uuid, most int)
returns table (message_id uuid) language plpgsql stable as $$
#variable_conflict use_column
declare
    wanted tsquery := websearch_to_tsquery('parley', searchable(query));
    beginning bigint;
    ending bigint;
    low bigint;
    found int;
begin
    if numnode(wanted) = 0 then
        return;
    elsif conversation is null then
        select wanted && string_agg(quote_literal(p.conversation_id), ' | ')::tsquery into wanted
          from conversation_participants p where p.user_id = reader and p.left_at is null;
        return query execute
            'with found as materialized (
                 select message_id, conversation_id, seq from messages
                  where words @@ $1 and ($3 is null or message_id < $3)
             )
             select f.message_id
               from found f
               join conversation_participants p
                 on p.conversation_id = f.conversation_id and p.user_id = $2 and p.left_at is null and f.seq > p.joined_seq
              order by f.message_id desc limit $4'
            using wanted, reader, before, most;
        return;
    end if;
    select p.joined_seq into beginning from conversation_participants p
     where p.conversation_id = conversation and p.user_id = reader and p.left_at is null;
    select coalesce((select m.seq from messages m where m.message_id = before), r.last_seq + 1) into ending
      from rooms r where r.room_id = conversation;
    select min(seq) into low from (
        select seq from messages m
         where m.conversation_id = conversation and m.seq > beginning and m.seq < ending
         order by m.seq desc limit 2000) latest;
    return query execute
        'select message_id from messages where conversation_id = $1 and seq >= $2 and seq < $3 and words @@ $4
          order by seq desc limit $5'
        using conversation, low, ending, wanted, most;
    get diagnostics found = row_count;
    if found < most then
        return query execute
            'select message_id from messages
              where words @@ ($1 && quote_literal($2)::tsquery) and conversation_id = $2 and seq > $3 and seq < $4
              order by seq desc limit $5'
            using wanted, conversation, beginning, low, most - found;
    end if;
end $$;

-- A message as the contract shows it: the same columns wherever one is read.
create view message_objects as
select m.conversation_id, m.sender_id, m.client_id, m.type, m.text,
       coalesce((
           select json_agg(json_build_object(
                      'attachment_id', a.attachment_id, 'name', a.name, 'content_type', a.content_type, 'size', a.size,
                      'sha256', encode(a.sha256, 'hex'), 'url', '/attachments/' || a.attachment_id) order by a.position)
             from message_attachments a where a.message_id = m.message_id), '[]') as attachments,
       m.reply_to_id, null::json as offer,
       coalesce((
           select json_agg(json_build_object('emoji', r.emoji, 'count', r.count, 'user_ids', r.user_ids)
                           order by r.first_at, r.emoji)
             from (
               select emoji, count(*) as count, min(at) as first_at,
                      (array_agg(user_id order by at, user_id))[1:20] as user_ids
                 from message_reactions where message_id = m.message_id group by emoji) r), '[]') as reactions,
       m.version, m.edited_at, m.deleted_at, m.message_id, m.seq, m.at
  from messages m;

-- Other people's messages behind a seq, counted to 1,000.
create function unread(conversation uuid, reader uuid, behind bigint) returns bigint language sql stable as $$
select count(*) from (
    select from messages m
     where m.conversation_id = conversation and m.seq > behind and m.sender_id <> reader and m.deleted_at is null
     limit 1000) counted
$$;

-- Who has archived a conversation and would have it back with the next message.
create function sleeping(conversation_ids uuid[]) returns table (conversation_id uuid, user_id uuid) language sql stable as $$
select p.conversation_id, p.user_id from conversation_participants p
 where p.conversation_id = any (conversation_ids) and p.archived and p.left_at is null
   and (p.muted_until is null or p.muted_until <= clock_timestamp())
$$;

-- Brings conversations back to those who sleep there, where a room has moved behind its head in `heads`; the caller holds
-- the rooms of both. `head_seq` is where their devices join.
create function wake(conversation_ids uuid[], heads bigint[], moment timestamptz)
returns table (room_id uuid, seq bigint, payload text) language sql as $$
with moved as (
    select s.conversation_id, s.head
      from unnest(conversation_ids, heads) as s (conversation_id, head)
      join rooms r on r.room_id = s.conversation_id and r.last_seq > s.head
), woken as (
    update conversation_participants p
       set archived = false
      from moved m
     where p.conversation_id = m.conversation_id and p.archived and p.left_at is null
       and (p.muted_until is null or p.muted_until <= clock_timestamp())
    returning p.conversation_id, p.user_id, p.joined_seq, p.read_seq, p.delivered_seq, p.muted_until, p.pinned, m.head
), bumped as (
    update rooms r
       set last_seq = r.last_seq + w.n, last_at = moment
      from (select user_id, count(*) as n from woken group by user_id) w
     where r.room_id = w.user_id
    returning r.room_id, r.last_seq - w.n as before
), told as (
    select w.user_id, b.before + row_number() over (partition by w.user_id order by w.conversation_id) as seq,
           row_to_json(mine)::text as payload
      from woken w
      join bumped b on b.room_id = w.user_id
     cross join lateral (
            select w.conversation_id, w.read_seq, w.delivered_seq,
                   unread(w.conversation_id, w.user_id, greatest(w.read_seq, w.joined_seq)) as unread_count,
                   wire_time(w.muted_until) as muted_until, false as archived, w.pinned, w.head as head_seq) mine
), logged as (
    insert into room_events (room_id, seq, at, name, payload)
    select user_id, seq, moment, 'conversation:mine' as name, payload::json as payload from told
)
select user_id as room_id, seq, payload from told
$$;

-- Stores a batch of messages in one round trip: rooms locked in order of id, then, on a fresh snapshot (a volatile function
-- takes one for each statement in READ COMMITTED), repeats and membership judged, order given, messages and log written.
-- A send that waited behind a removal is judged after it.
--
-- `wait` false skips the rooms that somebody holds and says `busy`; true waits for them, up to lock_timeout.
-- `body` is the message as JSON without message_id, seq and at, which are known here alone; `payload` is the whole.
-- outcome: sent · repeat · key_reuse · not_found (the room, or one's part in it) · blocked (in a private conversation, either
-- way) · no_reply (the message replied to) · no_attachment (not the sender's, not complete, or sent already) · busy · woken.
--
-- Whoever has archived the conversation, and not muted it, has it back: their own rooms are locked along with the
-- conversations', and rows `woken` say what their devices are told (`room_id` is theirs, `ord` null).
--
-- The plan is made once a connection and kept: left to itself the planner may plan the whole anew for every call (measured
-- on single sends: 912 → 295 µs of PostgreSQL's CPU). So its shape must not hang on what the tables held at that moment:
-- sequential scans and the joins that need them are off, and each lookup stands in a lateral of its own (`offset 0`), which
-- can only be one probe of an index a row. As plain joins, a plan made while messages was empty read the whole of it for
-- every batch afterwards (850 ms at 90,000 messages).
create function append_messages(
    conversation_ids uuid[], sender_ids uuid[], client_ids text[], body_hmacs bytea[], types text[],
    texts text[], reply_to_ids uuid[], attachment_ids text[], bodies text[], wait boolean
) returns table (
    ord bigint, outcome text, room_id uuid, message_id uuid, seq bigint, at timestamptz, payload text
)
language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    held uuid[];
    sleepers uuid[];
    asleep uuid[];
    heads bigint[];
    moment timestamptz;
begin
    if attachment_ids is not null then
        perform from message_attachments a
          where a.attachment_id = any (array(select unnest(ids::uuid[]) from unnest(attachment_ids) as ids))
          order by a.attachment_id for update;
    end if;
    select array_agg(distinct s.user_id) into sleepers from sleeping(conversation_ids) s;
    if wait then
        select array_agg(r.room_id) into held from (
            select room_id from rooms where room_id = any (conversation_ids || sleepers)
             order by room_id for no key update) r;
    else
        select array_agg(r.room_id) into held from (
            select room_id from rooms where room_id = any (conversation_ids || sleepers)
             order by room_id for no key update skip locked) r;
    end if;
    held := coalesce(held, '{}');
    if exists (select from sleeping(held)) then
        -- Archiving takes the conversation's room: nobody falls asleep any more in those that are held.
        held := array(
            select h from unnest(held) as h
             where not exists (select from sleeping(array[h]) s where s.user_id <> all (held)));
        select array_agg(r.room_id), array_agg(r.last_seq) into asleep, heads
          from rooms r where r.room_id in (select s.conversation_id from sleeping(held) s);
    end if;
    moment := date_trunc('milliseconds', clock_timestamp());
    return query
    with input as materialized (
        select *
          from unnest(conversation_ids, sender_ids, client_ids, body_hmacs, types, texts, reply_to_ids, attachment_ids,
                      bodies) with ordinality
               as t (conversation_id, sender_id, client_id, body_hmac, type, text, reply_to_id, attachment_ids, body, ord)
    ), judged as materialized (
        select i.*, old.message_id as old_id, old.seq as old_seq, old.at as old_at,
               case
                   -- Who took no part when the locks were asked for waits for none.
                   when i.conversation_id <> all (held) and (p.user_id is not null or old.message_id is not null)
                        and exists (select from rooms r where r.room_id = i.conversation_id) then 'busy'
                   when old.body_hmac = i.body_hmac then 'repeat'
                   when old.message_id is not null then 'key_reuse'
                   when p.user_id is null then 'not_found'
                   when exists (select from user_blocks b where b.blocker_id = c.low_user_id and b.blocked_id = c.high_user_id)
                        or exists (select from user_blocks b
                                    where b.blocker_id = c.high_user_id and b.blocked_id = c.low_user_id) then 'blocked'
                   when i.reply_to_id is not null and not exists (
                        select from (select m.conversation_id, m.seq from messages m
                                      where m.message_id = i.reply_to_id offset 0) r
                         where r.conversation_id = i.conversation_id and r.seq > p.joined_seq) then 'no_reply'
                   when i.attachment_ids is not null and cardinality(i.attachment_ids::uuid[]) <> (
                        select count(*) from message_attachments a
                         where a.attachment_id = any (i.attachment_ids::uuid[]) and a.owner_id = i.sender_id
                           and a.status = 'complete' and a.message_id is null) then 'no_attachment'
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
          left join lateral (
                 select v.low_user_id, v.high_user_id from conversations v
                  where v.conversation_id = i.conversation_id and v.kind = 'private' offset 0) c on true
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
        select new_id, conversation_id, new_seq, sender_id, client_id, body_hmac, type, text, reply_to_id, moment
          from placed order by ord
    ), attached as (
        update message_attachments a
           set message_id = p.new_id, position = u.position
          from placed p
         cross join lateral unnest(p.attachment_ids::uuid[]) with ordinality as u (attachment_id, position)
         where a.attachment_id = u.attachment_id
    ), logged as (
        insert into room_events (room_id, seq, at, name, payload, message_id)
        select conversation_id, new_seq, moment, 'message:created', payload::json, new_id from placed order by ord
    )
    select ord, outcome, conversation_id, new_id, new_seq, moment, payload from placed
    union all
    select ord, outcome, conversation_id, old_id, old_seq, old_at, null from judged where outcome <> 'sent'
    order by 1;
    if asleep is not null then
        return query
        select null::bigint as ord, 'woken' as outcome, w.room_id, null::uuid as message_id, w.seq, moment as at, w.payload from wake(asleep, heads, moment) w;
    end if;
end $$;

-- Who is there. An instance says of itself every 15 s that it lives; what it says of people holds while that is not 45 s old,
-- so that a crash leaves nobody behind. Not logged: after a crash of PostgreSQL everybody connects anew.
create unlogged table presence_instances (
    instance_id uuid primary key,
    expires_at timestamptz not null
);
create unlogged table presences (
    user_id uuid not null,
    instance_id uuid not null references presence_instances (instance_id) on delete cascade,
    state text not null check (state in ('online', 'away')),
    primary key (user_id, instance_id)
);
create index presences_instance_id on presences (instance_id);
alter table users add last_seen_at timestamptz;

-- An erasure goes on where an instance was stopped amid it.
alter table users add erased_at timestamptz;
create index users_unfinished on users (user_id) where status = 'deleted' and erased_at is null;
