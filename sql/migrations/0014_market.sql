-- The market: threads, listings, what people ask about them, and which of them belong together.

alter table conversations
    -- Its listing is gone: it stays, and is no longer the pair's conversation about anything.
    add detached_at timestamptz,
    add check (detached_at is null or listing_id is null);
drop index conversations_pair_key;
create unique index conversations_pair_key on conversations (low_user_id, high_user_id, listing_id) nulls not distinct
    where low_user_id is not null and detached_at is null;
create index conversations_low_user_id on conversations (low_user_id) where low_user_id is not null;

create table threads (
    thread_id uuid primary key,
    owner_id uuid not null references users (user_id),
    title text not null check (length(title) between 1 and 200),
    description text check (length(description) <= 10000),
    category text not null check (category in ('trading_cards', 'mens_fashion', 'sneakers', 'sports_cards', 'collectibles',
        'electronics', 'home_decor', 'beauty', 'kids_baby', 'furniture', 'books', 'other')),
    boost_level text check (boost_level in ('bronze', 'silver', 'gold')),
    boost_points bigint not null default 0 check (boost_points >= 0),
    is_hot boolean not null default false,           -- a hundred events within a day, looked at by a job
    is_pinned boolean not null default false,
    member_count int not null default 0 check (member_count >= 0),
    version int not null default 1,
    changed_by uuid references users (user_id),
    metadata jsonb not null default '{}',
    at timestamptz not null default now(),
    deleted_at timestamptz,                          -- marked at once; what hangs on it is removed in batches
    emptied_at timestamptz
);
create index threads_owner_id on threads (owner_id);
create index threads_changed_by on threads (changed_by) where changed_by is not null;
create index threads_listed on threads (is_pinned, thread_id) where deleted_at is null;
create index threads_category on threads (category, is_pinned, thread_id) where deleted_at is null;
create index threads_unemptied on threads (thread_id) where deleted_at is not null and emptied_at is null;

alter table conversations add foreign key (thread_id) references threads (thread_id);
create index conversations_thread_id on conversations (thread_id) where thread_id is not null;

create table thread_members (
    thread_id uuid not null references threads (thread_id),
    user_id uuid not null references users (user_id),
    joined_at timestamptz not null default now(),
    is_favorite boolean not null default false,
    primary key (thread_id, user_id)
);
create index thread_members_user_id on thread_members (user_id, thread_id);

-- A place on Mercator's plane, where what is near is near in every direction alike: its boxes are boxes, and the order of
-- distances from a place is nearly that on the ground.
create function on_plane(lat float8, lng float8) returns point language sql immutable parallel safe
return point(lng, degrees(ln(tan(radians(45 + greatest(-89.9999, least(89.9999, lat)) / 2)))));

create table listings (
    listing_id uuid primary key,
    user_id uuid not null references users (user_id),
    thread_id uuid references threads (thread_id),
    kind text not null check (kind in ('for_sale', 'wtb')),
    title text not null check (length(title) between 1 and 200),
    description text not null check (length(description) <= 10000),
    price_amount bigint not null check (price_amount between 1 and 9007199254740991),    -- minor units, of one piece
    price_currency text not null check (price_currency ~ '^[A-Z]{3}$'),
    category text not null check (category in ('trading_cards', 'mens_fashion', 'sneakers', 'sports_cards', 'collectibles',
        'electronics', 'home_decor', 'beauty', 'kids_baby', 'furniture', 'books', 'other')),
    condition text check (condition in ('new', 'like_new', 'good', 'fair')),
    quantity int not null default 1 check (quantity between 1 and 1000000),
    reserved int not null default 0 check (reserved >= 0),
    sold int not null default 0 check (sold >= 0),
    feed text not null default 'community' check (feed in ('discover', 'community')),
    images jsonb not null default '[]' check (jsonb_typeof(images) = 'array'),
    video text check (length(video) <= 2000),
    thumbnail text check (length(thumbnail) <= 2000),
    lat float8 check (lat between -90 and 90),
    lng float8 check (lng between -180 and 180),
    point point generated always as (case when lat is not null then on_plane(lat, lng) end) stored,
    status text not null default 'active' check (status in ('active', 'reserved', 'sold', 'expired', 'closed')),
    views bigint not null default 0,
    likes bigint not null default 0,
    version int not null default 1,                  -- of its terms: neither status nor counts move it
    expires_at timestamptz not null,
    matched_version int not null default 0,          -- the version whose counterparts have been looked for
    metadata jsonb not null default '{}',
    at timestamptz not null default now(),
    deleted_at timestamptz,                          -- with its thread or its owner; what deals stand on stays
    words tsvector generated always as (
        setweight(to_tsvector('parley'::regconfig, searchable(title)), 'A')
        || setweight(to_tsvector('parley'::regconfig, searchable(description)), 'B')) stored,
    -- Stock is never promised twice.
    constraint listings_stock check (reserved + sold <= quantity),
    check ((lat is null) = (lng is null))
) with (fillfactor = 85);                            -- room for the counts, which are written often and stand in no index
create index listings_user_id on listings (user_id, listing_id);
create index listings_thread_id on listings (thread_id, listing_id) where thread_id is not null;
-- What a search reads in order, each with what equals; of those that are to be had alone, which the sweep keeps true.
create index listings_open on listings (listing_id) where deleted_at is null and status in ('active', 'reserved');
create index listings_open_user_id on listings (user_id, listing_id)
    where deleted_at is null and status in ('active', 'reserved');
