"""What a handler sees of the world."""

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from rules.transactions import Provider
from rules.users import Role, Scope
from server.adapters.attachments import AttachmentStore, delete_files
from server.adapters.notifier import Notifier
from server.adapters.payments import Payments
from server.commands.limits import Limits, network_of
from server.commands.links import Links
from server.commands.passwords import Passwords
from server.commands.payload import Bounds
from server.commands.registry import Command, Limit, Payload, Push
from server.commands.tallies import Tallies
from server.commands.tokens import Tokens
from server.errors import Unauthenticated
from server.rooms import log
from server.rooms.delivery import Delivery
from server.rooms.joining import Joining
from server.rooms.log import Entry, Event, ephemeral
from server.rooms.merging import Merging
from server.rooms.names import Room
from server.rooms.presence import Presences
from server.rooms.sockets import Socket
from server.rooms.typing import Typing
from storage import Connection, Database
from storage import rooms as room_table

P = TypeVar("P", bound=Payload)
R = TypeVar("R")
T = TypeVar("T")

encode = msgspec.json.Encoder().encode
_canonical = msgspec.json.Encoder(order="sorted").encode


class Told(NamedTuple):
    """An ephemeral push, and what it is merged with."""

    event: Event
    merge: object


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a person, in a session, with what their token allows."""

    user_id: UUID
    session_id: UUID
    scope: Scope
    roles: frozenset[Role]


class Market(NamedTuple):
    """The rules of the house for deals.

    Offers of one negotiation; the platform's share in hundredths of a percent; who moves the money; how long the buyer
    has to pay, in seconds; and how long a listing lives of itself, in days.
    """

    rounds: int = 10
    fee_bps: int = 500
    provider: Provider = Provider.MANUAL
    pay_within_s: int = 259_200
    listing_days: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of the machine that handlers may use beside the database."""

    database: Database
    delivery: Delivery
    joining: Joining
    limits: Limits
    tokens: Tokens
    passwords: Passwords
    links: Links
    attachments: AttachmentStore
    typing: Typing
    merging: Merging
    presences: Presences
    notifier: Notifier
    payments: Payments | None
    bounds: Bounds
    market: Market
    tallies: Tallies
    digest_key: bytes

    def publish(self, events: Iterable[Event], told: Iterable[Told]) -> None:
        """Deliver what has been committed, then what goes along with it and no log keeps."""
        self.delivery.publish(events)
        for event, merge in told:
            if merge is None:
                self.delivery.announce(event)
            else:
                self.merging.put((event.room, event.name, merge), event)

    async def delete_files(self, file_ids: Iterable[UUID]) -> None:
        """Delete what no attachment has any more, once that is committed; what can't be now, the sweep deletes."""
        await delete_files(self.attachments, file_ids)


def digest(key: bytes, command: str, payload: Payload) -> bytes:
    """The keyed digest that recognises a repeated payload: HMAC-SHA-256 of its canonical form.

    Canonical is the decoded payload without absent and default fields, sorted: the same for JSON, msgpack and HTTP.
    """
    return hmac.digest(key, command.encode() + b"\n" + _canonical(payload), "sha256")


class Call(Generic[P]):
    """One command of one client, decoded and let through; `done` is told the answer."""

    __slots__ = (
        "address",
        "agent",
        "caller",
        "command",
        "digest",
        "done",
        "payload",
        "room",
        "skipped",
        "socket",
        "started",
    )

    def __init__(
        self,
        command: Command,
        payload: P,
        caller: Caller | None,
        *,
        socket: Socket | None,
        address: str,
        agent: str,
        started: float,
        done: Callable[[Any], None],
    ) -> None:
        self.command = command
        self.payload = payload
        self.caller = caller
        self.socket = socket
        self.address = address
        self.agent = agent
        self.started = started
        self.done = done
        self.digest = b""
        self.room: Room | None = None
        self.skipped = 0

    @property
    def user(self) -> Caller:
        """The signed-in caller. Raises `Unauthenticated` where nobody is."""
        if self.caller is None:
            raise Unauthenticated("A token is needed: sign in, and send the access token.")
        return self.caller


class Batch:
    """What a batch's handler works with: one transaction for many calls.

    `wait` says to wait for rooms that are held, instead of answering `BUSY`.
    """

    __slots__ = ("db", "events", "services", "wait")

    def __init__(self, services: Services, db: Connection, *, wait: bool) -> None:
        self.services = services
        self.db = db
        self.wait = wait
        self.events: list[Event] = []


