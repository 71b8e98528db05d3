-- Which object a client_id made. The insert comes first in its transaction: a second one waits here for the first to end.
-- And who has given which version of a conversation its title: there the conversation's row is held already.

-- name: claim_key(user_id, command, client_id, body_hmac)$
-- The id that the new object shall have; no row where the key is known.
insert into command_keys (user_id, command, client_id, body_hmac)
values (:user_id, :command, :client_id, :body_hmac)
on conflict (user_id, command, client_id) do nothing
returning result_id;

-- name: find_key(user_id, command, client_id)^
-- record_class: Key
select body_hmac, result_id from command_keys
 where user_id = :user_id and command = :command and client_id = :client_id;

-- name: point_key(user_id, command, client_id, result_id)!
-- The command answered with an object that was there already.
update command_keys set result_id = :result_id
 where user_id = :user_id and command = :command and client_id = :client_id;