create index listings_open_thread_id on listings (thread_id, listing_id)
    where deleted_at is null and status in ('active', 'reserved');
create index listings_category on listings (category, kind, feed, listing_id)
    where deleted_at is null and status in ('active', 'reserved');
create index listings_kind on listings (kind, feed, listing_id) where deleted_at is null and status in ('active', 'reserved');
create index listings_words on listings using gin (words) where deleted_at is null and status in ('active', 'reserved');
create index listings_point on listings using gist (point) where deleted_at is null and status in ('active', 'reserved');
create index listings_price on listings (price_currency, price_amount, listing_id)
    where deleted_at is null and status in ('active', 'reserved');
create index listings_expires_at on listings (expires_at) where status in ('active', 'reserved');
create index listings_unmatched on listings (listing_id)
    where matched_version <> version and status = 'active' and deleted_at is null;
-- Which of them go together is known to the planner: a category may be wanted alone, or never for sale.
create statistics listings_facets (mcv) on kind, category, feed from listings;

-- Metres between two places on the sphere (haversine; the earth's mean radius). Not strict, so that it is inlined: of a place
-- that is null it says nothing true.
create function metres(lat1 float8, lng1 float8, lat2 float8, lng2 float8) returns float8
language sql immutable parallel safe
return 2 * 6371008.8 * asin(least(1, sqrt(
    power(sin(radians(lat2 - lat1) / 2), 2)
    + cos(radians(lat1)) * cos(radians(lat2)) * power(sin(radians(lng2 - lng1) / 2), 2))));

-- The corners, in degrees, of what holds all places within so many metres: two such where it crosses the antimeridian.
create function bounds_of(lat float8, lng float8, radius float8)
returns table (south float8, west float8, north float8, east float8) language sql immutable parallel safe
as $$
    with reach as (
        select degrees(radius / 6371008.8) + 1e-7 as dy,
               case when abs(lat) + degrees(radius / 6371008.8) >= 89.9 then 180
                    else degrees(asin(least(1, sin(radius / 6371008.8) / cos(radians(lat))))) + 1e-7 end as dx
    )
    select lat - dy as south, shifted - dx as west, lat + dy as north, shifted + dx as east
      from reach
     cross join unnest(
           array[lng, case when lng + dx > 180 then lng - 360 end, case when lng - dx < -180 then lng + 360 end]) as shifted
     where shifted is not null;
$$;

-- Whether all that is so far apart from a place on the plane, or farther, is out of reach, in metres. No way within the reach is
-- longer on the plane than at the latitude nearest to a pole; what goes over the antimeridian is another matter.
create function is_beyond(apart float8, lat float8, lng float8, reach float8) returns boolean language sql immutable parallel safe
return apart * cos(radians(least(90, abs(lat) + degrees(reach / 6371008.8)))) > degrees(reach / 6371008.8)
    and (select count(*) from bounds_of(lat, lng, reach)) = 1;

-- The condition on listings `l` that they stand within so many metres. A crowd is not found by the index on places: how many
-- there are in it the planner doesn't know, and it would read them all. It does know how coordinates are spread; and where
-- they are read `in_order` of distance, a crowd is what is met first.
create function listings_within(lat float8, lng float8, radius float8, in_order boolean) returns text
language plpgsql stable as $$
declare
    crowd constant int := 2000;
    boxes text;
    ranges text;
    found int;
begin
    select string_agg(format('l.point <@ %L::box', box(on_plane(south, west), on_plane(north, east))), ' or '),
           string_agg(format('l.lat between %L and %L and l.lng between %L and %L', south, north, west, east), ' or ')
      into boxes, ranges from bounds_of(lat, lng, radius);
    execute format(
        'select count(*) from (select from listings l
          where (%s) and l.deleted_at is null and l.status in (''active'', ''reserved'') limit %s) found', boxes, crowd) into found;
    return format('(%s) and metres(%L, %L, l.lat, l.lng) <= %L',
        case when found < crowd then boxes when in_order then 'true' else ranges end, lat, lng, radius);
end $$;

-- A page of listings, in order: with their distance where a place is given, their rank where they are sorted by relevance,
-- and the newest of those that were ranked.
--
-- Each statement is planned for what is asked, values and all (`execute`): whether it reads what fits by an index and sorts it,
-- or reads in order until the page is full, is the planner's to say, who knows how common each value is; at 100,000 listings
-- neither reads more than some 2,000. What would, is made small here: by relevance the latest 500 that fit are ranked; and
-- the nearest are among twice as many in the plane's order, or some times as many, or else within the reach of these.
-- `python -m bench.listings` measures it.
create function search_listings(viewer uuid, wanted jsonb, before jsonb, most int)
returns table (listing_id uuid, price_currency text, price_amount bigint, distance float8, rank float8, latest uuid)
language plpgsql stable as $$
declare
    ranked constant int := 500;
    w record;
    b record;
    words tsquery;
    fits text;
    away text := 'null::float8';
    page text := 'select l.listing_id, l.price_currency, l.price_amount, %s, null::float8, null::uuid from listings l
                   where %s order by %s limit %s';
    ids uuid[];
    looked int;
    found int;
    reach float8;
    apart float8;
begin
    select * into w from jsonb_to_record(wanted) as asked (
        query text, kind text, category text, thread_id uuid, user_id uuid, feed text, currency text, price_min bigint,
        price_max bigint, lat float8, lng float8, radius_m float8, sort text);
    select * into b from jsonb_to_record(coalesce(before, '{}')) as place (
        listing_id uuid, key float8, currency text, amount bigint, newest uuid);
    words := websearch_to_tsquery('parley', searchable(w.query));
    if numnode(words) = 0 then
        return;
    end if;
    fits := concat_ws(' and ', 'l.deleted_at is null',
        case when w.user_id is distinct from viewer then 'l.status in (''active'', ''reserved'') and l.expires_at > now()' end,
        'l.words @@ ' || quote_literal(words::text) || '::tsquery', 'l.kind = ' || quote_literal(w.kind),
        'l.category = ' || quote_literal(w.category), 'l.thread_id = ' || quote_literal(w.thread_id),
        'l.user_id = ' || quote_literal(w.user_id), 'l.feed = ' || quote_literal(w.feed),
        'l.price_currency = ' || quote_literal(w.currency), 'l.price_amount >= ' || w.price_min,
        'l.price_amount <= ' || w.price_max);
    if w.lat is not null then
        away := format('metres(%L, %L, l.lat, l.lng)', w.lat, w.lng);
    end if;
    if w.lat is not null then
        fits := fits || ' and ' || listings_within(w.lat, w.lng, w.radius_m, w.sort = 'distance');
    end if;
    if w.sort = 'new' then
        fits := concat_ws(' and ', fits, 'l.listing_id < ' || quote_literal(b.listing_id));
        return query execute format(page, away, fits, 'l.listing_id desc', most);
    elsif w.sort = 'price' then
        if b.listing_id is not null then
            fits := format('%s and (l.price_currency, l.price_amount, l.listing_id) > (%L, %s, %L)',
                fits, b.currency, b.amount, b.listing_id);
        end if;
        return query execute format(page, away, fits, 'l.price_currency, l.price_amount, l.listing_id', most);
    elsif w.sort = 'distance' then
        if b.listing_id is not null then
            fits := format('%s and (%s, l.listing_id) > (%L, %L)', fits, away, b.key, b.listing_id);
        end if;
        foreach looked in array array[2 * most, 20 * most, 80 * most] loop
            execute format(
                'with near as materialized (
                     select l.listing_id, %s as away, l.point <-> %L::point as apart from listings l
                      where %s order by apart limit %s
                 ), nearest as (
                     select listing_id, away from near order by away, listing_id limit %s
                 )
                 select array_agg(n.listing_id), max(n.away), (select count(*) from near), (select max(apart) from near)
                   from nearest n',
                away, on_plane(w.lat, w.lng), fits, looked, most) into ids, reach, found, apart;
            if found < looked or is_beyond(apart, w.lat, w.lng, reach) then
                return query execute format(page, away, format('l.listing_id = any (%L)', ids), away || ', l.listing_id', most);
                return;
            end if;
        end loop;
        fits := fits || ' and ' || listings_within(w.lat, w.lng, reach, false);
        return query execute format(page, away, fits, away || ', l.listing_id', most);
    elsif w.sort = 'relevance' then
        fits := concat_ws(' and ', fits, 'l.listing_id <= ' || quote_literal(b.newest));
        return query execute format(
            'with latest as materialized (
                 select l.* from listings l where %s order by l.listing_id desc limit %s
             ), rated as (
                 select l.listing_id, l.price_currency, l.price_amount, %s as away, ts_rank(l.words, $1)::float8 as rank,
                        first_value(l.listing_id) over (order by l.listing_id desc) as newest
                   from latest l
             )
             select r.listing_id, r.price_currency, r.price_amount, r.away, r.rank, r.newest from rated r
              where $2 is null or (r.rank, r.listing_id) < ($3, $2)
              order by r.rank desc, r.listing_id desc limit %s', fits, ranked, away, most)
            using words, b.listing_id, b.key;
    end if;
