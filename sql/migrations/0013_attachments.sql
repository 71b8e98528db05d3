-- Attachments that are in no message yet, counted for each person at every declaration.

create index message_attachments_owner_unsent on message_attachments (owner_id) include (size) where message_id is null;
