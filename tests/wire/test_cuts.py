"""A client that is cut in the middle of a frame, at any byte of it: nothing is left behind, and nothing half done."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from tests.people import Instance, Person
from tests.wire.bare import BINARY, TEXT, client_frame, until
from tests.wire.test_guards import nothing_left, opened


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


@pytest.fixture
async def parley(new_instance: Callable[..., Awaitable[Instance]]) -> Instance:
    """One that lets somebody come back as often as a frame has bytes."""
    return await new_instance(PARLEY_RATE_CONNECTS="off", PARLEY_RATE_HANDSHAKES="off")


async def test_a_connect_that_is_cut_leaves_nothing(parley: Instance, amina: Person) -> None:
    frame = client_frame(TEXT, b"40" + json.dumps({"token": amina.token}).encode())
    for at in range(len(frame) + 1):
        async with opened(parley) as raw:
            raw.writer.write(frame[:at])
            await raw.writer.drain()
    await until(lambda: not parley.parley.dispatcher._tasks, "tasks")
    await nothing_left(parley)
    device = await amina.connect()
    assert (await device.call("account:me"))["user_id"] == amina.user_id


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
async def test_a_send_that_is_cut_is_done_whole_or_not_at_all(
    parley: Instance, amina: Person, bilal: Person, their_chat: str, opcode: int
) -> None:
    watching = await bilal.connect()
    whole = {"conversation_id": their_chat, "client_id": "x" * 32, "text": "x" * 32}
    size = len(client_frame(opcode, b"427" + json.dumps(["message:send", whole]).encode()))
    possible = set()
    for at in range(size + 1):
        message = {**whole, "client_id": uuid4().hex, "text": uuid4().hex}
        frame = client_frame(opcode, b"427" + json.dumps(["message:send", message]).encode())
        assert len(frame) == size
        async with opened(parley) as raw:
            await raw.connect(amina)
            raw.writer.write(frame[:at])
            await raw.writer.drain()
        if at == size and opcode == TEXT:
            possible.add(message["text"])
    await until(lambda: len(parley.parley.delivery.sockets()) == 1, "a socket is left")
    await until(lambda: not parley.parley.dispatcher._tasks, "tasks")
    other = await amina.connect()
    await other.send(their_chat, "whole")
    await watching.hearing("message:created", text="whole")
    said = watching.texts(their_chat)
    assert set(said) <= possible | {"whole"}
    assert len(said) == len(set(said))
    for device in (watching, other):
        await device.leave()
    await nothing_left(parley)
