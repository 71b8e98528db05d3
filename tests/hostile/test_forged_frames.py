"""A stranger on the Redis of a deployment: what they make up, play again or break is heard by nobody."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import structlog
from redis.asyncio import Redis

from server.rooms.log import Event
from server.rooms.names import Room, conversation_room, user_room
from server.rooms.origins import Origins
from server.rooms.sealing import DIGEST_BYTES, ORIGIN_BYTES, Seal
from storage import Time
from tests.people import PATIENCE_S, SECRET, Device, Instance, Person
from tests.servers import RedisServer

AT = Time("2026-11-20T17:00:00.000Z")


@pytest.fixture
async def two(new_instance: Callable[..., Awaitable[Instance]], valkey: RedisServer) -> list[Instance]:
    """Two instances on one Redis."""
    return [await new_instance(REDIS_URL=valkey.url) for _ in range(2)]


def channel_of(instance: Instance) -> str:
    bus: Any = instance.parley.bus
    channel: str = bus._channel
    return channel


@asynccontextmanager
async def listening(valkey: RedisServer, channel: str) -> AsyncIterator[list[bytes]]:
    """Everything that travels on a channel, as somebody on the same Redis reads it."""
    heard: list[bytes] = []
    async with Redis.from_url(valkey.url) as client, client.pubsub() as listener:
        await listener.subscribe(channel)

        async def listen() -> None:
            async for message in listener.listen():
                heard.extend([message["data"]] if message["type"] == "message" else [])

        task = asyncio.create_task(listen())
        yield heard
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def lies(amina: Person, bilal: Person, chat: str) -> list[Event]:
    """What a stranger would like to be heard: words, typing, removals, ends of sessions, limits used up."""
    talk, own, nowhere = conversation_room(UUID(chat)), user_room(UUID(bilal.user_id)), Room("limits", UUID(int=0))
    said = {"message_id": chat, "conversation_id": chat, "sender_id": amina.user_id, "text": "forged", "seq": 3}
    gone = {"conversation_id": chat, "user_id": bilal.user_id, "by": amina.user_id}
    typing = {"conversation_id": chat, "typing": [{"user_id": amina.user_id, "state": "typing"}]}
    told = [
        *((talk, seq, "message:created", said) for seq in range(10)),
        *((talk, seq, "participant:removed", gone) for seq in range(10)),
        (own, 1, "participant:removed", gone),
        *((own, seq, "session:revoked", {"session_id": bilal.session_id, "reason": "forged"}) for seq in range(10)),
        (talk, 0, "typing:changed", typing),
        (talk, 0, "typing:moved", typing),
        (own, 0, "server:draining", {"reconnect_in_ms": 0}),
        (Room("presence", UUID(amina.user_id)), 0, "presence:moved", None),
        *(
            (nowhere, 0, "limits:taken", [[name, bilal.user_id, 10_000]])
            for name in ("reads", "writes", "message_send")
        ),
    ]
    return [Event(room, seq, AT, name, json.dumps(payload)) for room, seq, name, payload in told]


def sealed_by_others(events: list[Event]) -> list[bytes]:
    """Frames under every key that somebody outside might try."""
    secret = SECRET.encode()
    keys = [b"", b"bus", secret[:64], hmac.digest(secret, b"bus", "sha256"), hmac.digest(b"", b"bus", "sha256")]
    return [frame for key in (*keys, bytes(32), os.urandom(32)) for frame in Seal(key).close(events)]


def broken(frame: bytes) -> list[bytes]:
    """A good frame with each part of it changed."""
    digest, origin = frame[:DIGEST_BYTES], frame[DIGEST_BYTES : DIGEST_BYTES + ORIGIN_BYTES]
    number, events = frame[DIGEST_BYTES + ORIGIN_BYTES :][:8], frame[DIGEST_BYTES + ORIGIN_BYTES + 8 :]
    later = (2**63).to_bytes(8, "big")
    flipped = [frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :] for at in range(0, len(frame), 7)]
    cut = [frame[:size] for size in (0, 1, DIGEST_BYTES, DIGEST_BYTES + 8, DIGEST_BYTES + 16, len(frame) - 1)]
    return [
        *flipped,
        *cut,
        frame + b"\0",
        digest + origin + later + events,  # played again, as if it were news
        digest + os.urandom(ORIGIN_BYTES) + number + events,  # or another's
        bytes(DIGEST_BYTES) + frame[DIGEST_BYTES:],
        frame * 2,
    ]


GARBAGE = [b"\xc1", b"null", b"{}", b"\x91" * 5_000, b"*1\r\n$4\r\nPING\r\n", os.urandom(1_000), bytes(2**20)]


async def talk(phone: Device, other: Device, chat: str, text: str) -> None:
    await phone.send(chat, text)
    await other.hearing("message:created", text=text)


async def test_nobody_hears_a_stranger_on_redis(
    two: list[Instance], valkey: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    amina, bilal = await two[0].person("amina"), await two[1].person("bilal")
    chat = await two[0].chat(amina, bilal)
    phone, other = await amina.connect(), await bilal.connect()
    await talk(phone, other, chat, "warm")
    caplog.set_level(logging.WARNING)
    with structlog.testing.capture_logs() as logged:
        async with listening(valkey, channel_of(two[0])) as recorded, Redis.from_url(valkey.url) as stranger:
            await talk(phone, other, chat, "one")  # and the removal of somebody else, to be played again
            await phone.call("typing:set", conversation_id=chat, state="typing")
            await other.hearing("typing:changed")
            async with asyncio.timeout(PATIENCE_S):
                while not any(b"message:created" in frame for frame in recorded):
                    await asyncio.sleep(0.005)
            before = [len(device.heard) for device in (phone, other)]
            frames = [*recorded]
            for frame in [*frames, *frames, *sealed_by_others(lies(amina, bilal, chat)), *broken(frames[-1]), *GARBAGE]:
                await stranger.publish(channel_of(two[0]), frame)
            for channel in ("parley", "parley:*", "parley:", f"{channel_of(two[0])}:x", "socketio"):
                for frame in sealed_by_others(lies(amina, bilal, chat)):
                    await stranger.publish(channel, frame)
            await talk(other, phone, chat, "two")  # travels behind all of that
            await talk(phone, other, chat, "three")
    names = [[push.name for push in device.heard[n:]] for device, n in zip((phone, other), before, strict=True)]
    told = {"message:created", "typing:changed", "conversation:mine"}  # typing ends with what was said
    assert set(names[0]) | set(names[1]) <= told, names
    assert phone.texts(chat) == other.texts(chat) == ["warm", "one", "two", "three"]
    assert (await other.call("account:me"))["user_id"] == bilal.user_id
    assert [instance.parley.bus.state for instance in two] == ["ok", "ok"]
    refused = [line for line in logged if line["event"] == "frames_refused"]
    assert 1 <= len(refused) <= 2 * len(two), logged  # said now and then, however many there are
    assert "forged" not in str(logged)


async def test_without_the_seal_a_stranger_would_be_heard(
    two: list[Instance], valkey: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    amina, bilal = await two[0].person("amina"), await two[1].person("bilal")
    chat = await two[0].chat(amina, bilal)
    phone, other = await amina.connect(), await bilal.connect()
    await talk(phone, other, chat, "one")
    monkeypatch.setattr(hmac, "compare_digest", lambda *_: True)
    monkeypatch.setattr(Origins, "is_believed", lambda *_: True)
    async with Redis.from_url(valkey.url) as stranger:
        for frame in sealed_by_others(lies(amina, bilal, chat)):
            await stranger.publish(channel_of(two[0]), frame)
        await other.hearing("message:created", text="forged")


async def test_what_was_recorded_of_a_dead_instance_is_not_shown_by_another(
    two: list[Instance], new_instance: Callable[..., Awaitable[Instance]], valkey: RedisServer
) -> None:
    """An instance that never heard it; what no log keeps would be believed there, and so would limits used up."""
    amina, bilal = await two[0].person("amina"), await two[1].person("bilal")
    chat = await two[0].chat(amina, bilal)
    phone, other = await amina.connect(), await bilal.connect()
    async with listening(valkey, channel_of(two[0])) as recorded, Redis.from_url(valkey.url) as stranger:
        await phone.call("typing:set", conversation_id=chat, state="typing")
        await other.hearing("typing:changed")
        await two[0].parley.bus.stop()
        late = await new_instance(REDIS_URL=valkey.url)
        device = await bilal.connect(to=late)
        for frame in [*recorded]:
            await stranger.publish(channel_of(late), frame)
        await talk(other, device, chat, "behind them")  # of an instance that lives, at one that has just come
    assert device.texts(chat) == ["behind them"]
    assert "typing:changed" not in [push.name for push in device.heard]


async def test_what_ended_before_does_not_end_again(two: list[Instance], valkey: RedisServer) -> None:
    """Frames of a removal and of a revocation, played again once their person is back."""
    amina, bilal = await two[0].register("amina"), await two[1].person("bilal")
    carim = await two[0].person("carim")
    chat = await two[0].chat(amina, bilal, carim, kind="group")
    lost, other = await two[1].log_in(amina.username), await bilal.connect()
    gone = await lost.connect()
    async with listening(valkey, channel_of(two[0])) as recorded, Redis.from_url(valkey.url) as stranger:
        await amina.post("participant:remove", conversation_id=chat, user_id=bilal.user_id)
        await other.hearing("participant:removed")
        await amina.post("session:revoke", session_id=lost.session_id)
        await gone.gone()
        await amina.post("participant:add", conversation_id=chat, user_id=bilal.user_id)
        await other.hearing("participant:added")
        device = await amina.connect(to=two[1])
        for frame in [*recorded]:
            await stranger.publish(channel_of(two[0]), frame)
        await talk(device, other, chat, "still in it")
        await device.send(chat, "and still here")
        await other.hearing("message:created", text="and still here")
    assert [push.name for push in other.heard].count("participant:removed") <= 2  # the room's, and one's own copy


async def test_a_flood_of_tiny_frames_does_not_hold_the_loop(two: list[Instance], valkey: RedisServer) -> None:
    """All of them at once in the sockets of both, so that no read of theirs has to wait.

    What is measured is CPU between two turns of a timer: what else the machine does is not the flood's doing.
    """
    amina, bilal = await two[0].person("amina"), await two[1].person("bilal")
    chat = await two[0].chat(amina, bilal)
    phone, other = await amina.connect(), await bilal.connect()
    await talk(phone, other, chat, "one")
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            at = time.thread_time()
            await asyncio.sleep(0.001)
            gaps.append(time.thread_time() - at)

    async with Redis.from_url(valkey.url) as stranger:
        ticking = asyncio.create_task(tick())
        flood = "for n = 1, 20000 do redis.call('publish', KEYS[1], 'x') end"
        await stranger.eval(flood, 1, channel_of(two[0]))
        await stranger.publish(channel_of(two[0]), b"the last")
        async with asyncio.timeout(PATIENCE_S):
            while not all(_refused(instance) >= 20_001 for instance in two):
                await asyncio.sleep(0.001)
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
    await talk(phone, other, chat, "two")
    assert max(gaps) <= 0.05


def _refused(instance: Instance) -> int:
    """How many frames it has refused."""
    bus: Any = instance.parley.bus
    refused: int = bus._refusals._failures
    return refused


async def test_what_travels_on_redis_holds_no_secret(two: list[Instance], valkey: RedisServer) -> None:
    """Not the tokens, passwords or names typed at a login: of limits an account's id or a digest is told."""
    amina = await two[0].register("amina")
    async with listening(valkey, channel_of(two[0])) as recorded:
        for _ in range(2):
            await two[0].log_in(amina.username)
        await two[0].post("account:login", {"login": "mistyped-password", "password": "another wrong"})
        phone = await amina.connect()
        await phone.call("account:me")
        async with asyncio.timeout(PATIENCE_S):
            while not any(b"limits:taken" in frame for frame in recorded):
                await asyncio.sleep(0.005)
        travelled = b"".join(recorded)
    for secret in (amina.token, amina.refresh_token, amina.username, "mistyped", "another wrong", "127.0.0.1"):
        assert secret.encode() not in travelled
