"""`parley docs`: the reference, written from the declarations, so that it can't say anything else than the code."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import inspect

import handlers  # noqa: F401  (declares the commands and pushes)
from server.commands.registry import Command, Transport, commands, pushes
from server.config import settings

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"

INTRODUCTION = """\
# Reference

Written by `make docs` from the declarations in `handlers/` and `server/config.py`: change those, not this.

- On the socket: `emit("<command>", payload, ack)`. Over HTTP: `POST /api/<noun>/<verb>` with the payload as JSON and
  `Authorization: Bearer <token>`.
- The answer: `{"ok": true, "data": …}` or `{"ok": false, "error": {"code", "message", …}}`.
- `?` marks what may be left out. A command that takes a `client_id` is the same command, with the same answer, however
  often it is sent.

## Commands
"""

_WHERE = {
    Transport.BOTH: "socket and HTTP",
    Transport.HTTP: "HTTP alone",
    Transport.SOCKET: "the socket alone",
}


def write(*, check: bool) -> list[str]:
    """Write the derived documents (with `check`, only compare them); the names of those that were out of date."""
    stale = []
    for name, text in (("reference.md", reference()),):
        path = DOCS / name
        if not path.exists() or path.read_text() != text:
            stale.append(f"docs/{name}")
            if not check:
                path.write_text(text)
    return stale


def reference() -> str:
    """The reference as Markdown: commands, pushes, objects, settings."""
    lines = INTRODUCTION.split("\n")
    objects: dict[str, Any] = {}
    for command in commands.values():
        lines += _command(command, objects)
    lines += ["## Pushes", "", "| push | payload | meaning |", "|---|---|---|"]
    for push in pushes.values():
        lines.append(f"| `{push.name}` | {_type(inspect.type_info(push.payload), objects)} | {push.doc} |")
    lines += ["", "## Objects", ""]
    for name in sorted(objects):  # filled by the walk over commands and pushes above
        info = objects[name]
        lines += [f"**{name}** — {_first_line(info.cls)}", "", f"`{_fields(info, objects)}`", ""]
    lines += ["## Settings", "", "| setting | default | unit | meaning |", "|---|---|---|---|"]
    lines += [f"| `{s.name}` | {s.shown_default} | {s.unit} | {s.about} |" for s in settings()]
    return "\n".join(lines) + "\n"


def _command(command: Command, objects: dict[str, Any]) -> Iterator[str]:
    payload = inspect.type_info(command.payload)
    yield f"### `{command.name}`"
    yield ""
    yield command.doc
    yield ""
    yield f"- takes `{_fields(payload, objects) or 'nothing'}`"
    yield f"- answers {_type(inspect.type_info(command.result), objects)}"
    limit = f"counts as {command.limit.upper()}" if command.limit else "is not limited"
    yield f"- for {command.allow.name.replace('_', ' ')}, on {_WHERE[command.transport]}; {limit}"
    yield ""


def _fields(info: Any, objects: dict[str, Any]) -> str:
    shown = []
    for field in info.fields:
        mark = "" if field.required else "?"
        shown.append(f"{field.encode_name}{mark}: {_plain(field.type, objects)}")
    return ", ".join(shown)


def _type(info: Any, objects: dict[str, Any]) -> str:
    return f"`{_plain(info, objects)}`"


def _plain(info: Any, objects: dict[str, Any]) -> str:
    """A type in few words; structs by their name, remembered in `objects` with those they hold."""
    if isinstance(info, inspect.StructType):
        name = info.cls.__name__
        if name not in objects:
            objects[name] = info
            _fields(info, objects)
        return name
    if isinstance(info, inspect.UnionType):
        return " | ".join(_plain(part, objects) for part in info.types)
    if isinstance(info, inspect.LiteralType):
        return " | ".join(f'"{value}"' for value in info.values)
    if isinstance(info, inspect.ListType | inspect.VarTupleType):
        return f"[{_plain(info.item_type, objects)}]"
    if isinstance(info, inspect.DictType):
        return f"{{{_plain(info.key_type, objects)}: {_plain(info.value_type, objects)}}}"
    if isinstance(info, inspect.EnumType):
        return " | ".join(f'"{member.value}"' for member in info.cls)
    return _NAMES.get(type(info), type(info).__name__.removesuffix("Type").lower()) + _bounds(info)


_NAMES: dict[type, str] = {
    inspect.StrType: "text",
    inspect.IntType: "int",
    inspect.FloatType: "number",
    inspect.BoolType: "bool",
    inspect.NoneType: "null",
    inspect.UUIDType: "id",
    inspect.RawType: "JSON",
    inspect.AnyType: "JSON",
}


def _bounds(info: Any) -> str:
    low = getattr(info, "min_length", None) or getattr(info, "ge", None)
    high = getattr(info, "max_length", None) or getattr(info, "le", None)
    if high is None or high >= 2**53:
        return ""
    return f" {low or 0}…{high}"


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().split("\n")[0]
