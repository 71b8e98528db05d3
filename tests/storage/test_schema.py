"""The schema against the domain: every table has a home, and no column is of a kind that the domain has ruled out."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from functools import cache
from typing import Any, NamedTuple

import asyncpg
import msgspec
import pytest

import handlers  # noqa: F401  (declares the commands and pushes)
from server.commands.registry import Command, Push, commands, pushes
from storage._db import SQL


class Home(NamedTuple):
    """Where a table lives: the command that writes it, the one that reads it, and the push that announces it.

    In place of a push, `unannounced` says why nobody hears of it.
    """

    writes: str
    reads: str
    push: str | None = None
    unannounced: str = ""


HOMES = {
    "users": Home("account:update", "account:me", "user:updated"),
    "user_sessions": Home("session:revoke", "session:list", "session:revoked"),
    "user_blocks": Home("user:block", "user:blocks", "block:changed"),
    "reports": Home("report:file", "report:list", unannounced="administrators load the list, nobody watches it"),
    "conversations": Home("conversation:create", "conversation:list", "conversation:created"),
    "conversation_participants": Home("participant:add", "conversation:get", "participant:added"),
    "messages": Home("message:send", "message:history", "message:created"),
    "message_attachments": Home(
        "attachment:create", "attachment:get", unannounced="message:created carries it, before that it is one's own"
    ),
    "message_revisions": Home("message:edit", "message:revisions", "message:edited"),
    "message_reactions": Home("message:react", "message:history", "message:reacted"),
    "listings": Home("listing:update", "listing:search", "listing:changed"),
    "wishlists": Home("listing:like", "listing:get", unannounced="the count comes with the listing's next push"),
    "listing_faqs": Home("faq:ask", "faq:list", "faq:posted"),
    "threads": Home("thread:update", "thread:list", "thread:changed"),
    "negotiations": Home("offer:make", "negotiation:list", "negotiation:changed"),
    "offers": Home("offer:make", "negotiation:history", "offer:changed"),
    "auto_rules": Home("autorule:set", "autorule:get", unannounced="its owner alone sees it, and sets it"),
    "transactions": Home("transaction:confirm", "transaction:list", "transaction:changed"),
    "reviews": Home("review:create", "review:list", "review:created"),
    "listing_matches": Home("match:act", "match:list", "match:found"),
    "match_interactions": Home("match:act", "match:list", "match:changed"),
    "mutual_matches": Home("match:act", "mutual:list", "match:mutual"),
    "thread_members": Home("thread:join", "thread:get", "member:joined"),
}

MACHINERY = {
    "reservations": "what a listing's counts are made of",
    "endings": "which negotiations have ended that no transaction could write at once",
    "payment_events": "what a payment provider has told us, once each",
    "payment_errands": "what it is still to be asked",
    "failed_refunds": "what it said it had given back, and had not; transaction:receipt says when",
    "rooms": "heads of the log",
    "room_events": "the log",
    "command_keys": "the memory of client_ids, and of who has given a conversation which title",
    "auth_tokens": "refresh and reset tokens, as hashes",
    "deployment": "the epoch and the digest key",
    "presence_instances": "which instances live",
    "presences": "who is there, until its instance dies",
    "migrations": "which migrations have run",
}

BOUNDED: dict[str, str] = {  # text that people write and no CHECK bounds: the payload's field that does, or the reason
    "messages.text": "message:send text",
    "message_revisions.text": "message:edit text",
    "message_attachments.content_type": "attachment:create content_type",
    "listings.images": "listing:create images",
    "listing_matches.reasons": "= made by the server: one of each of rules.matches.MatchReason at most",
    "match_interactions.metadata": "= handlers.matches.METADATA_BYTES, of the JSON as it is stored",
    "listings.metadata": "= nobody writes it yet: a source's own fields, kept as they came",
    "threads.metadata": "= nobody writes it yet: a source's own fields, kept as they came",
    "users.notification_channels": "account:update notification_channels",
    "users.preferences": "= handlers.accounts.PREFERENCES_BYTES, of the JSON as it is stored",
    "users.password_hash": "= made by the server: Argon2's text has one length",
    "users.names": "= generated of full_name and full_name_ar, which are bounded",
    "user_sessions.address": "= made by the server: an IP address, or 64 characters of what a trusted proxy said",
    "user_sessions.end_reason": "= made by the server: one of the words in the calls of handlers.sessions.end",
}

# What clients and payment providers call things.
THEIRS = {"client_id", "intent_id", "charge_id", "event_id", "refund_id"}

MONEY = re.compile(
    r"(^|_)(amount|balance|price|fee|payout|subtotal|total|cost|budget|discount|rate|step|accept_at|decline_below)s?($|_)"
)

TABLES = """
select c.relname as name, c.oid from pg_class c
 where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') order by c.relname
