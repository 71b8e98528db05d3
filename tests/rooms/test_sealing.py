"""Frames of the bus: what was closed is opened by those who share the key."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.rooms import sealing
from server.rooms.log import Event
from server.rooms.names import Room
from server.rooms.sealing import Seal, key_of
from storage import Time

AT = Time("2026-11-20T17:00:00.000Z")
KEY = b"shared"
CHAT = Room("conversation", UUID(int=7))
ROOMS = {key_of(CHAT): CHAT}


def event(seq: int, payload: str = "{}", room: Room = CHAT) -> Event:
    return Event(room, seq, AT, "message:created", payload)


def shown(one: Event) -> tuple[object, ...]:
    return one.room, one.seq, one.at, one.name, one.payload


def only(frames: object) -> bytes:
    (frame,) = frames  # type: ignore[misc]
    assert isinstance(frame, bytes)
    return frame


@settings(deadline=None)
@given(st.lists(st.tuples(st.uuids(), st.integers(0, 2**63 - 1), st.text(), st.text()), max_size=20))
def test_what_was_closed_is_opened(told: list[tuple[UUID, int, str, str]]) -> None:
    events = [Event(Room("user", room_id), seq, AT, name, payload) for room_id, seq, name, payload in told]
    rooms = {key_of(each.room): each.room for each in events}
    frames = list(Seal(KEY).close(events))
    assert len(frames) == bool(events)
    opened = [each for frame in frames for each in Seal(KEY).open(frame).events(rooms)]
    assert [shown(each) for each in opened] == [shown(each) for each in events]


def test_rooms_that_nobody_watches_are_left_out() -> None:
    other = Room("conversation", uuid4())
    frame = only(Seal(KEY).close([event(1), event(2, room=other), event(3, room=Room("user", CHAT.id))]))
    assert [each.seq for each in Seal(KEY).open(frame).events(ROOMS)] == [1]


def test_many_events_make_several_frames_that_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "FRAME_EVENTS", 3)
    monkeypatch.setattr(sealing, "FRAME_BYTES", 100)
    events = [event(seq, "x" * (60 if seq > 6 else 1)) for seq in range(1, 10)]
    seal, reader = Seal(KEY), Seal(KEY)
    opened = [[each.seq for each in reader.open(frame).events(ROOMS)] for frame in seal.close(events)]
    assert opened == [[1, 2, 3], [4, 5, 6], [7, 8], [9]]


def test_nothing_makes_no_frame() -> None:
    assert list(Seal(KEY).close([])) == []


@given(st.dictionaries(st.binary(min_size=8, max_size=8), st.integers(0, 2**63 - 1), max_size=20))
def test_a_greeting_says_who_was_heard(heard: dict[bytes, int]) -> None:
    seal = Seal(KEY)
    frame = Seal(KEY).open(seal.greet(heard))
    assert (frame.origin, frame.number, frame.events(ROOMS)) == (seal.origin, 1, [])
    assert frame.greeting == heard


def test_the_frames_of_one_origin_are_numbered() -> None:
    seal, reader = Seal(KEY), Seal(KEY)
    frames = [only(seal.close([event(1)])), seal.greet({}), only(seal.close([event(2)]))]
    opened = [reader.open(frame) for frame in frames]
    assert [frame.number for frame in opened] == [1, 2, 3]
    assert {frame.origin for frame in opened} == {seal.origin}
    assert [frame.greeting for frame in opened] == [None, {}, None]


@given(st.data())
def test_a_frame_that_was_changed_anywhere_is_refused(data: st.DataObject) -> None:
    frame = bytearray(only(Seal(KEY).close([event(1)])))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="not a frame"):
        Seal(KEY).open(bytes(frame))


@given(st.binary(max_size=80))
def test_garbage_is_refused(frame: bytes) -> None:
    with pytest.raises(ValueError, match="not a frame"):
        Seal(KEY).open(frame)


def test_another_key_neither_opens_nor_meets() -> None:
    assert Seal(b"another").channel != Seal(KEY).channel
    with pytest.raises(ValueError, match="not a frame"):
        Seal(b"another").open(only(Seal(KEY).close([event(1)])))


def test_one_knows_ones_own() -> None:
    seal = Seal(KEY)
    assert seal.is_own(seal.greet({}))
    assert not Seal(KEY).is_own(seal.greet({}))


def test_what_is_longer_than_any_frame_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    seal = Seal(KEY)
    longest = only(seal.close([event(1, "x" * (sealing.REFUSED_BYTES - 200))]))
    assert len(Seal(KEY).open(longest).events(ROOMS)) == 1
    monkeypatch.setattr(Seal, "_digest", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ValueError, match="not a frame"):
        Seal(KEY).open(bytes(sealing.REFUSED_BYTES))


def test_a_frame_is_closed_by_its_bytes_not_its_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "FRAME_BYTES", 100)
    assert len(list(Seal(KEY).close([event(seq, "ن" * 50) for seq in range(1, 4)]))) == 3
