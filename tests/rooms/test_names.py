"""The names of rooms on the wire."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.rooms.names import KINDS, Room, conversation_room, parse, user_room

ID = UUID("01a1fa84-6913-7d16-8ade-39a55c274f0c")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_name_is_kind_and_id_and_is_read_back(kind: str) -> None:
    room = Room(kind, ID)
    assert str(room) == f"{kind}:{ID}"
    assert parse(str(room)) == room


def test_a_persons_and_a_conversations_room_share_their_id() -> None:
    assert str(user_room(ID)) == f"user:{ID}"
    assert str(conversation_room(ID)) == f"conversation:{ID}"


@pytest.mark.parametrize(
    "name",
    [
        "", ":", "user", "user:", f":{ID}", f"{ID}", f"User:{ID}", f"users:{ID}", f" user:{ID}", f"user: {ID}",
        f"user:{ID} ", f"user:{ID}\n", f"user::{ID}", f"user:{{{ID}}}", f"user:urn:uuid:{ID}", f"user:{ID.hex}",
        f"user:{str(ID)[:-1]}g", f"user:{str(ID)[:-1]}", f"user:{ID}0", "user:" + "-" * 36, "user:" + "0" * 36,
        f"user:{'{' + ID.hex + '}'}--", "user:\ud800" + str(ID)[1:], f"user:{str(ID).replace('-', '—')}",
        f"user:{str(ID).replace('-', '_')}", f"user:{ID.hex[:8]}----{ID.hex[8:]}", "user:" + "\u0660" * 8 + str(ID)[8:],
        "user:urn:uuid:" + ID.hex[:27], f"user:{ID.hex}----", f"user:{{{{{ID.hex}}}}}",
    ],
)  # fmt: skip
def test_anything_else_is_no_name(name: str) -> None:
    assert parse(name) is None


@settings(deadline=None)
@given(
    st.text()
    | st.builds("{}:{}".format, st.sampled_from([*KINDS, "x"]), st.text("0123456789abcdefABCDEF-{}:", max_size=38))
)
def test_whatever_is_read_as_a_name_is_spelled_one_way(name: str) -> None:
    room = parse(name)
    assert room is None or parse(str(room)) == room
    assert room is None or str(room) == name.partition(":")[0] + ":" + name.partition(":")[2].lower()


def test_capitals_in_an_id_are_the_same_room() -> None:
    id_ = uuid4()
    assert parse(f"user:{str(id_).upper()}") == Room("user", id_)
