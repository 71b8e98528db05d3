"""`parley.d.ts`: the types of socket.io-client's events, of every object, and of the commands over HTTP."""

import json
import re
from collections.abc import Iterable, Iterator

from server.commands.docs.model import Model
from server.commands.docs.shapes import REF, Schema

_HEAD = """\
// Written by `make docs` from the declarations in handlers/: change those, not this.
//
//     import { io, Socket } from "socket.io-client";
//     import type { Auth, ClientToServerEvents, ServerToClientEvents } from "./parley";
//
//     const auth: Auth = { token };
//     const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io(url, { auth });
//     const answer = await socket.emitWithAck("account:me", {});
//     if (answer.ok) answer.data.username; else answer.error.code;
//
// Behind socket.timeout(ms) socket.io-client's own types know of no answer any more: say whose it is,
// `const answer: Answer<"account:me"> = await socket.timeout(5_000).emitWithAck("account:me", {})`.

/** A UUID. */
export type Id = string;
/** RFC 3339, UTC, milliseconds: 2026-11-20T17:00:00.000Z. */
export type Time = string;
"""

_TAIL = """\
/** The answer of a command: its result, or one of the errors that it may give. */
export type Answer<Name extends keyof Commands> =
  | { ok: true; data: Commands[Name]["data"] }
  | { ok: false; error: Errors[Commands[Name]["error"]] };

/** The commands that a socket may call. */
export type SocketCommand = {
  [Name in keyof Commands]: "socket" extends Commands[Name]["on"] ? Name : never;
}[keyof Commands];

/** The commands that are POST /api/<noun>/<verb> too, or alone. */
export type HttpCommand = {
  [Name in keyof Commands]: "http" extends Commands[Name]["on"] ? Name : never;
}[keyof Commands];

/** What a client emits, for socket.io-client's Socket. */
export type ClientToServerEvents = {
  [Name in SocketCommand]: (payload: Commands[Name]["payload"], ack: (answer: Answer<Name>) => void) => void;
};

/** What a client hears, for socket.io-client's Socket. */
export type ServerToClientEvents = {
  [Name in keyof Pushes]: (...told: Pushes[Name]) => void;
};

/** What `connect_error` has beside its message, for `error.data`. */
export type ConnectError = { code: keyof Errors };
"""


def types(model: Model) -> str:
    """The whole file."""
    lines = [_HEAD]
    for name, schema in model.shapes.named.items():
        lines += [*_declared(name, schema), ""]
    for failure in model.failures.values():
        lines += [*_declared(failure.name, failure.schema), ""]
    lines += ["/** The errors by their code. */", "export interface Errors {"]
    lines += [f"  {one.code}: {one.name};" for one in model.failures.values()]
    lines += ["}", "", "/** The commands: what each takes, what it answers, where it may be called. */"]
    lines += ["export interface Commands {", *_commands(model), "}", ""]
    lines += [
        "/** The second argument of a durable push: order by seq, call room:sync on a hole. */",
        "export interface DurableMeta { room: string; seq: number; at: Time }",
        "/** The second argument of an ephemeral push, which no log keeps. */",
        "export interface EphemeralMeta { room: string; at: Time }",
        "",
        "/** The pushes, each with its arguments. */",
        "export interface Pushes {",
        *_pushes(model),
        "}",
        "",
        _TAIL,
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _commands(model: Model) -> Iterator[str]:
    for one in model.commands:
        yield f"  /** {_comment(one.doc)} */"
        on = " | ".join(
            json.dumps(place) for place, holds in (("socket", one.on_socket), ("http", one.over_http)) if holds
        )
        codes = " | ".join(json.dumps(failure.code) for failure in one.failures)
        yield f"  {json.dumps(one.name)}: {{"
        yield f"    payload: {_type(one.takes)};"
        yield f"    data: {_type(one.answers)};"
        yield f"    error: {codes};"
        yield f"    on: {on};"
        yield "  };"


def _pushes(model: Model) -> Iterator[str]:
    for one in model.pushes:
        rooms = f" Room: {', '.join(one.push.rooms)}." if one.push.rooms else ""
        yield f"  /** {_comment(one.push.doc)}{rooms} */"
        meta = f", meta: {' | '.join(one.metas)}" if one.has_meta else ""
        yield f"  {json.dumps(one.name)}: [payload: {_type(one.payload)}{meta}];"


def _declared(name: str, schema: Schema) -> Iterator[str]:
    if "description" in schema:
        yield f"/** {_comment(schema['description'])} */"
    if not schema.get("properties"):
        yield f"export type {name} = {_type(schema)};"
        return
    yield f"export interface {name} {{"
    for field, type_ in schema["properties"].items():
        if "description" in type_:
            yield f"  /** {_comment(type_['description'])} */"
        mark = "" if field in schema.get("required", []) else "?"
        yield f"  {_key(field)}{mark}: {_type(type_)};"
    yield "}"


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        return schema["$ref"].removeprefix(REF)  # type: ignore[no-any-return]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return _union(_type(one) for one in schema[key])
    if "const" in schema or "enum" in schema:
        return _union(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "string":
            return {"uuid": "Id", "date-time": "Time"}.get(schema.get("format", ""), "string")
        case "integer" | "number":
            return "number"
        case "boolean" | "null" as kind:
            return str(kind)
        case "array":
            return _array(schema)
        case "object":
            return _object(schema)
    return "unknown"


def _array(schema: Schema) -> str:
    if "prefixItems" in schema:
        return "[" + ", ".join(map(_type, schema["prefixItems"])) + "]"
    item = _type(schema.get("items", {}))
    return f"({item})[]" if " | " in item else f"{item}[]"


def _object(schema: Schema) -> str:
    required = schema.get("required", [])
    if schema.get("properties"):
        fields = (
            f"{_key(name)}{'' if name in required else '?'}: {_type(one)}" for name, one in schema["properties"].items()
        )
        return "{ " + "; ".join(fields) + " }"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"Record<string, {_type(schema['additionalProperties'])}>"
    return "Record<string, never>" if "properties" in schema else "Record<string, unknown>"


def _union(parts: Iterable[str]) -> str:
    told = list(dict.fromkeys(parts))
    return "unknown" if "unknown" in told else " | ".join(told)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else json.dumps(name)


def _comment(text: str) -> str:
    return " ".join(text.split()).replace("*/", "*\\/")
