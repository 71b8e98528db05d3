-- Auto-rules: one a listing. Locks: whoever writes one holds its listing.

-- name: has_rule(listing_id)$
select exists (select from auto_rules where listing_id = :listing_id and enabled) as found;

-- name: get_rule(listing_id)^
-- record_class: AutoRuleRow
select r.listing_id, l.price_currency as currency, r.accept_at, r.decline_below, r.counter_step, r.max_rounds, r.enabled,
       r.version, r.at
  from auto_rules r
  join listings l using (listing_id)
 where r.listing_id = :listing_id;

-- name: set_rule(listing_id, accept_at, decline_below, counter_step, max_rounds, enabled)!
insert into auto_rules (listing_id, accept_at, decline_below, counter_step, max_rounds, enabled)
values (:listing_id, :accept_at, :decline_below, :counter_step, :max_rounds, :enabled)
on conflict (listing_id) do update
   set accept_at = excluded.accept_at, decline_below = excluded.decline_below, counter_step = excluded.counter_step,
       max_rounds = excluded.max_rounds, enabled = excluded.enabled, version = auto_rules.version + 1, at = now();

-- name: list_past(listing_id, most)
-- record_class: PastOffer
-- What the seller had asked for is their last offer before, or the listing's price, where there is none or that is lower.
select o.offer_id, o.price_amount as price,
       least((
           select s.price_amount from offers s
            where s.negotiation_id = o.negotiation_id and s.round < o.round and s.maker_id <> o.maker_id
            order by s.round desc limit 1), l.price_amount) as asked,
       n.max_rounds - o.round as rounds_left
  from offers o
  join negotiations n using (negotiation_id)
  join listings l on l.listing_id = o.listing_id
 where o.listing_id = :listing_id and o.maker_id = n.buyer_id
 order by o.offer_id desc limit :most;

-- name: rules_offer(offer_id)$
-- Whether the seller's rule would answer an answer to this offer: theirs is on the table, and a rule is on.
select exists (
    select from offers o
      join negotiations n using (negotiation_id)
      join auto_rules r on r.listing_id = o.listing_id and r.enabled
     where o.offer_id = :offer_id and o.maker_id = n.seller_id) as found;
