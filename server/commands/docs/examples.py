"""Examples made from schemas: the same ones at every run, and each fits its schema."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from server.commands.docs.shapes import REF, Schema

ID = "019b5a1c-7e00-7000-8000-{:012x}"
TIME = "2026-11-20T17:00:00.000Z"
_ROOM = "conversation:" + ID.format(1)
_TEXTS = {
    "text": "Is it still there?",
    "query": "bicycle",
    "title": "A bicycle",
    "room": _ROOM,
    "rooms": _ROOM,
    "reset": _ROOM,
    "username": "amina",
    "login": "amina",
    "email": "amina@example.org",
    "full_name": "Amina",
    "password": "correct horse battery",
    "client_id": "7c0c1f6e-1",
    "emoji": "👍",
    "currency": "EUR",
    "locale": "en",
    "content_type": "image/jpeg",
    "instance": "parley-1",
    "reason": "as an example",
}
_ANY = ["example", "a", "1", "en", "+491701234567", "EUR", "0" * 64, "example.org", "a@example.org"]


class NoExample(Exception):
    """A pattern for which nobody here knows a text."""


class Examples:
    """Makes examples; `named` are the schemas that others refer to."""

    def __init__(self, named: Mapping[str, Schema]) -> None:
        self._named = named

    def of(self, schema: Schema) -> Any:
        """A value that fits. Raises `NoExample`."""
        return self._of(schema, "", ())

    def taken(self, schema: Schema) -> Any:
        """A payload with what is required, and its text. Raises `NoExample`."""
        return self._of(schema, "", (), sparse=True)

    def _of(self, schema: Schema, field: str, inside: Sequence[str], *, sparse: bool = False) -> Any:
        if "$ref" in schema:
            name = schema["$ref"].removeprefix(REF)
            if inside.count(name):
                raise NoExample(f"{name} holds itself")
            return self._of(self._named[name], field, (*inside, name), sparse=sparse)
        for key in ("example", "const", "enum", "anyOf", "oneOf"):
            if key in schema:
                found = schema[key]
                if key.endswith("Of"):
                    return self._first(found, field, inside, sparse=sparse)
                return found[0] if key == "enum" else found
        match schema.get("type"):
            case "object":
                return self._object(schema, field, inside, sparse=sparse)
            case "array":
                return self._array(schema, field, inside)
            case "string":
                return _text(schema, field)
            case "integer" | "number":
                return _number(schema)
            case "boolean":
                return schema.get("default", sparse)
            case "null":
                return None
        return {}

    def _first(self, options: Sequence[Schema], field: str, inside: Sequence[str], *, sparse: bool) -> Any:
        if {"type": "null"} in options and not sparse and field not in _TEXTS and "$ref" not in options[0]:
            return None  # rather than a message that is edited, deleted and an answer at once
        for option in options:
            try:
                return self._of(option, field, inside, sparse=sparse)
            except NoExample:
                continue
        raise NoExample(field)

    def _object(self, schema: Schema, field: str, inside: Sequence[str], *, sparse: bool) -> Any:
        properties = schema.get("properties", {})
        if not properties and isinstance(schema.get("additionalProperties"), dict):
            return {_TEXTS.get(field, "example"): self._of(schema["additionalProperties"], field, inside)}
        required = schema.get("required", [])
        shown = [name for name in properties if name in required or name == "text"] if sparse else properties
        made = {}
        for name in shown:
            try:
                made[name] = self._of(properties[name], name, inside, sparse=sparse)
            except NoExample:
                if name in required:
                    raise
        return made

    def _array(self, schema: Schema, field: str, inside: Sequence[str]) -> list[Any]:
        if "prefixItems" in schema:
            return [self._of(item, field, inside) for item in schema["prefixItems"]]
        if "items" not in schema:
            return []
        try:
            return [self._of(schema["items"], field.removesuffix("s"), inside)] * max(1, schema.get("minItems", 1))
        except NoExample:
            if schema.get("minItems"):
                raise
            return []


def _text(schema: Schema, field: str) -> str:
    match schema.get("format"):
        case "uuid":
            return ID.format(sum(field.encode()) % 4096)  # the same field, the same id
        case "date-time":
            return TIME
        case "duration":
            return "PT1H"
        case "date":
            return TIME[:10]
    least: int = schema.get("minLength", 0)
    most: int = schema.get("maxLength", 10_000)
    known = [_TEXTS[field]] if field in _TEXTS else ["https://chat.example/files/1"] if field.endswith("url") else []
    for text in [*known, *_ANY, "a" * least]:
        if least <= len(text) <= most and re.search(schema.get("pattern", ""), text):
            return text
    raise NoExample(field)


def _number(schema: Schema) -> Any:
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema))
    value = schema.get("default", max(1, least))
    most = schema.get("maximum", value)
    return value if isinstance(value, int | float) and value <= most else most
