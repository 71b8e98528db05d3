"""Holds what clients were told against what is stored: the promise, as a function.

The accounting follows Jepsen's: every invocation ends ok, fail, or unknown; what was acknowledged has to be stored,
once, in the order that everybody saw; what is unknown is there once or not at all; what was refused is not there.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from uuid import UUID

import asyncpg
import msgspec

from tests.faults.history import History, Invocation, Outcome, Return, View, digest

SHOWN = 5  # seqs, where many are wrong
CREATED = "message:created"
# What a client that returns can be sent, as the contract has it: of a room, and of a connect.
REPLAY_ROOM_EVENTS, REPLAY_EVENTS, REPLAY_BYTES = 1_000, 2_000, 1024 * 1024


@dataclass(frozen=True)
class Acked:
    """A send that was acknowledged."""

    sender_id: str
    client_id: str
    message_id: str
    seq: int


@dataclass(frozen=True)
class Stored:
    """A message as PostgreSQL has it."""

    sender_id: str
    client_id: str
    message_id: str
    seq: int
    text: str


@dataclass(frozen=True)
class Logged:
    """An event as the log of a room has it."""

    seq: int
    name: str
    payload: bytes

    @property
    def digest(self) -> int:
        return digest(self.name, self.payload)


@dataclass(frozen=True)
class Log:
    """A conversation as PostgreSQL has it: its messages, and the log of its room. Nothing else happens in it."""

    messages: Sequence[Stored]
    events: Sequence[Logged]

    @property
    def seqs(self) -> list[int]:
        return [event.seq for event in self.events]


async def read_log(dsn: str, conversation_id: str) -> Log:
    """Read a conversation, by seq."""
    return (await read_logs(dsn, [conversation_id]))[conversation_id]


async def read_logs(dsn: str, conversation_ids: Iterable[str]) -> dict[str, Log]:
    """Read conversations, by seq; of one that is not there, nothing."""
    ids = [UUID(each) for each in conversation_ids]
    connection = await asyncpg.connect(dsn)
    try:
        messages = await connection.fetch(
            "select conversation_id, sender_id, client_id, message_id, seq, text from messages"
            " where conversation_id = any ($1) order by seq",
            ids,
        )
        events = await connection.fetch(
            "select room_id, seq, name, payload from room_events where room_id = any ($1) order by seq", ids
        )
    finally:
        await connection.close()
    stored: dict[UUID, list[Stored]] = defaultdict(list)
    for row in messages:
        stored[row[0]].append(Stored(str(row[1]), row[2], str(row[3]), row[4], row[5]))
    logged: dict[UUID, list[Logged]] = defaultdict(list)
    for row in events:
        logged[row[0]].append(Logged(row[1], row[2], row[3].encode()))
    return {str(each): Log(stored[each], logged[each]) for each in ids}


def violations(log: Log, acked: Sequence[Acked], views: Mapping[str, Sequence[int]]) -> list[str]:
    """What breaks the promise, in words; empty where nothing does.

    `views` are the seqs that each client saw of the room, in the order in which it kept them; each should be the log.
    """
    found = [*_misstored(log, acked), *_mislogged(log)]
    for name, seqs in views.items():
        if list(seqs) != list(log.seqs):
            missing = sorted(set(log.seqs) - set(seqs))
            found.append(f"view: {name} saw {len(seqs)} of {len(log.seqs)} events, out of order or without {missing}")
    return found


def breaches(logs: Mapping[str, Log], history: History) -> list[str]:
    """What of a round's history breaks the promise, in words; `logs` are all conversations of the round by id."""
    found = list(history.strange)
    by_room: dict[str, list[Invocation]] = defaultdict(list)
    for invocation in history.invocations:
        by_room[invocation.conversation_id].append(invocation)
    for conversation_id, log in logs.items():
        invocations = by_room.pop(conversation_id, [])
        acked = [
            Acked(each.sender_id, each.client_id, each.message_id, each.seq)
            for each in invocations
            if each.outcome is Outcome.OK
        ]
        found += _misstored(log, acked)
        found += _mislogged(log)
        found += _uninvited(log, invocations)
        found += _overtaken(log, invocations)
    if by_room:
        found.append(f"unread: nobody has looked into {sorted(by_room)}")
    for view in history.views.values():
        kind, _, room_id = view.room.partition(":")
        if kind == "conversation":
            found += _misheard(logs[room_id], view)
    found += _unresumed(logs, history.returns)
    return found


def _misstored(log: Log, acked: Iterable[Acked]) -> Iterator[str]:
    """What was acknowledged and is not stored so, what is stored twice, and holes of the log."""
    by_key: dict[tuple[str, str], list[Stored]] = defaultdict(list)
    for row in log.messages:
        by_key[row.sender_id, row.client_id].append(row)
    for key, rows in by_key.items():
        if len(rows) > 1:
            yield f"doubled: {key} is stored {len(rows)} times"
    for ack in acked:
        rows = by_key.get((ack.sender_id, ack.client_id), [])
        if not rows:
            yield f"lost: {ack} was acknowledged and is not stored"
        elif (ack.message_id, ack.seq) not in {(row.message_id, row.seq) for row in rows}:
            yield f"moved: {ack} is stored as {rows}"


