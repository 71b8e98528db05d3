-- Accounts: finding people, tokens that reset a password, blocks, and reports.

create extension if not exists pg_trgm;

-- Why an administrator has last changed the status; of nobody who was never suspended.
alter table users add status_reason text check (length(status_reason) <= 500);

-- What a search looks through, each word behind a space.
alter table users add names text not null
    generated always as (lower(' ' || coalesce(full_name, '') || ' ' || coalesce(full_name_ar, ''))) stored;
create index users_names on users using gin (names gin_trgm_ops) where status = 'active';
-- A prefix is a range here, and the page of a prefix that everybody shares is read in its order.
create index users_username_prefix on users ((lower(username) collate "C")) where status = 'active';

-- A refresh token is a session's, a reset token a person's.
alter table auth_tokens
    alter session_id drop not null,
    add user_id uuid references users (user_id) on delete cascade,
    add check ((type = 'refresh') = (session_id is not null)),
    add check ((type = 'reset') = (user_id is not null));
create index auth_tokens_user_id on auth_tokens (user_id) where user_id is not null;
-- One live reset token a person: the latest.
create unique index auth_tokens_reset_key on auth_tokens (user_id) where status = 'active' and user_id is not null;
-- The sweep of sessions that nobody can renew any more looks here.
create index auth_tokens_expires_at on auth_tokens (expires_at) where status = 'active' and session_id is not null;

create table user_blocks (
    blocker_id uuid not null references users (user_id),
    blocked_id uuid not null references users (user_id),
    at timestamptz not null default now(),
    primary key (blocker_id, blocked_id),
    check (blocker_id <> blocked_id)
);
create index user_blocks_blocked_id on user_blocks (blocked_id);

-- What somebody wants looked at. The subject may be gone by then, so no foreign key leads to it.
create table reports (
    report_id uuid primary key,
    reporter_id uuid not null references users (user_id),
    subject_kind text not null check (subject_kind in ('user', 'message', 'conversation')),
    subject_id uuid not null,
    reason text not null check (length(reason) <= 100),
    text text check (length(text) <= 2000),
    status text not null default 'open' check (status in ('open', 'resolved', 'dismissed')),
    resolution text check (length(resolution) <= 2000),
    at timestamptz not null default now(),
    resolved_at timestamptz,
    check ((status = 'open') = (resolved_at is null)),
    check ((status = 'open') = (resolution is null))
);
create index reports_reporter_id on reports (reporter_id);
create index reports_status on reports (status, report_id);
