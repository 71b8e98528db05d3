-- Negotiation: offers about a listing, the stock they reserve, and the deals that come of them.

create table negotiations (
    negotiation_id uuid primary key,
    listing_id uuid not null references listings (listing_id),
    buyer_id uuid not null references users (user_id),
    seller_id uuid not null references users (user_id),
    conversation_id uuid not null references conversations (conversation_id),
    status text not null default 'open' check (status in ('open', 'agreed', 'completed', 'closed')),
    turn text not null default 'none' check (turn in ('buyer', 'seller', 'none')),
    round int not null default 0 check (round >= 0),
    max_rounds int not null check (max_rounds between 1 and 100),
    current_offer_id uuid,
    version int not null default 1,
    at timestamptz not null default now(),
    check (buyer_id <> seller_id),
    check (round <= max_rounds)
);
-- One that is open or agreed for each listing and buyer.
create unique index negotiations_live_key on negotiations (listing_id, buyer_id) where status in ('open', 'agreed');
create index negotiations_listing_id on negotiations (listing_id);
create index negotiations_buyer_id on negotiations (buyer_id, negotiation_id);
create index negotiations_buyer_status on negotiations (buyer_id, status, negotiation_id);
create index negotiations_seller_id on negotiations (seller_id, negotiation_id);
create index negotiations_seller_status on negotiations (seller_id, status, negotiation_id);
create index negotiations_conversation_id on negotiations (conversation_id);

create table offers (
    offer_id uuid primary key,
    negotiation_id uuid not null references negotiations (negotiation_id),
    listing_id uuid not null references listings (listing_id),
    listing_version int not null,
    maker_id uuid not null references users (user_id),
    price_amount bigint not null check (price_amount between 1 and 9007199254740991),    -- minor units, of one piece
    price_currency text not null check (price_currency ~ '^[A-Z]{3}$'),
    quantity int not null check (quantity between 1 and 1000000),
    message text check (length(message) between 1 and 2000),
    status text not null default 'pending' check (status in ('pending', 'accepted', 'rejected', 'expired', 'cancelled')),
    close_reason text check (close_reason in ('countered', 'declined', 'auto_declined', 'withdrawn', 'superseded',
        'listing_sold', 'listing_closed', 'timeout', 'payment_lapsed', 'blocked')),
    by text not null default 'person' check (by in ('person', 'rule')),
    parent_offer_id uuid references offers (offer_id),
    round int not null check (round > 0),
    version int not null default 1,
    -- The last move that a person made with it, and the version they saw: a repeat is recognised by these.
    moved_by uuid references users (user_id),
    move text check (move in ('counter', 'withdraw', 'decline', 'accept')),
    moved_version int,
    expires_at timestamptz not null,
    warned int not null default 0,                   -- of the two warnings before its end, how many have gone out
    at timestamptz not null,
    closed_at timestamptz,
    unique (negotiation_id, round),
    check ((status in ('pending', 'accepted')) = (close_reason is null)),
    check ((status = 'pending') = (closed_at is null))
);
-- One on the table at a time.
create unique index offers_pending_key on offers (negotiation_id) where status = 'pending';
create index offers_listing_id on offers (listing_id, offer_id);
create index offers_maker_id on offers (maker_id);
create index offers_parent_offer_id on offers (parent_offer_id) where parent_offer_id is not null;
create index offers_moved_by on offers (moved_by) where moved_by is not null;
create index offers_expires_at on offers (expires_at) where status = 'pending';
create index offers_unwarned on offers (expires_at) where status = 'pending' and warned < 1;
create index offers_to_be_warned on offers (expires_at) where status = 'pending' and warned < 2;
-- How many rivals there are.
create index offers_on_the_table on offers (listing_id) where status = 'pending';

alter table negotiations add foreign key (current_offer_id) references offers (offer_id);
create index negotiations_current_offer_id on negotiations (current_offer_id) where current_offer_id is not null;

-- An offer as the contract shows it, and in JSON byte for byte as Python encodes it. `changes` names what differs from the
-- parent.
create view offer_objects as
select o.offer_id, o.negotiation_id, o.listing_id, o.listing_version, o.maker_id, n.buyer_id, n.seller_id,
       json_build_object('amount', o.price_amount, 'currency', o.price_currency) as price, o.quantity, o.message, o.status,
       o.close_reason, o.by, o.parent_offer_id,
       array_remove(array[
           case when o.price_amount <> p.price_amount then 'price' end,
           case when o.quantity <> p.quantity then 'quantity' end,
           case when p.offer_id is not null and o.message is distinct from p.message then 'message' end], null) as changes,
       o.round, o.version, wire_time(o.expires_at) as expires_at, wire_time(o.at) as at
  from offers o
  join negotiations n using (negotiation_id)
  left join offers p on p.offer_id = o.parent_offer_id;

