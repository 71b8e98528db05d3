-- Who is there. An instance says of itself every 15 s that it lives; what it says of people holds while that is not 45 s old,
-- so that a crash leaves nobody behind. Not logged: after a crash of PostgreSQL each instance says it all again.
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
