"""The room log's rows: heads, events, what has moved. Locks and order are the business of the SQL functions."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from storage._db import Connection, Time, load


class Deployment(msgspec.Struct, frozen=True):
    """What this database is: its epoch, and the key of the digests that recognise a repeated payload."""

    epoch: UUID
    digest_key: bytes


class Head(msgspec.Struct, frozen=True):
    """A room and the seq of its latest event, 0 where it has none."""

    room_id: UUID
    kind: str
    last_seq: int


class Placed(msgspec.Struct, frozen=True):
    """Where an appended event stands: `ord` is its place in the call, from 1."""

    ord: int
    seq: int
    at: Time


class LoggedEvent(msgspec.Struct, frozen=True):
    """An event as it was pushed; `payload` is its JSON text, to the byte."""

    room_id: UUID
    seq: int
    at: Time
    name: str
    payload: str


class Measured(msgspec.Struct, frozen=True):
    """How much a client has missed in a room; `n` is its place among those asked for."""

    n: int
    events: int
    bytes: int


class MovedRow(msgspec.Struct, frozen=True):
    """A room with its highest seq among recent events; both None in the one row of a comparison that found nothing."""

    snapshot: str
    epoch: UUID
    room_id: UUID | None
    kind: str | None
    seq: int | None
    blanked: int | None


class Moved(msgspec.Struct, frozen=True):
    """What a comparison found: the rooms with recent or freshly blanked events and the highest seq of these.

    Of `blanked` that of the blanked ones alone. And what to ask with next.
    """

    snapshot: str
    epoch: UUID
    heads: list[Head]
    blanked: list[Head]


sql = load("rooms", Deployment, Head, Placed, LoggedEvent, Measured, MovedRow)


async def find_deployment(db: Connection) -> Deployment:
    """Read the epoch and the digest key."""
    deployment: Deployment = await sql.find_deployment(db)
    return deployment


async def restored(db: Connection) -> UUID:
    """Give the database a new epoch, so that every client loads its rooms afresh. Returns it.

    As long as it takes: for a connection that is closed afterwards.
    """
    await sql.lift_timeout(db)
    await sql.forget_xids(db)
    epoch: UUID = await sql.replace_epoch(db)
    return epoch


async def create_room(db: Connection, room_id: UUID, kind: str) -> None:
    """Open a room's log at seq 0."""
    await sql.create_room(db, room_id=room_id, kind=kind)


async def lock_rooms(db: Connection, room_ids: Sequence[UUID]) -> dict[UUID, Head]:
    """Lock the rooms that exist, in order of id, until the transaction ends; their heads by id."""
    return {head.room_id: head async for head in sql.lock_rooms(db, room_ids=room_ids)}


async def list_heads(db: Connection, room_ids: Sequence[UUID]) -> list[Head]:
    """The heads of the rooms that exist."""
    return [head async for head in sql.list_heads(db, room_ids=room_ids)]


async def append_events(
    db: Connection,
    room_ids: Sequence[UUID],
    names: Sequence[str],
    payloads: Sequence[str],
    message_ids: Sequence[UUID | None],
) -> list[Placed]:
    """Append events to their rooms' logs; the answer is in the order given.

    Raises LookupError where a room does not exist: a push to nowhere is a bug of the caller.
    """
    placed = [
        row
        async for row in sql.append_events(
            db, room_ids=room_ids, names=names, payloads=payloads, message_ids=message_ids
        )
    ]
    if len(placed) != len(room_ids):
        raise LookupError(f"a push to a room without a row: one of {sorted(map(str, set(room_ids)))}")
    return placed


async def list_events(
    db: Connection, afters: dict[UUID, int], *, room_rows: int, rows: int, bytes_: int
) -> list[LoggedEvent]:
    """What follows each room's `after`, room by room in the order given, within the bounds (one event at least)."""
    return [
        event
        async for event in sql.list_events(
            db,
            room_ids=list(afters),
            afters=list(afters.values()),
            room_rows=room_rows,
            rows=rows,
            bytes=bytes_,
        )
    ]


async def measure_events(db: Connection, spans: Sequence[tuple[UUID, int, int]]) -> list[Measured | None]:
    """How many events, and of how many bytes, lie behind each (room, after) up to its head; None where none do."""
    room_ids, afters, heads = ([span[n] for span in spans] for n in range(3))
    found: list[Measured | None] = [None] * len(spans)
    async for row in sql.measure_events(db, room_ids=room_ids, afters=afters, heads=heads):
        found[row.n - 1] = row
    return found


async def count_events(db: Connection, room_id: UUID, after: int, head: int) -> int:
    """How many events there are behind `after` up to `head`: fewer than their seqs say where some have been swept."""
    found: int = await sql.count_events(db, room_id=room_id, after=after, head=head)
    return found


async def find_snapshot(db: Connection) -> str:
    """The snapshot of now, since which `list_moved` has to look."""
    snapshot: str = await sql.find_snapshot(db)
    return snapshot


async def list_moved(db: Connection, since: str) -> Moved:
    """The rooms with events that were pushed or blanked by transactions that ended after the snapshot `since`.

    And what to ask with next.
    """
    rows = await db.fetch(sql.list_moved.sql, since)
    heads = [Head(*row[2:5]) for row in rows if row[2] is not None]
    blanked = [Head(row[2], row[3], row[5]) for row in rows if row[5] is not None]
    return Moved(rows[0][0], rows[0][1], heads, blanked)


async def sweep_events(db: Connection, days: int, batch: int) -> int:
    """Delete at most `batch` events older than `days`; how many went."""
    status: str = await sql.sweep_events(db, days=days, batch=batch)
    return int(status.rsplit(" ", 1)[1])


async def new_id(db: Connection) -> UUID:
    """An id for what is about to be made, in the order of time."""
    made: UUID = await sql.new_id(db)
    return made
