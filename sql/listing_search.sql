-- Finding listings. No locks.

-- name: search(viewer_id, wanted, before, most)
-- record_class: Found
select listing_id, price_currency, price_amount, distance, rank, latest
  from search_listings(:viewer_id::uuid, :wanted::jsonb, :before::jsonb, :most::int);
