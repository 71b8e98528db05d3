-- Conversations that are closed, and counting what is unread without reading more than it has to.

-- Closed, a conversation takes no messages any more, and nobody finds what was said there.
alter table conversations add closed_at timestamptz;

-- Other people's messages behind a seq, counted to 1,000, among the first 10,000 there: whoever says that much themselves
-- without ever marking anything as read is told of what stands among these.
create or replace function unread(conversation uuid, reader uuid, behind bigint) returns bigint language sql stable as $$
select count(*) from (
    select from (
        select sender_id, deleted_at from messages
         where conversation_id = conversation and seq > behind
         order by seq limit 10000) m
     where m.sender_id <> reader and m.deleted_at is null
     limit 1000) counted
$$;
