-- People, the sessions of their devices, and the tokens that renew those.

create table users (
    user_id uuid primary key default uuidv7(),
    username text not null check (length(username) between 2 and 64),
    email text not null check (length(email) <= 254),
    password_hash text,                              -- null: can't sign in by password (made by an operator)
    full_name text check (length(full_name) <= 200),
    full_name_ar text check (length(full_name_ar) <= 200),
    phone text check (length(phone) <= 32),
    whatsapp_number text check (whatsapp_number ~ '^\+[1-9][0-9]{6,14}$'),     -- E.164
    profile_picture_url text check (length(profile_picture_url) <= 2000),
    locale text not null default 'en' check (length(locale) <= 35),            -- BCP 47
    roles text[] not null default '{}' check (roles <@ array['buyer', 'seller', 'mentor', 'admin']),
    status text not null default 'active' check (status in ('active', 'inactive', 'suspended', 'deleted')),
    preferences jsonb not null default '{}',
    notification_channels text[] not null default '{in_app}',
    last_login_at timestamptz,
    at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
-- Names and addresses are unique whatever their case.
create unique index users_username_key on users (lower(username));
create unique index users_email_key on users (lower(email));
create unique index users_phone_key on users (phone);
create unique index users_whatsapp_number_key on users (whatsapp_number);

-- One row a device login.
create table user_sessions (
    session_id uuid primary key default uuidv7(),
    user_id uuid not null references users (user_id) on delete cascade,
    device text check (length(device) <= 200),
    address text,
    scope text not null default 'full' check (scope in ('full', 'limited', 'read')),
    started_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    ended_at timestamptz,
    end_reason text
);
create index user_sessions_user_id on user_sessions (user_id);

-- Refresh tokens, stored as SHA-256 of 256 random bits (nothing to guess, so no slow hash). A spent one stays: its second use
-- shows that somebody copied it, and ends the session (the family).
create table auth_tokens (
    token_id uuid primary key default uuidv7(),
    session_id uuid not null references user_sessions (session_id) on delete cascade,
    type text not null check (type in ('refresh', 'reset')),
    hash bytea not null unique,
    status text not null default 'active' check (status in ('active', 'expired', 'revoked')),
    at timestamptz not null default now(),
    expires_at timestamptz not null,
    spent_at timestamptz
);
create index auth_tokens_session_id on auth_tokens (session_id);
