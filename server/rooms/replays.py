"""What a socket has missed: how much of it a connect may be served, and sending it at the client's pace.

It is taken from memory where that has all of it, else read from the log, for as many sockets as ask at once together:
after a restart they all do, and most for the same.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import structlog

from server.rooms import log
from server.rooms.delivery import Delivery
from server.rooms.local import Joiner, LocalRoom
from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.sockets import Socket
from storage import Connection, Database, Gathering

REPLAY_EVENTS = 2_000  # of one connect
REPLAY_BYTES = 1024 * 1024  # of one connect
MEASURED_EVENTS = 5 * REPLAY_EVENTS  # of one connect: events that are only measured cost PostgreSQL all the same
PAGE_ROWS, PAGE_BYTES = 500, 256 * 1024  # read at once for one room
PAGES, PAGES_ROWS, PAGES_BYTES = 64, 2_000, 1024 * 1024  # of one statement, for all that ask
MEASURES = 8  # connects that one statement measures for
READERS = 2  # statements of either kind under way; who comes meanwhile shares the next


logger = structlog.get_logger("parley.rooms")

Place = tuple[Room, int]
"""A room, and a position in it."""

Span = tuple[Room, int, int]
"""A room, and what lies behind a position up to its head."""

LetBack = Callable[[Socket, Room, int], None]
"""Called for a socket that was taken out, with the room and the removal's seq."""


class Replays:
    """Serves sockets what they have missed."""

    def __init__(self, database: Database, delivery: Delivery, let_back: LetBack) -> None:
        self._database = database
        self._delivery = delivery
        self._let_back = let_back
        self._pages = Gathering(database, _read, most=PAGES, flights=READERS)
        self._sizes = Gathering(database, _measure, most=MEASURES, flights=READERS)

    async def serve(self, socket: Socket, local: LocalRoom, joiner: Joiner) -> None:
        """Send what follows the joiner's position, until nothing is missing; then open it."""
        try:
            while True:
                await socket.connection.paced()  # nobody holds a page for a client that does not read
                if local.joining.get(socket) is not joiner:
                    return
                if joiner.position >= (local.head or 0):
                    break
                blankings = local.blankings
                page = await self._page(local, joiner.position)
                if not await self._send(socket, local, joiner, page, blankings):
                    return
        except Exception as error:
            send_back(socket, local.room, error)
            return
        joiner.served = True
        if joiner.position == local.head:
            local.open(socket)

    async def _send(
        self, socket: Socket, local: LocalRoom, joiner: Joiner, page: Sequence[Event], blankings: int
    ) -> bool:
        """Send a page at the client's pace, as long as nothing in the room has been blanked since it was asked for.

        False where the socket has been taken out meanwhile, or is served anew.
        """
        try:
            for event in page:
                if local.joining.get(socket) is not joiner:
                    return False
                if local.blankings != blankings:
                    break
                socket.connection.send(event.seen_from(local.floors.get(socket, 0)).packet)
                joiner.position = event.seq
                if event.seq > joiner.judged and self._delivery.ends(event, socket.user_id):
                    self._delivery.release(socket, local.room)
                    self._let_back(socket, local.room, event.seq)
                    return False
                await socket.connection.paced()
            return True
        finally:
            for event in page:
                event.forget_packet()  # many of them stay in memory, in the room's tail

    async def _page(self, local: LocalRoom, position: int) -> Sequence[Event]:
        """What follows a position, without a hole. Raises LookupError where the log has not all of it any more."""
        events: Sequence[Event] | None = local.tail_after(position) or None
        while events is None:
            events = await self._pages.ask((local.room, position))
        if not events or not log.follow(events, position):
            raise LookupError(f"what follows {position} in {local.room} is not there")
        return events

    async def affordable(self, afters: Mapping[Room, int], heads: Mapping[Room, int]) -> list[Room]:
        """The rooms whose events, from each `after` up to its head, can be served within the budget of a connect.

        It is spent room by room in the order given; a room that does not fit, or has a hole there, spends nothing.
        Rooms are measured only where their numbers of events, which are known, still fit; and with `MEASURED_EVENTS`
        measured, those that memory has not whole are left out.
        """
        found: list[Room] = []
        events, bytes_, measurable = REPLAY_EVENTS, REPLAY_BYTES, MEASURED_EVENTS
        missed = {room: heads[room] - after for room, after in afters.items()}
        waiting = deque(missed)
        while waiting:
            together = _first(waiting, missed, events)
            if not together:
                waiting.popleft()
                continue
            sizes = self._remembered({room: afters[room] for room in together}, heads)
            unknown = {room: afters[room] for room in together if room not in sizes}
            measurable -= sum(missed[room] for room in unknown)
            if unknown and measurable >= 0:
                spans = [(room, after, heads[room]) for room, after in unknown.items()]
                found_sizes = await self._sizes.ask(spans)
                sizes |= {span[0]: size for span, size in zip(spans, found_sizes, strict=True) if size is not None}
            for room in together:
                size = sizes.get(room)
                if size is not None and size <= bytes_:
                    events, bytes_ = events - missed[room], bytes_ - size
                    found.append(room)
        return found

    def _remembered(self, afters: Mapping[Room, int], heads: Mapping[Room, int]) -> dict[Room, int]:
        """The bytes of what each room's client has missed, where memory has it all."""
        sizes: dict[Room, int] = {}
        for room, after in afters.items():
            tail = [] if after == heads[room] else self._delivery.tail_after(room, after)
            if tail is not None and after + len(tail) >= heads[room]:
                sizes[room] = sum(event.size for event in tail)
        return sizes


async def _read(db: Connection, asked: Sequence[Place]) -> list[list[Event] | None]:
    """What follows each position in its room, none where nothing does; None where it had no place in the statement."""
    afters: dict[Room, int] = {}
    for room, after in asked:
        afters[room] = min(after, afters.get(room, after))
    found = await log.read(db, afters, room_rows=PAGE_ROWS, rows=PAGES_ROWS, bytes_=PAGES_BYTES)
    events = [event for page in found.values() for event in page]
    is_full = len(events) >= PAGES_ROWS or sum(event.size for event in events) > PAGES_BYTES - PAGE_BYTES
    pages: list[list[Event] | None] = []
    for room, after in asked:
        page = [event for event in found[room] if event.seq > after]
        pages.append(page if page or not (is_full or found[room]) else None)
    return pages


async def _measure(db: Connection, asked: Sequence[Sequence[Span]]) -> list[list[int | None]]:
    """The bytes of each span of each connect; None where some of it has been swept."""
    sizes = iter(await log.measure(db, [span for spans in asked for span in spans]))
    return [[next(sizes) for _ in spans] for spans in asked]


def _first(waiting: deque[Room], missed: Mapping[Room, int], events: int) -> list[Room]:
    """Take from the front the rooms that have at most so many events together."""
    together: list[Room] = []
    while waiting and missed[waiting[0]] <= events:
        events -= missed[waiting[0]]
        together.append(waiting.popleft())
    return together


def send_back(socket: Socket, room: Room, error: BaseException) -> None:
    """Let the client come back and resume: it would miss what everybody else hears."""
    logger.warning("replay_failed", room=str(room), error=getattr(error, "message", repr(error)))
    socket.connection.drop()
