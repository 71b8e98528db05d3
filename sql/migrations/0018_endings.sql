-- Ends that are too many for one transaction: the one that decides writes down that they have ended, a job ends them.

-- What came first, the opening of a negotiation or an end: drawn behind the locks that both take, so that no clock has a say.
create sequence moments;

-- When it began, or was open again after a deal that came to nothing.
alter table negotiations add opened bigint not null default 0;    -- those that there are came before every end
alter table negotiations alter opened set default nextval('moments');

create index negotiations_open on negotiations (listing_id, negotiation_id) where status = 'open';
create index negotiations_open_between on negotiations (buyer_id, seller_id, negotiation_id) where status = 'open';

-- Negotiations about a listing, or between two people, that were opened before this moment and are still open have ended by
-- this move. The row goes when none is left.
create table endings (
    moment bigint primary key default nextval('moments'),
    move text not null check (move in ('sell_out', 'close_listing', 'block')),
    listing_id uuid references listings (listing_id),
    low_user_id uuid references users (user_id),
    high_user_id uuid references users (user_id),
    at timestamptz not null default now(),
    check ((move = 'block') = (listing_id is null)),
    check ((move = 'block') = (low_user_id is not null)),
    check ((move = 'block') = (high_user_id is not null)),
    check (low_user_id < high_user_id)
);
create index endings_listing_id on endings (listing_id) where listing_id is not null;
create index endings_low_user_id on endings (low_user_id) where low_user_id is not null;
create index endings_high_user_id on endings (high_user_id) where high_user_id is not null;

-- The move by which a negotiation has ended that is not written as closed yet: the first, where there are several; else null.
create function ending_of(n negotiations) returns text language sql stable
as $$
    select e.move from endings e
     where n.status = 'open' and e.moment > n.opened
       and (e.listing_id = n.listing_id
            or (e.low_user_id = least(n.buyer_id, n.seller_id) and e.high_user_id = greatest(n.buyer_id, n.seller_id)))
     order by e.moment limit 1;
$$;
