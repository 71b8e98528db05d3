-- What the Node.js peer stores: the part of Parley's schema that `message:send` and a connect touch, as one would write it.

create table users (
    user_id uuid primary key,
    username text not null unique,
    status text not null default 'active'
);

create table sessions (
    session_id uuid primary key,
    user_id uuid not null references users (user_id),
    scope text not null default 'full',
    ended_at timestamptz
);

-- A conversation and the counter of its messages. Room for HOT updates, as in Parley's.
create table rooms (
    room_id uuid primary key,
    last_seq bigint not null default 0
) with (fillfactor = 70);

create table participants (
    room_id uuid not null references rooms (room_id),
    user_id uuid not null references users (user_id),
    left_at timestamptz,
    primary key (room_id, user_id)
);
create index participants_user_id on participants (user_id) where left_at is null;

create table messages (
    message_id uuid primary key default uuidv7(),
    room_id uuid not null references rooms (room_id),
    seq bigint not null,
    sender_id uuid not null references users (user_id),
    client_id text not null,
    text text not null,
    at timestamptz not null default now(),
    unique (sender_id, client_id),
    unique (room_id, seq)
);
