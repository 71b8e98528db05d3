"""docs/benchmarks.md: which program writes which part of it.

The page's frame and the comparison with Node.js come from `python -m bench --write`. Each of the other programs has a
part of its own between two comments, which it alone rewrites, and which stands when the rest is written anew. Each part
says when, of which commit and by which command it was measured. The plots lie in the folder beside the page.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence

from bench.machine import ROOT, commit, describe

PAGE = ROOT / "docs" / "benchmarks.md"
PARTS = (
    "offers",
    "races",
    "hostile",
    "listings",
    "matches",
    "growth",
    "bus",
    "disk",
    "held",
    "storm",
    "soak",
    "history",
)
YES_OR_NO = {True: "yes", False: "NO", None: "-"}
"""Whether an aim is reached; None where there is none, or no telling."""
_PART = re.compile(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->", re.DOTALL)


def write_part(name: str, command: str, text: str) -> None:
    """Put a program's part in its place, under a line that says what it is of."""
    page = PAGE.read_text()
    if name not in _parts_of(page):
        raise ValueError(f"{PAGE.name} has no place for {name}")
    of = f"Measured on {today()} with Parley {commit()} ({describe()}) by `{command}`."
    PAGE.write_text(_with_parts(page, {name: f"{of}\n\n{text.strip()}\n"}))
    print(f"written: {PAGE.name}")


def write_frame(text: str) -> None:
    """Write the page anew, but for the parts of others."""
    kept = _parts_of(PAGE.read_text()) if PAGE.exists() else {}
    PAGE.write_text(_with_parts(text, kept))


def write_picture(name: str, svg: str) -> None:
    """Put a plot where `shown` looks for it."""
    folder = PAGE.with_suffix("")
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.svg").write_text(svg)


def shown(name: str, what: str) -> str:
    """A plot in Markdown."""
    return f"![{what}]({PAGE.stem}/{name}.svg)"


def today() -> str:
    """The day."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


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
