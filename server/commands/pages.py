"""The bounds of a page, one for all commands that answer with one."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec

PAGE_BYTES = 256 * 1024

Seq = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A place in a room's log: 0 is before its first event."""

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


def within(items: Sequence[T], most_bytes: int = PAGE_BYTES) -> list[T]:
    """As many of the items, in their order, as fit into a page's bytes; one at least, where there is one."""
    page: list[T] = []
    for item in items:
        most_bytes -= len(_encode(item))
        if page and most_bytes < 0:
            break
        page.append(item)
    return page
