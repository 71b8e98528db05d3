"""Holds what clients were told against what is stored: the promise, as a function.

The accounting follows Jepsen's: every invocation ends ok, fail, or unknown; what was acknowledged has to be stored,
once, in the order that everybody saw; what is unknown is there once or not at all; what was refused is not there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from tests.faults.history import History, Invocation, Outcome, View, digest

SHOWN = 5  # seqs, where many are wrong


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


@dataclass(frozen=True)
class Log:
    """A conversation as PostgreSQL has it: its messages, the seqs of its room's log, and what the events are."""

    messages: Sequence[Stored]
    seqs: Sequence[int]
    digests: Sequence[int] = ()


async def read_log(dsn: str, conversation_id: str) -> Log:
    """Read a conversation, by seq."""
    return (await read_logs(dsn, [conversation_id]))[conversation_id]


async def read_logs(dsn: str, conversation_ids: Iterable[str]) -> dict[str, Log]:
    """Read conversations, by seq; of one that is not there, nothing."""
    ids = [UUID(each) for each in conversation_ids]
    connection = await asyncpg.connect(dsn)
    try:
        messages = await connection.fetch(
            "select conversation_id, sender_id, client_id, message_id, seq from messages"
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
        stored[row[0]].append(Stored(str(row[1]), row[2], str(row[3]), row[4]))
    logged: dict[UUID, list[tuple[int, int]]] = defaultdict(list)
    for row in events:
        logged[row[0]].append((row[1], digest(row[2], row[3].encode())))
    return {
        str(each): Log(stored[each], [seq for seq, _ in logged[each]], [found for _, found in logged[each]])
        for each in ids
    }


def violations(log: Log, acked: Sequence[Acked], views: Mapping[str, Sequence[int]]) -> list[str]:
    """What breaks the promise, in words; empty where nothing does.

    `views` are the seqs that each client saw of the room, in the order in which it kept them; each should be the log.
    """
    found = list(_misstored(log, acked))
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
        found += _uninvited(log, invocations)
        found += _overtaken(acked)
    if by_room:
        found.append(f"unread: nobody has looked into {sorted(by_room)}")
    for view in history.views.values():
        kind, _, room_id = view.room.partition(":")
        if kind == "conversation":
            found += _misheard(logs[room_id], view)
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
    if list(log.seqs) != list(range(1, len(log.seqs) + 1)):
        yield f"holes: the log's seqs are {log.seqs}"
    if missing := {row.seq for row in log.messages} - set(log.seqs):
        yield f"holes: messages at {sorted(missing)[:SHOWN]} are in no log"


def _uninvited(log: Log, invocations: Iterable[Invocation]) -> Iterator[str]:
    """What is stored though nobody has sent it, or though every try was refused for good."""
    outcomes: dict[tuple[str, str], set[Outcome]] = defaultdict(set)
    for each in invocations:
        outcomes[each.sender_id, each.client_id].add(each.outcome)
    for row in log.messages:
        known = outcomes.get((row.sender_id, row.client_id))
        if known is None:
            yield f"invented: {row} was sent by nobody"
        elif known == {Outcome.FAIL}:
            yield f"refused: {row} is stored, and every try was refused"


def _overtaken(acked: Iterable[Acked]) -> Iterator[str]:
    """Of one sender, who waits for each ack before the next send: what stands before an earlier one."""
    last: dict[str, Acked] = {}
    for ack in acked:
        before = last.get(ack.sender_id)
        if before is not None and before.client_id != ack.client_id and before.seq >= ack.seq:
            yield f"order: {ack} was sent after {before}"
        last[ack.sender_id] = ack


def _misheard(log: Log, view: View) -> Iterator[str]:
    """Where a client's view is not the log: the same events, in the same order, no gap, no double."""
    heard = [(seen.seq, seen.digest) for seen in view.seen]
    logged = list(zip(log.seqs, log.digests, strict=True))
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
