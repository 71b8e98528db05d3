-- Sending again: nothing is stored of a person who has been deleted meanwhile, and counting what is unread reads no more than
-- it has to.

-- Closed, a conversation takes no messages any more, and nobody finds what was said there.
alter table conversations add closed_at timestamptz;

-- Other people's messages behind a seq, counted to 1,000, among the first 10,000 there: whoever says that much themselves
-- without ever marking anything as read is told of what stands among these.
create or replace function unread(conversation uuid, reader uuid, behind bigint) returns bigint language sql stable as $$
select count(*) from (
    select from (
        select sender_id, deleted_at from messages
         where conversation_id = conversation and seq > behind
         order by seq limit 10000) m
     where m.sender_id <> reader and m.deleted_at is null
     limit 1000) counted
$$;

-- Stores a batch of messages in one round trip: rooms locked in order of id, then, on a fresh snapshot (a volatile function
-- takes one for each statement in READ COMMITTED), repeats and membership judged, order given, messages and log written.
-- A send that waited behind a removal is judged after it, and one that waited while its sender was deleted too.
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
create or replace function append_messages(
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
                   -- One that was completed since the body was made: the push would show the message without it.
                   when i.attachment_ids is not null
                        and cardinality(i.attachment_ids::uuid[]) <> json_array_length(i.body::json -> 'attachments')
                        then 'no_attachment'
                   else 'sent'
               end as outcome
          from input i
          left join lateral (
                 select m.message_id, m.seq, m.at, m.body_hmac from messages m
                  where m.sender_id = i.sender_id and m.client_id = i.client_id offset 0) old on true
          left join lateral (
                 select q.user_id, q.joined_seq from conversation_participants q
                  where q.conversation_id = i.conversation_id and q.user_id = i.sender_id and q.left_at is null
                    and exists (select from users u where u.user_id = q.user_id and u.status <> 'deleted')
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
