"""The ledger of all rounds ever played: a line of JSON each, added to, and no figure in it is rewritten."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.faults.measures import Measures
from tests.faults.registry import Finding
from tests.faults.rounds import Load, Round

ROOT = Path(__file__).resolve().parents[2]
EACH_KIND = 5


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A round as the ledger has it. `broken` is the guarantee that had been taken out, if one had."""

    at: str
    run: str
    fault: str
    seconds: float
    instances: int
    load: Load
    measures: Measures
    breaches: list[str]
    late: list[str]
    has_shown: bool
    machine: str
    commit: str
    errors: list[str] = []
    """What the instances have logged as errors, each kind once, in the run until then."""
    broken: str = ""
    tries: int = 1
    """With which round it was caught, of a few at most, where a guarantee had been taken out."""
    offers: int = 0
    """That five moved at once."""
    findings: list[Finding] = []
    control_ms: float = 0.0
    """The p99 of acks in a round like it without a fault, where they are to be held against each other."""
    notes: list[str] = []
    """How the fault was put in, where there is more than one way."""
    is_caught: bool = False
    """Whether what had been taken out was found as what it is."""
    seed: int = 0
    """Of what was drawn by lot."""


def _some(breaches: list[str]) -> list[str]:
    """The first few of each kind: a server that is broken breaks a lot."""
    seen: Counter[str] = Counter()
    kept = []
    for line in breaches:
        seen[kind := line.partition(":")[0]] += 1
        if seen[kind] <= EACH_KIND:
            kept.append(line)
    return kept


def entry_of(played: Round, *, broken: str = "", **run: object) -> Entry:
    """A round's line; `run` is what all rounds of a run share."""
    return Entry(
        fault=played.fault.name,
        measures=played.measures,
        breaches=_some(played.breaches),
        late=played.late,
        has_shown=played.is_felt,
        broken=broken,
        offers=played.offers,
        findings=list(played.findings),
        control_ms=played.control_ms,
        notes=list(played.notes),
        **run,  # type: ignore[arg-type]
    )


def add(ledger: Path, entry: Entry) -> None:
    """Write one more line, in which files of ours are named without the folder that this copy of them lies in.

    Raises `msgspec.ValidationError` where the line could not be read again: JSON has no infinity.
    """
    line = msgspec.json.encode(entry).replace(f"{ROOT}/".encode(), b"")
    msgspec.json.decode(line, type=Entry)
    ledger.parent.mkdir(parents=True, exist_ok=True)
    _cut_torn(ledger)
    with ledger.open("ab") as file:
        file.write(line + b"\n")


def _cut_torn(ledger: Path) -> None:
    """Take away a last line that was not written to its end, or the next would be part of it."""
    if ledger.exists() and (text := ledger.read_bytes()) and not text.endswith(b"\n"):
        os.truncate(ledger, text.rfind(b"\n") + 1)


def read(ledger: Path) -> Iterator[Entry]:
    """All lines, in the order in which they were written; none where there is no ledger.

    A last line that was not written to its end is left out, and that is said.
    """
    if ledger.exists():
        *lines, torn = ledger.read_bytes().split(b"\n")
        if torn:
            print(f"{ledger.name}: its last line was not written to the end, and is left out", file=sys.stderr)
        for line in lines:
            yield msgspec.json.decode(line, type=Entry)
