"""Who is there: said by one's own sockets, told to those who watch and share a conversation."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec

from handlers.nothing import Done
from handlers.rooms import the_socket
from rules.presence import PresenceState
from server.commands.context import Context
from server.commands.registry import Limit, Payload, Transport, command, push, signed_in
from server.errors import TooLarge
from storage import presence
from storage.presence import Presence

WATCHED = 200  # of one call, and of one socket in all

presence_changed = push(
    "presence:changed",
    Presence,
    "Somebody whom one watches comes, looks away or goes.",
    rooms=("user",),
    ephemeral=True,
)


class SetPresence(Payload, frozen=True):
    state: Literal["online", "away"]


@command(
    "presence:set",
    allow=signed_in,
    limit=Limit.READS,
    transport=Transport.SOCKET,
    transaction=False,
)
async def set_(ctx: Context, p: SetPresence) -> Done:
    """Say whether one looks at this device. Online on one device is online; a new socket is."""
    ctx.services.presences.say(the_socket(ctx), PresenceState(p.state))
    return Done()


class Watch(Payload, frozen=True):
    user_ids: Annotated[list[UUID], msgspec.Meta(max_length=WATCHED)]


class Watched(msgspec.Struct, frozen=True):
    """What these people are now; those with whom one shares no conversation are left out."""

    presences: list[Presence]


@command("presence:watch", allow=signed_in, limit=Limit.READS, transport=Transport.SOCKET, reads=True)
async def watch(ctx: Context, p: Watch) -> Watched:
    """Be told on this socket when people come and go with whom one shares a conversation."""
    socket, presences = the_socket(ctx), ctx.services.presences
    if len({*presences.watched_by(socket), *p.user_ids}) > WATCHED:
        raise TooLarge(f"user_ids: a socket watches at most {WATCHED} people.", WATCHED)
    with presences.asking(socket, p.user_ids):
        near = await presence.list_near(ctx.db, ctx.user.user_id, p.user_ids)
        found = await presence.list_presences(ctx.db, [user_id for user_id, hidden in near.items() if not hidden])
        told = presences.watch(socket, p.user_ids, found)
    hidden = [Presence(user_id, PresenceState.OFFLINE, None) for user_id, hidden in near.items() if hidden]
    return Watched([*told, *hidden])


@command(
    "presence:unwatch",
    allow=signed_in,
    limit=Limit.READS,
    transport=Transport.SOCKET,
    reads=True,
    transaction=False,
)
async def unwatch(ctx: Context, p: Watch) -> Done:
    """Be told of these people no more."""
    ctx.services.presences.unwatch(the_socket(ctx), p.user_ids)
    return Done()
