"""Another epoch: nothing that an instance knew of the database before a restore is served after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import socketio

from server.rooms.joining import Joining
from storage import rooms as table
from tests.people import ConnectRefused, Instance

NewInstance = Callable[..., Awaitable[Instance]]


async def restore(parley: Instance, conversation_id: str, head: int) -> str:
    """Put a conversation back to where it was, as a backup does, and say so; the new epoch."""
    db = await asyncpg.connect(parley.dsn)
    try:
        async with db.transaction():
            room_id = UUID(conversation_id)
            await db.execute("delete from room_events where room_id = $1 and seq > $2", room_id, head)
            await db.execute("delete from messages where conversation_id = $1 and seq > $2", room_id, head)
            await db.execute("update rooms set last_seq = $2 where room_id = $1", room_id, head)
            epoch = await db.fetchval("update deployment set epoch = gen_random_uuid() returning epoch")
        return str(epoch)
    finally:
        await db.close()


async def test_who_is_connecting_meanwhile_keeps_nothing_of_before(
    new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    parley = await new_instance()
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    chat = await parley.chat(amina, bilal)
    room = f"conversation:{chat}"
    phone = await amina.connect()
    for n in range(1, 7):
        await phone.send(chat, f"old {n}")
    resumable, gate, reached = Joining.resumable, asyncio.Event(), asyncio.Event()

    async def slow(self: Joining, *args: Any) -> Any:
        monkeypatch.setattr(Joining, "resumable", resumable)
        reached.set()
        await gate.wait()
        return await resumable(self, *args)

    monkeypatch.setattr(Joining, "resumable", slow)
    connecting = asyncio.create_task(bilal.connect(rooms={room: 2}))
    await reached.wait()
    epoch = await restore(parley, chat, 3)
    await phone.gone()
    back = await amina.connect(epoch=epoch, rooms={room: 2})
    assert back.hello["rooms"][room] == 3
    for n in (1, 2):
        await amina.post("message:send", conversation_id=chat, client_id=f"n{n}", text=f"new {n}")
    await back.hearing("message:created", text="new 2")
    assert back.texts(chat) == ["old 3", "new 1", "new 2"]
    gate.set()
    with pytest.raises((ConnectRefused, socketio.exceptions.ConnectionError, TimeoutError)):
        await asyncio.wait_for(connecting, 1)  # the client waits for long where it was cut off
    assert parley.parley.delivery.sockets_of(UUID(bilal.user_id)) == []
    again = await bilal.connect(rooms={room: 2})
    await again.hearing("message:created", text="new 2")
    assert again.texts(chat) == ["old 3", "new 1", "new 2"]


async def test_the_first_connect_that_sees_it_is_refused_and_sends_everybody_back(new_instance: NewInstance) -> None:
    parley = await new_instance()
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    chat = await parley.chat(amina, bilal)
    room = f"conversation:{chat}"
    phone = await amina.connect()
    for n in range(1, 7):
        await phone.send(chat, f"old {n}")
    delivery = parley.parley.delivery
    await delivery.comparison.stop()
    epoch = await restore(parley, chat, 3)
    with pytest.raises(ConnectRefused) as refused:
        await bilal.connect(rooms={room: 2})
    assert refused.value.said["data"]["code"] == "unavailable"
    await phone.gone()
    assert str(delivery.epoch) == epoch
    device = await bilal.connect(rooms={room: 2})
    assert (device.hello["epoch"], device.hello["rooms"][room]) == (epoch, 3)
    await device.hearing_up_to(room, 3)
    assert device.texts(chat) == ["old 3"]


async def test_a_comparison_that_has_asked_the_database_of_before_changes_nothing(
    new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    parley = await new_instance()
    comparison = parley.parley.delivery.comparison
    await comparison.stop()
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    chat = await parley.chat(amina, bilal)
    list_moved = table.list_moved

    async def overtaken(*args: Any) -> Any:
        moved = await list_moved(*args)
        monkeypatch.setattr(table, "list_moved", list_moved)
        await restore(parley, chat, 0)
        with pytest.raises(ConnectRefused):
            await bilal.connect()
        await bilal.connect()
        return moved

    monkeypatch.setattr(table, "list_moved", overtaken)
    await comparison.compare()
    assert bilal.devices[0].client.connected
    assert comparison.fresh
    db = await asyncpg.connect(parley.dsn)
    assert comparison.epoch == await db.fetchval("select epoch from deployment")
    await db.close()
