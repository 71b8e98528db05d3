"""What no declaration says: how one connects, what an answer looks like, how rooms and positions work.

Markdown, as the reference, the page and the two JSON documents show it; the wire contract in words.
"""

from collections.abc import Sequence

from server.wire import CODECS


def codecs(names: Sequence[str]) -> str:
    """What packets travel in, in words."""
    shown = ["JSON" if name == "json" else name for name in names]
    return "in " + " or ".join(shown) + (", as the client chooses" if len(shown) > 1 else "")


_SOCKET = "Socket.IO v5 (EIO=4) at `/socket.io/`, namespace `/`: WebSocket, or polling with upgrade"

CONNECT = f"{_SOCKET}; {codecs(CODECS)}." + """

```js
const socket = io("https://chat.example", {
  // A function: it is asked again at every connect, for the token and the last seq seen in each room.
  auth: (give) => give({ token, epoch, rooms: { "conversation:019b…": 41 } }),
});
```

- `token`: an access token, of `account:register`, `account:login` or `account:refresh`. The socket ends with it.
- `epoch`: the one of the last `hello`. Where it is another, every room is in `reset`.
- `rooms`: the rooms to resume, each with the last seq that this client has seen there; at most 1,000.
- A refused connect gets `connect_error` with `{message, data: {code, …}}`.
- Nothing precedes `hello`. The socket stands in the person's own room and in their rooms already, and in those of
  `auth.rooms` that they may join. In each room the replay asked for comes first, then what happens from `head + 1` on.
- `reset` names the rooms to load afresh: `after` is swept or beyond the head, more than 1,000 events behind, or beyond
  what one connect replays (2,000 events, 1 MiB, spent in the order in which the client names its rooms).
- A command is an event with one object and an ack: `emit("<noun>:<verb>", payload, ack)`. Without an ack an error is
  only logged. One client's commands start in the order in which it sends them.
"""

CALLING = """\
`POST /api/<noun>/<verb>` with `Authorization: Bearer <token>` and the payload as JSON is the same command, where it is
not said to be on the socket alone. The answer is the same on both:

```json
{"ok": true, "data": {}}
{"ok": false, "error": {"code": "not_found", "message": "There is no such object, or you may not see it."}}
```

- Unknown fields of a payload are refused; clients ignore unknown fields and pushes. No payload counts as `{}`.
- Ids are UUIDs. Times are RFC 3339, UTC, milliseconds: `2026-11-20T17:00:00.000Z`. Text is kept byte for byte and
  counted in code points; NUL and lone surrogates are `invalid`. In updates null clears a field, absence keeps it.
- A command that takes a `client_id` (1 to 64 printable ASCII) is the same command, with the same object as its answer,
  however often it is sent: for good. With another payload it is a `conflict` of reason `key_reuse`.
- After `unavailable`, or without an answer, send the same again.
- Pages: `before` and `next` are opaque, `next: null` ends; a page also ends at 256 KiB.
"""

FILES = """\
The bytes of attachments travel beside the commands, by paths that need no token: each is signed, for one person, for what
it is for, until it ends.

- `PUT` the bytes, as many as were declared, to the `upload_url` of `attachment:create`, and be answered 204. Then call
  `attachment:complete`. Each counts as WRITES of its person.
- `rate_limited`: the calls are too many, or this person's uploads at once. `unavailable`: it broke off or was too slow,
  this attachment's last upload is not over yet, or the server has too many. Nothing was kept: PUT the same again, a
  little later.
- `conflict` of reason `not_pending`: the attachment is complete, and takes no more bytes.
- `GET` the `url` of `attachment:get`: the bytes or a range of them, always as a download, while one may see what they are
  attached to. They never change, so `ETag`, `If-None-Match` and `If-Range` tell whether one has them.
- What a person has declared and sent with no message has a bound in bytes, and is deleted after a day.
"""

PUSHING = """\
A durable push carries two arguments, the payload and `{room, seq, at}`; an ephemeral one `{room, at}` in the second
place; `hello` has the payload alone.

- Order by seq, in each room; drop what is at or below yours; call `room:sync` on a hole.
- Never move your position by an ack: its seq may be ahead of your pushes.
- What is pushed live and what is replayed are equal. Ephemeral pushes are not replayed, and the first to be dropped for
  a slow client.
"""

ROOMS = {
    "user": "A person's own room; their sockets stand in it from the start.",
    "conversation": "For those who take part in the conversation, from their joining on.",
    "thread": "For those who have joined the thread. Its conversation's messages come here too.",
    "listing": "For those who may see the listing, and have joined its room.",
    "live": "For those who are admitted to the live session.",
}
"""What each kind of room is."""

HTTP = (
    "Every command as `POST /api/<noun>/<verb>`, with a JSON object as its body. Commands that are on the socket "
    "alone, and all that is pushed, are in `/asyncapi.json`; `/docs` has everything for reading.\n\n" + CALLING
)

SOCKET = (
    "What travels on the socket: commands with their acks, and pushes. Of a push `payload` is the event's first "
    "argument and `headers` its second. `/docs` has everything for reading.\n\n"
    + CONNECT
    + "\n"
    + CALLING.partition("\n\n")[2]
    + "\n"
    + PUSHING
)
