-- What people do with messages beside sending them.

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

-- An erasure goes on where an instance was stopped amid it.
alter table users add erased_at timestamptz;
create index users_unfinished on users (user_id) where status = 'deleted' and erased_at is null;
