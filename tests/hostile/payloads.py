"""What commands take, walked by their types: every place in a payload where an id or a text may stand."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec.inspect as types

from server.commands.registry import Command


class Place(NamedTuple):
    """Where a value stands in a payload: the names on the way, "[]" for a list's only item."""

    path: tuple[str, ...]
    is_id: bool
    is_text: bool

    def __str__(self) -> str:
        return ".".join(self.path)

    def put(self, payload: dict[str, Any], value: Any) -> dict[str, Any]:
        """The payload with that value there."""
        changed = copy.deepcopy(payload)
        at: Any = changed
        *way, last = self.path
        for name, following in zip(way, self.path[1:], strict=True):
            if not isinstance(at.get(name), dict) and following != "[]":
                at[name] = {}
            if following == "[]":
                at[name] = [value]
                return changed
            at = at[name]
        at[last] = value
        return changed


def places(command: Command) -> list[Place]:
    """All places of a command's payload that are written as text: texts, ids, times, and words of a list."""
    return list(_walk(types.type_info(command.payload), ()))


def _walk(found: types.Type, path: tuple[str, ...]) -> Iterator[Place]:
    match found:
        case types.UUIDType():
            yield Place(path, is_id=True, is_text=False)
        case types.StrType():
            yield Place(path, is_id=False, is_text=True)
        case types.DateTimeType() | types.EnumType() | types.LiteralType():
            yield Place(path, is_id=False, is_text=False)
        case types.UnionType():
            for option in found.types:
                yield from _walk(option, path)
        case types.Metadata():
            yield from _walk(found.type, path)
        case types.ListType() | types.VarTupleType():
            yield from _walk(found.item_type, (*path, "[]"))
        case types.DictType():
            yield Place((*path, "key"), is_id=False, is_text=True)
        case types.StructType():
            for field in found.fields:
                yield from _walk(field.type, (*path, field.encode_name))
        case types.IntType() | types.FloatType() | types.BoolType() | types.NoneType() | types.AnyType():
            return
        case _:
            raise AssertionError(f"say in {__name__} what stands in a {found}")
