"""`parley load` against a server with one fault: it ends with 1, and names the promise that was broken."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from server.cli.load.command import UNLIMITED
from server.cli.load.faults import Fault
from tests.people import SECRET, Instance
from tests.server.spoiler import Spoil, Spoiler, alter, double, drop, lose_answer, misdirect, swap
from tests.server.test_cli import parley_cli

LIMITLESS = {f"PARLEY_RATE_{name}": "off" for name in UNLIMITED}
TALK = ("--sockets", "4", "--pairs", "--sends", "40")
HAGGLE = ("--sockets", "4", "--negotiate", "--sends", "80")


@pytest.mark.parametrize(
    ("people", "spoil", "faults"),
    [
        pytest.param(TALK, drop("message:created"), {Fault.LOST, Fault.GAP}, id="lost"),
        pytest.param(TALK, double("message:created"), {Fault.DOUBLED}, id="doubled"),
        pytest.param(TALK, swap("message:created"), {Fault.REORDERED}, id="swapped"),
        pytest.param(TALK, misdirect("message:created", is_lost=False), {Fault.STRANGE}, id="overheard"),
        pytest.param(
            TALK, misdirect("message:created", is_lost=True), {Fault.LOST, Fault.GAP, Fault.STRANGE}, id="misdirected"
        ),
        pytest.param(TALK, alter("message:created", rb'"text":"\d', b'"text":"x'), {Fault.ALTERED}, id="altered"),
        pytest.param(TALK, lose_answer(), {Fault.UNANSWERED}, id="unanswered"),
        pytest.param(HAGGLE, drop("offer:changed"), {Fault.UNTOLD, Fault.GAP}, id="an offer one side is not told of"),
        pytest.param(
            HAGGLE, drop("transaction:changed"), {Fault.UNTOLD, Fault.GAP}, id="a deal one side is not told of"
        ),
        pytest.param(
            HAGGLE,
            alter("offer:changed", rb'("amount" ?: ?)\d', rb"\g<1>1"),
            {Fault.SIDES_DIFFER},
            id="an offer of two prices",
        ),
        pytest.param(
            HAGGLE,
            misdirect("negotiation:changed", is_lost=False),
            {Fault.OUTSIDER, Fault.STRANGE},
            id="a negotiation that a third hears of",
        ),
    ],
)
async def test_one_push_that_is_spoilt_is_found(
    new_instance: Callable[..., Awaitable[Instance]],
    tmp_path: Path,
    people: tuple[str, ...],
    spoil: Spoil,
    faults: set[Fault],
) -> None:
    parley = await new_instance(**LIMITLESS)
    async with Spoiler(parley.url, spoil, times=2 if faults == {Fault.REORDERED} else 1) as spoiler:
        fixed = ("--workers", "1", "--seconds", "5", "--drain", "0.5", "--json", str(tmp_path / "a.json"))
        said = await parley_cli("load", spoiler.url, *people, *fixed, DATABASE_URL=parley.dsn, PARLEY_SECRET=SECRET)
    assert spoiler.spoilt
    assert (said.code, said.err) == (1, "parley: not every check held.\n"), said
    broken = {
        check["promise"] for check in json.loads((tmp_path / "a.json").read_bytes())["checks"] if not check["held"]
    }
    assert broken == {fault.value for fault in faults}
    for promise in broken:
        assert promise in said.out
