"""What the tests of threads share: how one is made, what is said there, and what was refused."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from rules.users import Role
from storage import users
from tests.people import Instance, Person, Refusal


async def new_thread(owner: Person, **fields: Any) -> str:
    given = {"title": "Pre-loved Apple", "category": "electronics", "client_id": uuid4().hex, **fields}
    thread_id: str = (await owner.post("thread:create", **given))["thread_id"]
    return thread_id


async def refusal(person: Person, command: str, **payload: Any) -> dict[str, Any]:
    with pytest.raises(Refusal) as refused:
        await person.post(command, **payload)
    return dict(refused.value.error)


async def code(person: Person, command: str, **payload: Any) -> str:
    """ok, or the code of the error."""
    _, answer = await person.instance.post(command, payload, token=person.token)
    return "ok" if answer["ok"] else str(answer["error"]["code"])


async def rows(parley: Instance, sql: str, *arguments: Any) -> list[dict[str, Any]]:
    async with parley.parley.database.connection() as db:
        return [dict(row) for row in await db.fetch(sql, *arguments)]


async def make_admin(person: Person) -> Person:
    async with person.instance.parley.database.connection() as db:
        await users.set_roles(db, UUID(person.user_id), [Role.ADMIN])
    return person


async def say(person: Person, thread: str, text: str) -> Any:
    return await person.post("message:send", conversation_id=thread, client_id=uuid4().hex, text=text)
