"""The verbs of the command line, and how their errors are told.

Each imports what it needs when it is called: `parley settings` need not wait for a web server to be loaded.
"""

import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from server.cli.load import command as load_test
from server.config import Config, SettingsError, load, settings
from server.datafolder import DataFolderError
from server.errors import ParleyError
from server.migrate import MigrationError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Parley, a realtime chat and negotiation server.")


def _config(**changed: str) -> Config:
    return load({**os.environ, **changed})


@app.command()
def serve(
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the port, in place of PARLEY_WORKERS.", show_default=False)
    ] = None,
) -> None:
    """Serve, with a PostgreSQL of its own unless DATABASE_URL names one."""
    from server.cli import serving

    serving.serve(_config() if workers is None else _config(PARLEY_WORKERS=str(workers)))


@app.command(hidden=True)
def worker(dsn: Annotated[str | None, typer.Option(help="Of the parent's own PostgreSQL.")] = None) -> None:
    """Be one of several workers: `serve` starts them."""
    from server.cli import instance

    instance.work(_config(), dsn)


@app.command()
def migrate() -> None:
    """Bring the database's schema up to this code's."""
    from server.cli import operators

    applied = operators.migrate(_config())
    print("\n".join(applied) if applied else "The schema is current.")


@app.command()
def token(
    user: Annotated[list[str], typer.Option(help="Whose token: a username. Give it several times for several.")],
    ttl: Annotated[int, typer.Option(min=1, help="Its life in seconds.")] = 3600,
    scope: Annotated[str, typer.Option(help="full, limited or read.")] = "full",
    create: Annotated[bool, typer.Option(help="Make people who are not there, without a password.")] = False,
) -> None:
    """Mint access tokens, one a line, for operators and load tests. Each is a session of its own."""
    from server.cli import operators

    for line in operators.mint(_config(), user, ttl_s=ttl, scope=scope, create=create):
        print(line)


admins = typer.Typer(no_args_is_help=True, help="Say who is an administrator.")
app.add_typer(admins, name="admin")

Name = Annotated[str, typer.Option("--user", help="Who: a username.")]


@admins.command()
def grant(user: Name) -> None:
    """Make somebody an administrator."""
    from server.cli import operators

    operators.set_admin(_config(), user, is_admin=True)


@admins.command()
def revoke(user: Name) -> None:
    """Let somebody be an administrator no more."""
    from server.cli import operators

    operators.set_admin(_config(), user, is_admin=False)


@admins.command(name="list")
def list_admins() -> None:
    """List the administrators, one a line."""
    from server.cli import operators

    for line in operators.admins(_config()):
        print(line)


@app.command()
def restored() -> None:
    """Say that a backup has been restored: clients load everything afresh."""
    from server.cli import operators

    print(f"The new epoch is {operators.restored(_config())}.")


@app.command(name="settings")
def list_settings() -> None:
    """List every setting with its default."""
    table = Table(Column("setting", no_wrap=True), "default", "unit", "meaning")
    for setting in settings():
        table.add_row(setting.name, setting.shown_default, setting.unit, setting.about)
    Console().print(table)


app.command(name="load", help=load_test.HELP)(load_test.load_test)


@app.command()
def docs(check: Annotated[bool, typer.Option(help="Only say whether they are current.")] = False) -> None:
    """Write the documents that derive from the declarations."""
    from server.cli import documents

    stale = documents.write(check=check)
    if check and stale:
        raise SystemExit(f"Out of date: {', '.join(stale)}. Run `make docs` and commit what it writes.")


def main() -> None:
    """Run the command line; what a person can mend is told without a traceback."""
    try:
        app()
    except (SettingsError, DataFolderError, MigrationError) as error:
        _fail(str(error))
    except ParleyError as error:
        _fail(error.message)
    except OSError as error:
        _fail(f"{error.strerror or error}")


def _fail(message: str) -> None:
    print(f"parley: {message}", file=sys.stderr)
    raise SystemExit(1)
