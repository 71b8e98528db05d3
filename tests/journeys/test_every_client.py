"""Every kind of client in one conversation: both libraries, both codecs, each way to connect."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
import socketio

from server.wire.codec import Encoding, Packet
from tests.browsers import Browser, Opens, browser_of
from tests.people import PATIENCE_S, Device, Instance, Person


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


async def transport_of(device: Device) -> str:
    client = device.client
    return str(await client.do("transport") if isinstance(client, Browser) else client.transport())


async def test_all_of_them_hear_the_same_and_each_push_is_encoded_once_a_codec(
    parley: Instance, browse: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [await parley.person("amina") for _ in range(8)]
    chat = await parley.chat(*people, kind="group", title="everybody")
    devices = [
        await browse(people[0]),
        await browse(people[1], "websocket"),
        await browse(people[2], "polling"),
        await browse(people[3], "", "msgpack"),
        await browse(people[4], "websocket", "msgpack"),
        await people[5].connect(transports=["polling", "websocket"]),
        await people[6].connect(serializer="msgpack"),
        await people[7].connect(transports=["polling"], serializer="msgpack"),
    ]
    async with asyncio.timeout(PATIENCE_S):
        while await transport_of(devices[0]) != "websocket" or await transport_of(devices[3]) != "websocket":
            await asyncio.sleep(0.01)  # they go over on their own time
    assert [await transport_of(device) for device in devices[1:3]] == ["websocket", "polling"]

    encoded: list[tuple[int, Encoding]] = []
    real = Packet.encode

    def encode(self: Packet, encoding: Encoding) -> bytes:
        if "message:created" in self.text:
            encoded.append((id(self), encoding))
            kept.append(self)
        return real(self, encoding)

    kept: list[Packet] = []  # so that no id is used again
    monkeypatch.setattr(Packet, "encode", encode)
    texts = []
    for n, device in enumerate(devices):
        texts.append(f"{n} 🌙 كلمة \u0000".replace("\u0000", "\u2028"))
        await device.send(chat, texts[-1])
    for device in devices:
        await device.hearing("message:created", text=texts[-1])
        assert device.texts(chat) == texts
    assert sorted(set(encoded)) == sorted(encoded)
    heard = [
        [push.payload for push in device.of(f"conversation:{chat}") if push.name == "message:created"]
        for device in devices
    ]
    assert all(each == heard[0] for each in heard)


@pytest.mark.parametrize("codec", ["", "msgpack"], ids=["json", "msgpack"])
async def test_who_is_too_hasty_asks_again_and_has_sent_it_once(
    browse: Opens, amina: Person, their_chat: str, codec: str
) -> None:
    device = await browse(amina, "websocket", codec)
    message = {"conversation_id": their_chat, "client_id": uuid4().hex, "text": "once"}
    assert await browser_of(device).do("hurry", "message:send", message) == "operation has timed out"
    await device.call("message:send", **message)
    await device.send(their_chat, "behind it")
    await device.hearing("message:created", text="behind it")
    assert device.texts(their_chat) == ["once", "behind it"]


@pytest.mark.parametrize("codec", ["", "msgpack"], ids=["json", "msgpack"])
async def test_a_browser_that_is_cut_comes_back_and_has_missed_nothing(
    browse: Opens, amina: Person, bilal: Person, their_chat: str, codec: str
) -> None:
    device, other = await browse(amina, "websocket", codec), await bilal.connect()
    for n in range(3):
        await browser_of(device).do("cut")
        await other.send(their_chat, f"missed {n}")
        await device.hearing("message:created", text=f"missed {n}")
    assert device.texts(their_chat) == [f"missed {n}" for n in range(3)]
    assert len([push for push in device.heard if push.name == "hello"]) == 4


@pytest.mark.parametrize("serializer", ["default", "msgpack"])
async def test_pythons_client_comes_back_by_itself(parley: Instance, amina: Person, serializer: str) -> None:
    device = Device(socketio.AsyncClient(serializer=serializer, reconnection_delay=0.01, reconnection_delay_max=0.02))
    device.client.on("*", device.hears)
    await device.client.connect(parley.url, auth={"token": amina.token}, transports=["websocket"])
    await device.hearing("hello")
    for n in range(2, 5):
        [connection] = parley.parley.wire.connections
        connection.drop()
        await device.until(lambda heard, n=n: len([push for push in heard if push.name == "hello"]) == n)
    assert (await device.call("account:me"))["user_id"] == amina.user_id
    await device.leave()
