"""The checker goes red for whatever breaks the promise, and for nothing else: histories that were tampered with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.checker import Log, Stored, breaches
from tests.faults.history import History, Invocation, Outcome, Seen, digest

CHAT, ROOM = "0197", "conversation:0197"
EVENTS = 6

Tamper = Callable[[History, dict[str, Log]], None]


def sound() -> tuple[History, dict[str, Log]]:
    """Amina and Bilal send three each in turn, both hear all; the fourth try of Amina's had no answer."""
    history = History()
    messages = []
    for seq in range(1, EVENTS + 1):
        sender, key = ("amina", "bilal")[seq % 2], f"{seq}"
        if seq == EVENTS:
            history.invocations.append(Invocation(sender, CHAT, key, 0.0, 1.0, Outcome.UNKNOWN))
        history.invocations.append(Invocation(sender, CHAT, key, 0.0, 1.0, Outcome.OK, f"m{seq}", seq))
        messages.append(Stored(sender, key, f"m{seq}", seq))
    history.invocations.append(Invocation("amina", CHAT, "nobody knows", 0.0, 1.0, Outcome.UNKNOWN))
    history.invocations.append(Invocation("amina", CHAT, "refused", 0.0, 1.0, Outcome.FAIL))
    digests = [digest("message:created", b"%d" % seq) for seq in range(1, EVENTS + 1)]
    for client in ("amina", "bilal"):
        history.view(client, ROOM).seen += [Seen(n + 1, found, 0.0) for n, found in enumerate(digests)]
    return history, {CHAT: Log(messages, list(range(1, EVENTS + 1)), digests)}


def test_a_sound_history_breaks_nothing() -> None:
    history, logs = sound()
    assert breaches(logs, history) == []


def test_what_is_unknown_may_be_there_once() -> None:
    history, logs = sound()
    log = logs[CHAT]
    logged = Log(
        [*log.messages, Stored("amina", "nobody knows", "m7", 7)], [*log.seqs, 7], [*log.digests, digest("x", b"7")]
    )
    for view in history.views.values():
        view.seen.append(Seen(7, digest("x", b"7"), 0.0))
    assert breaches({CHAT: logged}, history) == []


def _store(change: Callable[[list[Stored]], object]) -> Tamper:
    def tamper(_: History, logs: dict[str, Log]) -> None:
        messages = list(logs[CHAT].messages)
        change(messages)
        logs[CHAT] = replace(logs[CHAT], messages=messages)

    return tamper


def _hear(change: Callable[[list[Seen]], object]) -> Tamper:
    def tamper(history: History, _: dict[str, Log]) -> None:
        change(history.view("bilal", ROOM).seen)

    return tamper


def _leave_a_hole(_: History, logs: dict[str, Log]) -> None:
    logs[CHAT] = replace(logs[CHAT], seqs=[1, 2, 4, 5, 6, 7])


def _turn_a_senders_order(history: History, _: dict[str, Log]) -> None:
    first, _, third, *_ = history.invocations
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
        _store(lambda rows: rows.append(Stored("amina", "ghost", "m9", 6))),
        "invented",
    ),
    "a message that was refused": (
        _store(lambda rows: rows.append(Stored("amina", "refused", "m9", 6))),
        "refused",
    ),
    "a message that is in no log": (
        _store(lambda rows: rows.append(Stored("amina", "nobody knows", "m9", 9))),
        "holes",
    ),
    "a hole in the log": (_leave_a_hole, "holes"),
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
