"""A round: people talk, a fault is put in and taken out, all catch up, and the history is held against the database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from time import monotonic

import tests.faults.kinds.disks
import tests.faults.kinds.failover
import tests.faults.kinds.instances
import tests.faults.kinds.phones
import tests.faults.kinds.postgresql
import tests.faults.kinds.redis  # noqa: F401  (they declare the faults)
from tests.faults.checker import breaches, read_logs
from tests.faults.clients import Client, settled
from tests.faults.crowd import crowd
from tests.faults.hagglers import Hagglers
from tests.faults.history import History
from tests.faults.measures import Measures, Moments, measure
from tests.faults.registry import Fault, Finding, Must, Scene, faults, signed
from tests.faults.stage import SECRET, Stage

__all__ = ["CONTROL", "Load", "Round", "faults", "greeted", "judge", "play"]


async def _nothing(scene: Scene, seconds: float) -> None:
    await asyncio.sleep(seconds)


CONTROL = Fault("nothing", "Nothing: what others are held against.", _nothing, Must(), lambda _: True, 1.0, False)
ROUGH_SHARE = 4  # one client of so many comes by the rough door, where a fault asks for that
GREETED_S = 20.0
INTERNAL = "command_failed"
QUIET_S = 0.5  # for what comes twice or late


@dataclass(frozen=True)
class Load:
    """Who talks, and for how long: before the fault, while it lasts (None: as long as it takes to show), and after."""

    people: int
    chats: int
    pause_s: float
    before_s: float
    during_s: float | None
    after_s: float
    patience_s: float
    """Until everybody has caught up; who has not is missing something."""


@dataclass(frozen=True)
class Round:
    """What came of one."""

    fault: Fault
    measures: Measures
    breaches: list[str]
    """Of the promise, in words."""
    seconds: float
    offers: int = 0
    """That five moved at once."""
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    """How the fault was put in, where there is more than one way."""
    control_ms: float = 0.0
    """The p99 of acks in a round like it without a fault, where they are to be held against each other."""

    @property
    def late(self) -> list[str]:
        """What is more than is asked."""
        over = [str(finding) for finding in self.findings if finding.is_over]
        return [*self.fault.must.missed(self.measures, self.control_ms), *over]

    @property
    def is_felt(self) -> bool:
        """Whether the fault was felt: by its measures, and by the signs that it left."""
        signs = [finding for finding in self.findings if finding.least is not None]
        has_signs = bool(signs) or self.fault.shows is not signed
        return self.fault.shows(self.measures) and has_signs and not any(sign.is_missing for sign in signs)


async def play(stage: Stage, fault: Fault, load: Load) -> Round:
    """Play one round."""
    begun = monotonic()
    await stage.mend(fault.environ, fault.module)
    pause_s = load.pause_s if fault.pause_s is None else fault.pause_s
    people = await crowd(stage.dsn, SECRET, load.people, load.chats)
    history, excused = History(), set[str]()
    clients = [Client(who, stage.doors, history, pause_s, excused, heartbeat_s=stage.heartbeat_s) for who in people]
    hagglers = Hagglers(stage.dsn, SECRET, stage.doors, excused)
    rough = clients[::ROUGH_SHARE] if fault.is_rough else []
    for client in rough:
        client.doors = stage.rough_doors
    try:
        for n, client in enumerate(clients):
            client.start(door=n // (ROUGH_SHARE if fault.is_rough else 1))
        await greeted(clients)
        await hagglers.start()
        for client in clients:
            client.talk()
        await asyncio.sleep(load.before_s)
        struck = monotonic()
        scene = Scene(stage, clients, rough, excused)
        await fault.strike(scene, load.during_s or fault.short_s)
        mended = monotonic()
        await asyncio.sleep(load.after_s)
        for client in clients:
            client.hush()
        found = await concluded(stage.dsn, clients, hagglers, history, load.patience_s)
        found += logged_errors(stage.new_errors(), excused)
        over = monotonic()
    finally:
        await hagglers.leave()
        await asyncio.gather(*(client.leave() for client in clients))
    spared = {client.who.user_id for client in clients if client not in rough} if fault.must.is_ack_steady else None
    measures = measure(history, Moments(struck, mended, over), spared)
    offers, seconds = hagglers.tally.offers, monotonic() - begun
    return Round(fault, measures, found, seconds, offers, scene.findings, scene.notes)


def logged_errors(errors: Mapping[str, int], excused: Set[str]) -> list[str]:
    """What instances have logged as errors since the last round's end, in words: each is a bug of ours.

    Where `internal` is excused as an answer, so is what is logged of it.
    """
    return [
        f"error: {name}, {count} times in the logs"
        for name, count in errors.items()
        if not (name == INTERNAL and "internal" in excused)
    ]


async def greeted(clients: Sequence[Client]) -> None:
    """Wait until all are connected."""
    async with asyncio.timeout(GREETED_S):
        while not all(client.is_ready for client in clients):
            await asyncio.sleep(0.01)


async def concluded(
    dsn: str, clients: Sequence[Client], hagglers: Hagglers, history: History, patience_s: float
) -> list[str]:
    """Let the hagglers finish while everybody listens still, and judge; what comes meanwhile is judged too."""
    found = await hagglers.finish()
    return [*await judge(dsn, clients, history, patience_s), *found]


async def judge(dsn: str, clients: Sequence[Client], history: History, patience_s: float) -> list[str]:
    """Wait until everybody, hushed, has caught up with the database, and a little longer: nothing more may come.

    Then hold the history against the database.
    """
    ids = sorted({each for client in clients for each in client.who.conversation_ids})
    try:
        async with asyncio.timeout(patience_s):
            await settled(clients, dict.fromkeys(ids, 0))  # all sends are answered: the logs grow no more
            heads = {each: len(log.seqs) for each, log in (await read_logs(dsn, ids)).items()}
            await settled(clients, heads)
    except TimeoutError:
        left = [client.who.name for client in clients if client.sending is not None]
        if left:
            history.strange.append(f"stuck: {len(left)} clients have had no ack for {patience_s:g} s")
    await asyncio.sleep(QUIET_S)
    return breaches(await read_logs(dsn, ids), history)
