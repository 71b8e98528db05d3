-- Reviews: what the two of a completed deal say of each other.
-- Locks: whoever writes one holds both people's rows (users.sql) before its transaction's; whoever blanks one, its room's.

-- name: create_review(review_id, transaction_id, author_id, subject_id, rating, text)!
insert into reviews (review_id, transaction_id, author_id, subject_id, rating, text, at)
values (:review_id, :transaction_id, :author_id, :subject_id, :rating, :text, date_trunc('milliseconds', clock_timestamp()));

-- name: get_review(review_id)^
-- record_class: Review
select review_id, transaction_id, author_id, subject_id, rating, text, at from reviews where review_id = :review_id;

-- name: find_review(transaction_id, author_id)^
-- record_class: Review
select review_id, transaction_id, author_id, subject_id, rating, text, at
  from reviews where transaction_id = :transaction_id and author_id = :author_id;

-- name: page_reviews(subject_id, before, most)
-- record_class: Review
select review_id, transaction_id, author_id, subject_id, rating, text, at
  from reviews
 where subject_id = :subject_id and (:before::uuid is null or review_id < :before::uuid)
 order by review_id desc limit :most;

-- name: count_rating(user_id, rating)!
update users set ratings = ratings + 1, rating_sum = rating_sum + :rating::int where user_id = :user_id;
