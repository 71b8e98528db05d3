"""What is remembered of the latest things only, so that a test of an hour takes no more memory than one of minutes."""

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")
MOST = 200_000


class Recent(dict[K, V]):
    """A dict that lets go of the keys that came first, where there are more than so many."""

    def __init__(self, most: int = MOST) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        if len(self) > self._most:
            del self[next(iter(self))]

    def put(self, key: K, value: V) -> V:
        """What the key has, which is this value if it has none yet."""
        if key not in self:
            self[key] = value
        return self[key]
