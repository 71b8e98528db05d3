-- Attachments: declared, uploaded, completed, and then part of one message.

create table message_attachments (
    attachment_id uuid primary key,
    owner_id uuid not null references users (user_id),
    message_id uuid references messages (message_id),  -- null until it is sent
    position int check (position >= 0),                -- its place in the message
    name text not null check (length(name) between 1 and 255),
    content_type text not null,
    size bigint not null check (size > 0),             -- bytes
    sha256 bytea not null check (length(sha256) = 32),
    status text not null default 'declared' check (status in ('declared', 'complete')),
    -- What was uploaded last: the file in the store, and until it has been judged its hash and its first bytes. Every upload
    -- is a file of its own, so that none can change under what has been judged.
    file_id uuid,
    file_sha256 bytea,
    file_head bytea,
    at timestamptz not null default now(),
    completed_at timestamptz,
    check ((status = 'complete') = (completed_at is not null)),
    check (status = 'declared' or file_id is not null),
    check (message_id is null or status = 'complete'),
    check ((message_id is null) = (position is null)),
    constraint message_attachments_position_key unique (message_id, position)
);
create index message_attachments_owner_id on message_attachments (owner_id);
-- The sweep looks for those that were never sent, and for files that are nobody's.
create index message_attachments_unsent on message_attachments (at) where message_id is null;
create unique index message_attachments_file_id_key on message_attachments (file_id) where file_id is not null;
