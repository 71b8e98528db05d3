"""Every named query against the schema that the migrations make, and that against the enumerations of the rules."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import AsyncIterator
from enum import StrEnum
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import asyncpg
import msgspec
import pytest
from aiosql.types import SQLOperationType

import rules
from rules.autorules import Verdict
from rules.conversations import ConversationKind
from rules.faqs import FaqType
from rules.listings import Category, Condition, Feed, ListingKind, ListingStatus
from rules.matches import MatchAction, MatchQuality, MatchReason, MatchStatus, MutualStatus
from rules.messages import MessageType
from rules.offers import By, CloseReason, Move, Mover, NegotiationStatus, OfferStatus, Side, Turn
from rules.participants import ParticipantRole
from rules.presence import PresenceState
from rules.reports import ReportStatus, SubjectKind
from rules.transactions import Errand, Party, Provider, TransactionMove, TransactionStatus
from rules.typing import TypingState
from rules.users import Role, Scope, UserStatus
from server.rooms.names import KINDS
from storage import Time
from storage._db import SQL
from storage.conversations import Mine

pytestmark = pytest.mark.both_postgres

NOUNS = sorted(path.stem for path in SQL.glob("*.sql"))
SCALARS: dict[Any, set[str]] = {
    UUID: {"uuid"},
    Time: {"timestamptz", "text"},  # text where a view has spelt it, for JSON
    str: {"text"},
    bool: {"bool"},
    int: {"int4", "int8"},
    float: {"float8"},
    bytes: {"bytea"},
    msgspec.Raw: {"json", "jsonb"},
}
STORED: dict[type[StrEnum], str] = {  # where each enumeration's CHECK stands
    Category: "listings.category",
    Condition: "listings.condition",
    ConversationKind: "conversations.kind",
    FaqType: "listing_faqs.type",
    Feed: "listings.feed",
    ListingKind: "listings.kind",
    ListingStatus: "listings.status",
    MatchAction: "match_interactions.action",
    MatchQuality: "listing_matches.quality",
    MutualStatus: "mutual_matches.status",
    MessageType: "messages.type",
    By: "offers.by",
    CloseReason: "offers.close_reason",
    NegotiationStatus: "negotiations.status",
    OfferStatus: "offers.status",
    Side: "negotiations.turn",
    ParticipantRole: "conversation_participants.role",
    ReportStatus: "reports.status",
    Role: "users.roles",
    Scope: "user_sessions.scope",
    SubjectKind: "reports.subject_kind",
    Errand: "payment_errands.errand",
    Provider: "transactions.provider",
    TransactionMove: "transactions.move",
    TransactionStatus: "transactions.status",
    UserStatus: "users.status",
}
UNFILLED: dict[type[msgspec.Struct], set[str]] = {  # the fields that no column fills
    Mine: {"head_seq"},  # a push has it, where the conversation has come back from the archive
}
EPHEMERAL = {
    MatchReason,
    MatchStatus,
    Move,
    Mover,
    Party,
    PresenceState,
    Turn,
    TypingState,
    Verdict,
}  # nothing stores all of their values
ENUM_LIKE = {"kind", "status", "type", "role", "roles", "scope", "state", "category", "condition", "quality"}


class Query(NamedTuple):
    """A named query as its file declares it."""

    name: str
    operation: SQLOperationType
    sql: str
    record: type[msgspec.Struct] | None


@pytest.fixture
async def db(shared_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(shared_database)
    yield connection
    await connection.close()


def queries_of(noun: str) -> list[Query]:
    module = importlib.import_module(f"storage.{noun}")
    blocks = re.split(r"^-- name: ", (SQL / f"{noun}.sql").read_text(), flags=re.MULTILINE)[1:]
    found = []
    for block in blocks:
        name = re.match(r"\w+", block)
        record = re.search(r"^-- record_class: (\w+)$", block, flags=re.MULTILINE)
        assert name, block
        loaded = getattr(module.sql, name[0])
        kind = getattr(module, record[1]) if record else None
        found.append(Query(name[0], loaded.operation, loaded.sql, kind))
    return found


def fits(column: str, hint: Any) -> bool:
    """Whether a column of this type may fill a field of that one."""
    if get_origin(hint) in (Union, UnionType):
        return any(fits(column, inner) for inner in get_args(hint) if inner is not type(None))
    if get_origin(hint) is list:
        if column == "json":  # as PostgreSQL made it; the tests of the handlers see whether that is what it should be
            return issubclass(get_args(hint)[0], msgspec.Struct)
        return column.endswith("[]") and fits(column.removesuffix("[]"), get_args(hint)[0])
    if inspect.isclass(hint) and issubclass(hint, StrEnum):
        return column == "text"
    if inspect.isclass(hint) and issubclass(hint, msgspec.Struct):
        return column == "json"
    return column in SCALARS[hint]


def differences(query: Query, columns: list[tuple[str, str]]) -> list[str]:
    """What is wrong between the columns a query answers with and the struct they are made into."""
    names = [name for name, _ in columns]
    if query.record is None:
        if query.operation is SQLOperationType.INSERT_UPDATE_DELETE:
            return [f"{query.name} is declared with ! and answers {names}"] if names else []
        return [] if len(names) == 1 else [f"{query.name} has no record_class and answers {names}"]
    hints = get_type_hints(query.record)
    fields = {field.name: field for field in msgspec.structs.fields(query.record)}
    unfilled = UNFILLED.get(query.record, set())
    # A row may become a struct by position, unless that takes keywords alone.
    by_position = all(p.kind is not p.KEYWORD_ONLY for p in inspect.signature(query.record).parameters.values())
    in_order = not by_position or names == [name for name in fields if name in names]
    wrong = [f"{query.name}: no field for the column {name}" for name in names if name not in fields]
    wrong += [f"{query.name}: no column for the field {name}" for name in fields if name not in {*names, *unfilled}]
    wrong += [
        f"{query.name}: {name} is said to have no column" for name in unfilled if name in names or name not in fields
    ]
    wrong += [] if in_order else [f"{query.name}: columns {names}, fields {list(fields)}"]
    wrong += [
        f"{query.name}: {name} is {kind}, its field {hints[name]}"
        for name, kind in columns
        if name in fields and not fits(kind, hints[name])
    ]
    return wrong


async def test_every_query_prepares_and_answers_with_its_struct(db: asyncpg.Connection) -> None:
    queries, wrong = [query for noun in NOUNS for query in queries_of(noun)], []
    for query in queries:
        try:
            prepared = await db.prepare(query.sql)
        except asyncpg.PostgresError as error:
            wrong.append(f"{query.name}: {error}")
            continue
        wrong += differences(query, [(column.name, column.type.name) for column in prepared.get_attributes()])
    assert len(queries) > 40
    assert wrong == []


@pytest.mark.parametrize("noun", NOUNS)
def test_every_query_has_a_function_that_runs_it(noun: str) -> None:
    source = inspect.getsource(importlib.import_module(f"storage.{noun}"))
    assert [query.name for query in queries_of(noun) if f"sql.{query.name}" not in source] == []


async def test_every_foreign_key_is_served_by_an_index(db: asyncpg.Connection) -> None:
    # An index on some of the rows is of no use when PostgreSQL looks for children, unless the key itself implies which.
    unserved = await db.fetch("""
        select c.conname
          from pg_constraint c
          join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
         where c.contype = 'f' and c.connamespace = 'public'::regnamespace
           and not exists (
               select from pg_index i
                where i.indrelid = c.conrelid and i.indkey[0] = c.conkey[1]
                  and coalesce(pg_get_expr(i.indpred, i.indrelid) = format('(%I IS NOT NULL)', a.attname), true))
         order by 1""")
    assert [row["conname"] for row in unserved] == []


async def checked_values(db: asyncpg.Connection) -> dict[str, set[str]]:
    """By table.column the values that a CHECK lists."""
    found = {}
    for row in await db.fetch("""
            select conrelid::regclass::text as name, pg_get_constraintdef(oid) as definition
              from pg_constraint where contype = 'c' and connamespace = 'public'::regnamespace"""):
        listed = re.search(r"^CHECK \(\((\w+) (?:= ANY|<@) \(?ARRAY\[(.*)\]\)", row["definition"])
        if listed:
            found[f"{row['name']}.{listed[1]}"] = set(re.findall(r"'(\w+)'::text", listed[2]))
    return found


async def test_every_column_of_a_few_words_has_a_check(db: asyncpg.Connection) -> None:
    columns = await db.fetch(
        """
        select table_name || '.' || column_name as name
          from information_schema.columns
          join information_schema.tables using (table_schema, table_name)
         where table_schema = 'public' and table_type = 'BASE TABLE' and column_name = any ($1)
           and data_type in ('text', 'ARRAY')""",
        ENUM_LIKE,
    )
    checked = await checked_values(db)
    assert {column["name"] for column in columns} - checked.keys() == set()
    assert checked["rooms.kind"] == KINDS


async def test_every_enumeration_of_the_rules_equals_its_check(db: asyncpg.Connection) -> None:
    modules = [importlib.import_module(f"rules.{info.name}") for info in pkgutil.iter_modules(rules.__path__)]
    declared = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, StrEnum) and value is not StrEnum
    }
    checked = await checked_values(db)
    assert declared == STORED.keys() | EPHEMERAL
    assert {kind.__name__: set(kind) for kind in STORED} == {
        kind.__name__: checked[column] for kind, column in STORED.items()
    }