end $$;

-- Values from before there were listings name none.
alter table conversations add foreign key (listing_id) references listings (listing_id) not valid;
create index conversations_listing_id on conversations (listing_id) where listing_id is not null;

create table wishlists (
    user_id uuid not null references users (user_id),
    listing_id uuid not null references listings (listing_id) on delete cascade,
    at timestamptz not null default now(),
    primary key (user_id, listing_id)
);
create index wishlists_listing_id on wishlists (listing_id);

create table listing_faqs (
    faq_id uuid primary key,
    listing_id uuid not null references listings (listing_id) on delete cascade,
    user_id uuid not null references users (user_id),
    question_id uuid not null,                       -- at the root of it; a question's own id
    parent_id uuid,
    type text not null check (type in ('question', 'answer', 'reply')),
    text text check (length(text) between 1 and 10000),      -- null: erased with its author
    is_accepted boolean not null default false,
    at timestamptz not null default now(),
    unique (listing_id, faq_id),
    -- The parent is of the same listing.
    foreign key (listing_id, parent_id) references listing_faqs (listing_id, faq_id) on delete cascade,
    check ((type = 'question') = (parent_id is null)),
    check ((type = 'question') = (question_id = faq_id)),
    check (not is_accepted or type = 'answer')
);
-- A page: the newest question first, behind each what was said to it.
create index listing_faqs_listed on listing_faqs (listing_id, question_id desc, faq_id);
create index listing_faqs_user_id on listing_faqs (user_id);
create index listing_faqs_parent on listing_faqs (listing_id, parent_id);
-- At most one accepted answer a question.
create unique index listing_faqs_accepted_key on listing_faqs (parent_id) where is_accepted;

-- What an erasure has to find in the log is not messages alone: a listing's, a question's or an offer's words are found by the
-- id of the same column.
comment on column room_events.message_id is 'the object whose words the payload holds: a message, listing, faq, offer or review';
