"""Rounds without a fault, and what acks are held against them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tests.faults.measures import NOTHING
from tests.faults.registry import STALL_S, Fault, Finding, Must, Scene
from tests.faults.rounds import CONTROL, Round


def control_of(fault: Fault) -> Fault:
    """Nothing at all, to the same instances as the fault's, who serve people that say as much by the same doors."""

    async def strike(scene: Scene, seconds: float) -> None:
        for client in scene.clients:
            client.words = fault.words
        await asyncio.sleep(seconds)
        for client in scene.clients:
            client.words = 0

    return replace(
        CONTROL,
        strike=strike,
        must=Must(is_ack_steady=fault.must.is_ack_steady),
        is_rough=fault.is_rough,
        environ=fault.environ,
        module=fault.module,
        pause_s=fault.pause_s,
        words=fault.words,
    )


def held_against(played: Round, control: Round) -> Round:
    """A round with what its acks are held against: the p99, and the slowest, of the same people without the fault."""
    beyond_s = max(0.0, played.measures.ack_stall_ms - control.measures.ack_stall_ms) / 1000
    slowest = Finding("slowest ack, beyond the slowest without a fault", beyond_s, STALL_S, "s")
    return replace(played, control_ms=control.measures.ack_during_ms, findings=[*played.findings, slowest])


def unfinished(fault: Fault, error: Exception) -> Round:
    """A round that was not played to its end, with nothing but what has ended it."""
    return Round(fault, NOTHING, [f"round: {type(error).__name__}: {error}"[:1_000]], 0.0)
