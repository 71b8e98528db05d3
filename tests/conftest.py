"""The few fixtures that everything shares, and the rule that CI skips nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path

import pytest

from server.rooms.bus import Bus
from tests.people import Instance, Person
from tests.servers import Node, Postgres, RedisServer, installed_node, redis_binary, valkey_binary

MAJORS = ["18", "15"]
MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 * 2**30  # what a run needs at most, of databases and their logs


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test marked `both_postgres` runs once with each PostgreSQL, and so do all fixtures it stands on.

    That is for storage, which prepares every query and runs every function, for locks and races, and for a journey
    through each part: what a handler makes of it is the same on both.
    """
    if metafunc.definition.get_closest_marker("both_postgres") and "postgres_dsn" in metafunc.fixturenames:
        metafunc.parametrize("postgres_dsn", MAJORS, indirect=True, ids=[f"postgres{major}" for major in MAJORS])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With REQUIRE_ALL_TESTS in the environment a skip is a failure: CI has what every test needs."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("REQUIRE_ALL_TESTS"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which REQUIRE_ALL_TESTS forbids: {report.longrepr[2] if report.longrepr else ''}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file that skips itself whole."""
    report = yield
    if report.skipped and os.environ.get("REQUIRE_ALL_TESTS"):
        report.outcome = "failed"
        report.longrepr = f"skipped whole, which REQUIRE_ALL_TESTS forbids: {collector.nodeid}"
    return report


def _remove(folder: Path) -> None:
    """Delete a folder; what a PostgreSQL on its way out has taken away itself meanwhile is gone all the same."""

    def missing(function: object, path: str, raised: tuple[type[BaseException], BaseException, object]) -> None:
        if not isinstance(raised[1], FileNotFoundError):
            raise raised[1]

    shutil.rmtree(folder, onerror=missing)


def _place() -> Path:
    """In memory where there is room: a database is copied there in 20 ms of CPU, on a disk in 25 to 400."""
    try:
        has_room = shutil.disk_usage(MEMORY).free > ROOM_BYTES and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    except OSError:
        has_room = False
    return MEMORY if has_room and os.access(MEMORY, os.W_OK) else Path("/tmp")


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """A folder for the run, which PostgreSQL's user may enter too when the tests run as root (pytest's is private)."""
    folder = Path(tempfile.mkdtemp(prefix="parley-tests-", dir=_place()))
    folder.chmod(0o711)
    yield folder
    _remove(folder)


@pytest.fixture
def open_folder(servers_folder: Path) -> Iterator[Path]:
    """As tmp_path, but one that PostgreSQL's user may enter, with a short path, and gone after the test.

    (Databases of 40 MB each that waited on the disk for the end of the run made every fsync slow.)
    """
    folder = Path(tempfile.mkdtemp(dir=servers_folder))
    folder.chmod(0o711)
    yield folder
    _remove(folder)


@pytest.fixture(scope="session")
def postgres(servers_folder: Path) -> Iterator[Postgres]:
    """The PostgreSQL servers of the run: fast, not durable, gone at its end."""
    servers = Postgres(servers_folder)
    yield servers
    servers.stop()


@pytest.fixture
def postgres_dsn(request: pytest.FixtureRequest, postgres: Postgres) -> str:
    """The PostgreSQL of this test: 18, and 15 in its second run if it is marked `both_postgres`."""
    return postgres.dsn(getattr(request, "param", MAJORS[0]))


@pytest.fixture(params=MAJORS, ids=[f"postgres{major}" for major in MAJORS])
def any_postgres_dsn(request: pytest.FixtureRequest, postgres: Postgres) -> str:
    """Each PostgreSQL in turn, for a test that needs no database fixture."""
    return postgres.dsn(request.param)


@pytest.fixture
async def new_database(postgres: Postgres, postgres_dsn: str) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """`await new_database()` or `await new_database(migrated=True)`: the dsn of one more database for this test."""
    made: list[str] = []

    async def create(*, migrated: bool = False) -> str:
        made.append(await postgres.create(postgres_dsn, migrated=migrated))
        return made[-1]

    yield create
    for dsn in made:
        await postgres.drop(dsn)


@pytest.fixture
async def database(new_database: Callable[..., Awaitable[str]]) -> str:
    """The dsn of a fresh empty database."""
    return await new_database()


@pytest.fixture
async def migrated_database(new_database: Callable[..., Awaitable[str]]) -> str:
    """The dsn of a fresh database with the whole schema."""
    return await new_database(migrated=True)


@pytest.fixture(scope="session")
def databases_shared() -> dict[str, str]:
    """The dsn of the one database that tests share on each PostgreSQL, by that server's dsn."""
    return {}


@pytest.fixture
async def shared_database(postgres: Postgres, postgres_dsn: str, databases_shared: dict[str, str]) -> str:
    """The dsn of a migrated database that many tests share: each makes people and rooms of its own in it."""
    if postgres_dsn not in databases_shared:
        databases_shared[postgres_dsn] = await postgres.create(postgres_dsn, migrated=True)
    return databases_shared[postgres_dsn]


@pytest.fixture(scope="session")
def valkey(servers_folder: Path) -> Iterator[RedisServer]:
    """Valkey, from its package. A test that kills it starts it again."""
    yield from _serving(RedisServer(valkey_binary(), servers_folder / "valkey.log"))


@pytest.fixture(scope="session")
def redis_server(servers_folder: Path) -> Iterator[RedisServer]:
    """Debian's redis-server. A test that kills it starts it again."""
    yield from _serving(RedisServer(redis_binary(), servers_folder / "redis.log"))


def _serving(server: RedisServer) -> Iterator[RedisServer]:
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["valkey", "redis_server"])
def any_redis(request: pytest.FixtureRequest) -> RedisServer:
    """Each Redis-protocol server in turn, empty."""
    server: RedisServer = request.getfixturevalue(request.param)
    assert server.ask("flushall") == "+OK"
    return server


@pytest.fixture
def any_redis_url(any_redis: RedisServer) -> str:
    """The URL of each Redis-protocol server in turn, empty."""
    return any_redis.url


@pytest.fixture(scope="session")
def node() -> Node:
    """Node.js with the JavaScript clients' packages in `node.clients`."""
    return installed_node()


@pytest.fixture
async def new_instance(migrated_database: str) -> AsyncIterator[Callable[..., Awaitable[Instance]]]:
    """`await new_instance(bus=…, PARLEY_…=…)`: one more instance of Parley on this test's database; see `Instance`."""
    started: list[Instance] = []

    async def start(*, bus: Bus | None = None, has_strong_passwords: bool = False, **environ: str) -> Instance:
        instance = Instance(migrated_database, bus=bus, has_strong_passwords=has_strong_passwords, **environ)
        started.append(await instance.start())
        return started[-1]

    yield start
    for instance in started:
        await instance.stop()


@pytest.fixture
async def parley(new_instance: Callable[..., Awaitable[Instance]]) -> Instance:
    """One instance of Parley."""
    return await new_instance()


@pytest.fixture
async def amina(parley: Instance) -> Person:
    """Somebody with an account, signed in."""
    return await parley.person("amina")


@pytest.fixture
async def bilal(parley: Instance) -> Person:
    """Somebody else."""
    return await parley.person("bilal")


@pytest.fixture
async def carim(parley: Instance) -> Person:
    """A third."""
    return await parley.person("carim")


@pytest.fixture
async def their_chat(parley: Instance, amina: Person, bilal: Person) -> str:
    """The id of a private conversation of Amina and Bilal."""
    return await parley.chat(amina, bilal)
