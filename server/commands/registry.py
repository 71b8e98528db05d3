"""The declarations: commands and pushes, and the two registries that hold them."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeAlias, TypeVar, Union
from uuid import UUID

import msgspec

from rules.users import Scope
from server.errors import ParleyError
from server.rooms.names import Room

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

ClientId = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\A[\x20-\x7e]+\Z")]
"""The client's own name for what it creates: 1 to 64 printable ASCII."""


class Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What a command is called with. Unknown fields are refused.

    Absent and default fields leave no trace in its digest.
    """


class Limit(StrEnum):
    """The buckets of calls, each shared by its commands: one a user, or an address where nobody has signed in yet."""

    MESSAGE_SEND = "message_send"
    OFFER_MOVES = "offer_moves"
    WRITES = "writes"
    READS = "reads"
    CONNECTS = "connects"
    LOGIN = "login"
    LOGIN_ACCOUNT = "login_account"


class Transport(StrEnum):
    """Where a command may be called: on the socket and over HTTP, or on one of them alone."""

    BOTH = "both"
    HTTP = "http"
    SOCKET = "socket"


class Permission:
    """A named predicate: `check(ctx, payload)` raises `NotFound` or `Forbidden`.

    Without a check the permission is the statement's own: it judges behind the room's lock. `public` lets callers in
    who have no token.
    """

    def __init__(
        self, name: str, check: Callable[[Any, Any], Awaitable[None]] | None = None, *, public: bool = False
    ) -> None:
        self.name = name
        self.check = check
        self.public = public

    def __repr__(self) -> str:
        return f"<may: {self.name}>"


def permission(check: Callable[[Any, Any], Awaitable[None]]) -> Permission:
    """Make a permission of a predicate, under the function's name."""
    return Permission(check.__name__, check)


anyone = Permission("anyone", public=True)
"""Everybody, signed in or not."""

signed_in = Permission("signed_in")
"""Everybody with a valid token: the command touches nothing but the caller's own."""


