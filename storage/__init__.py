"""Typed functions over the named queries in `sql/`, one module a noun."""

from storage._db import Connection, Database, Time, as_time, now

__all__ = ["Connection", "Database", "Time", "as_time", "now"]
