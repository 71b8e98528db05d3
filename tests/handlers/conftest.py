"""What several nouns of the market are tested in."""

from __future__ import annotations

import pytest

from tests.people import Person
from tests.threads import new_thread


@pytest.fixture
async def thread(amina: Person) -> str:
    """Amina's thread, in which she is alone."""
    return await new_thread(amina)