-- A negotiation as the contract shows it, but for `rivals`, which only its seller is told, and only on asking.
create view negotiation_objects as
select n.negotiation_id, n.listing_id, n.buyer_id, n.seller_id, n.conversation_id, n.status, n.turn, n.round,
       n.max_rounds - n.round as rounds_left,
       (select row_to_json(o) from offer_objects o where o.offer_id = n.current_offer_id) as current_offer, n.version, n.at
  from negotiations n;

-- An offer stands in the conversation as a message, made by the server alone.
alter table messages add offer_id uuid references offers (offer_id);
create unique index messages_offer_id on messages (offer_id) where offer_id is not null;

create or replace view message_objects as
select m.conversation_id, m.sender_id, m.client_id, m.type, m.text,
       coalesce((
           select json_agg(json_build_object(
                      'attachment_id', a.attachment_id, 'name', a.name, 'content_type', a.content_type, 'size', a.size,
                      'sha256', encode(a.sha256, 'hex'), 'url', '/attachments/' || a.attachment_id) order by a.position)
             from message_attachments a where a.message_id = m.message_id), '[]') as attachments,
       m.reply_to_id,
       (select row_to_json(o) from offer_objects o where o.offer_id = m.offer_id) as offer,
       coalesce((
           select json_agg(json_build_object('emoji', r.emoji, 'count', r.count, 'user_ids', r.user_ids)
                           order by r.first_at, r.emoji)
             from (
               select emoji, count(*) as count, min(at) as first_at,
                      (array_agg(user_id order by at, user_id))[1:20] as user_ids
                 from message_reactions where message_id = m.message_id group by emoji) r), '[]') as reactions,
       m.version, m.edited_at, m.deleted_at, m.message_id, m.seq, m.at
  from messages m;

create table auto_rules (
    listing_id uuid primary key references listings (listing_id) on delete cascade,
    accept_at bigint check (accept_at > 0),          -- all in minor units of the listing's currency
    decline_below bigint check (decline_below > 0),
    counter_step bigint check (counter_step > 0),
    max_rounds int check (max_rounds between 1 and 100),
    enabled boolean not null,
    version int not null default 1,
    at timestamptz not null default now(),
    check (decline_below <= accept_at)
);

create table transactions (
    transaction_id uuid primary key,
    negotiation_id uuid references negotiations (negotiation_id),    -- null: bought at the asked price
    offer_id uuid references offers (offer_id),
    listing_id uuid not null references listings (listing_id),
    listing_version int not null,                    -- that was offered about, or bought
    buyer_id uuid not null references users (user_id),
    seller_id uuid not null references users (user_id),
    quantity int not null check (quantity between 1 and 1000000),
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    subtotal bigint not null check (subtotal between 1 and 9007199254740991),            -- minor units
    platform_fee bigint not null check (platform_fee >= 0),
    seller_payout bigint not null check (seller_payout >= 0),
    status text not null default 'pending' check (status in ('pending', 'completed', 'failed', 'refunded', 'cancelled')),
    provider text not null check (provider in ('manual', 'stripe')),
    intent_id text check (length(intent_id) <= 255),
    charge_id text check (length(charge_id) <= 255),
    client_secret text check (length(client_secret) <= 500),
    buyer_confirmed_at timestamptz,                  -- each side's word, and the version at which it was given
    seller_confirmed_at timestamptz,
    buyer_confirmed_version int,
    seller_confirmed_version int,
    pay_by timestamptz not null,
    paid_at timestamptz,
    paid_out_at timestamptz,
    ended_at timestamptz,                            -- cancelled, failed or refunded
    -- The last move that a person made with it, and the version they saw: a repeat is recognised by these.
    moved_by uuid references users (user_id),
    move text check (move in ('pay', 'confirm', 'complete', 'fail', 'cancel', 'lapse', 'refund')),
    moved_version int,
    version int not null default 1,
    at timestamptz not null default now(),
    check (buyer_id <> seller_id),
    check (subtotal = platform_fee + seller_payout),
    check ((negotiation_id is null) = (offer_id is null)),
    check ((intent_id is null) = (client_secret is null)),
    check ((status in ('completed', 'refunded')) = (paid_at is not null)),
    check ((status in ('cancelled', 'failed', 'refunded')) = (ended_at is not null))
);
-- One a deal: an offer is accepted once.
create unique index transactions_offer_key on transactions (offer_id) where offer_id is not null;
create unique index transactions_intent_key on transactions (provider, intent_id) where intent_id is not null;
create index transactions_negotiation_id on transactions (negotiation_id) where negotiation_id is not null;
create index transactions_listing_id on transactions (listing_id);
create index transactions_buyer_id on transactions (buyer_id, transaction_id);
create index transactions_seller_id on transactions (seller_id, transaction_id);
create index transactions_moved_by on transactions (moved_by) where moved_by is not null;
create index transactions_pay_by on transactions (pay_by) where status = 'pending';