"""

COLUMNS = """
select c.relname as table, a.attname as column, format_type(a.atttypid, null) as type,
       array(select pg_get_constraintdef(k.oid) from pg_constraint k
              where k.conrelid = c.oid and k.contype = 'c' and a.attnum = any (k.conkey)) as checks
  from pg_class c
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
 where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
 order by c.relname, a.attnum
"""

# A partial index serves where it leaves out nothing but null, which no other row refers to.
UNINDEXED = """
select k.conrelid::regclass::text as table, k.conname as name, pg_get_constraintdef(k.oid) as is
  from pg_constraint k
 where k.connamespace = 'public'::regnamespace and k.contype = 'f' and not exists (
    select from pg_index i
      join pg_attribute a on a.attrelid = k.conrelid and a.attnum = i.indkey[0]
     where i.indrelid = k.conrelid and i.indisvalid
       and (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey
       and (i.indpred is null
            or pg_get_expr(i.indpred, i.indrelid) = format('(%I IS NOT NULL)', a.attname)))
"""

DEFINITIONS = """
select viewname as name, definition from pg_views where schemaname = 'public'
union all
select p.proname, pg_get_functiondef(p.oid) from pg_proc p
 where p.pronamespace = 'public'::regnamespace and p.prokind = 'f' and not exists (
    select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
"""


@pytest.fixture
async def db(shared_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A transaction on the migrated schema, of which nothing stays."""
    connection = await asyncpg.connect(shared_database)
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


# homes


@cache
def queries(noun: str) -> dict[str, str]:
    """The named queries of sql/<noun>.sql, without their comments."""
    parts = re.split(r"^-- name: (\w+).*$", (SQL / f"{noun}.sql").read_text(), flags=re.MULTILINE)
    return {f"{noun}.{name}": re.sub(r"--.*", "", text) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


@cache
def nouns_of(module: str) -> frozenset[str]:
    """The nouns of storage that a module imports itself."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        if isinstance(node, ast.ImportFrom) and node.module == "storage":
            found |= {alias.name for alias in node.names}
    return frozenset(noun for noun in found if (SQL / f"{noun}.sql").exists())


def touching(table: str, command: Command, definitions: Mapping[str, str], *, to_write: bool) -> set[str]:
    """The named queries within a command's reach that write a table, or read it, be it by a view or a function.

    To delete is not to write: what nobody fills has no home.
    """
    verbs = r"insert\s+into|update" if to_write else r"(?<!delete )from|join"
    pattern = re.compile(rf"\b(?:{verbs})\s+[(]*(?:public\.)?{table}\b", re.IGNORECASE)

    def touches(text: str, seen: frozenset[str]) -> bool:
        used = {name for name in definitions if re.search(rf"\b{name}\s*\(|\b(?:from|join)\s+{name}\b", text)} - seen
        return bool(pattern.search(text)) or any(touches(definitions[name], seen | used) for name in used)

    nouns = nouns_of(command.handler.__module__)
    return {name for noun in nouns for name, text in queries(noun).items() if touches(text, frozenset())}


def complaints(
    tables: Collection[str],
    homes: Mapping[str, Home],
    machinery: Collection[str],
    definitions: Mapping[str, str],
    known: Mapping[str, Command],
    announced: Mapping[str, Push[Any]],
) -> list[str]:
    """What is wrong with the homes of these tables, a sentence each."""
    told = [
        f"{table} has no home: name in HOMES the commands that write and read it, and its push; or add it to MACHINERY."
        for table in tables
        if table not in homes and table not in machinery
    ]
    told += [f"There is no table {name} any more: take it out." for name in sorted({*homes, *machinery} - {*tables})]
    told += [f"{name} can't be machinery and have a home." for name in sorted({*homes} & {*machinery})]
    for table, home in homes.items():
        for name, to_write in ((home.writes, True), (home.reads, False)):
            verb, one = "writes" if to_write else "reads", known.get(name)
            if one is None:
                told.append(f"{table}: there is no command {name}.")
            elif one.reads == to_write:
                told.append(f"{table}: {name} is not declared as a command that {verb}.")
            elif not touching(table, one, definitions, to_write=to_write):
                told.append(f"{table}: no named query within reach of {one.handler.__module__} ({name}) {verb} it.")
        if home.push is None and not home.unannounced:
            told.append(f"{table}: name the push that announces it, or say why nobody hears of it.")
        if home.push is not None and home.push not in announced:
            told.append(f"{table}: there is no push {home.push}.")
    return told


async def definitions_of(db: asyncpg.Connection) -> dict[str, str]:
    """The views and functions of the schema, as PostgreSQL would make them again."""
    return dict(await db.fetch(DEFINITIONS))


async def homeless(db: asyncpg.Connection, **changed: Any) -> list[str]:
    tables = [row["name"] for row in await db.fetch(TABLES)]
    told = {"homes": HOMES, "machinery": MACHINERY, "known": commands, "announced": pushes, **changed}
    return complaints(tables, definitions=await definitions_of(db), **told)


async def test_every_table_has_a_home(db: asyncpg.Connection) -> None:
    told = await homeless(db)
    assert not told, "\n".join(["", *told])


async def test_a_table_without_a_home_is_named(db: asyncpg.Connection) -> None:
    await db.execute("create table wallets (wallet_id uuid primary key)")
    [told] = await homeless(db)
    assert told.startswith("wallets has no home")


@pytest.mark.parametrize(
    ("home", "complaint"),
    [
        (Home("message:shout", "message:history", "message:created"), "there is no command message:shout"),
        (Home("message:send", "user:get", "message:created"), "handlers.users (user:get) reads it"),
        (Home("report:file", "message:history", "message:created"), "handlers.reports (report:file) writes it"),
        (Home("message:history", "message:history", "message:created"), "not declared as a command that writes"),
        (Home("message:send", "message:history", "message:shouted"), "there is no push message:shouted"),
        (Home("message:send", "message:history"), "say why nobody hears of it"),
    ],
)
async def test_a_home_that_is_none_is_told(db: asyncpg.Connection, home: Home, complaint: str) -> None:
    [told] = await homeless(db, homes={**HOMES, "messages": home})
    assert complaint in told


async def test_what_is_gone_is_told(db: asyncpg.Connection) -> None:
    await db.execute("drop table command_keys")
    assert await homeless(db) == ["There is no table command_keys any more: take it out."]


def test_no_table_is_named_after_what_does_not_name_it() -> None:
    """The search for words in SQL finds what it should, and not what only looks like it."""
    texts = {
        "a": "select from messages m join x",
        "b": "delete from messages",
        "c": "select from messages_old",
        "d": "update messages",
    }
    one = commands["message:send"]

    def found(text: str, *, to_write: bool) -> bool:
        return bool(
            touching("messages", one, {"append_messages": text}, to_write=to_write) & {"messages.append_messages"}
        )

    assert [found(text, to_write=False) for text in texts.values()] == [True, False, False, False]
    assert [found(text, to_write=True) for text in texts.values()] == [False, False, False, True]


# columns


def is_time(column: str) -> bool:
    """An auto-rule's accept_at is a price."""
    return column != "accept_at" and re.search(r"(^|_)(at|until)$", column) is not None


def times(table: str, column: str, type_: str, checks: list[str]) -> str | None:
    """An instant is one wherever it is read."""
    wrong = type_.startswith(("timestamp without", "date", "time ")) or is_time(column)
    return "is a time, and no timestamptz" if wrong and type_ != "timestamp with time zone" else None


def ids(table: str, column: str, type_: str, checks: list[str]) -> str | None:
    """What others call their things is their own word."""
    is_id = column == "id" or (column.endswith(("_id", "_ids")) and column not in THEIRS)
    return "is an id, and no uuid" if is_id and type_ not in ("uuid", "uuid[]") else None


def money(table: str, column: str, type_: str, checks: list[str]) -> str | None:
    """Money is whole minor units."""
    is_whole = type_ not in ("real", "double precision", "numeric", "money")
    return None if is_whole or not MONEY.search(column) else "is named like money, and not whole"


def words(table: str, column: str, type_: str, checks: list[str]) -> str | None:
    """A CHECK on the length, on a pattern with an end, or on the values; or a bound before it is stored."""
    if table in MACHINERY or type_ not in ("text", "text[]", "character varying", "json", "jsonb"):
        return None
    name = re.escape(column)
    bounds = (
        rf"length\({name}\) <=? ?\d+",
        rf"length\({name}\) = \d+",
        rf"\b{name} = ANY \(ARRAY\[",
        rf"\b{name} <@ ARRAY\[",
        rf"\b{name} ~ '\^(?!.*,\}})(?:\\.|[^*+\\])*\$'",  # a pattern with an end, and nothing endless in it
    )
    if any(re.search(bound, check) for bound in bounds for check in checks):
        return None
    return None if f"{table}.{column}" in BOUNDED else "is text without a bound: give it a CHECK, or say in BOUNDED why"


Rule = Callable[[str, str, str, list[str]], str | None]
RULES: list[Rule] = [times, ids, money, words]


async def faults(db: asyncpg.Connection) -> list[str]:
    """The columns that break a rule, and the foreign keys without an index."""
    told = [
        f"{table}.{column} ({type_}) {wrong}"
        for table, column, type_, checks in await db.fetch(COLUMNS)
        for rule in RULES
        if (wrong := rule(table, column, type_, checks))
    ]
    told += [f"{row['table']}: no index for {row['name']} {row['is']}" for row in await db.fetch(UNINDEXED)]
    return told


async def test_every_column_is_of_the_kind_that_its_name_says_and_every_reference_has_an_index(
    db: asyncpg.Connection,
) -> None:
    told = await faults(db)
    assert not told, "\n".join(["", *told])


@pytest.mark.parametrize(
    ("column", "complaint"),
    [
        ("expires_at timestamp", "expires_at (timestamp without time zone) is a time"),
        ("muted_until bigint", "muted_until (bigint) is a time"),
        ("birth date", "birth (date) is a time"),
        ("listing_id bigint", "listing_id (bigint) is an id"),
        ("listing_id text check (length(listing_id) < 40)", "listing_id (text) is an id"),
        ("platform_fee double precision", "platform_fee (double precision) is named like money"),
        ("price real", "price (real) is named like money"),
        ("balance money", "balance (money) is named like money"),
        ("title text", "title (text) is text without a bound"),
        ("title varchar", "title (character varying) is text without a bound"),
        ("title text check (title <> '')", "title (text) is text without a bound"),
        ("title text check (length(title) > 0)", "title (text) is text without a bound"),
        ("price numeric", "price (numeric) is named like money"),
        ("code text check (code ~ '^[a-z]{2,}$')", "code (text) is text without a bound"),
        ("code text check (code ~ '^[a-z]+$')", "code (text) is text without a bound"),
        ("metadata jsonb", "metadata (jsonb) is text without a bound"),
        ("seller_id uuid references users (user_id)", "no index for wallets_seller_id_fkey"),
    ],
)
async def test_a_column_that_breaks_a_rule_is_named(db: asyncpg.Connection, column: str, complaint: str) -> None:
    await db.execute(f"create table wallets (wallet_id uuid primary key, {column})")
    [told] = await faults(db)
    assert complaint in told


@pytest.mark.parametrize(
    "more",
    [
        "seller_id uuid references users (user_id); create index on wallets (wallet_id, seller_id)",
        "seller_id uuid references users (user_id); create index on wallets (seller_id) where wallet_id is not null",
    ],
)
async def test_an_index_that_does_not_begin_with_the_reference_is_none(db: asyncpg.Connection, more: str) -> None:
    column, _, index = more.partition("; ")
    await db.execute(f"create table wallets (wallet_id uuid primary key, {column}); {index}")
    [told] = await faults(db)
    assert "no index for wallets_seller_id_fkey" in told


async def test_columns_that_break_no_rule_are_not_named(db: asyncpg.Connection) -> None:
    await db.execute(
        "create table wallets ("
        "wallet_id uuid primary key, seller_id uuid references users (user_id), balance bigint, accept_at bigint,"
        " spent_at timestamptz, latitude float8, title text check (length(title) between 1 and 20),"
        " code text check (code ~ '^[a-z]{2,3}$'), kind text check (kind in ('one', 'other')));"
        " create index on wallets (seller_id, title) where seller_id is not null"
    )
    assert await faults(db) == []


async def test_what_bounds_a_text_before_it_is_stored_is_there(db: asyncpg.Connection) -> None:
    columns = {f"{table}.{column}" for table, column, *_ in await db.fetch(COLUMNS)}
    assert BOUNDED.keys() <= columns, "take out what is no column any more"
    for column, by in BOUNDED.items():
        if by.startswith("= "):
            continue
        command, field = by.split(" ")
        assert is_bounded(commands[command], field), f"{column}: {by} has no bound"


def is_bounded(command: Command, field: str) -> bool:
    """A field's type has a bound; a plain text has the one of every payload (server.commands.payload, text_chars)."""
    schema = msgspec.json.schema_components([command.payload])[1][command.payload.__name__]
    kind = schema["properties"][field]
    if "anyOf" in kind:
        kind = next(one for one in kind["anyOf"] if one.get("type") != "null")
    return "enum" in kind or "maxItems" in kind or kind.get("type") == "string"
