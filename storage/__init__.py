"""Typed functions over the named queries in `sql/`, one module a noun."""

from storage._db import Connection, Database, Time, as_time, now
from storage.gathering import Gathering
from storage.waits import TimedDatabase

__all__ = ["Connection", "Database", "Gathering", "Time", "TimedDatabase", "as_time", "now"]