def _mislogged(log: Log) -> Iterator[str]:
    """Where the log is not one event for each message, with what the message is; and its holes."""
    if log.seqs != list(range(1, len(log.events) + 1)):
        yield f"holes: the log's seqs are {log.seqs}"
    rows = {row.seq: row for row in log.messages}
    if missing := rows.keys() - set(log.seqs):
        yield f"holes: messages at {sorted(missing)[:SHOWN]} are in no log"
    if more := set(log.seqs) - rows.keys():
        yield f"logged: events at {sorted(more)[:SHOWN]} are of no message"
    wrong = [event for event in log.events if event.seq in rows and not _tells(event, rows[event.seq])]
    for event in wrong[:SHOWN]:
        yield f"logged: {event.seq} is {event.name} {event.payload[:300]!r}, where {rows[event.seq]} is stored"


def _tells(event: Logged, row: Stored) -> bool:
    try:
        return event.name == CREATED and msgspec.json.decode(event.payload, type=Stored) == row
    except msgspec.DecodeError:
        return False


def _uninvited(log: Log, invocations: Iterable[Invocation]) -> Iterator[str]:
    """What is stored though nobody has sent it so, or though every try was refused for good."""
    tries: dict[tuple[str, str], list[Invocation]] = defaultdict(list)
    for each in invocations:
        tries[each.sender_id, each.client_id].append(each)
    for row in log.messages:
        known = tries.get((row.sender_id, row.client_id))
        if known is None:
            yield f"invented: {row} was sent by nobody"
        elif {each.outcome for each in known} == {Outcome.FAIL}:
            yield f"refused: {row} is stored, and every try was refused"
        elif row.text not in {each.text for each in known}:
            yield f"text: {row} is stored, and {known[0].text!r} was sent"


def _overtaken(log: Log, invocations: Iterable[Invocation]) -> Iterator[str]:
    """What stands before a message that had been acknowledged when it was begun, whoever sent either.

    The order of real time: O(n log n), by the latest seq of those acknowledged before each begins.
    """
    began: dict[tuple[str, str], float] = {}
    acked: dict[tuple[str, str], float] = {}
    for each in invocations:
        key = each.sender_id, each.client_id
        began[key] = min(each.began, began.get(key, inf))
        if each.outcome is Outcome.OK:
            acked[key] = min(each.ended, acked.get(key, inf))
    sent = [(began[key], row) for row in log.messages if (key := (row.sender_id, row.client_id)) in began]
    ended = [(acked[key], row) for row in log.messages if (key := (row.sender_id, row.client_id)) in acked]
    ends = deque(sorted(ended, key=_at))
    last: Stored | None = None
    for at, row in sorted(sent, key=_at):
        while ends and ends[0][0] < at:
            _, before = ends.popleft()
            last = before if last is None or before.seq > last.seq else last
        if last is not None and last.seq >= row.seq:
            yield f"order: {row} was begun when {last} had been acknowledged"


def _at(moment: tuple[float, Stored]) -> float:
    return moment[0]


def _misheard(log: Log, view: View) -> Iterator[str]:
    """Where a client's view is not the log: the same events, in the same order, no gap, no double."""
    heard = [(seen.seq, seen.digest) for seen in view.seen]
    logged = [(event.seq, event.digest) for event in log.events]
    if heard == logged:
        return
    seqs = [seq for seq, _ in heard]
    missing, strange = sorted(set(log.seqs) - set(seqs)), sorted(set(seqs) - set(log.seqs))
    yield (
        f"view: {view.client} saw {len(seqs)} of {len(logged)} events of {view.room}"
        f"{f', without {missing[:SHOWN]}' if missing else ''}"
        f"{f', with {strange[:SHOWN]} that are not logged' if strange else ''}"
        f"{', some twice' if len(set(seqs)) < len(seqs) else ''}"
        f"{', out of order' if seqs != sorted(seqs) else ''}"
        f"{', others than were logged' if set(heard) - set(logged) and not strange else ''}"
    )


def _unresumed(logs: Mapping[str, Log], returns: Sequence[Return]) -> Iterator[str]:
    """Where a client had to load afresh what it could have been sent, and epochs: in a round nothing is restored."""
    if len(epochs := {each.epoch for each in returns}) > 1:
        yield f"epoch: clients were told of {len(epochs)}"
    for each in returns:
        left_events, left_bytes = REPLAY_EVENTS, REPLAY_BYTES
        for room, after in each.afters.items():
            log = logs.get(room.partition(":")[2])
            if log is None or room not in each.heads:
                continue
            missed = each.heads[room] - after
            events = log.events[after : after + max(missed, 0)]
            size = sum(len(event.payload) for event in events)
            is_due = missed <= min(left_events, REPLAY_ROOM_EVENTS) and size <= left_bytes
            if room not in each.reset:
                left_events, left_bytes = left_events - missed, left_bytes - size
            elif is_due:
                yield f"reset: {each.client} had to load {room} afresh, where it lacked {missed} events"
