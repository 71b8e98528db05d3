-- Who takes part in a conversation. Writers hold the conversation's row and then its room's: see conversations.sql.

-- name: create_participants(conversation_id, user_ids, roles)!
insert into conversation_participants (conversation_id, user_id, role)
select :conversation_id::uuid, user_id, role from unnest(:user_ids::uuid[], :roles::text[]) as t (user_id, role);

-- name: add_participant(conversation_id, user_id, role, joined_seq)!
-- Whoever comes back begins anew: history from this joining on.
insert into conversation_participants (conversation_id, user_id, role, joined_seq, read_seq, delivered_seq)
values (:conversation_id, :user_id, :role, :joined_seq, :joined_seq, :joined_seq)
on conflict (conversation_id, user_id) do update
   set role = excluded.role, joined_at = now(), joined_seq = excluded.joined_seq, read_seq = excluded.read_seq,
       delivered_seq = excluded.delivered_seq, muted_until = null, archived = false, pinned = false, left_at = null;

-- name: remove_participant(conversation_id, user_id)!
update conversation_participants set left_at = now()
 where conversation_id = :conversation_id and user_id = :user_id and left_at is null;

-- name: find_participant(conversation_id, user_id)^
-- record_class: Participant
-- In a thread that has been deleted nobody takes part any more, however many have still to be written off.
select p.user_id, p.role, p.joined_at, p.joined_seq, p.read_seq, p.delivered_seq
  from conversation_participants p
  join conversations c using (conversation_id)
 where p.conversation_id = :conversation_id and p.user_id = :user_id and p.left_at is null and c.closed_at is null;

-- name: has_left(conversation_id, user_id)$
select exists (
    select from conversation_participants
     where conversation_id = :conversation_id and user_id = :user_id and left_at is not null) as left_once;

-- name: count_participants(conversation_id)$
select count(*) from conversation_participants where conversation_id = :conversation_id and left_at is null;

-- name: list_participants(viewer_id, conversation_ids, most)
-- record_class: ParticipantRow
-- Of each conversation the first `most` by joining. Where one of a private conversation has blocked the other, neither sees
-- the other's marks: they are 0, as before anything is read. The count is there to be made once a conversation; what
-- `exists` says would be asked again for each mark of each of its people.
select c.conversation_id, p.user_id, p.role, p.joined_at, p.joined_seq,
       case when b.stands and p.user_id <> :viewer_id then 0 else p.read_seq end as read_seq,
       case when b.stands and p.user_id <> :viewer_id then 0 else p.delivered_seq end as delivered_seq
  from unnest(:conversation_ids::uuid[]) as c (conversation_id)
 cross join lateral (
        select count(*) > 0 as stands
          from conversations v
          join user_blocks u
            on (u.blocker_id = v.low_user_id and u.blocked_id = v.high_user_id)
            or (u.blocker_id = v.high_user_id and u.blocked_id = v.low_user_id)
         where v.conversation_id = c.conversation_id and v.kind = 'private') b
 cross join lateral (
        select * from conversation_participants
         where conversation_id = c.conversation_id and left_at is null
         order by joined_at, user_id limit :most) p
 order by p.joined_at, p.user_id;

-- name: list_places(user_ids, conversation_ids, kind)
-- record_class: Place
-- Of these people and conversations, pair by pair, those who take part, where the room is of that kind: with the seq behind
-- which history begins for them and the head, in one snapshot, or a removal between two would let through what came after it.
select a.user_id, a.conversation_id, p.joined_seq, r.last_seq as head_seq
  from unnest(:user_ids::uuid[], :conversation_ids::uuid[]) a (user_id, conversation_id)
 cross join lateral (
        select joined_seq, left_at from conversation_participants
         where conversation_id = a.conversation_id and user_id = a.user_id offset 0) p
 cross join lateral (select kind, last_seq from rooms where room_id = a.conversation_id offset 0) r
 cross join lateral (
        select closed_at from conversations where conversation_id = a.conversation_id offset 0) c
 where p.left_at is null and r.kind = :kind and c.closed_at is null;

-- name: set_role(conversation_id, user_id, role)!
update conversation_participants set role = :role
 where conversation_id = :conversation_id and user_id = :user_id and left_at is null;

-- name: find_heir(conversation_id)$
select user_id from conversation_participants
 where conversation_id = :conversation_id and left_at is null and role <> 'owner'
 order by role <> 'admin', joined_at, user_id limit 1;
