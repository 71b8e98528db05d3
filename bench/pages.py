"""docs/benchmarks.md: which program writes which part of it.

The page's frame and the comparison with Node.js come from `python -m bench --write`. Each of the other programs has a
part of its own between two comments, which it alone rewrites, and which stands when the rest is written anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.machine import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
PARTS = ("market", "growth", "held", "storm", "soak")
_PART = re.compile(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->", re.DOTALL)


def write_part(name: str, text: str) -> None:
    """Put a program's part in its place."""
    page = PAGE.read_text()
    written = _with_parts(page, {name: text.strip() + "\n"})
    if name not in _parts_of(page):
        raise ValueError(f"{PAGE.name} has no place for {name}")
    PAGE.write_text(written)


def write_frame(text: str) -> None:
    """Write the page anew, but for the parts of others."""
    kept = _parts_of(PAGE.read_text()) if PAGE.exists() else {}
    PAGE.write_text(_with_parts(text, kept))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _parts_of(page: str) -> dict[str, str]:
    return {found[1]: found[2] for found in _PART.finditer(page)}


def _with_parts(page: str, parts: dict[str, str]) -> str:
    def written(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n{parts.get(found[1], found[2])}<!-- /{found[1]} -->"

    return _PART.sub(written, page)