class Push(Generic[R]):
    """A push: its name, what it carries, when it is sent, and the kinds of rooms it is sent to.

    A durable one is logged with the transaction; an ephemeral one bypasses the log and is dropped first for a slow
    client. In rooms of the kinds `ephemeral_in`, one that is durable may be either, as its doc says.
    """

    def __init__(
        self,
        name: str,
        payload: type[R],
        doc: str,
        *,
        rooms: tuple[str, ...],
        ephemeral: bool,
        ephemeral_in: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.payload = payload
        self.doc = doc
        self.rooms = rooms
        self.ephemeral = ephemeral
        self.ephemeral_in = ephemeral_in

    def check(self, room: Room, *, ephemeral: bool) -> None:
        """Raises RuntimeError for a room, or a way of sending, that the declaration does not name."""
        is_so = ephemeral == self.ephemeral or (ephemeral and room.kind in self.ephemeral_in)
        if room.kind not in self.rooms or not is_so:
            raise RuntimeError(f"{self.name} is declared otherwise: {self}")

    def __repr__(self) -> str:
        return f"<{self.sending} push {self.name} to {', '.join(self.rooms)}>"

    @property
    def sending(self) -> str:
        """How it is sent, in words."""
        if self.ephemeral_in:
            return "durable or ephemeral"
        return "ephemeral" if self.ephemeral else "durable"


class Command:
    """A declared command. `handler` takes (context, payload), or for a batch (batch context, calls)."""

    def __init__(
        self,
        name: str,
        handler: Callable[..., Awaitable[Any]],
        *,
        allow: Permission,
        limit: Limit | None,
        payload: type[Payload],
        result: Any,
        transport: Transport,
        reads: bool,
        transaction: bool,
        batch: bool,
        room: Callable[[Any], Room] | None,
        again: Callable[[Any, UUID], Awaitable[Any]] | None,
        scope: Scope,
        further: tuple[Limit, ...],
        raises: tuple[type[ParleyError], ...],
    ) -> None:
        self.name = name
        self.handler = handler
        self.allow = allow
        self.limit = limit
        self.payload = payload
        self.result = result
        self.transport = transport
        self.reads = reads
        self.transaction = transaction
        self.batch = batch
        self.room = room
        self.again = again
        self.scope = scope
        self.further = further
        self.raises = raises
        self.keyed = again is not None
        self.doc = (handler.__doc__ or "").strip()
        self.path = "/api/" + name.replace(":", "/")

    def __repr__(self) -> str:
        return f"<command {self.name}>"


commands: dict[str, Command] = {}
pushes: dict[str, Push[Any]] = {}


def command(
    name: str,
    *,
    allow: Permission,
    limit: Limit | None,
    transport: Transport = Transport.BOTH,
    reads: bool = False,
    transaction: bool = True,
    batch: bool = False,
    room: Callable[[Any], Room] | None = None,
    again: Callable[[Any, UUID], Awaitable[Any]] | None = None,
    scope: Scope | None = None,
    further: tuple[Limit, ...] = (),
    raises: tuple[type[ParleyError], ...] = (),
) -> Callable[[F], F]:
    """Declare a command.

    `reads`: it changes nothing, so no transaction is opened and a token of scope `read` may call it.
    `transaction=False`: it computes long or talks to the outside, and opens `ctx.transaction()` itself.
    `batch`: the handler takes a list of calls and answers each; `room` says whose lock a call needs.
    `scope`: the least that a token has to allow; left out, it is `read` for what reads and `limited` for what writes.
    `again(ctx, id)`: it creates under a client_id, and a repeat is answered with the object of that id as it is now.
    `further`: the buckets beside `limit` that the handler takes from, with `ctx.take`.
    `raises`: the errors that do not follow from the rest of the declaration, for the documents.

    Raises ValueError on a declaration that contradicts itself or a name that is taken.
    """

    def declare(handler: F) -> F:
        if name in commands:
            raise ValueError(f"{name} is declared twice")
        payload, result = _types(handler, batch=batch)
        has_key, keeps = "client_id" in payload.__struct_fields__, batch or again is not None
        for complaint, holds in (
            ("a batch has to say which room a call writes to, and only a batch", batch != (room is not None)),
            ("it takes a client_id: say with again= how a repeat is answered", has_key and not keeps),
            ("again= is for what takes a client_id", again is not None and not has_key),
            ("a batch or a client_id needs the transaction", keeps and not transaction),
            ("what reads has no batch and no client_id", reads and keeps),
            ("a batch or a client_id is somebody's, not anyone's", keeps and allow.public),
            ("it has no docstring, which is its documentation", not handler.__doc__),
        ):
            if holds:
                raise ValueError(f"{name}: {complaint}")
        commands[name] = Command(
            name,
            handler,
            allow=allow,
            limit=limit,
            payload=payload,
            result=result,
            transport=transport,
            reads=reads,
            transaction=transaction,
            batch=batch,
            room=room,
            again=again,
            scope=scope or (Scope.READ if reads else Scope.LIMITED),
            further=further,
            raises=raises,
        )
        return handler

    return declare


def _types(handler: Callable[..., Any], *, batch: bool) -> tuple[type[Payload], Any]:
    """What a handler takes and answers, by its annotations: `p: X` → R, or `calls.

    Sequence[Call[X]]` → list[Outcome[R]].
    """
    hints = handler.__annotations__
    if not batch:
        return hints["p"], hints["return"]
    (call,) = hints["calls"].__args__
    (outcome,) = hints["return"].__args__
    return call.__args__[0], outcome.__args__[0]


def push(
    name: str,
    payload: type[R],
    doc: str,
    *,
    rooms: tuple[str, ...],
    ephemeral: bool = False,
    ephemeral_in: tuple[str, ...] = (),
) -> Push[R]:
    """Declare a push to rooms of these kinds: durable, or `ephemeral`, or durable and in some rooms of the kinds
    `ephemeral_in` ephemeral, which the doc names.

    Raises ValueError where the name is taken, or the declaration contradicts itself.
    """
    if ephemeral_in and (ephemeral or not set(ephemeral_in) <= set(rooms)):
        raise ValueError(f"{name}: what is ephemeral anyway, or does not go there, has no rooms of its own for it")
    if name in pushes:
        raise ValueError(f"{name} is declared twice")
    pushes[name] = Push(name, payload, doc, rooms=rooms, ephemeral=ephemeral, ephemeral_in=ephemeral_in)
    return pushes[name]


class Busy:
    """What a batch handler answers for a call whose room is held: the call goes to the next batch."""


BUSY = Busy()

Outcome: TypeAlias = Union[R, ParleyError, Busy]  # noqa: UP007 (a generic alias has to be subscriptable at run time)
