-- Finding messages by their words.

-- Search. One configuration for both languages, chosen by each word's script: English words by their stem, all others by the
-- Arabic one, which leaves other scripts alone; no stop words, or "the who" would find nothing.
do $$ begin
    create text search dictionary parley_english (template = snowball, language = english);
    create text search dictionary parley_arabic (template = snowball, language = arabic);
    create text search configuration parley (copy = simple);
    alter text search configuration parley alter mapping for asciiword, asciihword, hword_asciipart with parley_english;
    alter text search configuration parley alter mapping for word, hword, hword_part with parley_arabic;
end $$;

-- Spelling that Arabic writers vary is one: the forms of alef; alef maqsura and yeh; heh at the end of a word and teh marbuta,
-- which the stemmer knows. Vowel signs and tatweel go.
create function searchable(text text) returns text language sql immutable strict parallel safe
return regexp_replace(
    translate(
        text,
        U&'\0623\0625\0622\0671\0649\0640\064B\064C\064D\064E\064F\0650\0651\0652',
        U&'\0627\0627\0627\0627\064A'),
    U&'\0647\005CM', U&'\0629', 'g');

-- The conversation stands among the words, so that a search within one, or within a person's own, reads no others.
-- Measured with 10 words a message: 24 µs of PostgreSQL's CPU a send. (As an index over the expression alone it would be 18,
-- but every row that is looked at and not found through the index would be parsed anew.)
create function message_words(conversation_id uuid, text text) returns tsvector language sql immutable parallel safe
return to_tsvector('parley'::regconfig, searchable(text)) || array_to_tsvector(array[conversation_id::text]);
alter table messages add words tsvector generated always as (message_words(conversation_id, text)) stored;
create index messages_words on messages using gin (words);

-- Finds messages by words, the latest first, from behind the message `before` on; ids alone.
--
-- What is common is found among the latest 2,000 of the conversation, what is not by the index: neither reads much. Each
-- statement is planned for what is asked (`execute`): a plan for any words would read every message.
create function search_messages(reader uuid, query text, conversation uuid, before uuid, most int)
returns table (message_id uuid) language plpgsql stable as $$
#variable_conflict use_column
declare
    wanted tsquery := websearch_to_tsquery('parley', searchable(query));
    beginning bigint;
    ending bigint;
    low bigint;
    found int;
begin
    if numnode(wanted) = 0 then
        return;
    elsif conversation is null then
        select wanted && string_agg(quote_literal(p.conversation_id), ' | ')::tsquery into wanted
          from conversation_participants p where p.user_id = reader and p.left_at is null;
        return query execute
            'with found as materialized (
                 select message_id, conversation_id, seq from messages
                  where words @@ $1 and ($3 is null or message_id < $3)
             )
             select f.message_id
               from found f
               join conversation_participants p
                 on p.conversation_id = f.conversation_id and p.user_id = $2 and p.left_at is null and f.seq > p.joined_seq
              order by f.message_id desc limit $4'
            using wanted, reader, before, most;
        return;
    end if;
    select p.joined_seq into beginning from conversation_participants p
     where p.conversation_id = conversation and p.user_id = reader and p.left_at is null;
    select coalesce((select m.seq from messages m where m.message_id = before and m.conversation_id = conversation), r.last_seq + 1) into ending
      from rooms r where r.room_id = conversation;
    select min(seq) into low from (
        select seq from messages m
         where m.conversation_id = conversation and m.seq > beginning and m.seq < ending
         order by m.seq desc limit 2000) latest;
    return query execute
        'select message_id from messages where conversation_id = $1 and seq >= $2 and seq < $3 and words @@ $4
          order by seq desc limit $5'
        using conversation, low, ending, wanted, most;
    get diagnostics found = row_count;
    if found < most then
        return query execute
            'select message_id from messages
              where words @@ ($1 && quote_literal($2)::tsquery) and conversation_id = $2 and seq > $3 and seq < $4
              order by seq desc limit $5'
            using wanted, conversation, beginning, low, most - found;
    end if;
end $$;
