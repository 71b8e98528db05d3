"""People, their sessions and conversations, written straight into each server's tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from bench.crowds import Crowd
from bench.machine import NODE_FOLDER
from server.commands.tokens import Tokens
from server.migrate import migrate

TOKEN_TTL_S = 24 * 3600

Rows = list[tuple[Any, ...]]


async def prepare_parley(dsn: str, crowds: Sequence[Crowd]) -> None:
    """Parley's schema, by its own migrations, and the crowds in it."""
    await migrate(dsn)
    tables: dict[str, Rows] = {}
    for crowd in crowds:
        kind = "private" if crowd.size == 2 else "group"
        names = crowd.usernames()
        _add(
            tables,
            "users(user_id,username,email)",
            [(user, name, f"{name}@example.invalid") for user, name in zip(crowd.user_ids, names, strict=True)],
        )
        ends_at = datetime.now(UTC) + timedelta(seconds=TOKEN_TTL_S)
        _add(
            tables,
            "user_sessions(session_id,user_id,ends_at)",
            [(login, user, ends_at) for login, user in zip(crowd.session_ids, crowd.user_ids, strict=True)],
        )
        _add(tables, "rooms(room_id,kind)", [(user, "user") for user in crowd.user_ids])
        _add(tables, "rooms(room_id,kind)", [(room, "conversation") for room in crowd.conversation_ids])
        _add(
            tables,
            "conversations(conversation_id,kind,created_by,low_user_id,high_user_id)",
            [_conversation(crowd, n, kind) for n in range(crowd.conversations)],
        )
        _add(tables, "conversation_participants(conversation_id,user_id)", _memberships(crowd))
    await _copy(dsn, tables)


def _conversation(crowd: Crowd, number: int, kind: str) -> tuple[Any, ...]:
    people = [crowd.user_ids[n] for n in crowd.members(number)]
    low, high = sorted(people) if kind == "private" else (None, None)
    return crowd.conversation_ids[number], kind, people[0], low, high


async def prepare_node(dsn: str, crowds: Sequence[Crowd]) -> None:
    """The peer's schema and the same crowds in it."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute((NODE_FOLDER / "schema.sql").read_text())
    finally:
        await connection.close()
    tables: dict[str, Rows] = {}
    for crowd in crowds:
        _add(tables, "users(user_id,username)", list(zip(crowd.user_ids, crowd.usernames(), strict=True)))
        _add(tables, "sessions(session_id,user_id)", list(zip(crowd.session_ids, crowd.user_ids, strict=True)))
        _add(tables, "rooms(room_id)", [(room,) for room in crowd.conversation_ids])
        _add(tables, "participants(room_id,user_id)", _memberships(crowd))
    await _copy(dsn, tables)


def _memberships(crowd: Crowd) -> list[tuple[UUID, UUID]]:
    rooms = enumerate(crowd.conversation_ids)
    return [(room, crowd.user_ids[person]) for number, room in rooms for person in crowd.members(number)]


def _add(tables: dict[str, Rows], table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    tables.setdefault(table, []).extend(rows)


async def _copy(dsn: str, tables: dict[str, Rows]) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for table, rows in tables.items():
            name, _, columns = table.rstrip(")").partition("(")
            await connection.copy_records_to_table(name, records=rows, columns=columns.split(","))
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


Mint = Callable[[Crowd, int], str]
"""(crowd, person) → the token that this person connects with."""


def jwt(secret: str) -> Mint:
    """Tokens that both whole servers believe."""
    tokens = Tokens((secret,), access_ttl_s=TOKEN_TTL_S, refresh_ttl_s=TOKEN_TTL_S)
    return lambda crowd, person: tokens.access(crowd.user_ids[person], crowd.session_ids[person])[0]


def names_of_rooms(crowd: Crowd, person: int) -> str:
    """The token of the bare servers, which says in which rooms somebody is."""
    return ",".join(map(str, crowd.rooms_of(person)))


def write_people(crowds: Sequence[Crowd], instances: int, mint: Mint, into: Path, *, everybody: bool = False) -> None:
    """The load generator's file: a line a connection. `everybody` sends, or those whom their crowd names."""
    first = 0
    with into.open("w") as file:
        for crowd in crowds:
            for n in range(crowd.people):
                room = crowd.talks_in(n)
                conversation = str(crowd.conversation_ids[room]) if crowd.talks else "-"
                where = crowd.instance(n, instances)
                print(mint(crowd, n), conversation, first + room, int(everybody or crowd.sends(n)), where, file=file)
            first += crowd.conversations
