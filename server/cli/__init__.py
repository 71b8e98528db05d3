"""The command line: `parley serve`, `migrate`, `token`, `settings`, `restored`, `docs`."""

from server.cli.main import main

__all__ = ["main"]
