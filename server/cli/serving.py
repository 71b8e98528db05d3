"""`parley serve`: the database, the instance, and the signals that end it."""

import asyncio
import signal
import sys

import structlog
import uvloop

from server.app import Parley
from server.collector import settle
from server.config import Config
from server.datafolder import secret
from server.embedded import EmbeddedPostgres
from server.logs import configure
from server.migrate import migrate

logger = structlog.get_logger("parley")


def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. Raises what a person can mend: see `server.cli.main`."""
    configure(config.log, config.log_level)
    postgres = None
    if config.database_url is None:
        # On the main thread, before the loop: PostgreSQL ends with the thread that has started it.
        postgres = EmbeddedPostgres(config.data)
        postgres.start()
    try:
        dsn = config.database_url or (postgres.dsn if postgres else "")
        keys = config.secrets or (secret(config.data),)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(config, dsn, keys, postgres))
    finally:
        if postgres is not None:
            postgres.stop()


async def _serve(config: Config, dsn: str, keys: tuple[str, ...], postgres: EmbeddedPostgres | None) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    supervising = asyncio.create_task(postgres.supervise()) if postgres is not None else None
    for name in await migrate(dsn):
        logger.info("migrated", file=name)
    parley = Parley(config, dsn, keys)
    port = await parley.start()
    settle()
    logger.info("serving", host=config.host, port=port, instance=config.instance)
    if sys.stdout.isatty() or config.database_url is None:
        print(_what_to_try(f"http://{config.host}:{port}"), flush=True)
    await ending.wait()
    logger.info("stopping")
    await parley.stop()
    if supervising is not None:
        supervising.cancel()
    logger.info("stopped")


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
