"""What the clients of the faults notice of what a server says, by a scripted one; and what a round does with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import pytest

from tests.faults import rounds
from tests.faults.checker import CREATED, Log
from tests.faults.clients import Client
from tests.faults.crowd import Someone
from tests.faults.history import History, Return
from tests.faults.lines import Wire

ROOM = "conversation:0197"
EPOCH = "one"


class ScriptedWire(Wire):
    """A connection without a network: what the client says is kept, what the server says is told."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, ("127.0.0.1", 0))
        self.said: list[bytes] = []
        self.line.send = self._say  # type: ignore[assignment, method-assign]

    def _say(self, packet: bytes, _: int = 0) -> None:
        self.said.append(packet)

    def hello(self, head: int, reset: Sequence[str] = ()) -> None:
        """Greet the client."""
        said = {"user_id": "amina", "epoch": EPOCH, "rooms": {ROOM: head}, "reset": reset}
        self.heard(b"42" + orjson.dumps(["hello", said]))

    def push(self, *seqs: int, text: str = "") -> None:
        """Push events of the room."""
        for seq in seqs:
            self.heard(b"42" + orjson.dumps([CREATED, _payload(seq, text), {"room": ROOM, "seq": seq, "at": ""}]))

    def page(self, *seqs: int) -> None:
        """Answer the room:sync that has been asked for last."""
        asked = self.said[-1]
        assert b'["room:sync",' in asked
        events = [{"name": CREATED, "payload": _payload(seq), "seq": seq} for seq in seqs]
        data = {"events": events, "more": False, "reset": False, "head_seq": max(seqs, default=0)}
        self.heard(b"43" + asked[2 : asked.index(b"[")] + orjson.dumps([{"ok": True, "data": data}]))


def _payload(seq: int, text: str = "") -> dict[str, Any]:
    return {"message_id": f"m{seq}", "text": text}


@pytest.fixture
async def wire() -> ScriptedWire:
    """Amina's, who has had three events of the room on an earlier one."""
    client = Client(Someone("amina", "amina", "", ("0197",)), [("127.0.0.1", 0)], History())
    client.wire = earlier = ScriptedWire(client)
    earlier.opened()
    earlier.hello(0)
    earlier.push(1, 2, 3)
    client.wire = made = ScriptedWire(client)
    made.opened()
    return made


def _seen(wire: Wire) -> list[int]:
    return [seen.seq for seen in wire.client.history.view("amina", ROOM).seen]


def _strange(wire: Wire) -> list[str]:
    """What is strange, each without the room's name."""
    return [line.replace(f" of {ROOM}", "") for line in wire.client.history.strange]


async def test_a_room_that_is_read_while_events_are_pushed_is_taken_whole(wire: ScriptedWire) -> None:
    wire.hello(5, reset=[ROOM])
    wire.push(6, 7)
    wire.page(4, 5, 6)
    wire.push(8)
    assert _seen(wire) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert _strange(wire) == []


async def test_pushes_that_a_page_has_had_are_skipped_whenever_they_come(wire: ScriptedWire) -> None:
    wire.hello(5, reset=[ROOM])
    wire.page(4, 5, 6)
    wire.push(6, 7)
    assert _seen(wire) == [1, 2, 3, 4, 5, 6, 7]
    assert _strange(wire) == []


async def test_events_of_a_page_out_of_turn_are_noticed(wire: ScriptedWire) -> None:
    wire.hello(5, reset=[ROOM])
    wire.page(3, 4, 4, 5)
    assert _seen(wire) == [1, 2, 3, 4, 5]
    assert _strange(wire) == ["turn: amina read 3 after 3", "turn: amina read 4 after 4"]


async def test_pushes_out_of_turn_are_noticed_while_a_page_is_read(wire: ScriptedWire) -> None:
    wire.hello(5, reset=[ROOM])
    wire.push(6, 6, 4, 7)
    wire.page(4, 5)
    assert _seen(wire) == [1, 2, 3, 4, 5, 6, 7]
    assert _strange(wire) == ["turn: amina was pushed 6 after 6", "turn: amina was pushed 4 after 6"]


async def test_a_gap_of_pushes_is_noticed_where_a_page_fills_it(wire: ScriptedWire) -> None:
    wire.hello(5, reset=[ROOM])
    wire.push(6, 8)
    wire.page(4, 5, 6, 7, 8)
    assert _seen(wire) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert _strange(wire) == ["turn: amina was pushed 8 after 6"]


async def test_an_event_that_is_pushed_twice_is_noticed(wire: ScriptedWire) -> None:
    wire.hello(4)
    wire.push(4, 5, 5)
    assert _seen(wire) == [1, 2, 3, 4, 5]
    assert _strange(wire) == ["turn: amina was pushed 5 after 5"]


async def test_a_push_that_is_not_what_the_page_had_is_noticed(wire: ScriptedWire) -> None:
    wire.hello(3, reset=[ROOM])
    wire.push(4, text="another")
    wire.page(4)
    assert _strange(wire) == ["other: amina was pushed another 4 than it has"]


async def test_every_return_is_kept_with_what_was_told(wire: ScriptedWire) -> None:
    wire.hello(5, reset=[ROOM])
    assert wire.client.history.returns == [
        Return("amina", {ROOM: 0}, {ROOM: 0}, [], EPOCH),
        Return("amina", {ROOM: 3}, {ROOM: 5}, [ROOM], EPOCH),
    ]


async def test_what_is_pushed_when_all_have_caught_up_is_judged_too(
    wire: ScriptedWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_logs(_: str, ids: Iterable[str]) -> dict[str, Log]:
        return {each: Log([], []) for each in ids}

    class Hagglers:
        async def finish(self) -> list[str]:
            wire.push(9)
            return ["law: broken"]

    monkeypatch.setattr(rounds, "read_logs", read_logs)
    wire.hello(3)
    asyncio.get_running_loop().call_later(rounds.QUIET_S / 2, wire.push, 3)
    found = await rounds.concluded("", [wire.client], Hagglers(), wire.client.history, 1.0)  # type: ignore[arg-type]
    assert [line for line in found if line.startswith(("turn", "law"))] == [
        f"turn: amina was pushed 9 of {ROOM} after 3",
        f"turn: amina was pushed 3 of {ROOM} after 9",
        "law: broken",
    ]
