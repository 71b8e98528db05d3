"""The documents, made from the declarations: for reading, for machines, for TypeScript.

`Documents` makes each when it is first asked for, and once. Nothing of it runs while a server starts: the makers are
imported then too.
"""

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.commands.docs.model import Model

__all__ = ["PATHS", "Document", "Documents"]


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it is served: its bytes, the same compressed, and the headers that go with them."""

    body: bytes
    compressed: bytes
    content_type: str
    headers: Mapping[str, str]


class Documents:
    """The documents of the declarations as they are at the first question. `auth` is what a socket connects with."""

    def __init__(self, *, auth: type, protocol: int) -> None:
        self._auth = auth
        self._protocol = protocol
        self._served: dict[str, Document] = {}
        self._lock = threading.Lock()

    @cached_property
    def model(self) -> "Model":
        """What they are all made from."""
        from server.commands.docs.model import Model

        return Model(auth=self._auth, protocol=self._protocol)

    def files(self) -> dict[str, str]:
        """The documents that are committed, by their file's name."""
        from server.commands.docs import reference, typescript

        return {
            "reference.md": reference.reference(self.model),
            "openapi.json": self.openapi(),
            "asyncapi.json": self.asyncapi(),
            "parley.d.ts": typescript.types(self.model),
        }

    def openapi(self) -> str:
        """The commands over HTTP."""
        from server.commands.docs import openapi

        return _json(openapi.document(self.model))

    def asyncapi(self) -> str:
        """The socket."""
        from server.commands.docs import asyncapi

        return _json(asyncapi.document(self.model))

    def served(self, path: str) -> Document:
        """What a path of `PATHS` answers. It takes a tenth of a second the first time: call it in a thread."""
        with self._lock:
            if path not in self._served:
                self._served[path] = PATHS[path](self)
            return self._served[path]

    def page(self) -> Document:
        """Everything, for reading in a browser."""
        from server.commands.docs import page

        text, policy = page.page(self.model)
        return _document(text, "text/html", {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})


def _json(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _document(text: str, content_type: str, headers: Mapping[str, str]) -> Document:
    body = text.encode()
    also = {
        "ETag": f'W/"{hashlib.sha256(body).hexdigest()[:32]}"',  # weak: the same for both encodings
        "Cache-Control": "no-cache",  # ask whether it has changed
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    return Document(body, gzip.compress(body, mtime=0), content_type, {**headers, **also})


PATHS: Mapping[str, Callable[[Documents], Document]] = {
    "/docs": Documents.page,
    "/openapi.json": lambda documents: _document(documents.openapi(), "application/json", {}),
    "/asyncapi.json": lambda documents: _document(documents.asyncapi(), "application/json", {}),
}
