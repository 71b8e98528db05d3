-- Which events have been blanked since they were pushed. An instance that remembers what they said has to hear of it
-- whatever the bus loses: a blanked row counts as moved, and the comparison of every second finds it like a new one.

-- Null and not false where nothing was: a bit of the row's bitmap, no byte.
alter table room_events add column is_blanked boolean;
comment on column room_events.is_blanked is
    'true where the payload is not what was pushed any more; xid is then that of the blanking';

-- Not left to those who write the statements: one that forgot it would leave erased words in memories without a sign.
create function note_blanked() returns trigger language plpgsql as $$
begin
    new.is_blanked := true;
    new.xid := pg_current_xact_id();
    return new;
end $$;
create trigger room_events_blanked before update of payload on room_events
    for each row execute function note_blanked();
