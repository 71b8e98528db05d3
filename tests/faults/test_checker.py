"""The checker goes red for whatever breaks the promise, and for nothing else: histories that were tampered with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from tests.faults.checker import (
    CREATED,
    REPLAY_BYTES,
    REPLAY_EVENTS,
    REPLAY_ROOM_EVENTS,
    Log,
    Logged,
    Stored,
    breaches,
    violations,
)
from tests.faults.history import History, Invocation, Outcome, Return, Seen

CHAT, ROOM = "0197", "conversation:0197"
EVENTS = 6

Tamper = Callable[[History, dict[str, Log]], None]


def sound() -> tuple[History, dict[str, Log]]:
    """Amina and Bilal send three each in turn, both hear all; the fourth try of Amina's had no answer."""
    history = History()
    messages = []
    for seq in range(1, EVENTS + 1):
        sender, key, text = ("amina", "bilal")[seq % 2], f"{seq}", f"This is {seq}."
        if seq == EVENTS:
            history.invocations.append(Invocation(sender, CHAT, key, seq, seq + 0.5, Outcome.UNKNOWN, text=text))
        history.invocations.append(Invocation(sender, CHAT, key, seq, seq + 0.5, Outcome.OK, f"m{seq}", seq, text=text))
        messages.append(Stored(sender, key, f"m{seq}", seq, text))
    for key, outcome in (("nobody knows", Outcome.UNKNOWN), ("refused", Outcome.FAIL)):
        history.invocations.append(Invocation("amina", CHAT, key, 7.0, 7.5, outcome, text=f"This is {key}."))
    log = Log(messages, [logged(each) for each in messages])
    hear(history, log)
    for client in ("amina", "bilal"):
        history.returns.append(Return(client, {ROOM: 0}, {ROOM: 0}, [], "one"))
    return history, {CHAT: log}


def logged(message: Stored, seq: int | None = None) -> Logged:
    """The event that tells of a message, at its own place or another."""
    return Logged(seq or message.seq, CREATED, msgspec.json.encode(message))


def hear(history: History, log: Log) -> None:
    """Let everybody have heard all that is logged."""
    for client in ("amina", "bilal"):
        history.view(client, ROOM).seen[:] = [Seen(event.seq, event.digest, 0.0) for event in log.events]


def test_a_sound_history_breaks_nothing() -> None:
    history, logs = sound()
    assert breaches(logs, history) == []


def test_what_is_unknown_may_be_there_once() -> None:
    history, logs = sound()
    more = Stored("amina", "nobody knows", "m7", 7, "This is nobody knows.")
    log = Log([*logs[CHAT].messages, more], [*logs[CHAT].events, logged(more)])
    hear(history, log)
    assert breaches({CHAT: log}, history) == []


def test_who_begins_before_anothers_ack_may_stand_on_either_side() -> None:
    history, logs = sound()
    fourth, fifth = (each for each in history.invocations if each.seq in (4, 5))
    fourth.began, fifth.began = 5.2, 4.0
    fourth.ended = 5.6
    assert breaches(logs, history) == []


def _store(change: Callable[[list[Stored]], object]) -> Tamper:
    def tamper(_: History, logs: dict[str, Log]) -> None:
        messages = list(logs[CHAT].messages)
        change(messages)
        logs[CHAT] = replace(logs[CHAT], messages=messages)

    return tamper


def _log(change: Callable[[list[Stored], list[Logged]], object]) -> Tamper:
    """Change the log, which everybody hears as it is then."""

    def tamper(history: History, logs: dict[str, Log]) -> None:
        messages, events = list(logs[CHAT].messages), list(logs[CHAT].events)
        change(messages, events)
        logs[CHAT] = Log(messages, events)
        hear(history, logs[CHAT])

    return tamper


def _hear(change: Callable[[list[Seen]], object]) -> Tamper:
    def tamper(history: History, _: dict[str, Log]) -> None:
        change(history.view("bilal", ROOM).seen)

    return tamper


def _leave_a_hole(_: History, logs: dict[str, Log]) -> None:
    events = [replace(event, seq=event.seq + (event.seq > 2)) for event in logs[CHAT].events]
    logs[CHAT] = replace(logs[CHAT], events=events)


def _swap_texts(messages: list[Stored], events: list[Logged]) -> None:
    texts = messages[3].text, messages[2].text
    for n, text in zip((2, 3), texts, strict=True):
        messages[n] = replace(messages[n], text=text)
        events[n] = logged(messages[n])


def _begin_the_fourth_late(history: History, _: dict[str, Log]) -> None:
    fourth = next(each for each in history.invocations if each.seq == 4)
    fourth.began, fourth.ended = 5.6, 5.7  # the fifth, of somebody else, was acknowledged at 5.5


def _return(after: int, head: int, *, reset: bool, epoch: str = "one") -> Tamper:
    def tamper(history: History, _: dict[str, Log]) -> None:
        history.returns.append(Return("bilal", {ROOM: after}, {ROOM: head}, [ROOM] if reset else [], epoch))

    return tamper


def _turn_a_senders_order(history: History, _: dict[str, Log]) -> None:
    first, third = history.invocations[0], history.invocations[2]
    first.client_id, third.client_id = third.client_id, first.client_id
    first.message_id, third.message_id = third.message_id, first.message_id
    first.seq, third.seq = third.seq, first.seq