class Work:
    """A transaction at work: what it locks, and what shall be pushed when it has been committed."""

    def __init__(self, services: Services, db: Connection | None) -> None:
        self.services = services
        self._db = db
        self._entries: list[Entry] = []
        self._heads: dict[UUID, int] = {}
        self.events: list[Event] = []
        self.told: list[Told] = []

    @property
    def db(self) -> Connection:
        """The connection, inside the transaction. Raises RuntimeError outside of one."""
        if self._db is None:
            raise RuntimeError("no transaction is open: open one with ctx.transaction()")
        return self._db

    async def lock(self, *rooms: Room) -> None:
        """Lock rooms, in order of id, until the transaction ends: after every domain row, before judging who is in.

        What is read from here on is a snapshot behind the locks.
        """
        await self.lock_ids(*(room.id for room in rooms))

    async def lock_ids(self, *room_ids: UUID) -> dict[UUID, Room]:
        """Lock rooms of whatever kind, as `lock` does; those that there are, by id."""
        heads = await room_table.lock_rooms(self.db, room_ids)
        self._heads.update((room_id, head.last_seq) for room_id, head in heads.items())
        return {room_id: Room(head.kind, room_id) for room_id, head in heads.items()}

    def next_seq(self, room: Room) -> int:
        """The seq that the next push to a locked room will take."""
        return self._heads[room.id] + sum(entry.room == room for entry in self._entries) + 1

    def push(self, push: Push[R], payload: R, *, to: Room, message_id: UUID | None = None) -> None:
        """Append to a room's log with the transaction, and send to its members when that has been committed."""
        push.check(to, ephemeral=False)
        self._entries.append(Entry(to, push.name, encode(payload).decode(), message_id))

    def tell(self, push: Push[R], payload: R, *, to: Room, merge: object = None) -> None:
        """Send an ephemeral push to those who stand in the room, when the transaction has been committed.

        Of those to one room with the same `merge`, at most one a second goes out, the latest.
        """
        push.check(to, ephemeral=True)
        self.told.append(Told(ephemeral(to, push.name, encode(payload).decode()), merge))

    def then(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do this soon after the commit. Here a job of its own finds it; behind a call's answer it is done at once."""

    async def flush(self) -> None:
        """Write what was pushed to the log; called before the commit."""
        if self._entries:
            entries, self._entries = self._entries, []
            self.events.extend(await log.append(self.db, entries))


async def work(services: Services, unit: Callable[[Work], Awaitable[T]]) -> T:
    """Run a unit of work that nobody has called for, in a transaction as a command's, and publish what it pushed."""

    async def run(db: Connection) -> tuple[T, Work]:
        at_work = Work(services, db)
        done = await unit(at_work)
        await at_work.flush()
        return done, at_work

    done, at_work = await services.database.transaction(run)
    services.publish(at_work.events, at_work.told)
    return done


class Context(Work):
    """One call at work: who calls, beside the transaction."""

    def __init__(self, services: Services, call: Call[Any], db: Connection | None, new_id: UUID | None = None) -> None:
        super().__init__(services, db)
        self.call = call
        self._new_id = new_id
        self.result_id = new_id
        self.after: list[Callable[[], Awaitable[object]]] = []

    @property
    def user(self) -> Caller:
        """Who calls. Raises `Unauthenticated` where nobody has signed in."""
        return self.call.user

    @property
    def new_id(self) -> UUID:
        """The id of the object that a command with a client_id creates."""
        if self._new_id is None:
            raise RuntimeError(f"{self.call.command.name} creates nothing under a client_id")
        return self._new_id

    @property
    def network(self) -> str:
        """Where the call comes from, as the limits count it."""
        return network_of(self.call.address)

    def take(self, limit: Limit, key: object) -> None:
        """Count the call against a further bucket, which the command declares. Raises `RateLimited`."""
        if limit not in self.call.command.further:
            raise RuntimeError(f"{self.call.command.name} does not declare that it takes from {limit}")
        self.services.limits.take(limit, key)

    def push(self, push: Push[R], payload: R, *, to: Room, message_id: UUID | None = None) -> None:
        """Append to a room's log with the transaction, and send to its members when that has been committed."""
        if self.call.command.reads:
            raise RuntimeError(f"{self.call.command.name} is declared to change nothing, and pushes {push.name}")
        super().push(push, payload, to=to, message_id=message_id)

    def then(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do this after the answer has been sent."""
        self.after.append(work)

    async def retried(self, unit: Callable[[], Awaitable[T]]) -> T:
        """Run database work in a transaction, again on conflicts, for commands declared without one."""
        committed, told = len(self.events), len(self.told)

        def forget() -> None:  # nobody should hear of a rollback
            del self.events[committed:], self.told[told:]
            self._entries.clear()
            self._heads.clear()

        async def run(db: Connection) -> T:
            forget()
            self._db = db
            done = await unit()
            await self.flush()
            return done

        try:
            return await self.services.database.transaction(run)
        except BaseException:
            forget()
            raise
        finally:
            self._db = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction around the database work alone, for commands declared without one.

        Not run again on conflicts.
        """
        committed = len(self.events)
        try:
            async with self.services.database.unit() as db:
                self._db = db
                yield db
                await self.flush()
        except BaseException:
            del self.events[committed:]  # nobody should hear of a rollback
            raise
        finally:
            self._db = None
