"""Rooms as clients handle them: joining, leaving, and filling a hole."""

from collections.abc import Iterable
from typing import Annotated

import msgspec

from handlers.nothing import Done
from handlers.permissions import member_of_the_room
from server.commands.context import Context
from server.commands.pages import PAGE_BYTES, Seq
from server.commands.registry import Limit, Payload, Transport, command, signed_in
from server.errors import Invalid, NotFound, UnknownCommand
from server.rooms import log
from server.rooms.log import Event
from server.rooms.names import Room, parse, user_room
from server.rooms.sockets import Socket
from storage import Time

SYNC_PAGE = 1_000

RoomName = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class JoinRoom(Payload, frozen=True):
    room: RoomName
    after: Seq | None = None


class Joined(msgspec.Struct, frozen=True):
    """What follows is the replay behind `after`, then the events from head_seq + 1.

    On `reset`, load the room afresh.
    """

    room: str
    head_seq: int
    reset: bool


class LeaveRoom(Payload, frozen=True):
    room: RoomName


class SyncRoom(Payload, frozen=True):
    room: RoomName
    after: Seq
    limit: Annotated[int, msgspec.Meta(ge=1, le=SYNC_PAGE)] = 200


class SyncedEvent(msgspec.Struct, frozen=True):
    """An event as it was pushed."""

    name: str
    payload: msgspec.Raw
    seq: int
    at: Time


class Synced(msgspec.Struct, frozen=True):
    """A page of a room's events behind `after`."""

    events: list[SyncedEvent]
    head_seq: int
    more: bool
    reset: bool


def named(name: str) -> Room:
    """The room of a name. Raises `Invalid`."""
    room = parse(name)
    if room is None:
        raise Invalid({"room": "not a room's name: kind:id"})
    return room


def the_socket(ctx: Context) -> Socket:
    """The caller's socket. Raises `UnknownCommand` over HTTP, where there is none."""
    if ctx.call.socket is None:
        raise UnknownCommand("Rooms are joined on a socket.")
    return ctx.call.socket


@command(
    "room:join",
    allow=member_of_the_room,
    limit=Limit.READS,
    transport=Transport.SOCKET,
    reads=True,
    transaction=False,
    raises=(NotFound,),
)
async def join(ctx: Context, p: JoinRoom) -> Joined:
    """Stand in a room, and be served what came behind `after` first."""
    joined, serve = await ctx.services.joining.join(the_socket(ctx), named(p.room), p.after)
    ctx.then(serve)
    return Joined(str(joined.room), joined.head_seq, joined.reset)


@command(
    "room:leave",
    allow=signed_in,
    limit=Limit.READS,
    transport=Transport.SOCKET,
    reads=True,
    transaction=False,
)
async def leave(ctx: Context, p: LeaveRoom) -> Done:
    """Stand in a room no more; a room one does not stand in is left already. One's own room can't be left."""
    room, socket = named(p.room), the_socket(ctx)
    if room == user_room(socket.user_id):
        raise Invalid({"room": "one's own room can't be left"})
    ctx.services.delivery.release(socket, room)
    return Done()


@command("room:sync", allow=member_of_the_room, limit=Limit.READS, reads=True, raises=(NotFound,))
async def sync(ctx: Context, p: SyncRoom) -> Synced:
    """Read the events behind `after`, to fill a hole.

    `reset` where some of the page are swept, or `after` is beyond the head.
    """
    room = named(p.room)
    [standings] = await ctx.services.joining.judge_on(ctx.db, [(ctx.user.user_id, [room])])
    standing = standings.get(room)
    if standing is None:
        raise NotFound
    after, head = max(p.after, standing.floor), standing.head
    found = (await log.read(ctx.db, {room: after}, room_rows=p.limit, rows=p.limit, bytes_=PAGE_BYTES))[room]
    # Up to the head of the snapshot that judged: what came later may have come after a removal.
    events = [event for event in found if event.seq <= head]
    if p.after > head or (after < head and not events) or not log.follow(events, after):
        return Synced([], head, more=False, reset=True)
    more = bool(events) and events[-1].seq < head
    return Synced(_shown(event.seen_from(standing.floor) for event in events), head, more, reset=False)


def _shown(events: Iterable[Event]) -> list[SyncedEvent]:
    return [SyncedEvent(event.name, msgspec.Raw(event.payload), event.seq, event.at) for event in events]
