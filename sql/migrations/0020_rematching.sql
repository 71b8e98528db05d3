-- Matches are sought again whenever something that matters to them has changed, and a refund may fail.

alter table listings
    add edition int not null default 1,              -- moves with whatever a match hangs on: terms, place, being had again
    add matched_edition int not null default 0;      -- that whose counterparts have been looked for
update listings set matched_edition = 1 where matched_version = version;
drop index listings_unmatched;
create index listings_unmatched on listings (listing_id)
    where matched_edition <> edition and status = 'active' and deleted_at is null;
alter table listings drop matched_version;

-- Under 40 points it is no match any more, and no good one.
alter table listing_matches drop quality;
alter table listing_matches
    add quality text generated always as (
        case when score >= 80 then 'excellent' when score >= 60 then 'good' when score >= 40 then 'possible' end) stored
        check (quality in ('excellent', 'good', 'possible'));

-- What a payment provider said it had given back, and had not.
create table failed_refunds (
    provider text not null check (provider in ('manual', 'stripe')),
    refund_id text not null check (length(refund_id) <= 255),
    transaction_id uuid not null references transactions (transaction_id),
    reason text check (length(reason) <= 100),
    at timestamptz not null,                         -- by the provider's clock, by which its words are put in order
    primary key (provider, refund_id)
);
create index failed_refunds_transaction_id on failed_refunds (transaction_id);

alter table transactions add refund_told_at timestamptz;    -- by the same clock: the last word that all was given back
alter table transactions
    drop constraint transactions_move_check,
    add constraint transactions_move_check
        check (move in ('pay', 'confirm', 'complete', 'fail', 'cancel', 'lapse', 'refund', 'bounce'));
