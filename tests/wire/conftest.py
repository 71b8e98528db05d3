"""The loops on which the tests run that look at sockets byte by byte: asyncio's own, and the one of production."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

BYTE_BY_BYTE = frozenset({"test_direct.py", "test_engine.py", "test_stalls.py", "test_takeover.py"})


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The rest is about packets, and runs on asyncio's own."""
    if item.path.name in BYTE_BY_BYTE:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
