"""An instance in this process, from its start until a signal: a server of its own, or one of several workers."""

import asyncio
from collections.abc import Callable

import structlog
import uvloop

from server.app import Parley
from server.cli.serving import ending
from server.collector import settle
from server.config import Config
from server.datafolder import secret
from server.logs import configure

logger = structlog.get_logger("parley")


def work(config: Config, dsn: str | None) -> None:
    """Be one of several workers, until SIGTERM. `dsn` is of the parent's PostgreSQL, where it has one of its own."""
    configure(config.log, config.log_level)
    structlog.contextvars.bind_contextvars(instance=config.instance)
    database = config.database_url or dsn
    if database is None:
        raise ChildProcessError("`parley serve --workers` starts the workers, and tells them where the database is.")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(config, database))


async def _work(config: Config, dsn: str) -> None:
    def serving(port: int) -> None:
        logger.info("worker_serving", port=port)
        print("serving", flush=True)  # the parent waits for a line

    await run(config, dsn, ending(), serving)


async def run(config: Config, dsn: str, ended: asyncio.Event, serving: Callable[[int], None]) -> None:
    """Serve until `ended`; `serving` is told the port when it does. The schema is current."""
    parley = Parley(config, dsn, config.secrets or (secret(config.data),))
    port = await parley.start()
    settle()
    serving(port)
    await ended.wait()
    logger.info("stopping")
    await parley.stop()
    logger.info("stopped")
