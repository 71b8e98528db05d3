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
