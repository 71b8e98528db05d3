-- Threads as rooms that people talk in: sending knows the kind of a room, and takes nothing into what has been closed, nor of
-- a person who has been deleted meanwhile.

-- The first people of a conversation, and who inherits a thread: there may be a hundred thousand of them.
create index conversation_participants_joined on conversation_participants (conversation_id, joined_at, user_id)
    where left_at is null;

-- Hot is a thread whose hundredth-latest event is younger than a day.
create function is_hot(thread uuid) returns boolean language sql stable as $$
select coalesce(
    (select e.at > clock_timestamp() - interval '1 day'
       from room_events e where e.room_id = thread order by e.seq desc offset 99 limit 1),
    false)
$$;

-- Who has archived a conversation and would have it back with the next message. A thread stays where they have put it: its
-- people stand in its room, archived or not, and a send would have to hold the rooms of as many as have archived it.
create or replace function sleeping(conversation_ids uuid[])
returns table (conversation_id uuid, user_id uuid) language sql stable as $$
select p.conversation_id, p.user_id from conversation_participants p
 where p.conversation_id = any (array(
        select c.conversation_id from conversations c
         where c.conversation_id = any (conversation_ids) and c.kind <> 'thread'))
   and p.archived and p.left_at is null and (p.muted_until is null or p.muted_until <= clock_timestamp())
$$;

drop function append_messages(uuid[], uuid[], text[], bytea[], text[], text[], uuid[], text[], text[], boolean);

-- Stores a batch of messages in one round trip: rooms locked in order of id, then, on a fresh snapshot (a volatile function
-- takes one for each statement in READ COMMITTED), repeats and membership judged, order given, messages and log written.
-- A send that waited behind a removal is judged after it, and one that waited while its sender was deleted too.
--
-- `wait` false skips the rooms that somebody holds and says `busy`; true waits for them, up to lock_timeout.
-- `body` is the message as JSON without message_id, seq and at, which are known here alone; `payload` is the whole.
-- outcome: sent · repeat · key_reuse · not_found (the room, or one's part in it; or it has been closed) · blocked (in a private
-- conversation, either way) · no_reply (the message replied to) · no_attachment (not the sender's, not complete, or sent already)
-- · busy · woken. `kind` is the room's where something was appended to it: a thread's conversation has the thread's.
--
-- Whoever has archived the conversation, no thread's, and not muted it, has it back: their own rooms are locked along with the
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
    ord bigint, outcome text, room_id uuid, kind text, message_id uuid, seq bigint, at timestamptz, payload text
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
                   when p.user_id is null or c.closed_at is not null then 'not_found'
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
                 select v.low_user_id, v.high_user_id, v.closed_at from conversations v
                  where v.conversation_id = i.conversation_id offset 0) c on true
    ), bumped as (
        update rooms r
           set last_seq = r.last_seq + c.n, last_at = moment
          from (select conversation_id, count(*) as n from judged where outcome = 'sent' group by conversation_id) c
         where r.room_id = c.conversation_id and r.room_id = any (held)
        returning r.room_id, r.kind, r.last_seq - c.n as before
    ), numbered as materialized (
        select j.*, b.kind, uuidv7() as new_id,
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
    select ord, outcome, conversation_id, kind, new_id, new_seq, moment, payload from placed
    union all
    select ord, outcome, conversation_id, null, old_id, old_seq, old_at, null from judged where outcome <> 'sent'
    order by 1;
    if asleep is not null then
        return query
        select null::bigint as ord, 'woken' as outcome, w.room_id, 'user' as kind, null::uuid as message_id, w.seq, moment as at,
               w.payload
          from wake(asleep, heads, moment) w;
    end if;
end $$;
