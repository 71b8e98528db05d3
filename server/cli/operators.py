"""What operators do beside a server: migrate, mint tokens, say who is an administrator, tell of a restore."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar
from uuid import UUID

import msgspec

from handlers.accounts import Username, user_updated
from rules.users import Role, Scope, username_fault
from server import migrate as migrations
from server.commands.context import encode
from server.commands.tokens import Tokens
from server.config import Config
from server.datafolder import secret
from server.embedded import EmbeddedPostgres, attach
from server.errors import Invalid, NotFound
from server.rooms import log
from server.rooms.log import Entry
from server.rooms.names import user_room
from storage import Connection, Database, rooms, sessions, users

T = TypeVar("T")


@contextmanager
def _dsn(config: Config) -> Iterator[str]:
    """The database's address: the configured one, that of the server that runs, or of one started for this alone."""
    running = config.database_url or attach(config.data)
    if running is not None:
        yield running
        return
    postgres = EmbeddedPostgres(config.data)
    postgres.start()
    try:
        yield postgres.dsn
    finally:
        postgres.stop()


@asynccontextmanager
async def _database(dsn: str) -> AsyncIterator[Database]:
    database = await Database.open(dsn, min_size=1, max_size=1, name="parley operator")
    try:
        yield database
    finally:
        await database.close()


def on_database(config: Config, work: Callable[[Database], Awaitable[T]]) -> T:
    """Do something on the database, whose schema is current then; what it returns."""

    async def run(dsn: str) -> T:
        await migrations.migrate(dsn)
        async with _database(dsn) as database:
            return await work(database)

    with _dsn(config) as dsn:
        return asyncio.run(run(dsn))


def migrate(config: Config) -> list[str]:
    """Apply the migrations that are missing; their names. Raises `MigrationError`."""
    with _dsn(config) as dsn:
        return asyncio.run(migrations.migrate(dsn))


def restored(config: Config) -> UUID:
    """Give the database a new epoch. Returns it."""

    async def work(database: Database) -> UUID:
        async with database.connection() as db:
            return await rooms.restored(db)

    return on_database(config, work)


def mint(config: Config, names: Sequence[str], *, ttl_s: int, scope: str, create: bool) -> list[str]:
    """Open a session for each username and sign an access token for it.

    Raises `Invalid` for a scope that is none or a name that nobody may have, `NotFound` for a person who is not there
    (unless `create`).
    """
    if scope not in set(Scope):
        raise Invalid({}, f"--scope {scope}: it is full, limited or read.")
    for name in names:
        _check_name(name)
    keys = config.secrets or (secret(config.data),)
    tokens = Tokens(keys, access_ttl_s=config.access_ttl_s, refresh_ttl_s=config.refresh_ttl_s)

    async def one(db: Connection, name: str) -> str:
        user_id = await users.find_user_id(db, name)
        if user_id is None:
            if not create:
                raise _Nobody(name, "register them first, or give --create")
            fault = username_fault(name)
            if fault is not None:
                raise Invalid({}, f"--user {name}: the name {fault}.")
            user_id = await users.create_user(db, username=name, email=f"{name}@example.invalid", password_hash=None)
            await rooms.create_room(db, user_id, "user")
        session_id = await sessions.create_session(
            db, user_id, device="parley token", address=None, scope=Scope(scope), ttl_s=ttl_s
        )
        return tokens.access(user_id, session_id, Scope(scope), ttl_s=ttl_s)[0]

    async def work(database: Database) -> list[str]:
        return await database.transaction(lambda db: _each(db, names, one))

    return on_database(config, work)


def set_admin(config: Config, name: str, *, is_admin: bool) -> None:
    """Make somebody an administrator, or one no more; their devices are told. Raises `NotFound`."""

    async def work(db: Connection) -> None:
        user_id = await users.find_user_id(db, name)
        user = None if user_id is None else await users.lock_user(db, user_id)
        if user is None:
            raise _Nobody(name, "register them first")
        if (Role.ADMIN in user.roles) == is_admin:
            return
        others = [role for role in user.roles if role != Role.ADMIN]
        roles = [*others, Role.ADMIN] if is_admin else others
        await users.set_roles(db, user.user_id, roles)
        told = msgspec.structs.replace(user, roles=roles)
        await log.append(db, [Entry(user_room(user.user_id), user_updated.name, encode(told).decode())])

    on_database(config, lambda database: database.transaction(work))


def admins(config: Config) -> list[str]:
    """The administrators' usernames."""

    async def work(database: Database) -> list[str]:
        async with database.connection() as db:
            return await users.list_usernames(db, Role.ADMIN)

    return on_database(config, work)


def _check_name(name: str) -> None:
    try:
        msgspec.convert(name, Username)
    except msgspec.ValidationError:
        rule = "2 to 64 letters, digits, dots, hyphens and underscores"
        raise Invalid({}, f"--user {name}: a username is {rule}.") from None


async def _each(db: Connection, names: Sequence[str], one: Callable[[Connection, str], Awaitable[str]]) -> list[str]:
    return [await one(db, name) for name in names]


class _Nobody(NotFound):
    """There is no such person; an operator may know."""

    def __init__(self, name: str, what_to_do: str) -> None:
        super().__init__()
        self.message = f"There is nobody called {name}: {what_to_do}."
