"""Typed functions over the named queries in `sql/`, one module a noun."""

from storage._db import Connection, Database, Time, as_time, now
from storage._errors import translate
from storage.gathering import Gathering

__all__ = ["Connection", "Database", "Gathering", "Time", "as_time", "now", "translate"]
