-- Accounts: an end for every session, sweeps of what has ended, and who has closed a report.

-- When a session ends unless it is renewed: with its newest refresh token, or with the one token that an operator has made.
-- Those of operators' tokens had no end until now; a year is more than any of these is good for.
alter table user_sessions add ends_at timestamptz;
update user_sessions s
   set ends_at = coalesce(
           (select max(t.expires_at) from auth_tokens t where t.session_id = s.session_id), now() + interval '1 year');
alter table user_sessions alter ends_at set not null;
create index user_sessions_ends_at on user_sessions (ends_at) where ended_at is null;
-- Where an ended session was, and on what, is forgotten after a while.
create index user_sessions_ended_at on user_sessions (ended_at)
    where ended_at is not null and (device is not null or address is not null);

-- Nobody is looked for by a token that has expired, spent or not.
drop index auth_tokens_expires_at;
create index auth_tokens_expires_at on auth_tokens (expires_at);

alter table reports add resolved_by uuid references users (user_id);
alter table reports add check (resolved_by is null or status <> 'open');
create index reports_resolved_by on reports (resolved_by) where resolved_by is not null;
