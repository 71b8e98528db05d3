"""The command line: `parley serve`, `migrate`, `token`, `admin`, `settings`, `restored`, `load`, `docs`."""

from server.cli.main import main

__all__ = ["main"]
