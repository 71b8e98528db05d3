"""Holds what clients were told against what is stored: the promise, as a function.

The accounting follows Jepsen's: every invocation ends ok, refused, or unknown; what was acknowledged has to be
stored, once, in the order that everybody saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg


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
    """A conversation as PostgreSQL has it: its messages, and the seqs of its room's log."""

    messages: Sequence[Stored]
    seqs: Sequence[int]


async def read_log(dsn: str, conversation_id: str) -> Log:
    """Read a conversation, by seq."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "select sender_id, client_id, message_id, seq from messages where conversation_id = $1 order by seq",
            conversation_id,
        )
        seqs = await connection.fetch("select seq from room_events where room_id = $1 order by seq", conversation_id)
    finally:
        await connection.close()
    return Log([Stored(str(r[0]), r[1], str(r[2]), r[3]) for r in rows], [r[0] for r in seqs])


def violations(log: Log, acked: Sequence[Acked], views: Mapping[str, Sequence[int]]) -> list[str]:
    """What breaks the promise, in words; empty where nothing does.

    `views` are the seqs that each client saw of the room, in the order in which it kept them; each should be the log.
    """
    found = []
    by_key: dict[tuple[str, str], list[Stored]] = {}
    for row in log.messages:
        by_key.setdefault((row.sender_id, row.client_id), []).append(row)
    for key, rows in by_key.items():
        if len(rows) > 1:
            found.append(f"doubled: {key} is stored {len(rows)} times")
    for ack in acked:
        rows = by_key.get((ack.sender_id, ack.client_id), [])
        if not rows:
            found.append(f"lost: {ack} was acknowledged and is not stored")
        elif (ack.message_id, ack.seq) not in {(row.message_id, row.seq) for row in rows}:
            found.append(f"moved: {ack} is stored as {rows}")
    if list(log.seqs) != list(range(1, len(log.seqs) + 1)):
        found.append(f"holes: the log's seqs are {log.seqs}")
    for name, seqs in views.items():
        if list(seqs) != list(log.seqs):
            missing = sorted(set(log.seqs) - set(seqs))
            found.append(f"view: {name} saw {len(seqs)} of {len(log.seqs)} events, out of order or without {missing}")
    return found
