"""`parley serve`: the database, one instance or several workers, and the signals that end and renew them."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Protocol

import structlog
import uvloop

from server.cli.crew import Crew, Port, posts
from server.config import Config
from server.embedded import EmbeddedPostgres
from server.embedded_valkey import EmbeddedValkey
from server.logs import configure
from server.migrate import migrate

logger = structlog.get_logger("parley")


class Embedded(Protocol):
    """A server that this one starts for itself."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    async def supervise(self) -> None: ...


def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. Raises what a person can mend: see `server.cli.main`."""
    configure(config.log, config.log_level)
    postgres = EmbeddedPostgres(config.data) if config.database_url is None else None
    valkey = EmbeddedValkey(config.data) if config.workers > 1 and config.redis_url is None else None
    own: list[Embedded] = [server for server in (postgres, valkey) if server is not None]
    with _started(own):
        dsn = config.database_url or (postgres.dsn if postgres else "")
        if config.workers == 1:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve_alone(config, dsn, own))
        else:
            redis_url = config.redis_url or (valkey.url if valkey else "")
            with asyncio.Runner() as runner:
                runner.run(_serve_together(config, dsn, redis_url, own))


async def _serve_alone(config: Config, dsn: str, own: Sequence[Embedded]) -> None:
    from server.cli import instance  # all that serves, which the parent of workers has no use for

    def serving(port: int) -> None:
        logger.info("serving", host=config.host, port=port, instance=config.instance)
        _say_what_to_try(config, port)

    ended = ending()
    async with _prepared(dsn, own):
        await instance.run(config, dsn, ended, serving)


async def _serve_together(config: Config, dsn: str, redis_url: str, own: Sequence[Embedded]) -> None:
    ended = ending()
    port = Port(config.host, config.port)
    crew = Crew(posts(config, port.number, redis_url, None if config.database_url else dsn))
    async with _prepared(dsn, own):
        tasks = [asyncio.create_task(crew.start()), asyncio.create_task(ended.wait())]
        starting, waiting = tasks
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                tasks.append(asyncio.create_task(_renewing(crew, dsn)))
                logger.info("serving", host=config.host, port=port.number, workers=config.workers)
                _say_what_to_try(config, port.number)
                await waiting
            logger.info("stopping")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await crew.end()
            port.release()
    logger.info("stopped")


async def _renewing(crew: Crew, dsn: str) -> None:
    """At each SIGUSR1 the schema is brought up to date and the workers begin afresh, by the code as it is then."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, asked.set)
    while await asked.wait():
        asked.clear()
        logger.info("renewing")
        try:
            await migrate(dsn)
            await crew.renew()
        except Exception:
            logger.exception("renewal_failed")  # those that serve go on
        else:
            logger.info("renewed")


@contextmanager
def _started(own: Sequence[Embedded]) -> Iterator[None]:
    """Start them on the main thread, before the loop: they end with the thread that has started them."""
    with ExitStack() as stack:
        for server in own:
            server.start()
            stack.callback(server.stop)
        yield


@asynccontextmanager
async def _prepared(dsn: str, own: Sequence[Embedded]) -> AsyncIterator[None]:
    """The schema current, and somebody to start our own servers again when they end."""
    supervising = [asyncio.create_task(server.supervise()) for server in own]
    try:
        for name in await migrate(dsn):
            logger.info("migrated", file=name)
        yield
    finally:
        for task in supervising:
            task.cancel()


def ending() -> asyncio.Event:
    """What SIGTERM and SIGINT set, and SIGHUP, by which a terminal goes, unless somebody has it ignored (nohup)."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
    return ended


def _say_what_to_try(config: Config, port: int) -> None:
    if sys.stdout.isatty() or config.database_url is None:
        print(_what_to_try(f"http://{config.host}:{port}"), flush=True)


def _what_to_try(url: str) -> str:
    return f"""
Parley is ready on {url}

  An account:   curl -s {url}/api/account/register -H 'Content-Type: application/json' \\
                  -d '{{"username": "amina", "email": "amina@example.com", "password": "a long passphrase"}}'
  A token:      .venv/bin/parley token --user amina
  A client:     io("{url}", {{auth: {{token}}}})   (socket.io-client; the README has the first conversation)
  Its health:   curl -s {url}/readyz

Ctrl-C stops it. The data stay in the data folder (PARLEY_DATA).
"""
