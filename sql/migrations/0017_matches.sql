-- Matches: the listings that may belong with another, and what of them counts.

alter table listing_matches add check (quality in ('excellent', 'good', 'possible'));

-- What of a listing's text counts, as search knows it: stems, the title's first, a hundred and fifty at most.
create function leading_words(words tsvector) returns text[] language sql immutable parallel safe
return array(select lexeme from unnest(words) order by positions[1], lexeme limit 150);

-- The words of titles, by which counterparts are looked for.
create index listings_offered_titles on listings using gin (ts_filter(words, '{a}'))
    where kind = 'for_sale' and status = 'active' and deleted_at is null;
create index listings_wanted_titles on listings using gin (ts_filter(words, '{a}'))
    where kind = 'wtb' and status = 'active' and deleted_at is null;

-- How common each word of them is, is known to the planner: it reads in order for a common one, by the index for others.
create statistics listings_titles on (ts_filter(words, '{a}')) from listings;

-- At most 200 listings that may belong with another one: wanted and for sale, to be had now, of people who have not blocked
-- each other, each of whom is in the other listing's thread.
--
-- By the words of its title (`sought`): of each word the latest 100 that have it in theirs, and the latest 200 that have two of
-- them; of these the 160 that have the most. And, for what is spelt otherwise, of its category and currency, within a band of
-- prices, the latest 100 of each feed; of these the 40 whose titles are the most like it. So a common word costs no more than
-- a rare one.
--
-- Each statement is planned for what is asked, values and all (`execute`), as in search_listings.
create function find_counterparts(source uuid, sought text[])
returns table (listing_id uuid) language plpgsql stable as $$
declare
    of_a_word constant int := 100;
    of_two constant int := 200;
    of_a_feed constant int := 100;
    by_text constant int := 160;
    by_spelling constant int := 40;
    s listings;
    joined uuid[];
    fits text;
    latest text := 'select array_agg(f.listing_id) from (
        select l.listing_id from listings l where %s and %s order by l.listing_id desc limit %s) f';
    titles text := 'ts_filter(l.words, ''{a}'') @@ %L::tsquery';
    band text := 'l.category = %L and l.feed = %L and l.price_currency = %L and l.price_amount between %s and %s';
    likely uuid[] := '{}';
    alike uuid[] := '{}';
    found uuid[];
    word text;
    pairs text;
begin
    select l.* into s from listings l where l.listing_id = source;
    select array_agg(m.thread_id) into joined from thread_members m where m.user_id = s.user_id;
    fits := format('l.kind = %L and l.status = ''active'' and l.deleted_at is null and l.user_id <> %L',
        case s.kind when 'wtb' then 'for_sale' else 'wtb' end, s.user_id);
    foreach word in array sought loop
        execute format(latest, fits, format(titles, quote_literal(word)), of_a_word) into found;
        likely := likely || found;
    end loop;
    select string_agg(format('(%L & %L)', one, other), ' | ') into pairs
      from unnest(sought) as one
      join unnest(sought) as other on one < other;
    if pairs is not null then
        execute format(latest, fits, format(titles, pairs), of_two) into found;
        likely := likely || found;
    end if;
    foreach word in array array['community', 'discover'] loop
        execute format(latest, fits, format(band, s.category, word, s.price_currency,
            case s.kind when 'wtb' then s.price_amount / 4 else s.price_amount / 2 end,
            case s.kind when 'wtb' then s.price_amount * 2 else s.price_amount * 4 end), of_a_feed) into found;
        alike := alike || found;
    end loop;
    return query
    with possible as materialized (
        select l.listing_id, l.title, l.words
          from (select distinct unnest(likely || alike) as listing_id) f
          join listings l using (listing_id)
          join users u on u.user_id = l.user_id and u.status = 'active'
         where l.expires_at > clock_timestamp()
           and (l.thread_id is null or l.thread_id = any (joined))
           and (s.thread_id is null
                or exists (select from thread_members m where m.thread_id = s.thread_id and m.user_id = l.user_id))
           and not exists (select from user_blocks b where b.blocker_id = s.user_id and b.blocked_id = l.user_id)
           and not exists (select from user_blocks b where b.blocker_id = l.user_id and b.blocked_id = s.user_id)
    ), texts as (
        select p.listing_id from possible p
         where p.listing_id = any (likely)
         order by ts_rank(p.words, (select string_agg(quote_literal(w), ' | ')::tsquery from unnest(sought) as w)) desc,
                  p.listing_id desc
         limit by_text
    ), spellings as (
        select p.listing_id from possible p
         where p.listing_id = any (alike)
         order by similarity(searchable(p.title), searchable(s.title)) desc, p.listing_id desc
         limit by_spelling
    )
    select t.listing_id from texts t
    union
    select p.listing_id from spellings p;
end $$;
