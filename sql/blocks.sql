-- Who has blocked whom. No lock is taken but by the writes themselves.

-- name: create_block(blocker_id, blocked_id)$
insert into user_blocks (blocker_id, blocked_id) values (:blocker_id, :blocked_id)
on conflict (blocker_id, blocked_id) do nothing
returning blocked_id;

-- name: delete_block(blocker_id, blocked_id)$
delete from user_blocks where blocker_id = :blocker_id and blocked_id = :blocked_id
returning blocked_id;

-- name: count_blocks(blocker_id)$
select count(*) from user_blocks where blocker_id = :blocker_id;

-- name: list_blocked(blocker_id)
select blocked_id from user_blocks where blocker_id = :blocker_id order by at desc, blocked_id;

-- name: list_between(user_id, others)
-- In either direction.
select blocked_id as other_id from user_blocks
 where blocker_id = :user_id and blocked_id = any (:others::uuid[])
union
select blocker_id from user_blocks
 where blocked_id = :user_id and blocker_id = any (:others::uuid[]);