-- What a listing's `reserved` and `sold` are made of.
create table reservations (
    reservation_id uuid primary key default uuidv7(),
    transaction_id uuid not null unique references transactions (transaction_id),
    listing_id uuid not null references listings (listing_id),
    quantity int not null check (quantity between 1 and 1000000),
    status text not null default 'held' check (status in ('held', 'sold', 'released')),
    at timestamptz not null default now(),
    ended_at timestamptz,
    check ((status = 'held') = (ended_at is null))
);
create index reservations_listing_id on reservations (listing_id);

-- What a payment provider has told us, once each.
create table payment_events (
    provider text not null check (provider in ('manual', 'stripe')),
    event_id text not null check (length(event_id) <= 255),
    told text not null check (length(told) <= 100),
    at timestamptz not null default now(),
    primary key (provider, event_id)
);

-- What is still to be asked of a payment provider: asked until it has been done, whichever instance lives to do it.
create table payment_errands (
    transaction_id uuid not null references transactions (transaction_id),
    errand text not null check (errand in ('cancel', 'refund')),
    attempts int not null default 0,
    due_at timestamptz not null default clock_timestamp(),
    done_at timestamptz,
    primary key (transaction_id, errand)
);
create index payment_errands_due on payment_errands (due_at) where done_at is null;

create table reviews (
    review_id uuid primary key,
    transaction_id uuid not null references transactions (transaction_id),
    author_id uuid not null references users (user_id),
    subject_id uuid not null references users (user_id),
    rating int not null check (rating between 1 and 5),
    text text check (length(text) between 1 and 2000),
    at timestamptz not null default now(),
    constraint reviews_author_key unique (transaction_id, author_id),
    check (author_id <> subject_id)
);
create index reviews_author_id on reviews (author_id);
create index reviews_subject_id on reviews (subject_id, review_id);

-- Derived from completed deals, in the transaction that completes, refunds or reviews one.
alter table users
    add total_sales int not null default 0 check (total_sales >= 0),
    add ratings int not null default 0,
    add rating_sum int not null default 0,
    add check (rating_sum between ratings and 5 * ratings);

-- The mean of what was said of somebody, to the hundredth; null where nothing was.
create function seller_rating(ratings int, rating_sum int) returns float8 language sql immutable parallel safe
return round(rating_sum::numeric / nullif(ratings, 0), 2)::float8;

create table listing_matches (
    match_id uuid primary key,
    source_listing_id uuid not null references listings (listing_id) on delete cascade,
    matched_listing_id uuid not null references listings (listing_id) on delete cascade,
    score int not null check (score between 0 and 100),
    quality text not null generated always as (
        case when score >= 80 then 'excellent' when score >= 60 then 'good' else 'possible' end) stored,
    reasons jsonb not null default '[]',
    -- What it is to both; before that, each one's own acts say.
    status text not null default 'new' check (status in ('new', 'mutual', 'deal_made')),
    version int not null default 1,
    at timestamptz not null default now(),
    check (source_listing_id <> matched_listing_id)
);
-- One a pair, whichever of the two appeared last.
create unique index listing_matches_pair_key on listing_matches (
    least(source_listing_id, matched_listing_id), greatest(source_listing_id, matched_listing_id));
create index listing_matches_source on listing_matches (source_listing_id, match_id);
create index listing_matches_matched on listing_matches (matched_listing_id, match_id);

create table match_interactions (
    match_id uuid not null references listing_matches (match_id) on delete cascade,
    user_id uuid not null references users (user_id),
    action text not null check (action in ('viewed', 'interested', 'contacted', 'dismissed', 'reported')),
    metadata jsonb not null default '{}',
    at timestamptz not null default clock_timestamp(),
    primary key (match_id, user_id, action)
);
create index match_interactions_user_id on match_interactions (user_id);

create table mutual_matches (
    mutual_match_id uuid primary key,
    match_id uuid not null unique references listing_matches (match_id) on delete cascade,
    buyer_listing_id uuid not null references listings (listing_id),
    seller_listing_id uuid not null references listings (listing_id),
    buyer_user_id uuid not null references users (user_id),
    seller_user_id uuid not null references users (user_id),
    conversation_id uuid not null references conversations (conversation_id),
    negotiation_id uuid references negotiations (negotiation_id),
    is_mutual boolean not null default true,
    status text not null default 'active' check (status in ('active', 'deal_made', 'closed')),
    at timestamptz not null default now()
);
create index mutual_matches_buyer_listing_id on mutual_matches (buyer_listing_id);
create index mutual_matches_seller_listing_id on mutual_matches (seller_listing_id);
create index mutual_matches_buyer_user_id on mutual_matches (buyer_user_id, mutual_match_id);
create index mutual_matches_seller_user_id on mutual_matches (seller_user_id, mutual_match_id);
create index mutual_matches_conversation_id on mutual_matches (conversation_id);
create index mutual_matches_negotiation_id on mutual_matches (negotiation_id) where negotiation_id is not null;