TAMPERED: dict[str, tuple[Tamper, str]] = {
    "an acked message is not stored": (_store(lambda rows: rows.pop(2)), "lost"),
    "a message is stored twice": (
        _store(lambda rows: rows.append(replace(rows[2], message_id="m9", seq=3))),
        "doubled",
    ),
    "a message stands elsewhere than was acked": (
        _store(lambda rows: rows.__setitem__(2, replace(rows[2], seq=4))),
        "moved",
    ),
    "a message that nobody sent": (
        _store(lambda rows: rows.append(Stored("amina", "ghost", "m9", 6, "…"))),
        "invented",
    ),
    "a message that was refused": (
        _store(lambda rows: rows.append(Stored("amina", "refused", "m9", 6, "…"))),
        "refused",
    ),
    "a message that is in no log": (
        _store(lambda rows: rows.append(Stored("amina", "nobody knows", "m9", 9, "…"))),
        "holes",
    ),
    "a hole in the log": (_leave_a_hole, "holes"),
    "one message is in the log twice": (
        _log(lambda messages, events: events.append(logged(messages[5], seq=7))),
        "logged",
    ),
    "one message is in the log at another's place": (
        _log(lambda messages, events: events.__setitem__(3, logged(messages[2], seq=4))),
        "logged",
    ),
    "two messages have their texts swapped in the log": (
        _log(
            lambda messages, events: events.__setitem__(
                slice(2, 4),
                [
                    logged(replace(messages[2], text=messages[3].text)),
                    logged(replace(messages[3], text=messages[2].text)),
                ],
            )
        ),
        "logged",
    ),
    "two messages have their texts swapped in the log and the table": (_log(_swap_texts), "text"),
    "a message is logged under another name": (
        _log(lambda _, events: events.__setitem__(3, replace(events[3], name="message:edited"))),
        "logged",
    ),
    "a message is logged as what nobody can read": (
        _log(lambda _, events: events.__setitem__(3, replace(events[3], payload=b"{"))),
        "logged",
    ),
    "a message stands before one that was acknowledged when it was begun": (_begin_the_fourth_late, "order"),
    "a client that missed nothing has to load afresh": (_return(6, 6, reset=True), "reset"),
    "a client that missed a little has to load afresh": (_return(2, 6, reset=True), "reset"),
    "a client is ahead of a room": (_return(6, 4, reset=True), "reset"),
    "a client is told of another epoch": (_return(6, 6, reset=False, epoch="two"), "epoch"),
    "a sender's order is turned": (_turn_a_senders_order, "order"),
    "a client misses an event": (_hear(lambda seen: seen.pop(3)), "view"),
    "a client misses the last": (_hear(lambda seen: seen.pop()), "view"),
    "a client hears one twice": (_hear(lambda seen: seen.insert(3, seen[2])), "view"),
    "a client hears another order": (_hear(lambda seen: seen.insert(2, seen.pop(3))), "view"),
    "a client hears what is not logged": (_hear(lambda seen: seen.append(Seen(7, 0, 0.0))), "view"),
    "a client hears another payload": (
        _hear(lambda seen: seen.__setitem__(3, Seen(4, 0, 0.0))),
        "view",
    ),
    "a server did what it never may": (
        lambda history, _: history.strange.append("hole: bilal heard 5 after 3"),
        "hole",
    ),
    "a conversation that was not read": (lambda _, logs: logs.clear(), "unread"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_history_is_caught(name: str) -> None:
    tamper, kind = TAMPERED[name]
    history, logs = sound()
    tamper(history, logs)
    if kind == "unread":
        history.views.clear()
    found = breaches(logs, history)
    assert kind in {line.partition(":")[0] for line in found}, found


def test_one_message_logged_twice_is_a_violation_too() -> None:
    _, logs = sound()
    log = Log(logs[CHAT].messages[:1], [logs[CHAT].events[0], logged(logs[CHAT].messages[0], seq=2)])
    assert violations(log, [], {"amina": [1, 2]}) == ["logged: events at [2] are of no message"]


@pytest.mark.parametrize(
    ("lengths", "words", "over", "due"),
    [
        ([REPLAY_ROOM_EVENTS], 0, [], 1),
        ([REPLAY_ROOM_EVENTS + 1], 0, [0], 0),
        ([REPLAY_ROOM_EVENTS, REPLAY_EVENTS - REPLAY_ROOM_EVENTS, 1], 0, [2], 3),
        ([10, 1], REPLAY_BYTES // 10, [0], 1),
    ],
)
def test_what_a_connect_cannot_be_sent_may_be_loaded_afresh(
    lengths: list[int], words: int, over: list[int], due: int
) -> None:
    history = History()
    logs: dict[str, Log] = {}
    for chat, length in enumerate(lengths):
        messages = [Stored("amina", f"{n}", f"m{n}", n, "x" * words) for n in range(1, length + 1)]
        logs[f"{chat}"] = Log(messages, [logged(each) for each in messages])
        history.invocations += [Invocation("amina", f"{chat}", row.client_id, 0.0, text=row.text) for row in messages]
    heads = {f"conversation:{chat}": length for chat, length in enumerate(lengths)}
    names, afters = list(heads), dict.fromkeys(heads, 0)
    history.returns.append(Return("bilal", afters, heads, [names[n] for n in over], "one"))
    assert breaches(logs, history) == []
    history.returns.append(Return("carim", afters, heads, names, "one"))
    found = breaches(logs, history)
    assert len(found) == due
    assert all(line.startswith("reset: carim") for line in found)
