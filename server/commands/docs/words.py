"""Schemas in few words, as the reference and the page show them."""

import json
from collections.abc import Callable

from server.commands.docs.shapes import REF, Schema

_FORMATS = {"uuid": "id", "date-time": "time"}
_TYPES = {"string": "text", "integer": "int", "boolean": "bool"}
_BEYOND = 2**53


def short(schema: Schema, named: Callable[[str], str] = str) -> str:
    """A type in few words; `named` shows the name of an object."""
    if "$ref" in schema:
        return named(schema["$ref"].removeprefix(REF))
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " | ".join(dict.fromkeys(short(one, named) for one in schema[key]))
    if "const" in schema or "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "array":
        return _list(schema, named)
    if kind == "object":
        if "properties" in schema:
            return "{" + fields(schema, named) + "}"
        return "{name: " + short(schema.get("additionalProperties", {}), named) + "}"
    if kind is None:
        return "JSON"
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    pattern = f" /{schema['pattern']}/" if "pattern" in schema else ""
    return _TYPES.get(kind, str(kind)) + _bounds(schema) + pattern


def fields(schema: Schema, named: Callable[[str], str] = str) -> str:
    """The fields of an object, in one line; `?` marks what may be absent."""
    required = schema.get("required", [])
    shown = []
    for name, field in schema.get("properties", {}).items():
        default = field.get("default")
        also = "" if default in (None, [], {}, "") else f" = {json.dumps(default)}"
        shown.append(f"{name}{'' if name in required else '?'}: {short(field, named)}{also}")
    return ", ".join(shown)


def _list(schema: Schema, named: Callable[[str], str]) -> str:
    if "prefixItems" in schema:
        return "[" + ", ".join(short(one, named) for one in schema["prefixItems"]) + "]"
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    return f"[{short(schema.get('items', {}), named)}]" + ("" if most is None else f" {least}…{most}")


def _bounds(schema: Schema) -> str:
    low = schema.get("minLength", schema.get("minimum"))
    high = schema.get("maxLength", schema.get("maximum"))
    if high is None or high >= _BEYOND:
        return "" if not low else f" ≥ {low}"
    return f" {low or 0}…{high}"
