"""A socket connects: who it is, which rooms it stands in, and what it has missed in them."""

from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any
from uuid import UUID

import msgspec

from handlers.permissions import admit_to_conversations, admit_to_listings, admit_to_own_rooms, admit_to_threads
from server.commands.context import Caller, Services, encode
from server.commands.gateway import Welcome
from server.commands.pages import Seq
from server.commands.payload import decode
from server.commands.registry import Limit, push
from server.commands.tokens import Claims
from server.errors import TooLarge, Unauthenticated, Unavailable
from server.rooms.joining import Joining, Standing
from server.rooms.names import Room, parse, user_room
from server.rooms.sockets import Socket
from server.wire import Connection, event_packet
from storage import Connection as Db
from storage import Database, Gathering, Time, sessions
from storage.sessions import Admission

PROTOCOL = 1
ROOMS = 1_000  # of one connect: those it names, and those it is put into
AT_ONCE = 64  # connects that one statement reads for: 25 µs each, where one alone takes 250
FLIGHTS = 1  # such statements under way: who comes meanwhile shares the next


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client connects with; `rooms` are those to resume, each behind the last seq it has seen."""

    token: str = ""
    epoch: str | None = None
    rooms: Annotated[dict[str, Seq], msgspec.Meta(max_length=ROOMS)] = {}


class Hello(msgspec.Struct, frozen=True):
    """The first push of every connection. In each of `rooms`, what follows is the replay asked for, then head + 1."""

    protocol: int
    user_id: UUID
    session_id: UUID
    server_time: Time
    instance: str
    epoch: UUID
    rooms: dict[str, int]
    reset: list[str]
    truncated: bool


hello_push = push(
    "hello",
    Hello,
    "The first of every connection, to that socket alone; without a second argument.",
    rooms=(),
    ephemeral=True,
)


def register_rooms(joining: Joining) -> None:
    """Say who may stand in each kind of room."""
    joining.admit_to("user", admit_to_own_rooms)
    joining.admit_to("conversation", admit_to_conversations)
    joining.admit_to("thread", admit_to_threads)
    joining.admit_to("listing", admit_to_listings)


class Admitting:
    """Lets sockets in, in the name of one instance: a bounded number of each person."""

    def __init__(self, instance: str, database: Database, *, per_user: int) -> None:
        self._instance = instance
        self._admissions = Gathering(database, _admitted, most=AT_ONCE, flights=FLIGHTS)
        self._per_user = per_user

    async def __call__(self, services: Services, connection: Connection, auth: Any) -> Welcome:
        """Judge a connect. Raises `Unauthenticated`, `Invalid`, `TooLarge`, `RateLimited`, or `Unavailable`."""
        asked = decode(Auth, auth, services.bounds)
        claims = services.tokens.read(asked.token)
        services.limits.take(Limit.CONNECTS, claims.user_id)
        if len(services.delivery.sockets_of(claims.user_id)) >= self._per_user:
            raise TooLarge(f"More than {self._per_user} sockets at once: close some of them.", self._per_user)
        socket = Socket(connection, claims.user_id, claims.session_id)
        # Registered first, closed, then judged: a removal delivered from here on is noted, and the snapshot decides.
        services.delivery.enter(socket)
        try:
            return await self._welcome(services, socket, asked, claims)
        except BaseException:
            services.delivery.exit(socket)
            raise

    async def _welcome(self, services: Services, socket: Socket, asked: Auth, claims: Claims) -> Welcome:
        joining = services.joining
        named = {room: after for name, after in asked.rooms.items() if (room := parse(name)) is not None}
        afters = {room: after for room, after in named.items() if joining.has_kind(room)}
        for room in {user_room(socket.user_id), *afters}:
            services.delivery.hold(socket, room)
        admission = await self._admissions.ask((socket.user_id, socket.session_id))
        if admission is None:
            raise Unauthenticated("This session has ended: sign in again.")
        standings = _standings(admission)
        others = [room for room in afters if room not in standings]
        if others:
            standings.update(await joining.judge(socket.user_id, others))
        _stay_in_the_epoch(services, socket, admission.epoch)
        for room in afters.keys() - standings.keys():
            services.delivery.release(socket, room)
        resumed = {room: after for room, after in afters.items() if room in standings}
        is_same = asked.epoch is None or asked.epoch == str(admission.epoch)
        positions = await joining.resumable(standings, resumed) if is_same else {}
        hello = Hello(
            protocol=PROTOCOL,
            user_id=socket.user_id,
            session_id=socket.session_id,
            server_time=admission.server_time,
            instance=self._instance,
            epoch=admission.epoch,
            rooms={str(room): standing.head for room, standing in standings.items()},
            reset=[str(room) for room in (resumed if is_same else standings) if room not in positions],
            truncated=len(admission.room_ids) > ROOMS + 1,
        )
        # The client's own order first: the budget was spent in it.
        ordered = [*resumed, *(room for room in standings if room not in resumed)]
        places = [(room, standings[room], positions.get(room, standings[room].head)) for room in ordered]
        return Welcome(
            socket,
            Caller(socket.user_id, socket.session_id, claims.scope, frozenset(admission.roles)),
            claims.expires_at,
            event_packet(hello_push.name, encode(hello).decode()),
            lambda: joining.resume(socket, places),
        )


def _stay_in_the_epoch(services: Services, socket: Socket, epoch: UUID) -> None:
    """Refuse a connect that finds another database than this instance knows. Raises `Unavailable`."""
    if not socket.is_gone and epoch != services.delivery.epoch:
        services.delivery.exit(socket)  # refused, and not dropped with the others
        services.delivery.note_epoch(epoch)
    if socket.is_gone:
        raise Unavailable


def _standings(admission: Admission) -> dict[Room, Standing]:
    """How a person stands in the rooms they are put into, their own first."""
    rooms = zip(admission.kinds, admission.room_ids, admission.heads, admission.floors, strict=True)
    return {Room(kind, room_id): Standing(head, floor) for kind, room_id, head, floor in islice(rooms, ROOMS + 1)}


async def _admitted(db: Db, people: Sequence[tuple[UUID, UUID]]) -> list[Admission | None]:
    """What the connects of these people and sessions have to know; None for a session that stands no more."""
    found = await sessions.find_admissions(db, people, ROOMS)
    stale = [
        session_id for (_, session_id), admission in zip(people, found, strict=True) if admission and admission.stale
    ]
    if stale:
        await sessions.touch_sessions(db, stale)
    return found
