"""Three people, a group, two devices for one of them, by the clients that phones have: one story from end to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browsers import Opens, browser_of
from tests.people import PATIENCE_S, Device, Instance, Refusal
from tests.uploads import PNG, attach, fetch, link

FOREVER = "2036-01-01T00:00:00.000Z"


@pytest.fixture
async def parley(new_instance: Callable[..., Awaitable[Instance]], tmp_path: Path) -> Instance:
    """An instance that tells of presence at once."""
    return await new_instance(PARLEY_PRESENCE_DEBOUNCE_MS="0", PARLEY_ATTACHMENTS_FOLDER=str(tmp_path / "attachments"))


async def unread(device: Device) -> int:
    """The number on the app's icon, as this device reckons it."""
    conversations = (await device.call("conversation:list"))["conversations"]
    return sum(conversation["unread_count"] for conversation in conversations)


async def agree(room: str, *devices: Device) -> int:
    """Wait until all of them have heard a room up to the head that the first is told of; that head."""
    head: int = (await devices[0].call("room:sync", room=room, after=0, limit=1))["head_seq"]
    for device in devices:
        await device.hearing_up_to(room, head)
    return head


def durable(device: Device, room: str) -> list[tuple[int, str, Any]]:
    """What a device has heard of a room's log, in the order in which it came."""
    return [(push.seq, push.name, push.payload) for push in device.of(room) if "seq" in push.meta]


