"""Both kinds of clients for every journey."""

from tests.browsers import browse

__all__ = ["browse"]
