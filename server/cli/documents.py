"""`parley docs`: the documents, written from the declarations, so that they can't say anything else than the code."""

from pathlib import Path

import handlers  # noqa: F401  (declares the commands and pushes)
from handlers.connections import PROTOCOL, Auth
from server.commands.docs import Documents

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def write(*, check: bool) -> list[str]:
    """Write the derived documents (with `check`, only compare them); the names of those that were out of date."""
    stale = []
    for name, text in Documents(auth=Auth, protocol=PROTOCOL).files().items():
        path = DOCS / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(f"docs/{name}")
            if not check:
                path.write_text(text, encoding="utf-8")
    return stale