async def test_three_people_four_devices_and_a_group(parley: Instance, browse: Opens) -> None:
    amina, bilal, carim = [await parley.register(name) for name in ("amina", "bilal", "carim")]
    phone, laptop = await amina.connect(), await browse(amina, "websocket")
    bilals, carims = await browse(bilal), await carim.connect(transports=["polling", "websocket"])
    everybody = [phone, laptop, bilals, carims]

    # Amina opens a group, and everybody's devices stand in it.
    group = (
        await phone.call(
            "conversation:create",
            kind="group",
            title="The market on Saturday",
            user_ids=[bilal.user_id, carim.user_id],
            client_id="the market",
        )
    )["conversation_id"]
    room = f"conversation:{group}"
    for device in everybody:
        assert (await device.hearing("conversation:created")).payload["title"] == "The market on Saturday"

    # They talk. All hear the same, in the same order, the sender's own devices too.
    await phone.send(group, "Who is coming?")
    await bilals.send(group, "I am.")
    await laptop.send(group, "متى؟")
    await agree(room, *everybody)
    assert [device.texts(group) for device in everybody] == [["Who is coming?", "I am.", "متى؟"]] * 4

    # What is unread is the same on both of Amina's devices, and reading on one is reading on the other.
    assert [await unread(device) for device in everybody] == [1, 1, 2, 3]
    seq = phone.position(group)
    assert await phone.call("receipt:read", conversation_id=group, seq=seq) == {"read_seq": seq, "delivered_seq": seq}
    assert (await laptop.hearing("conversation:mine", read_seq=seq)).payload["unread_count"] == 0
    assert [await unread(device) for device in everybody] == [0, 0, 2, 3]
    await carims.hearing("receipt:changed", user_id=amina.user_id, read_seq=seq)
    await bilals.call("receipt:delivered", conversation_id=group, seq=seq)
    await phone.hearing("receipt:changed", user_id=bilal.user_id, delivered_seq=seq, read_seq=0)

    # Bilal types, and then says it.
    await bilals.call("typing:set", conversation_id=group, state="typing")
    for device in (phone, laptop, carims):
        await device.hearing("typing:changed", typing=[{"user_id": bilal.user_id, "state": "typing"}])
    said = await bilals.send(group, "At nine, by the old gate.")
    for device in (phone, laptop, carims):
        await device.hearing("typing:changed", typing=[])

    # Amina watches who is there.
    seen = (await laptop.call("presence:watch", user_ids=[bilal.user_id, carim.user_id]))["presences"]
    assert {one["user_id"]: one["state"] for one in seen} == {bilal.user_id: "online", carim.user_id: "online"}
    await bilals.call("presence:set", state="away")
    await laptop.hearing("presence:changed", user_id=bilal.user_id, state="away")

    # Carim likes it; Bilal corrects himself, and Amina takes back what she has said.
    await carims.call("message:react", message_id=said["message_id"], emoji="👍", on=True)
    for device in everybody:
        liked = await device.hearing("message:reacted", message_id=said["message_id"])
        assert liked.payload["reactions"] == [{"emoji": "👍", "count": 1, "user_ids": [carim.user_id]}]
    edited = await bilals.call("message:edit", message_id=said["message_id"], text="At ten.", version=1)
    assert (edited["text"], edited["version"], edited["reactions"]) == ("At ten.", 2, liked.payload["reactions"])
    earlier = (await carims.call("message:revisions", message_id=said["message_id"]))["revisions"]
    assert earlier[0]["text"] == "At nine, by the old gate."
    with pytest.raises(Refusal, match="conflict"):
        await bilals.call("message:edit", message_id=said["message_id"], text="At eleven.", version=1)
    first = next(push.payload for push in phone.of(room) if push.name == "message:created")
    await laptop.call("message:delete", message_id=first["message_id"])
    await agree(room, *everybody)
    for device in everybody:
        assert (await device.hearing("message:edited")).payload["text"] == "At ten."
        assert (await device.hearing("message:deleted")).payload["text"] is None
    history = (await carims.call("message:history", conversation_id=group))["messages"]
    assert [message["text"] for message in history] == [None, "I am.", "متى؟", "At ten."]

    # Carim shows where. Bilal's browser fetches the picture by the link that is signed for him.
    picture = await attach(carim, PNG)
    await carims.call("message:send", conversation_id=group, client_id="where", text="Here", attachment_ids=[picture])
    shown = (await bilals.hearing("message:created", text="Here")).payload
    assert (shown["type"], [file["attachment_id"] for file in shown["attachments"]]) == ("image", [picture])
    signed = (await bilals.call("attachment:get", attachment_id=picture))["url"]
    assert await browser_of(bilals).do("fetch", signed) == PNG.hex()
    assert (await fetch(parley, await link(amina, picture))).body == PNG

    # Amina's laptop loses its connection without a word. It comes back by itself, and nothing is missing or double.
    browser_of(laptop).gone.clear()
    await browser_of(laptop).do("cut")
    async with asyncio.timeout(PATIENCE_S):
        await browser_of(laptop).gone.wait()
    for n in range(12):
        await (bilals if n % 2 else carims).send(group, f"missed {n}")
    await carims.call("message:react", message_id=shown["message_id"], emoji="❤️", on=True)
    head = await agree(room, *everybody)
    assert durable(laptop, room) == durable(phone, room)
    assert [seq for seq, _, _ in durable(laptop, room)] == list(range(durable(laptop, room)[0][0], head + 1))
    assert len([push for push in laptop.heard if push.name == "hello"]) == 2
    assert await unread(laptop) == await unread(phone) == 14

    # Carim has had enough for today: what is muted stays in the archive, and is counted there.
    await carims.call("receipt:read", conversation_id=group, seq=head)
    await carims.call("conversation:update", conversation_id=group, archived=True, muted_until=FOREVER)
    await carims.hearing("conversation:mine", archived=True, muted_until=FOREVER)
    assert await unread(carims) == 0
    await phone.send(group, "Carim, bring the umbrella.")
    await carims.hearing("message:created", text="Carim, bring the umbrella.")
    [put_away] = (await carims.call("conversation:list", archived=True))["conversations"]
    assert (put_away["conversation_id"], put_away["unread_count"]) == (group, 1)
    assert (await carims.call("conversation:list"))["conversations"] == []
    await carims.call("conversation:update", conversation_id=group, muted_until=None)
    await phone.send(group, "Carim?")  # what is not muted comes back with the next message
    await carims.hearing("conversation:mine", archived=False, muted_until=None, unread_count=2)
    assert await unread(carims) == 2

    # Bilal leaves. The others are told, he hears no more, and his devices know why.
    await bilals.call("conversation:leave", conversation_id=group)
    for device in (phone, laptop, carims, bilals):
        await device.hearing("participant:removed", user_id=bilal.user_id, by=bilal.user_id)
    await carims.send(group, "And then there were two.")
    await agree(room, phone, laptop, carims)
    with pytest.raises(Refusal, match="not_found"):
        await bilals.send(group, "Wait!")
    assert "And then there were two." not in bilals.texts(group)
    assert await unread(bilals) == 0

    # Amina leaves too, and the group is Carim's.
    await laptop.call("conversation:leave", conversation_id=group)
    await phone.hearing("participant:removed", user_id=amina.user_id)
    assert [await unread(device) for device in (phone, laptop)] == [0, 0]
    [alone] = (await carims.call("conversation:get", conversation_id=group))["participants"]
    assert (alone["user_id"], alone["role"]) == (carim.user_id, "owner")
    assert durable(laptop, room) == durable(phone, room)
